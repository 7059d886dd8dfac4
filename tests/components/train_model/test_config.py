from typing import Any

import pytest

from components.common.config import build
from components.common.errors import ConfigError
from components.train_model.architectures import ModelConfig, SqueezenetConfig
from components.train_model.config import CheckpointConfig, TrainConfig

MODEL = {"name": "squeezenet", "stem_filters": 8, "stem_stride": 2, "stages": [[[4, 8]]]}
TRAIN = {
    "epochs": 2,
    "global_batch_size": 8,
    "schedule": {"name": "constant", "peak": 0.1},
}
CYCLE = {"name": "one_cycle", "peak": 0.1}
RAMP = {"name": "ramp", "peak": 0.1}
REFINE = {"epochs": 1, "schedule": CYCLE}


def test_stages_become_tuples():
    assert build(SqueezenetConfig, MODEL).stages == (((4, 8),),)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": []}, "at least one stage"),
        ({"stages": [[]]}, "at least one fire module"),
        ({"stages": [[[4, 7]]]}, "even number, received 7"),
        ({"stages": [[[0, 8]]]}, "squeeze: expected 1 to 8192, received 0"),
        ({"stages": [[[4]]]}, "expected 2 values, received 1"),
        ({"stem_stride": 9}, "stem_stride: expected 1 to 4, received 9"),
        ({"dropout": 1.0}, "dropout: expected 0 to 0.95, received 1"),
        ({"name": "vgg"}, "name: expected one of dense, .*, xception, received 'vgg'"),
        ({"name": ["xception"]}, "name: expected one of dense"),
        ({"weights": ""}, "weights: expected none, imagenet, a path"),
        ({"weights": "imagenet"}, "Keras has no ImageNet weights of squeezenet"),
        ({"stem_kernel": 0}, "stem_kernel"),
        (
            {"stem_init": "zeros"},
            "stem_init: expected one of he_normal, whitening, received 'zeros'",
        ),
        ({"stem_init": "whitening", "stem_filters": 56}, "even number up to 54 with stem_init"),
        ({"stem_init": "whitening", "stem_filters": 7}, "even number up to 54 .* received 7"),
        ({"se_reduction": -1}, "se_reduction: expected 0 to 64, received -1"),
        ({"drop_path": 1.0, "bypass": True}, "drop_path: expected 0 to 0.9, received 1"),
        ({"drop_path": 0.1}, "drop_path: expected 0 where no fire module has .*, received 0.1"),
        # The input of none has the shape of its output.
        ({"drop_path": 0.1, "bypass": True, "stages": [[[4, 16]]]}, "drop_path: expected 0 where"),
        ({"depth": 3}, "depth: unknown key"),
    ],
)
def test_wrong_model_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        build(ModelConfig, MODEL | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": -1}, "epochs: expected 1 to 100000, received -1"),
        ({"global_batch_size": 0}, "global_batch_size: expected either"),
        ({"label_smoothing": 1.5}, "label_smoothing"),
        ({"schedule": {"name": "constant", "peak": float("nan")}}, "schedule.peak"),
        (
            {"optimizer": {"name": "adam", "clip_norm": float("inf")}},
            "optimizer.clip_norm: expected at least 0, received inf",
        ),
        ({"schedule": {"name": "zigzag"}}, "schedule.name: expected one of constant, one_cycle"),
        ({"schedule": {"peak": 0.1}}, "schedule.name: missing; expected one of constant"),
        ({"schedule": CYCLE | {"warmup": 1.0}}, "schedule.warmup: expected 0 to 0.9, received 1"),
        ({"schedule": CYCLE | {"decay": 0.5}}, "schedule.decay: unknown key"),
        ({"schedule": RAMP | {"floor": 0.2}}, "schedule.floor: expected 0 to 0.1, received 0.2"),
        ({"schedule": RAMP | {"start": 0.2}}, "schedule.start"),
        ({"schedule": RAMP | {"ramp_epochs": -1}}, "schedule.ramp_epochs"),
        ({"schedule": RAMP | {"decay": 1.5}}, "schedule.decay"),
        ({"optimizer": {"name": "adamw", "weight_decay": -0.1}}, "optimizer.weight_decay"),
        ({"optimizer": {"name": "sgd", "weight_decay": -0.1}}, "optimizer.weight_decay"),
        ({"optimizer": {"name": "adam", "weight_decay": 0.1}}, "weight_decay: unknown key"),
        ({"optimizer": {"name": "lars", "trust": 0.0}}, "optimizer.trust"),
        ({"optimizer": {"name": "muon", "adam_ratio": 0.0}}, "optimizer.adam_ratio"),
        ({"optimizer": {"name": "muon", "momentum": 1.0}}, "optimizer.momentum"),
        ({"optimizer": {"name": "sgd", "clip_norm": -1.0}}, "optimizer.clip_norm"),
        ({"head": {"epochs": 0, "schedule": CYCLE}}, "head.epochs"),
        ({"head": {"epochs": 1}}, "head.schedule: missing"),
        ({"refine": {"epochs": 0, "schedule": CYCLE}}, "refine.epochs: expected 1 to .*received 0"),
        ({"refine": REFINE | {"crop_size": -1}}, "refine.crop_size: expected 0 to 4096"),
        ({"refine": REFINE | {"crop_area": 0.0}}, "refine.crop_area: expected 0.05 to 1"),
        ({"refine": REFINE | {"crop_size": 24}}, "refine.crop_size: expected 0 without a policy"),
        ({"refine": REFINE | {"crop_area": 0.5}}, "refine.crop_area: expected 1 without a policy"),
        ({"refine": REFINE, "patience": 2}, "patience: expected 0 with refine, .* received 2"),
        (
            {"progressive_resizing": {"crop_size": 24}},
            "progressive_resizing: expected none without a policy, .* received a crop_size of 24",
        ),
        (
            {"policy": {}, "progressive_resizing": {"crop_size": 0}},
            r"progressive_resizing\.crop_size: expected 1 to 4096, received 0",
        ),
        (
            {"policy": {}, "progressive_resizing": {"crop_size": 24, "share": 1.0}},
            r"progressive_resizing\.share: expected 0 to 0\.9, received 1",
        ),
        ({"refine": REFINE, "ema": 0.9}, "ema: expected 0 with refine, .* received 0.9"),
        ({"ghost_batch_size": -1}, "ghost_batch_size: expected 0 to .*, received -1"),
        (
            {"ghost_batch_size": 2, "batch_norm": "per_replica"},
            "ghost_batch_size: expected 0 with batch_norm per_replica",
        ),
        ({"ghost_batch_size": 3, "mixup": 0.2}, "ghost_batch_size: expected an even number"),
        ({"crop_size": 96}, "crop_size: expected 0 without a policy"),
        ({"mixup": -0.1}, "mixup"),
        ({"cutmix": 11}, "cutmix"),
        ({"ema": 1.0}, "ema"),
        ({"keep": "first"}, "keep: expected one of best, last"),
        ({"patience": -1}, "patience"),
        ({"validation_freq": 0}, "validation_freq"),
        (
            {"patience": 3, "validation_freq": 4},
            "patience: expected 0 or at least validation_freq, which is 4, .* received 3",
        ),
        ({"patience": 2, "keep": "last"}, "patience: expected 0 with keep last, .* received 2"),
        ({"precision": "float64"}, "precision: expected one of auto"),
        ({"policy": {"saturation": [2.0, 1.0]}}, "policy.saturation"),
        ({"policy": {"crop_area": 0.0}}, "policy.crop_area"),
        ({"policy": None, "crop_size": 24}, "crop_size: expected 0 without .* received 24"),
        (
            {"schedule": CYCLE | {"scaled_by_replicas": True}},
            "schedule.scaled_by_replicas: expected false with global_batch_size, .* received true",
        ),
        (
            {"head": {"epochs": 3, "schedule": CYCLE | {"scaled_by_replicas": True}}},
            r"head\.schedule\.scaled_by_replicas: expected false",
        ),
        (
            {"refine": {"epochs": 3, "schedule": CYCLE | {"scaled_by_replicas": True}}},
            r"refine\.schedule\.scaled_by_replicas: expected false",
        ),
    ],
)
def test_wrong_training_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        build(TrainConfig, TRAIN | changes)


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "dense": {"units": [4]},
    "convnet": {"stages": [[[4, 3]]]},
    "separable": {"stem_filters": 4, "stages": [[8]]},
    "inception": {"stem_filters": 4, "stages": [[[1, 2, 3, 4, 5, 6]]]},
    "squeezenet_lab": {},
    "squeezenet": {"stem_filters": 8, "stem_stride": 2, "stages": [[[4, 8]]]},
    "mobilenet_v2": {},
    "xception": {},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_a_kind(name):
    config = build(ModelConfig, {"name": name} | ARCHITECTURES[name])
    assert type(config) is ModelConfig.kinds()[name]


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("dense", {"units": [0]}, "units: expected 1"),
        ("convnet", {"stages": [[[4, 0]]]}, "stages: kernel"),
        ("convnet", {"stages": [[]]}, "at least one convolution"),
        ("separable", {"stages": [[0]]}, "stages: filters"),
        ("inception", {"stages": [[[1, 2, 3]]]}, "expected 6 values, received 3"),
        ("squeezenet_lab", {"stem_filters": 8}, "stem_filters: unknown key"),
        ("mobilenet_v2", {"alpha": 0.0}, "alpha"),
        ("xception", {"weights": "w.h5", "weights_sha256": "E3FA"}, "expected 64 hexadecimal"),
        ("xception", {"weights_sha256": "ab" * 32}, "weights_sha256: expected nothing with"),
        ("xception", {"batch_norm_momentum": 1.0}, "batch_norm_momentum"),
    ],
)
def test_wrong_architecture_is_refused(name, changes, words):
    with pytest.raises(ConfigError, match=words):
        build(ModelConfig, {"name": name} | ARCHITECTURES[name] | changes)


def test_total_epochs_counts_both_phases():
    head = {"epochs": 3, "schedule": CYCLE}
    assert build(TrainConfig, TRAIN).total_epochs == 2
    assert build(TrainConfig, TRAIN | {"head": head}).total_epochs == 5


def test_batch_that_grows_with_the_replicas_takes_a_rate_that_does():
    schedule = CYCLE | {"scaled_by_replicas": True}
    growing = {"global_batch_size": 0, "batch_per_replica": 8, "schedule": schedule}
    assert build(TrainConfig, TRAIN | growing).schedule.scaled_by_replicas


def test_steps_between_checkpoints_need_a_place():
    with pytest.raises(ConfigError, match="expected 0 without a checkpoint folder, received 5"):
        CheckpointConfig(steps=5)
    assert CheckpointConfig("folder", steps=5).steps == 5
