"""Learning rates as pure functions of the step."""

import math
from typing import Any

import keras
from keras import ops

from components.train_model.config import ScheduleConfig

_START = 1 / 25


def one_cycle(step: Any, steps: int, config: ScheduleConfig) -> Any:
    """Climbs along a cosine to the peak, then falls along a longer one to almost nothing.

    Args:
        step: Number of steps done, a number or a tensor.
        steps: Number of steps of the whole training.
        config: Peak, length of the climb, and the end.

    Returns:
        The learning rate, `float32` scalar.

    Source: Smith and Topin, "Super-Convergence" (2018); cosine form as in PyTorch's OneCycleLR.
    """
    step = ops.cast(step, "float32")
    climb = max(1.0, config.warmup * steps)
    fall = max(1.0, steps - 1 - climb)
    up = _cosine(config.peak * _START, config.peak, step / climb)
    down = _cosine(config.peak, config.peak * config.final, (step - climb) / fall)
    return ops.where(step < climb, up, down)


def _cosine(start: float, end: float, part: Any) -> Any:
    """Goes from `start` to `end` along half a cosine as `part` goes from 0 to 1."""
    return end + (start - end) * 0.5 * (1.0 + ops.cos(math.pi * ops.clip(part, 0.0, 1.0)))


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The schedule that a recipe names, as an optimizer wants it."""

    def __init__(self, config: ScheduleConfig, steps: int) -> None:
        self.config = config
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step, `float32` scalar."""
        if self.config.name == "constant":
            return ops.full([], self.config.peak)
        return one_cycle(step, self.steps, self.config)
