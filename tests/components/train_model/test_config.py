import pytest

from components.common.config import build
from components.common.errors import ConfigError
from components.train_model.config import ModelConfig, TrainConfig

MODEL = {"name": "squeezenet", "stem_filters": 8, "stem_stride": 2, "stages": [[[4, 8]]]}
TRAIN = {"epochs": 2, "global_batch_size": 8}


def test_stages_become_tuples():
    assert build(ModelConfig, MODEL).stages == (((4, 8),),)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": []}, "at least one stage"),
        ({"stages": [[]]}, "at least one fire module"),
        ({"stages": [[[4, 7]]]}, "even number, received 7"),
        ({"stages": [[[0, 8]]]}, "squeeze: expected 1 to 4096, received 0"),
        ({"stages": [[[4]]]}, "expected 2 values, received 1"),
        ({"stem_stride": 9}, "stem_stride: expected 1 to 4, received 9"),
        ({"dropout": 1.0}, "dropout: expected 0 to 0.95, received 1"),
        ({"name": "vgg"}, "name: expected one of squeezenet, received 'vgg'"),
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
        ({"global_batch_size": 0}, "global_batch_size: expected 1"),
        ({"label_smoothing": 1.5}, "label_smoothing"),
        ({"schedule": {"peak": float("nan")}}, "schedule.peak"),
        ({"schedule": {"name": "zigzag"}}, "schedule.name: expected one of constant, one_cycle"),
        ({"optimizer": {"weight_decay": -0.1}}, "optimizer.weight_decay"),
        ({"optimizer": {"name": "sgd", "weight_decay": 0.1}}, "only adamw has it"),
        ({"policy": {"saturation": [2.0, 1.0]}}, "policy.saturation"),
        ({"policy": {"crop_area": 0.0}}, "policy.crop_area"),
    ],
)
def test_wrong_training_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        build(TrainConfig, TRAIN | changes)
