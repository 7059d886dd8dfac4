"""What training leaves behind to be read and drawn."""

import dataclasses
from typing import NamedTuple


class Validation(NamedTuple):
    """Figures over the validation split.

    Attributes:
        loss: Mean over its examples.
        accuracy: Top-1.
    """

    loss: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One line of the history.

    Attributes:
        epoch: From 1.
        loss: Mean over the train batches.
        accuracy: Top-1, on augmented train images.
        val_loss: Over the validation split; None for an epoch that is not validated.
        val_accuracy: Top-1, over the validation split; None as the loss is.
        learning_rate: At the last step of the epoch.
        seconds: Since the epoch before was measured: its saving and this one's validation are
            included, and in the first of a phase what makes the graph.
        images_per_second: Train images over the time spent on them.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    seconds: float
    images_per_second: float

    @property
    def validation(self) -> Validation | None:
        """Figures over the validation split, if it is validated."""
        if self.val_loss is None or self.val_accuracy is None:
            return None
        return Validation(self.val_loss, self.val_accuracy)

    def beats(self, other: "Epoch | None") -> bool:
        """Whether it did better on the validation split; the loss decides between equals.

        An epoch that is not validated beats none, and is beaten by all that are.
        """
        here, there = self.validation, other.validation if other else None
        if here is None or there is None:
            return here is not None
        return (here.accuracy, -here.loss) > (there.accuracy, -there.loss)


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What came of it.

    Attributes:
        history: One entry per epoch.
        kept: The epoch whose weights were kept.
        parameters: Number of weights of the model.
        steps_per_epoch: Steps per epoch.
        learning_rates: Points of the curve that was planned, as (epochs done, rate).
        precision: Keras's name of the types that training computed in.
        weights: Where the first weights came from.
        batch_size: Examples per step over all devices.
        devices: What it was trained on, in words.
    """

    history: tuple[Epoch, ...]
    kept: Epoch
    parameters: int
    steps_per_epoch: int
    learning_rates: tuple[tuple[float, float], ...]
    precision: str
    weights: str
    batch_size: int
    devices: str

    @property
    def validation(self) -> Validation:
        """Figures of the epoch kept over the validation split."""
        assert self.kept.validation is not None
        return self.kept.validation

    def metrics(self) -> dict[str, float]:
        """The figures that a console lists beside a run."""
        return {
            "kept_epoch": self.kept.epoch,
            "epochs": len(self.history),
            "parameters": self.parameters,
            "seconds": sum(epoch.seconds for epoch in self.history),
            "val_accuracy": self.validation.accuracy,
            "val_loss": self.validation.loss,
        }
