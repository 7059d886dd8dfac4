import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
import time
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from kfp import dsl

from components.common import augmentation, progress
from components.common.config import build
from components.common.dataset import load_dataset, save_dataset
from components.common.errors import ConfigError, DataError, FlowersError
from components.common.lineage import stamp
from components.common.model_files import load_metadata
from components.common.models import load_model
from components.train_model import fitting, mixing
from components.train_model import train as train_module
from components.train_model.architectures import ModelConfig
from components.train_model.checkpoints import Checkpoint, alone_in
from components.train_model.component import train_model
from components.train_model.config import CheckpointConfig, TrainConfig
from components.train_model.input_pipeline import eval_batches
from components.train_model.optimizers import LossScaling, make_optimizer
from components.train_model.train import train
from tests.buckets import emulator
from tests.builders import TINY_MODEL, TINY_TRAIN, make_dataset, make_model
from tests.kills import Killed, killed_after

OUTPUTS = ("model", "metrics", "report")


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    counts = {"train": 24, "validation": 9, "test": 9}
    return make_dataset(tmp_path_factory.mktemp("data") / "examples", counts=counts)


def run(examples, output, augmented=None, saving=None, model=None, **changes):
    return train(
        examples,
        augmented or examples,
        build(ModelConfig, TINY_MODEL | {"dropout": 0.2} | (model or {})),
        build(TrainConfig, TINY_TRAIN | changes),
        output / "model",
        output / "metrics",
        output / "report",
        saving,
    )


def constant(peak):
    return {"name": "constant", "peak": peak}


def loss_on_validation(examples, output, smoothing=0.0):
    """Cross-entropy of the saved model, which no other weights have to the last digit."""
    images, targets = next(iter(eval_batches(load_dataset(examples), "validation", 9)))
    answers = load_model(output / "model").predict_on_batch(images)
    smoothed = targets.numpy() * (1 - smoothing) + smoothing / targets.shape[1]
    return -(smoothed * np.log(answers)).sum(axis=1).mean()


