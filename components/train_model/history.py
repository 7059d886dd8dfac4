"""What training leaves behind to be read and drawn."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One line of the history.

    Attributes:
        epoch: From 1.
        loss: Mean over the train batches.
        accuracy: Top-1, on augmented train images.
        val_loss: Over the validation split.
        val_accuracy: Top-1, over the validation split.
        learning_rate: At the end of the epoch.
        seconds: Duration, validation included.
        images_per_second: Train images over the time spent on them.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What came of it.

    Attributes:
        history: One entry per epoch.
        best: The epoch whose weights were kept.
        parameters: Number of weights of the model.
        steps_per_epoch: Steps per epoch.
    """

    history: tuple[Epoch, ...]
    best: Epoch
    parameters: int
    steps_per_epoch: int

    def metrics(self) -> dict[str, float]:
        """The figures that a console lists beside a run."""
        return {
            "best_epoch": self.best.epoch,
            "epochs": len(self.history),
            "parameters": self.parameters,
            "seconds": sum(epoch.seconds for epoch in self.history),
            "val_accuracy": self.best.val_accuracy,
            "val_loss": self.best.val_loss,
        }
