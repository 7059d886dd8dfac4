"""Does every exported file say what the evaluated model says?"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.common.files import file_digest
from components.export_model.formats import Written


@dataclasses.dataclass(frozen=True)
class FormatCheck:
    """How an exported file did on the test split, beside the evaluated model.

    Attributes:
        name: What people call the format.
        file: Its name in the folder of exports.
        size: In bytes.
        sha256: Of a file; empty for a folder.
        examples: Number of test examples.
        accuracy: Top-1 accuracy of the file.
        accuracy_difference: That accuracy less the evaluated model's; negative where it loses.
        agreement: Share of the examples on which both have the same most probable class.
        largest_difference: Of any probability.
        flagged: Whether it loses more accuracy than its format may.
    """

    name: str
    file: str
    size: int
    sha256: str
    examples: int
    accuracy: float
    accuracy_difference: float
    agreement: float
    largest_difference: float
    flagged: bool


def answers(probabilities: np.ndarray) -> np.ndarray:
    """Index of the likeliest class of each row, `int64` [batch]; -1 where one is no number.

    Args:
        probabilities: `float32` [batch, classes].
    """
    finite = np.isfinite(probabilities).all(axis=1)
    return np.where(finite, probabilities.argmax(axis=1), -1)


class Tally:
    """Counts for one file, batch by batch."""

    def __init__(self, written: Written) -> None:
        self.written = written
        self._seen = self._right = self._expected_right = self._agreed = 0
        self._largest = 0.0

    def add(self, expected: np.ndarray, received: np.ndarray, labels: np.ndarray) -> None:
        """Takes the probabilities of a batch in, `float32` [batch, classes] both."""
        former, answer = answers(expected), answers(received)
        self._seen += len(labels)
        self._right += int((answer == labels).sum())
        self._expected_right += int((former == labels).sum())
        self._agreed += int((former == answer).sum())
        # No probability is further from another than 1, and what is no number is as wrong.
        apart = np.nan_to_num(np.abs(expected - received), nan=1.0, posinf=1.0)
        self._largest = max(self._largest, float(apart.max()))

    def check(self) -> FormatCheck:
        """What came of it."""
        lost = (self._expected_right - self._right) / self._seen
        path = self.written.path
        return FormatCheck(
            name=self.written.name,
            file=self.written.file or path.name,
            size=_size(path),
            sha256=file_digest(path) if path.is_file() else "",
            examples=self._seen,
            accuracy=self._right / self._seen,
            accuracy_difference=round(-lost, 12) + 0.0,
            agreement=self._agreed / self._seen,
            largest_difference=self._largest,
            flagged=not lost <= self.written.tolerance,
        )


def _size(path: Path) -> int:
    files: Sequence[Path] = [path] if path.is_file() else [*path.rglob("*")]
    return sum(file.stat().st_size for file in files if file.is_file())