@pytest.fixture(scope="module")
def trained(examples, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    # A rate high enough that epochs differ and the last one is not sure to be the best.
    result = run(examples, output, epochs=5, schedule={"name": "constant", "peak": 0.02})
    return result, output


def test_keeps_the_epoch_that_did_best_on_validation(trained):
    result, _ = trained
    assert len(result.history) == 5
    assert result.kept.val_accuracy == max(epoch.val_accuracy for epoch in result.history)


def test_saved_model_has_the_weights_of_that_epoch(trained, examples):
    result, output = trained
    assert loss_on_validation(examples, output) == pytest.approx(result.kept.val_loss, rel=1e-5)


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
    assert metrics["val_accuracy"] == result.kept.val_accuracy


def test_report_draws_the_curves(trained):
    page = (trained[1] / "report").read_text()
    # Loss and accuracy side by side, the learning rate, the throughput.
    assert page.count("<svg") == 3
    assert "Learning rate at every step, at most" in page
    assert "Train images per second in each epoch" in page
    assert f"the weights of epoch {trained[0].kept.epoch} are kept" in page


def test_learns(examples, tmp_path):
    result = run(examples, tmp_path, epochs=8, schedule={"name": "one_cycle", "peak": 0.02})
    assert result.history[-1].loss < 0.7 * result.history[0].loss


def test_same_seed_same_history(examples, tmp_path):
    first, second = (run(examples, tmp_path / name, seed=5) for name in "ab")
    assert [epoch.loss for epoch in first.history] == [epoch.loss for epoch in second.history]


def test_trains_on_the_augmented_split(examples, tmp_path):
    augmented = make_dataset(tmp_path / "augmented", counts={"train": 16})
    source = load_dataset(examples).fingerprint
    described = dataclasses.replace(load_dataset(augmented), source_fingerprint=source)
    save_dataset(described, augmented)
    result = run(examples, tmp_path, augmented, global_batch_size=8)
    assert result.steps_per_epoch == 2


def test_augmented_copies_of_other_examples_are_refused(examples, tmp_path):
    """They may hold the test images of these."""
    other = make_dataset(tmp_path / "augmented", counts={"train": 16})
    with pytest.raises(DataError, match="expected some made from the examples"):
        run(examples, tmp_path, other, global_batch_size=8)


def test_batch_larger_than_the_split(examples, tmp_path):
    reason = "expected batches of at most the 24 examples of the train split, received .* 25$"
    with pytest.raises(DataError, match=f"^train.global_batch_size: {reason}"):
        run(examples, tmp_path, global_batch_size=25)
    with pytest.raises(DataError, match=f"^train.batch_per_replica: {reason}"):
        run(examples, tmp_path, global_batch_size=0, batch_per_replica=25)


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
    with pytest.raises(DataError, match=r"damaged behind example \d.* ingest the photos anew"):
        run(broken, tmp_path / "out")
    assert not any((tmp_path / "out" / name).exists() for name in OUTPUTS)


BROKEN = {
    "optimizer": {"name": "sgd"},
    "schedule": {"name": "constant", "peak": 100.0},
    "epochs": 30,
}


class Exploding(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A rate that is harmless for three epochs or more, and then infinite on every machine."""

    def __init__(self, harmless=10):
        self.harmless = harmless

    def __call__(self, step):
        return keras.ops.where(step < self.harmless, 0.01, float("inf"))


def explode(monkeypatch, schedule):
    """How far a rate of 100 comes depends on the arithmetic of the machine."""
    monkeypatch.setattr(
        fitting,
        "make_optimizer",
        lambda config, _schedule, ema: make_optimizer(config, schedule, ema),
    )


@pytest.fixture
def exploding(monkeypatch):
    explode(monkeypatch, Exploding())


@pytest.mark.parametrize(
    "changes",
    [{}, {"policy": {}, "progressive_resizing": {"crop_size": 16}}],
    ids=["plain", "among_smaller_crops"],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_loss_that_is_no_number_ends_the_training(examples, exploding, tmp_path, changes):
    with pytest.raises(FlowersError, match=r"NaN in epoch .*lower train\.schedule\.peak, now 100$"):
        run(examples, tmp_path / "out", **BROKEN | changes)
    assert not any((tmp_path / "out" / name).exists() for name in OUTPUTS)


# The rate becomes infinite in the second step of the fourth epoch.
@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_last_good_checkpoint_stays(examples, exploding, tmp_path, steps):
    saving = CheckpointConfig(str(tmp_path / "checkpoint"), steps=steps)
    with pytest.raises(FlowersError, match="another checkpoint folder") as raised:
        run(examples, tmp_path / "out", saving=saving, **BROKEN)
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    epoch = state["position"]["epoch"]
    assert epoch == len(state["history"]) >= 1
    assert state["position"]["step"] == steps
    said = (
        f"checkpoint stays, after epoch {epoch}{' and 1 steps' if steps else ''} of this training"
    )
    assert str(raised.value).endswith(said)
    with h5py.File(tmp_path / "checkpoint" / state["weights"]["file"]) as file:
        arrays = []
        file["layers"].visititems(
            lambda _, item: arrays.append(item[:]) if isinstance(item, h5py.Dataset) else None
        )
    assert len(arrays) > 4
    # A variance may have become infinite on the way to a loss that is no number.
    assert not any(np.isnan(array).any() for array in arrays)


def test_epoch_that_is_not_validated_and_ends_in_nan_is_not_saved(examples, tmp_path, monkeypatch):
    # Infinite in the last step of the fourth epoch, whose loss is still that of the one before.
    explode(monkeypatch, Exploding(harmless=11))
    saving = CheckpointConfig(str(tmp_path / "checkpoint"))
    with pytest.raises(FlowersError, match=r"NaN in epoch 4:.*stays, after epoch 3 of"):
        run(examples, tmp_path / "out", saving=saving, validation_freq=30, **BROKEN)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_checkpoint_that_has_nothing_is_not_spoken_of(examples, tmp_path):
    saving = CheckpointConfig(str(tmp_path / "checkpoint"))
    with pytest.raises(FlowersError, match=r"NaN in epoch 1:.*now 100$"):
        run(examples, tmp_path / "out", saving=saving, **BROKEN | {"global_batch_size": 1})
    assert not (tmp_path / "checkpoint" / "state.json").exists()


def test_early_stopping_keeps_the_best_weights(examples, tmp_path):
    # A learning rate of nothing: no epoch is better than the first but for BatchNorm's statistics.
    result = run(examples, tmp_path, epochs=40, patience=3, schedule=constant(1e-8))
    best = result.kept.epoch
    assert len(result.history) == best + 3 < 40
    loss = loss_on_validation(examples, tmp_path)
    assert loss == pytest.approx(result.kept.val_loss, rel=1e-5)
    assert loss != pytest.approx(result.history[-1].val_loss, rel=1e-4)


def test_early_stopping_waits_for_all_layers(examples, tmp_path):
    head = {"epochs": 4, "schedule": constant(1e-8)}
    result = run(examples, tmp_path, head=head, epochs=40, patience=2, schedule=constant(1e-8))
    assert len(result.history) == max(result.kept.epoch, 4) + 2 < 40


def test_early_stopping_waits_for_the_larger_crops(examples, tmp_path):
    resizing = {"policy": {}, "progressive_resizing": {"crop_size": 16, "share": 0.25}}
    changes = {"epochs": 40, "patience": 2, "schedule": constant(1e-8)}
    result = run(examples, tmp_path, **resizing | changes)
    assert len(result.history) == max(result.kept.epoch, 10) + 2 < 40


def test_training_that_stopped_early_is_not_taken_up_again(examples, tmp_path, monkeypatch):
    changes = {"epochs": 40, "patience": 3, "schedule": constant(1e-8)}
    saving = CheckpointConfig(str(tmp_path / "checkpoint"))
    with monkeypatch.context() as patched:
        patched.setattr(train_module, "write_report", fail)
        with pytest.raises(OSError, match="no room"):
            run(examples, tmp_path / "first", saving=saving, **changes)
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    second = run(examples, tmp_path / "second", saving=saving, **changes)
    assert len(second.history) == len(state["history"]) < 40
    assert second.kept.epoch == state["kept"]["epoch"]


def fail(*_arguments):
    raise OSError("no room")


EVERY_OTHER = {"epochs": 5, "validation_freq": 2, "schedule": constant(0.02)}


def test_fewer_validations_change_nothing_else(trained, examples, tmp_path):
    result = run(examples, tmp_path, **EVERY_OTHER)
    seen = [1, 3, 4]
    for epoch, (found, expected) in enumerate(zip(result.history, trained[0].history, strict=True)):
        assert (found.loss, found.accuracy) == (expected.loss, expected.accuracy)
        assert found.validation == (expected.validation if epoch in seen else None)
        assert 0 < found.images_per_second < 1e6
    best = max((result.history[epoch] for epoch in seen), key=lambda one: one.val_accuracy)
    assert result.kept.val_accuracy == best.val_accuracy
    assert loss_on_validation(examples, tmp_path) == pytest.approx(result.kept.val_loss, rel=1e-5)
    metrics = json.loads((tmp_path / "metrics").read_text())
    assert metrics["val_accuracy"] == best.val_accuracy


def test_logs_and_progress_have_only_what_was_validated(examples, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    run(examples, tmp_path, **EVERY_OTHER)
    logged = logged_scalars(tmp_path / "model" / "tensorboard")
    assert [step for split, tag, step in logged if (split, tag) == ("train", "loss")] == [
        1, 2, 3, 4, 5,
    ]  # fmt: skip
    for tag in ("loss", "accuracy"):
        steps = [step for split, name, step in logged if (split, name) == ("validation", tag)]
        assert steps == [2, 4, 5]
    lines = capsys.readouterr().out.splitlines()
    shown = ["validation" in line for line in lines if " epochs, loss" in line]
    assert shown == [False, True, False, True, True]


def test_early_stopping_waits_for_a_validation(examples, tmp_path):
    changes = {"epochs": 40, "patience": 6, "schedule": constant(1e-8)}
    result = run(examples, tmp_path, validation_freq=4, **changes)
    assert result.kept.epoch % 4 == 0
    assert len(result.history) == result.kept.epoch + 8 < 40


def test_keep_last_keeps_the_last(examples, tmp_path):
    result = run(examples, tmp_path, epochs=4, keep="last", schedule=constant(0.02))
    assert result.kept == result.history[-1]
    assert loss_on_validation(examples, tmp_path) == pytest.approx(result.kept.val_loss, rel=1e-5)


def test_keep_last_writes_the_kept_weights_once(examples, tmp_path, monkeypatch):
    written: list[str] = []
    write = Checkpoint.write

    def recorded(self, model, name):
        written.append(name)
        return write(self, model, name)

    monkeypatch.setattr(Checkpoint, "write", recorded)
    run(examples, tmp_path / "whole", epochs=3, keep="last")
    assert written == ["00001-000000", "00002-000000", "kept-00003", "00003-000000"]


def test_seconds_of_an_epoch_have_the_saving_of_the_one_before(examples, tmp_path, monkeypatch):
    save = Checkpoint.save

    def slow(self, model, position, *further):
        save(self, model, position, *further)
        time.sleep(position.epoch)

    monkeypatch.setattr(Checkpoint, "save", slow)
    began = time.perf_counter()
    history = run(examples, tmp_path, epochs=3).history
    assert history[1].seconds > 1.0
    assert history[2].seconds > 2.0
    # The saving of the last is in none.
    assert sum(one.seconds for one in history) < time.perf_counter() - began - 3.0


def test_moving_average_is_what_is_validated_and_kept(examples, tmp_path):
    result = run(examples, tmp_path, epochs=4, keep="last", ema=0.9, schedule=constant(0.02))
    assert loss_on_validation(examples, tmp_path) == pytest.approx(result.kept.val_loss, rel=1e-5)
    plain = run(examples, tmp_path / "plain", epochs=4, keep="last", schedule=constant(0.02))
    np.testing.assert_allclose(
        [one.loss for one in plain.history], [one.loss for one in result.history], rtol=1e-4
    )
    assert plain.history[-1].val_loss != result.history[-1].val_loss


def test_flip_is_in_the_saved_model_only(examples, tmp_path):
    results = {}
    for flip in (False, True):
        output = tmp_path / str(flip)
        train(
            examples,
            examples,
            build(ModelConfig, TINY_MODEL | {"test_time_flip": flip}),
            build(TrainConfig, TINY_TRAIN),
            *(output / name for name in OUTPUTS),
        )
        results[flip] = load_model(output / "model")
    images, _ = next(iter(eval_batches(load_dataset(examples), "validation", 9)))
    images = images.numpy()
    one, mirrored = (results[False].predict_on_batch(x) for x in (images, images[:, :, ::-1]))
    np.testing.assert_allclose(
        results[True].predict_on_batch(images), (one + mirrored) / 2, rtol=1e-4
    )
    assert load_metadata(tmp_path / "True" / "model").parameters == results[False].count_params()


def test_trains_on_crops_and_validates_on_whole_images(examples, tmp_path):
    result = run(examples, tmp_path, crop_size=24, policy={"crop_area": 0.5})
    assert load_metadata(tmp_path / "model").image_size == 32
    assert loss_on_validation(examples, tmp_path) == pytest.approx(result.kept.val_loss, rel=1e-5)


def test_net_looks_at_the_examples_at_another_size(examples, tmp_path):
    output = tmp_path / "out"
    result = train(
        examples,
        examples,
        build(ModelConfig, TINY_MODEL | {"test_size": 18}),
        build(TrainConfig, TINY_TRAIN | {"crop_size": 12, "policy": {"crop_area": 0.5}}),
        *(output / name for name in OUTPUTS),
    )
    # The saved model resizes by itself, and the one that was validated did too.
    assert load_metadata(output / "model").image_size == 32
    assert load_model(output / "model").input_shape == (None, 32, 32, 3)
    assert loss_on_validation(examples, output) == pytest.approx(result.kept.val_loss, rel=1e-5)


def test_crops_for_a_net_of_one_size(examples, tmp_path):
    with pytest.raises(ConfigError, match=r"train.crop_size: expected 32 with dense"):
        train(
            examples,
            examples,
            build(ModelConfig, {"name": "dense", "units": [4]}),
            build(TrainConfig, TINY_TRAIN | {"crop_size": 24, "policy": {}}),
            *(tmp_path / name for name in OUTPUTS),
        )


HEAD_FIRST = {"epochs": 2, "schedule": constant(0.01)}


def test_head_learns_first(examples, tmp_path):
    result = run(examples, tmp_path, head=HEAD_FIRST, epochs=2)
    assert len(result.history) == 4
    assert [epoch.learning_rate for epoch in result.history[:2]] == pytest.approx([0.01, 0.01])


REFINED = {
    "policy": {"crop_area": 0.2},
    "crop_size": 16,
    "cutmix": 1.0,
    "refine": {"epochs": 2, "schedule": constant(0.005), "crop_size": 24, "crop_area": 0.8},
}


def test_last_phase_has_milder_crops_and_mixes_nothing(examples, tmp_path, monkeypatch):
    augmented, mixed = [], []
    augment, mix = augmentation.augment, mixing.mix

    def watch_augment(images, draws, policy, size):
        augmented.append((size, policy.crop_area))
        return augment(images, draws, policy, size)

    def watch_mix(images, draws, config):
        mixed.append(images.shape[1])
        return mix(images, draws, config)

    monkeypatch.setattr(augmentation, "augment", watch_augment)
    monkeypatch.setattr(mixing, "mix", watch_mix)
    result = run(examples, tmp_path, epochs=1, **REFINED)
    assert [epoch.learning_rate for epoch in result.history[1:]] == pytest.approx([0.005, 0.005])
    assert list(dict.fromkeys(augmented)) == [(16, 0.2), (24, 0.8)]
    assert set(mixed) == {16}


RESIZED = {
    "policy": {"crop_area": 0.2},
    "crop_size": 24,
    "cutmix": 1.0,
    "progressive_resizing": {"crop_size": 16, "share": 0.5},
}


def test_smaller_crops_come_first(examples, tmp_path, monkeypatch):
    sizes, augment = [], augmentation.augment

    def watch(images, draws, policy, size):
        sizes.append(size)
        return augment(images, draws, policy, size)

    monkeypatch.setattr(augmentation, "augment", watch)
    resized = run(examples, tmp_path / "resized", epochs=2, **RESIZED)
    assert list(dict.fromkeys(sizes)) == [16, 24]
    plain = run(examples, tmp_path / "plain", epochs=2, **RESIZED | {"progressive_resizing": None})
    rates = [[one.learning_rate for one in result.history] for result in (resized, plain)]
    assert rates[0] == rates[1]


STILL = {"optimizer": {"name": "sgd"}, "keep": "last", "schedule": constant(1e-8)}


def learned(examples, tmp_path, model=None, **changes):
    """Names of the layers of `TINY_MODEL` whose kernels are others than those it begins with."""
    kernels = []
    for name, own in (("still", {}), ("learned", changes)):
        run(examples, tmp_path / name, model=model, **STILL | own)
        layers = load_model(tmp_path / name / "model").layers
        kernels.append({one.name: one.kernel.numpy() for one in layers if hasattr(one, "kernel")})
    before, after = kernels
    return {name for name in before if not np.allclose(before[name], after[name], atol=1e-6)}


def test_nothing_but_the_head_learns_in_its_phase(examples, tmp_path):
    head = {"epochs": 2, "schedule": constant(0.5)}
    assert learned(examples, tmp_path, head=head) == {"softmax"}


def test_layers_in_front_of_the_first_that_learns_stay(examples, tmp_path):
    model = {"weights": str(make_model(tmp_path / "first", examples))}
    peak = constant(0.5)
    everything = learned(examples, tmp_path / "all", model, schedule=peak)
    behind = learned(
        examples, tmp_path / "some", model, schedule=peak, fine_tune_at="fire3_squeeze1x1"
    )
    assert {"conv1", "softmax"} < everything
    assert behind == {name for name in everything if name == "softmax" or "fire3" in name}


def test_frozen_statistics_stay_and_scales_learn(dataset_folder, model_folder, tmp_path):
    """As `mobilenet_v2` trains: frozen means, ghost batches, and the first layers as they were."""
    freezing = {"batch_norm": "frozen", "ghost_batch_size": 4, "fine_tune_at": "fire3_squeeze1x1"}
    train(
        dataset_folder,
        dataset_folder,
        build(ModelConfig, TINY_MODEL | {"weights": str(model_folder)}),
        build(TrainConfig, TINY_TRAIN | STILL | freezing | {"schedule": constant(0.5)}),
        *(tmp_path / name for name in OUTPUTS),
    )
    before, after = load_model(model_folder), load_model(tmp_path / "model")
    scaled = set()
    for layer in after.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            first = before.get_layer(layer.name)
            np.testing.assert_array_equal(layer.moving_mean, first.moving_mean)
            np.testing.assert_array_equal(layer.moving_variance, first.moving_variance)
            if not np.array_equal(layer.gamma, first.gamma):
                scaled.add(layer.name)
    assert scaled
    assert all("fire3" in name for name in scaled)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_labels_are_what_is_learned(examples, tmp_path, smoothing):
    result = run(examples, tmp_path, label_smoothing=smoothing, **STILL)
    expected = loss_on_validation(examples, tmp_path, smoothing)
    assert result.kept.val_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_saved_model_is_float32_whatever_training_computed_in(examples, tmp_path, precision):
    result = run(examples, tmp_path, precision=precision)
    assert result.precision == precision
    model = load_model(tmp_path / "model")
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_float16_scales_the_loss_and_goes_on(examples, tmp_path, monkeypatch):
    made = []

    def spy(optimizer):
        made.append(LossScaling(optimizer))
        return made[-1]

    monkeypatch.setattr(fitting, "LossScaling", spy)
    result = run(examples, tmp_path, precision="mixed_float16", ema=0.9, epochs=6)
    assert result.history[-1].loss < result.history[0].loss
    # Too high a scale is halved, and never comes to nothing.
    assert [float(one.dynamic_scale) >= 1.0 for one in made] == [True]


@pytest.mark.parametrize(
    ("name", "peak"), [("adam", 0.01), ("sgd", 0.05), ("lars", 2), ("lamb", 0.02), ("muon", 0.01)]
)
def test_every_optimizer_trains(examples, tmp_path, name, peak):
    result = run(
        examples, tmp_path, optimizer={"name": name}, epochs=6, schedule=constant(float(peak))
    )
    assert result.history[-1].loss < result.history[0].loss


MIXES: dict[str, dict[str, Any]] = {
    "plain": {},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "both": {"mixup": 0.2, "cutmix": 1.0},
}


def test_mixed_batches_train(examples, tmp_path):
    losses = {
        name: run(examples, tmp_path / name, **changes).history[-1].loss
        for name, changes in MIXES.items()
    }
    # The same seed each time: what is mixed is all that differs.
    assert len(set(losses.values())) == len(MIXES)


def test_logs_are_what_tensorboard_reads(trained):
    result, output = trained
    found = logged_scalars(output / "model" / "tensorboard")
    for epoch in result.history:
        assert found["train", "loss", epoch.epoch] == pytest.approx(epoch.loss)
        assert found["validation", "accuracy", epoch.epoch] == pytest.approx(epoch.val_accuracy)


def logged_scalars(folder):
    found = {}
    for split in ("train", "validation"):
        (file,) = (folder / split).iterdir()
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                found[split, value.tag, event.step] = tf.make_ndarray(value.tensor).item()
    return found


def figures(result):
    return [
        (one.epoch, one.loss, one.accuracy, float("nan") if one.val_loss is None else one.val_loss)
        for one in result.history
    ]


COURSES: dict[str, dict[str, Any]] = {
    "plain": {"policy": {}},
    "dropout_and_average": {"ema": 0.9, "head": HEAD_FIRST},
    "dropped_paths": {"model": {"complex_bypass": True, "drop_path": 0.3}},
    "mixed": {"mixup": 0.2, "cutmix": 1.0, "optimizer": {"name": "sgd"}},
    "refined": REFINED | {"epochs": 1},
    "resized": RESIZED,
    "executions": {"steps_per_execution": 2, "global_batch_size": 4},
    "seldom_validated": {"validation_freq": 2, "ema": 0.9},
}


@pytest.mark.parametrize(
    ("course", "saves"),
    [
        *itertools.product(COURSES, (1, 3, 5)),
        # Right between two phases.
        ("dropout_and_average", 4),
        ("refined", 2),
        ("resized", 2),
        # Right behind an epoch that is not validated.
        ("seldom_validated", 2),
    ],
)
def test_training_goes_on_as_if_nothing_had_happened(
    examples, tmp_path, monkeypatch, course, saves
):
    changes = {"epochs": 3} | COURSES[course]
    undisturbed = run(examples, tmp_path / "whole", **changes)
    saving = CheckpointConfig(str(tmp_path / "checkpoint"), steps=2)
    with monkeypatch.context() as patched:
        killed_after(patched, saves)
        with pytest.raises(Killed):
            run(examples, tmp_path / "killed", saving=saving, **changes)
    assert not any((tmp_path / "killed" / name).exists() for name in OUTPUTS)
    resumed = run(examples, tmp_path / "resumed", saving=saving, **changes)
    np.testing.assert_allclose(figures(resumed), figures(undisturbed), rtol=1e-5)
    whole, second = (load_model(tmp_path / name / "model") for name in ("whole", "resumed"))
    for one, other in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("first", ["file", "whitening"])
def test_training_that_goes_on_asks_for_no_first_weights(examples, tmp_path, monkeypatch, first):
    folder = make_model(tmp_path / "first", examples)
    model = {"weights": str(folder)} if first == "file" else {"stem_init": first}
    undisturbed = run(examples, tmp_path / "whole", model=model, epochs=3)
    saving = CheckpointConfig(str(tmp_path / "checkpoint"))
    with monkeypatch.context() as patched:
        killed_after(patched, 1)
        with pytest.raises(Killed):
            run(examples, tmp_path / "killed", saving=saving, model=model, epochs=3)
    shutil.rmtree(folder)
    monkeypatch.setattr(train_module, "whiten_stem", None)
    resumed = run(examples, tmp_path / "resumed", saving=saving, model=model, epochs=3)
    np.testing.assert_allclose(figures(resumed), figures(undisturbed), rtol=1e-5)


def test_checkpoint_folder_is_that_of_one_training_at_a_time(examples, tmp_path):
    folder = tmp_path / "checkpoint"
    saving = CheckpointConfig(str(folder))
    with (
        alone_in(folder, "another"),
        pytest.raises(ConfigError, match="expected a folder that no other training"),
    ):
        run(examples, tmp_path / "refused", saving=saving)
    assert list(folder.iterdir()) == []
    assert run(examples, tmp_path / "later", saving=saving).history


def test_files_of_others_among_the_logs_stay_out_of_the_model(examples, tmp_path):
    logs = tmp_path / "checkpoint" / "tensorboard"
    (logs / "train").mkdir(parents=True)
    (logs / ".DS_Store").touch()
    (logs / "train" / ".DS_Store").touch()
    run(examples, tmp_path, saving=CheckpointConfig(str(tmp_path / "checkpoint")))
    copied = {path.name for path in (tmp_path / "model" / "tensorboard").rglob("*")}
    assert copied == {"train", "validation", "events.out.tfevents.00000"}


def test_training_goes_on_on_another_machine_from_the_bucket(
    examples, tmp_path, monkeypatch, capsys
):
    place = "gs://bucket/run/model-checkpoint"
    saving = CheckpointConfig(place)
    undisturbed = run(examples, tmp_path / "whole", epochs=3)
    with emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        client = storage.Client(project="test", credentials=AnonymousCredentials())
        client.create_bucket("bucket")
        # Consoles make the first of them for a folder.
        others = {"", "notes.txt", "mobilenet.weights.h5"}
        for name in others:
            client.bucket("bucket").blob(f"run/model-checkpoint/{name}").upload_from_string("")
        with monkeypatch.context() as patched:
            killed_after(patched, 2)
            with pytest.raises(Killed):
                run(examples, tmp_path / "killed", saving=saving, epochs=3)
        capsys.readouterr()
        resumed = run(examples, tmp_path / "resumed", saving=saving, epochs=3)
        names = [
            blob.name.removeprefix("run/model-checkpoint/") for blob in client.list_blobs("bucket")
        ]
    assert f"goes on from {place}, after epoch 2" in capsys.readouterr().out
    np.testing.assert_allclose(figures(resumed), figures(undisturbed), rtol=1e-5)
    assert "state.json" in names
    assert others <= set(names)
    # What the first machine has left and nothing names any longer is gone.
    assert sum(name.endswith(".weights.h5") for name in set(names) - others) == 2


@pytest.mark.parametrize(
    ("asked", "saved", "stays"),
    # What was asked for is the user's.
    [("", "made-checkpoint", set()), ("gs://bucket/asked-for", "asked-for", {"asked-for"})],
)
def test_checkpoint_beside_the_model_goes_when_the_task_has_ended_well(
    examples, tmp_path, monkeypatch, asked, saved, stays
):
    class Here(dsl.Model):  # type: ignore[misc]
        """What Cloud Storage FUSE would show of the bucket."""

        path = str(tmp_path / "model")

    data = dsl.Dataset(uri=str(examples))
    stamp(data)

    def run_task():
        train_model.python_func(
            data, data, TINY_MODEL, TINY_TRAIN | {"epochs": 2}, asked, 0, {"kind": "cpu"},
            Here(uri="gs://bucket/made"),
            dsl.Metrics(uri=str(tmp_path / "metrics")),
            dsl.HTML(uri=str(tmp_path / "report")),
        )  # fmt: skip

    with emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        client = storage.Client(project="test", credentials=AnonymousCredentials())
        client.create_bucket("bucket")

        def folders():
            return {blob.name.split("/")[0] for blob in client.list_blobs("bucket")}

        with monkeypatch.context() as patched:
            patched.setattr(train_module, "write_report", fail)
            with pytest.raises(OSError, match="no room"):
                run_task()
        assert folders() == {saved}
        run_task()
        assert folders() == stays


@pytest.mark.parametrize(
    ("steps", "at_once", "every", "saved"),
    # Seven steps can only be done one by one; of eight, four would be done at once.
    [(7, 2, 5, 5), (7, 100, 3, 3), (8, 4, 2, 2), (8, 4, 3, 4)],
)
def test_saves_within_an_epoch_after_so_many_steps(
    tmp_path, monkeypatch, steps, at_once, every, saved
):
    examples = make_dataset(
        tmp_path / "examples", counts={"train": 2 * steps, "validation": 9, "test": 9}
    )
    saving = CheckpointConfig(str(tmp_path / "checkpoint"), steps=every)
    with monkeypatch.context() as patched:
        killed_after(patched, 1)
        with pytest.raises(Killed):
            run(
                examples, tmp_path / "out", saving=saving,
                global_batch_size=2, steps_per_execution=at_once,
            )  # fmt: skip
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    assert state["position"]["epoch"] == 0
    assert state["position"]["step"] == saved


def test_float16_checkpoint_holds_each_variable_once_and_goes_on(examples, tmp_path, monkeypatch):
    changes = {"precision": "mixed_float16", "ema": 0.9, "epochs": 3}
    undisturbed = run(examples, tmp_path / "whole", **changes)
    saving = CheckpointConfig(str(tmp_path / "checkpoint"))
    with monkeypatch.context() as patched:
        killed_after(patched, 2)
        with pytest.raises(Killed):
            run(examples, tmp_path / "killed", saving=saving, **changes)
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    sizes = dict[str, int]()
    with h5py.File(tmp_path / "checkpoint" / state["weights"]["file"]) as file:
        file.visititems(
            lambda name, item: sizes.update({name: item.size}) if hasattr(item, "size") else None
        )
    optimizer = sum(size for name, size in sizes.items() if name.startswith("optimizer"))
    # Two moments and the moving average of what learns, and a few counters.
    assert 2.5 * undisturbed.parameters < optimizer < 3.5 * undisturbed.parameters
    resumed = run(examples, tmp_path / "resumed", saving=saving, **changes)
    np.testing.assert_allclose(figures(resumed), figures(undisturbed), rtol=1e-5)


def test_finished_training_is_not_done_again(examples, tmp_path):
    saving = CheckpointConfig(str(tmp_path / "checkpoint"))
    first = run(examples, tmp_path / "first", saving=saving)
    second = run(examples, tmp_path / "second", saving=saving)
    assert first.history == second.history
    assert len(list((tmp_path / "checkpoint").glob("*.h5"))) == 2


def test_checkpoint_leaves_the_files_of_others_alone(examples, tmp_path):
    """As where the first weights lie in the same folder."""
    folder = tmp_path / "weights"
    folder.mkdir()
    others = {"mobilenet.weights.h5", "1.weights.h5", "kept.weights.h5", "00001-000002.h5"}
    for name in others:
        (folder / name).touch()
    run(examples, tmp_path / "out", saving=CheckpointConfig(str(folder)))
    ours = {path.name for path in folder.iterdir()} - others
    assert others <= {path.name for path in folder.iterdir()}
    assert sum(name.endswith(".weights.h5") for name in ours) == 2


@pytest.mark.parametrize("wrong", ["file", "file/below", "read-only"])
def test_checkpoint_that_cannot_be_a_folder(examples, tmp_path, monkeypatch, wrong):
    (tmp_path / "file").touch()
    if wrong == "read-only":
        # Whoever is root may write everywhere.
        monkeypatch.setattr("os.access", lambda path, mode: False)
    place = tmp_path / wrong
    with pytest.raises(ConfigError, match=rf"checkpoint {place}: expected a folder that can be"):
        run(examples, tmp_path / "out", saving=CheckpointConfig(str(place)))
    assert not (tmp_path / "out" / "model").exists()


OTHER_TRAINING = r"expected that of this training.* another folder"


def test_checkpoint_of_another_training(examples, tmp_path, monkeypatch):
    saving = CheckpointConfig(str(tmp_path / "checkpoint"))
    run(examples, tmp_path / "first", saving=saving)
    with pytest.raises(ConfigError, match=OTHER_TRAINING):
        run(examples, tmp_path / "second", saving=saving, seed=9)
    others = make_dataset(tmp_path / "others", counts={"train": 25, "validation": 9, "test": 9})
    with pytest.raises(ConfigError, match=OTHER_TRAINING):
        run(others, tmp_path / "second", saving=saving)
    # `auto` on a machine that has bfloat16.
    monkeypatch.setattr(train_module, "choose_precision", lambda *_: "mixed_bfloat16")
    with pytest.raises(ConfigError, match=OTHER_TRAINING):
        run(examples, tmp_path / "second", saving=saving)


def test_checkpoint_does_not_mind_how_often_the_host_looks(examples, tmp_path):
    saving = CheckpointConfig(str(tmp_path / "checkpoint"))
    first = run(examples, tmp_path / "first", saving=saving)
    assert run(examples, tmp_path / "on", saving=saving, steps_per_execution=3) == first


@pytest.mark.parametrize("damage", ["flip", "delete", "state"])
def test_damaged_checkpoint(examples, tmp_path, damage):
    saving = CheckpointConfig(str(tmp_path / "checkpoint"))
    run(examples, tmp_path / "first", saving=saving)
    state = tmp_path / "checkpoint" / "state.json"
    kept = tmp_path / "checkpoint" / json.loads(state.read_text())["kept_weights"]["file"]
    if damage == "flip":
        content = bytearray(kept.read_bytes())
        content[len(content) // 2] ^= 0xFF
        kept.write_bytes(content)
    elif damage == "delete":
        kept.unlink()
    else:
        state.write_text("{}")
    with pytest.raises(DataError, match=r"delete .*to start anew"):
        run(examples, tmp_path / "second", saving=saving)


def test_killed_process_goes_on(examples, tmp_path):
    """SIGKILL in the middle of training; the second process ends with the first one's history."""
    flags = [
        f"--examples={examples}",
        f"--augmented={examples}",
        f"--checkpoint={tmp_path / 'checkpoint'}",
        "--checkpoint-steps=1",
        f"--model-config={json.dumps(TINY_MODEL)}",
        f"--train-config={json.dumps(TINY_TRAIN | {'epochs': 400})}",
    ]
    command = [sys.executable, "-m", "components.train_model", *flags]
    state = tmp_path / "checkpoint" / "state.json"
    with subprocess.Popen(
        [*command, f"--output={tmp_path / 'first'}"], stdout=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: state.exists() and len(json.loads(state.read_text())["history"]) >= 3)
        process.kill()
    before = json.loads(state.read_text())
    assert 3 <= before["position"]["epoch"] < 400
    assert not (tmp_path / "first").exists()
    # It need not train all the rest for this test: what counts is where it goes on.
    with subprocess.Popen(
        [*command, f"--output={tmp_path / 'second'}"], stdout=subprocess.DEVNULL
    ) as process:
        epochs = before["position"]["epoch"]
        wait_until(lambda: len(json.loads(state.read_text())["history"]) >= epochs + 3)
        process.kill()
    after = json.loads(state.read_text())["history"]
    assert after[:epochs] == before["history"]
    assert [one["epoch"] for one in after] == list(range(1, len(after) + 1))


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
