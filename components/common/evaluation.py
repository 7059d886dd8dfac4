"""What an evaluation says, in the JSON file that the gate and the export read."""

import dataclasses
import math
from pathlib import Path

from components.common.config import build, read_mapping
from components.common.errors import DataError, UserError

# Two-sided 95 % quantile of the normal distribution.
_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """How one class was recognised.

    Attributes:
        name: The class.
        examples: Test examples of this class.
        precision: Share of those taken for this class that are of it; None if none was taken.
        recall: Share of those of this class that were taken for it.
    """

    name: str
    examples: int
    precision: float | None
    recall: float | None


@dataclasses.dataclass(frozen=True)
class CalibrationBin:
    """Test examples with about the same confidence, which is that of the most probable class.

    Attributes:
        low: Lower end of the confidence, itself outside but for 0.
        high: Upper end of it.
        examples: Number of examples.
        confidence: Their mean confidence.
        accuracy: Share of them that are right.
    """

    low: float
    high: float
    examples: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a model did on the test split, every example counted once.

    Attributes:
        examples: Number of test examples.
        correct: Number whose most probable class is the true one.
        accuracy: Top-1 accuracy, correct / examples.
        accuracy_low: Lower end of its 95 % Wilson interval.
        accuracy_high: Upper end of it.
        loss: Mean cross-entropy.
        class_names: Classes of the test examples, in label order.
        model_class_names: Classes of the model, in the order of its outputs.
        classes: How each class was recognised.
        confusion: `confusion[true][predicted]` counts.
        train_overlap: Number of test images that are in the train split, byte for byte.
        data_fingerprint: Of the data set that was tested on.
        model_data_fingerprint: Of the data set that the model was trained on.
        model_digest: SHA-256 of the Keras file.
        calibration: Bins of confidence that hold examples, in order.
        calibration_error: Expected calibration error: by how much confidence and accuracy of a bin
            differ, in the mean over the examples. None where nobody computed it.
    """

    examples: int
    correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float
    class_names: tuple[str, ...]
    model_class_names: tuple[str, ...]
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    train_overlap: int
    data_fingerprint: str
    model_data_fingerprint: str
    model_digest: str
    calibration: tuple[CalibrationBin, ...] = ()
    calibration_error: float | None = None


@dataclasses.dataclass(frozen=True)
class ClassInterval:
    """The 95 % Wilson intervals of a class; None where the share itself is None.

    Attributes:
        precision: Lower and upper end.
        recall: Lower and upper end.
    """

    precision: tuple[float, float] | None
    recall: tuple[float, float] | None


def class_intervals(evaluation: Evaluation) -> tuple[ClassInterval, ...]:
    """The intervals of every class, in label order."""
    taken = [sum(column) for column in zip(*evaluation.confusion, strict=True)]

    def interval(hits: int, total: int) -> tuple[float, float] | None:
        return wilson_interval(hits, total) if total else None

    return tuple(
        ClassInterval(interval(row[index], taken[index]), interval(row[index], sum(row)))
        for index, row in enumerate(evaluation.confusion)
    )


def wilson_interval(correct: int, examples: int) -> tuple[float, float]:
    """The 95 % confidence interval of an accuracy.

    Unlike the normal approximation it stays within 0 and 1 and is right for few examples.

    Args:
        correct: Number of successes.
        examples: Number of trials, at least 1.

    Returns:
        Lower and upper end.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    share = correct / examples
    scale = 1 + _Z**2 / examples
    centre = (share + _Z**2 / (2 * examples)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / examples + _Z**2 / (4 * examples**2))
    # Rounding would put an end of it on the wrong side of a share of 0 or 1.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def percent(share: float) -> str:
    """A share as text, rounded down, so that it never looks better than it is."""
    return f"{math.floor(share * 1e4 + 1e-6) / 100:.2f} %"


def load_evaluation(path: Path) -> Evaluation:
    """Reads the JSON file that `evaluate_model` writes.

    Raises:
        DataError: The file is absent, damaged, or no evaluation.
    """
    try:
        return build(Evaluation, read_mapping(str(path)))
    except UserError as error:
        raise DataError(
            f"evaluation {path}: expected evaluate_model's JSON file ({error})"
        ) from error
