"""Miniature artifacts that many tests read and none changes."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before any test imports TensorFlow, whose start-up notes would hide what a test prints.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.builders import make_dataset, make_model, make_photos

# The same examples on every run, and however slow the machine is just then.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--damaged-inputs",
        type=int,
        default=210,
        help="How many damaged photos tests/components/ingest_examples/test_damage.py tries.",
    )
    parser.addoption(
        "--runs", type=int, default=50, help="How many runs tests/test_endurance.py makes."
    )
    parser.addoption(
        "--kills", type=int, default=20, help="How many times tests/test_kill.py kills."
    )


@pytest.fixture(scope="session")
def photos_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of thirty photos."""
    return make_photos(tmp_path_factory.mktemp("shared") / "photos")


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three splits, 24, 9 and 9 examples."""
    return make_dataset(tmp_path_factory.mktemp("shared") / "dataset")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, dataset_folder: Path) -> Path:
    """An untrained model for the data set."""
    return make_model(tmp_path_factory.mktemp("shared") / "model", dataset_folder)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return Path(__file__).parents[1]
