"""The course of a training, as it follows from the recipe and the number of examples."""

import dataclasses
import math

import numpy as np
from keras import ops

from components.train_model.config import ScheduleConfig, TrainConfig
from components.train_model.schedules import Schedule

MAIN = "train"
_DRAWN_STEPS = 400


@dataclasses.dataclass(frozen=True)
class Phase:
    """Epochs in which the same is done.

    Attributes:
        section: Key of a recipe that its schedule is in.
        first: Number of epochs before it.
        end: Number of epochs up to its end.
        schedule: The learning rate over the steps of `scheduled`.
        config: What is done to its images; only `schedule` is the one of a head.
        scheduled: Epochs over which its schedule and its optimizer go: its own, but where crops
            grow on the way, which makes two phases.
        head_only: All but the head are frozen.
    """

    section: str
    first: int
    end: int
    schedule: ScheduleConfig
    config: TrainConfig
    scheduled: range
    head_only: bool = False

    @property
    def continues(self) -> bool:
        """It goes on with the schedule and the optimizer of the phase before it."""
        return self.first > self.scheduled.start

    @property
    def is_main(self) -> bool:
        """It is what a recipe's `train` says, once its crops have grown."""
        return self.section == MAIN and self.end == self.scheduled.stop


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is done in which step.

    Attributes:
        config: The recipe's section.
        steps_per_epoch: Steps per epoch.
        replicas: Devices over which a batch is split, over all hosts.
    """

    config: TrainConfig
    steps_per_epoch: int
    replicas: int = 1

    @property
    def batch_size(self) -> int:
        """Examples per step over all replicas."""
        return self.config.batch_size(self.replicas)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One or two of `train`, one before them for the head, and one behind them to refine."""
        phases, done = [], 0
        if head := self.config.head:
            done, alone = head.epochs, range(head.epochs)
            phases.append(
                Phase("train.head", 0, done, head.schedule, self.config, alone, head_only=True)
            )
        main = range(done, done + self.config.epochs)
        for key, config in self.config.after_head().items():
            end = done + config.epochs
            section, scheduled = (MAIN, main) if done in main else (key, range(done, end))
            phases.append(Phase(section, done, end, config.schedule, config, scheduled))
            done = end
        return tuple(phases)

    def schedule(self, phase: Phase) -> Schedule:
        """The learning rate of a phase; steps count from the first that is scheduled with it."""
        epochs = len(phase.scheduled)
        return Schedule(phase.schedule, epochs, self.steps_per_epoch, self.replicas)

    def steps_per_execution(self, most: int, done: int = 0) -> int:
        """Steps that a device does before the host looks at them.

        Args:
            most: No more than so many.
            done: Steps done of the epoch in which training goes on.

        Returns:
            A number that ends with the epoch.
        """
        whole = math.gcd(self.steps_per_epoch, done)
        return max(steps for steps in range(1, min(most, whole) + 1) if whole % steps == 0)

    def validated_epochs(self) -> list[int]:
        """The epochs, from 1, that are validated: every so many, and the last."""
        every, last = self.config.validation_freq, self.config.total_epochs
        return sorted({*range(every, last + 1, every), last})

    def learning_rate_after(self, epoch: int) -> float:
        """The learning rate of the last step of an epoch, which counts from 0."""
        phase = next(phase for phase in self.phases if phase.first <= epoch < phase.end)
        step = (epoch - phase.scheduled.start + 1) * self.steps_per_epoch - 1
        return float(ops.convert_to_numpy(self.schedule(phase)(step)))

    def learning_rates(self) -> tuple[tuple[float, float], ...]:
        """Points of the learning rate's curve, as (epochs done, rate): no more than can be seen."""
        points: list[tuple[float, float]] = []
        for phase in self.phases:
            steps = (phase.end - phase.first) * self.steps_per_epoch
            drawn = np.unique(np.linspace(0, steps - 1, min(steps, _DRAWN_STEPS)).astype(int))
            before = (phase.first - phase.scheduled.start) * self.steps_per_epoch
            rates = ops.convert_to_numpy(self.schedule(phase)(before + drawn))
            epochs = phase.first + drawn / self.steps_per_epoch
            points += zip(epochs.tolist(), rates.astype(float).tolist(), strict=True)
        return tuple(points)
