"""Eight devices train what one trains, on both runtimes; run by make test-distributed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from components.common.models import load_model
from tests.builders import make_dataset
from tests.components.train_model.replicas import CASES, REPLICAS

pytestmark = pytest.mark.distributed
# What divides by small gradients makes more of a rounding, or by the spread of two examples.
TOLERANCES = {"everything": 1e-4, "lamb": 1e-4, "per_replica": 1e-4, "ghosts": 1e-4}


@pytest.fixture(scope="module", params=["jax", "tensorflow"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    counts = {"train": 160, "validation": 37, "test": 8}
    examples = make_dataset(folder / "examples", counts=counts, train_shards=3)
    command = [sys.executable, "-m", "tests.components.train_model.replicas", request.param]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    subprocess.run([*command, examples, folder], check=True, timeout=800, env=environment)
    return folder


def weights(folder, case, replicas):
    return load_model(folder / f"{case}-{replicas}" / "model").get_weights()


def history(folder, case, replicas):
    file = folder / f"{case}-{replicas}" / "model" / "history.json"
    return json.loads(file.read_text())


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_one_device(trained, case):
    """After twenty steps; with BatchNorm, one device takes its means over what the scope says."""
    result = history(trained, case, REPLICAS)
    heads = CASES[case][1].get("head", {"epochs": 0})["epochs"]
    assert result["steps_per_epoch"] * (len(result["history"]) - heads) == 20
    tolerance = TOLERANCES.get(case, 1e-5)
    for one, eight in zip(weights(trained, case, 1), weights(trained, case, REPLICAS), strict=True):
        np.testing.assert_allclose(one, eight, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_figures_are_those_of_one_device(trained, case):
    for one, eight in zip(
        history(trained, case, 1)["history"], history(trained, case, REPLICAS)["history"],
        strict=True,
    ):  # fmt: skip
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert eight[name] == pytest.approx(one[name], rel=1e-3), name


def test_scopes_of_batch_norm_differ(trained):
    whole, parts = (weights(trained, case, REPLICAS) for case in ("global", "per_replica"))
    assert max(np.abs(a - b).max() for a, b in zip(whole, parts, strict=True)) > 1e-3


def test_steps_per_execution_change_nothing(trained):
    plain, executions = (weights(trained, case, REPLICAS) for case in ("plain", "executions"))
    for one, other in zip(plain, executions, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_history_names_the_devices(trained):
    assert history(trained, "plain", REPLICAS)["devices"].startswith("8 CPUs")
    assert history(trained, "plain", REPLICAS)["batch_size"] == 16
