"""A small exported model that all tests of the server share."""

from typing import Any

import pytest

from components.evaluate_model.evaluate import evaluate
from components.export_model.export import Outputs, export
from tests.builders import bless, make_dataset, make_model
from tests.pipelines.serving.running import running_server


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    examples = make_dataset(folder / "examples")
    model = make_model(folder / "model", examples)
    evaluate(examples, model, folder / "evaluation.json", folder / "evaluation.html")
    outputs = Outputs(folder / "saved_model", folder / "exports", folder / "report.html")
    evaluation = folder / "evaluation.json"
    export(examples, model, evaluation, bless(evaluation, folder / "verdict.json"), outputs)
    return outputs.saved_model


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
