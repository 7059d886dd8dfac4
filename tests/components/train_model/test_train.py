import json

import keras
import numpy as np
import pytest

from components.common.config import build
from components.common.dataset import load_dataset
from components.common.errors import DataError, FlowersError
from components.common.models import load_metadata, load_model
from components.train_model.config import ModelConfig, TrainConfig
from components.train_model.input_pipeline import eval_batches
from components.train_model.train import train
from tests.builders import TINY_MODEL, TINY_TRAIN, make_dataset

OUTPUTS = ("model", "metrics", "report")


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    counts = {"train": 24, "validation": 9, "test": 9}
    return make_dataset(tmp_path_factory.mktemp("data") / "examples", counts=counts)


def run(examples, output, augmented=None, **changes):
    return train(
        examples,
        augmented or examples,
        build(ModelConfig, TINY_MODEL),
        build(TrainConfig, TINY_TRAIN | changes),
        *(output / name for name in OUTPUTS),
    )


@pytest.fixture(scope="module")
def trained(examples, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    # A rate high enough that epochs differ and the last one is not sure to be the best.
    result = run(examples, output, epochs=5, schedule={"name": "constant", "peak": 0.02})
    return result, output


def test_keeps_the_epoch_that_did_best_on_validation(trained):
    result, _ = trained
    assert len(result.history) == 5
    assert result.best.val_accuracy == max(epoch.val_accuracy for epoch in result.history)


def test_saved_model_has_the_weights_of_that_epoch(trained, examples):
    result, output = trained
    model = load_model(output / "model")
    images, labels = next(iter(eval_batches(load_dataset(examples), "validation", 9)))
    correct = np.argmax(model.predict_on_batch(images), axis=1) == labels.numpy()
    assert np.mean(correct) == pytest.approx(result.best.val_accuracy)


def test_saved_model_is_bare(trained):
    model = load_model(trained[1] / "model")
    assert not model.compiled
    assert model.count_params() == trained[0].parameters


def test_metadata_names_the_data(trained, examples):
    metadata = load_metadata(trained[1] / "model")
    dataset = load_dataset(examples)
    assert metadata.class_names == dataset.class_names
    assert metadata.data_fingerprint == dataset.fingerprint
    assert metadata.image_size == 32


def test_history_and_metrics_are_json(trained):
    result, output = trained
    history = json.loads((output / "model" / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history["history"]] == [1, 2, 3, 4, 5]
    metrics = json.loads((output / "metrics").read_text())
    assert metrics["val_accuracy"] == result.best.val_accuracy


def test_report_draws_the_curves(trained):
    page = (trained[1] / "report").read_text()
    assert page.count("<svg") == 2
    assert f"best in epoch {trained[0].best.epoch}" in page


def test_learns(examples, tmp_path):
    result = run(examples, tmp_path, epochs=8, schedule={"peak": 0.02})
    assert result.history[-1].loss < 0.7 * result.history[0].loss


def test_same_seed_same_history(examples, tmp_path):
    first, second = (run(examples, tmp_path / name, seed=5) for name in "ab")
    assert [epoch.loss for epoch in first.history] == [epoch.loss for epoch in second.history]


def test_trains_on_the_augmented_split(examples, tmp_path):
    counts = {"train": 16}
    augmented = make_dataset(tmp_path / "augmented", counts=counts)
    result = run(examples, tmp_path, augmented, global_batch_size=8)
    assert result.steps_per_epoch == 2


def test_batch_larger_than_the_split(examples, tmp_path):
    with pytest.raises(
        DataError, match=r"global_batch_size: expected at most the 24 .*received 25"
    ):
        run(examples, tmp_path, global_batch_size=25)


def test_augmented_examples_of_other_classes(examples, tmp_path):
    other = make_dataset(tmp_path / "other", class_names=("x", "y"), counts={"train": 16})
    with pytest.raises(DataError, match="class_names of the augmented examples"):
        run(examples, tmp_path, other)


def test_damaged_shard_is_a_line_for_the_user(tmp_path):
    broken = make_dataset(tmp_path / "broken", counts={"train": 24, "validation": 9, "test": 9})
    shard = sorted((broken / "train").iterdir())[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged examples .* ingest the photos anew"):
        run(broken, tmp_path / "out")
    assert not any((tmp_path / "out" / name).exists() for name in OUTPUTS)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_loss_that_is_no_number_ends_the_training(examples, tmp_path):
    keras.utils.set_random_seed(0)
    with pytest.raises(FlowersError, match="NaN in epoch"):
        run(
            examples,
            tmp_path / "out",
            optimizer={"name": "sgd"},
            schedule={"name": "constant", "peak": 100.0},
            epochs=30,
        )
    assert not any((tmp_path / "out" / name).exists() for name in OUTPUTS)
