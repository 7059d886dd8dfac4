"""A small exported model that all tests of the server share."""

from typing import Any

import pytest

from tests.builders import make_export
from tests.pipelines.serving.running import running_server


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def running(saved_model):
    """A server with small limits."""
    limits: dict[str, Any] = {
        "max_body": 1,
        "max_memory": 8,
        "max_megapixels": 2.0,
        "body_timeout": 1.0,
    }
    with running_server(saved_model, max_instances=16, max_photos=64, **limits) as server:
        yield server
