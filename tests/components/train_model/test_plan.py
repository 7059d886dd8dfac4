import dataclasses

import keras
import numpy as np
import pytest

from components.common.config import build
from components.train_model.config import ProgressiveResizingConfig, TrainConfig
from components.train_model.history import Epoch
from components.train_model.plan import Plan

TWO_PHASES = {
    "epochs": 3,
    "global_batch_size": 8,
    "head": {"epochs": 2, "schedule": {"name": "constant", "peak": 0.5}},
    "schedule": {"name": "cosine", "peak": 0.1, "warmup": 0.5, "final": 0.0},
}


@pytest.fixture
def plan():
    return Plan(build(TrainConfig, TWO_PHASES), steps_per_epoch=12)


@pytest.mark.parametrize(
    ("done", "expected"),
    # A training that goes on within an epoch ends its executions where the epoch ends.
    [(0, 12), (4, 4), (5, 1), (6, 6), (9, 3)],
)
def test_executions_end_with_the_epoch(plan, done, expected):
    assert plan.steps_per_execution(32, done) == expected
    assert plan.steps_per_execution(1, done) == 1


@pytest.mark.parametrize(("most", "expected"), [(5, 4), (6, 6), (7, 6), (11, 6), (12, 12)])
def test_executions_are_no_longer_than_was_asked_for(plan, most, expected):
    assert plan.steps_per_execution(most) == expected


def test_rate_of_an_epoch_is_that_of_its_last_step(plan):
    rate = plan.schedule(plan.phases[1])
    expected = [0.5, 0.5, *(float(keras.ops.convert_to_numpy(rate(step))) for step in (11, 23, 35))]
    assert [plan.learning_rate_after(epoch) for epoch in range(5)] == pytest.approx(expected)
    assert expected[-1] < expected[2] < 0.1


def test_curve_of_the_rate_has_every_step_of_both_phases(plan):
    epochs, rates = zip(*plan.learning_rates(), strict=True)
    assert epochs == pytest.approx([step / 12 for step in range(5 * 12)])
    assert set(rates[:24]) == {0.5}
    # The warm-up is a line through 0 before the first of its 18 steps, and ends at the peak.
    assert rates[24:42] == pytest.approx([0.1 * step / 18 for step in range(1, 19)])
    assert list(rates[42:]) == sorted(rates[42:], reverse=True)
    assert rates[-1] < 0.001


def test_what_refines_comes_last():
    refine = {"epochs": 4, "schedule": {"name": "constant", "peak": 0.2}, "crop_size": 24}
    config = build(TrainConfig, TWO_PHASES | {"refine": refine, "policy": {}, "cutmix": 1.0})
    plan = Plan(config, steps_per_epoch=12)
    assert [(one.section, one.first, one.end) for one in plan.phases] == [
        ("train.head", 0, 2),
        ("train", 2, 5),
        ("train.refine", 5, 9),
    ]
    assert [one.config.mixes for one in plan.phases] == [True, True, False]
    assert [one.config.crop_size for one in plan.phases] == [0, 0, 24]
    assert plan.learning_rate_after(8) == pytest.approx(0.2)
    assert plan.learning_rates()[-1] == pytest.approx((9 - 1 / 12, 0.2))


RESIZING = {"policy": {}, "crop_size": 24, "progressive_resizing": {"crop_size": 16, "share": 0.4}}


def test_smaller_crops_come_first_and_share_the_schedule(plan):
    resizing = Plan(build(TrainConfig, TWO_PHASES | RESIZING), steps_per_epoch=12)
    assert [(one.section, one.first, one.end) for one in resizing.phases] == [
        ("train.head", 0, 2),
        # The share is rounded down.
        ("train", 2, 3),
        ("train", 3, 5),
    ]
    assert [one.config.crop_size for one in resizing.phases[1:]] == [16, 24]
    assert [one.continues for one in resizing.phases] == [False, False, True]
    assert [one.is_main for one in resizing.phases] == [False, False, True]
    assert [one.continues for one in plan.phases] == [False, False]
    assert [one.is_main for one in plan.phases] == [False, True]
    found, expected = (np.array(one.learning_rates()) for one in (resizing, plan))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    rates = [[one.learning_rate_after(epoch) for epoch in range(5)] for one in (resizing, plan)]
    assert rates[0] == rates[1]


@pytest.mark.parametrize(
    ("share", "epochs", "expected"),
    [(0.5, 3, 1), (0.29, 100, 29), (0.57, 100, 57), (0.9, 1, 0), (0.0, 9, 0)],
)
def test_share_of_epochs_is_rounded_down(share, epochs, expected):
    resizing = ProgressiveResizingConfig(crop_size=16, share=share)
    assert resizing.epochs_of(epochs) == expected


def test_share_of_less_than_an_epoch_is_none():
    changes = RESIZING | {"progressive_resizing": {"crop_size": 16, "share": 0.3}}
    phases = Plan(build(TrainConfig, TWO_PHASES | changes), steps_per_epoch=12).phases
    assert [one.section for one in phases] == ["train.head", "train"]


def test_long_curve_is_thinned_out():
    points = Plan(build(TrainConfig, TWO_PHASES), steps_per_epoch=5000).learning_rates()
    assert len(points) == 800
    assert points[-1][0] == pytest.approx(5.0, abs=0.001)


@pytest.mark.parametrize(
    ("every", "expected"),
    [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])],
)
def test_last_epoch_is_validated(every, expected):
    # Those of the head count too.
    plan = Plan(build(TrainConfig, TWO_PHASES | {"validation_freq": every}), steps_per_epoch=12)
    assert plan.validated_epochs() == expected


EPOCH = Epoch(
    epoch=1,
    loss=1.0,
    accuracy=0.5,
    val_loss=1.0,
    val_accuracy=0.5,
    learning_rate=0.1,
    seconds=1.0,
    images_per_second=1.0,
)


@pytest.mark.parametrize(
    ("accuracy", "loss", "better"),
    [(0.6, 2.0, True), (0.4, 0.1, False), (0.5, 0.9, True), (0.5, 1.1, False), (0.5, 1.0, False)],
)
def test_loss_decides_between_epochs_of_equal_accuracy(accuracy, loss, better):
    other = dataclasses.replace(EPOCH, val_accuracy=accuracy, val_loss=loss)
    assert other.beats(EPOCH) == better
    assert other.beats(None)


def test_only_an_epoch_that_is_validated_is_better_than_another():
    unknown = dataclasses.replace(EPOCH, val_accuracy=None, val_loss=None)
    assert EPOCH.beats(unknown)
    assert not any(unknown.beats(other) for other in (EPOCH, unknown, None))
