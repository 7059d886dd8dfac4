"""Xception from a local file of weights through training, a kill, evaluation and export."""

import keras
import numpy as np
import pytest

from components.common.models import load_model
from components.evaluate_model.evaluate import evaluate
from components.export_model.config import ExportConfig
from components.export_model.export import Outputs, export
from components.train_model.config import CheckpointConfig
from components.train_model.train import train
from pipelines.recipe import load_recipe
from tests.builders import bless, make_dataset
from tests.kills import Killed, killed_after

# The smallest that Keras builds it for.
SIZE = 71


@pytest.fixture
def weights(tmp_path):
    net = keras.applications.Xception(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    path = tmp_path / "xception.weights.h5"
    net.save_weights(path)
    return path, net.get_layer("block7_sepconv2").get_weights()


def test_xception_from_a_file_to_an_export(weights, tmp_path, monkeypatch):
    path, first = weights
    counts = {"train": 8, "validation": 4, "test": 4}
    examples = make_dataset(tmp_path / "examples", image_size=SIZE, counts=counts)
    changes = (f"model.weights={path}", "train.epochs=2", "train.batch_per_replica=4")
    recipe = load_recipe("xception", changes)
    outputs = [tmp_path / name for name in ("model", "metrics.json", "report.html")]
    saving = CheckpointConfig(str(tmp_path / "checkpoint"))
    arguments = (examples, examples, recipe.model, recipe.train, *outputs, saving)

    with monkeypatch.context() as patched:
        killed_after(patched, 1)
        with pytest.raises(Killed):
            train(*arguments)
    result = train(*arguments)
    assert [entry.epoch for entry in result.history] == [1, 2]
    assert result.weights == str(path)
    net = load_model(outputs[0]).get_layer("xception")
    trained = net.get_layer("block7_sepconv2").get_weights()
    for before, after in zip(first, trained, strict=True):
        # Four steps of at most 5e-5 each.
        assert 0.0 < np.abs(after - before).max() < 5e-4

    evaluation = tmp_path / "evaluation.json"
    evaluate(examples, outputs[0], evaluation, tmp_path / "evaluation.html")
    names = ("saved_model", "exports", "export.html")
    exported = Outputs(*(tmp_path / name for name in names))
    verdict = bless(evaluation, tmp_path / "verdict.json")
    export(examples, outputs[0], evaluation, verdict, exported, ExportConfig(litert=False))
    assert (exported.saved_model / "saved_model.pb").exists()
