"""Learning rates as pure functions of the step."""

import math
from typing import Any

import keras
from keras import ops

from components.train_model.config import RampConfig, ScheduleConfig, WarmupConfig

_ONE_CYCLE_START = 1 / 25


def one_cycle(step: Any, steps: int, config: WarmupConfig) -> Any:
    """Climbs along a cosine to the peak, then falls along a longer one to almost nothing.

    Args:
        step: Number of steps done, a number or a tensor of any shape.
        steps: Number of steps of the whole training.
        config: Peak, length of the climb, and the end.

    Returns:
        The learning rate, `float32`, of the shape of `step`.

    Source: Smith and Topin, "Super-Convergence" (2018); cosine form as in PyTorch's OneCycleLR.
    """
    step, climb, fall = _climb_and_fall(step, steps, config)
    up = _cosine(config.peak * _ONE_CYCLE_START, config.peak, step / climb)
    down = _cosine(config.peak, config.peak * config.final, (step - climb) / fall)
    return ops.where(step < climb, up, down)


def cosine(step: Any, steps: int, config: WarmupConfig) -> Any:
    """Climbs along a line from nothing to the peak, then falls along half a cosine.

    Arguments and result as in `one_cycle`.

    Source: Loshchilov and Hutter, "SGDR" (2017), without restarts; warm-up of Goyal et al.,
    "Accurate, Large Minibatch SGD" (2017).
    """
    step, climb, fall = _climb_and_fall(step, steps, config)
    # The first step learns too: a rate of 0 would waste it.
    up = config.peak * (step + 1.0) / climb
    down = _cosine(config.peak, config.peak * config.final, (step - climb) / fall)
    return ops.where(step < climb, ops.minimum(up, config.peak), down)


def ramp(step: Any, steps_per_epoch: int, config: RampConfig, replicas: int = 1) -> Any:
    """Climbs along a line, stays, then decays exponentially towards the floor, step by step.

    Args:
        step: Number of steps done, a number or a tensor of any shape.
        steps_per_epoch: Steps per epoch; `config` counts in epochs.
        config: Start, peak, floor, and how long each part takes.
        replicas: The peak is so many times as high; start and floor stay.

    Returns:
        The learning rate, `float32`, of the shape of `step`.

    Source: the public "Keras on TPU" flowers lab, which changes the rate once an epoch.
    """
    peak = config.peak * replicas
    epoch = ops.cast(step, "float32") / steps_per_epoch
    climbed = ops.clip(epoch / max(config.ramp_epochs, 1e-9), 0.0, 1.0)
    up = config.start + (peak - config.start) * climbed
    after = ops.maximum(epoch - config.ramp_epochs - config.sustain_epochs, 0.0)
    down = config.floor + (peak - config.floor) * ops.power(config.decay, after)
    return ops.where(epoch < config.ramp_epochs, up, down)


def _climb_and_fall(step: Any, steps: int, config: WarmupConfig) -> tuple[Any, float, float]:
    """The step as a number, and the steps up to the peak and from there to the last one."""
    climb = max(1.0, config.warmup * steps)
    return ops.cast(step, "float32"), climb, max(1.0, steps - 1 - climb)


def _cosine(start: float, end: float, part: Any) -> Any:
    """Goes from `start` to `end` along half a cosine as `part` goes from 0 to 1."""
    return end + (start - end) * 0.5 * (1.0 + ops.cos(math.pi * ops.clip(part, 0.0, 1.0)))


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The schedule that a recipe names, as an optimizer wants it.

    Args:
        config: The schedule.
        epochs: Epochs it is for.
        steps_per_epoch: Steps per epoch.
        replicas: Devices over which a batch is split.
    """

    def __init__(
        self, config: ScheduleConfig, epochs: int, steps_per_epoch: int, replicas: int = 1
    ) -> None:
        self.config = config
        self.steps = epochs * steps_per_epoch
        self.steps_per_epoch = steps_per_epoch
        self.factor = replicas if config.scaled_by_replicas else 1

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step of these epochs, `float32`, of the shape of `step`."""
        step = ops.convert_to_tensor(step)
        if isinstance(self.config, RampConfig):
            return ramp(step, self.steps_per_epoch, self.config, self.factor)
        if isinstance(self.config, WarmupConfig):
            function = one_cycle if self.config.name == "one_cycle" else cosine
            return function(step, self.steps, self.config) * self.factor
        return ops.full(ops.shape(step), self.config.peak) * self.factor
