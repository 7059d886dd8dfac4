"""The page about the evaluation: accuracy, confusion, per-class figures, the worst mistakes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from markupsafe import Markup

from components.common import html
from components.common.evaluation import Evaluation, percent


class Mistake(Protocol):
    """A test example that was taken for another class."""

    @property
    def jpeg(self) -> bytes:
        """The stored image."""

    @property
    def label(self) -> int:
        """The true class, as an index."""

    @property
    def probabilities(self) -> np.ndarray:
        """`float32` [classes]."""


def write_report(evaluation: Evaluation, mistakes: Sequence[Mistake], path: Path) -> None:
    """Writes the page as one HTML file."""
    sections = [
        html.Section("Evaluation", _figures(evaluation)),
        html.Section("Confusion matrix", _confusion(evaluation)),
        html.Section("Classes", _classes(evaluation)),
        html.Section("Worst mistakes", _mistakes(evaluation, mistakes)),
    ]
    html.write_page(path, "Evaluation report", sections)


def _figures(evaluation: Evaluation) -> Markup:
    return html.figures(
        {
            "Test accuracy": percent(evaluation.accuracy),
            "95 % interval": " to ".join(
                percent(end) for end in (evaluation.accuracy_low, evaluation.accuracy_high)
            ),
            "Correct": f"{evaluation.correct} of {evaluation.examples}",
            "Loss": f"{evaluation.loss:.3f}",
            "Test images in train": f"{evaluation.train_overlap}",
        }
    )


def _confusion(evaluation: Evaluation) -> Markup:
    counts = np.array(evaluation.confusion)
    names = evaluation.class_names
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.55 * len(names)
    drawn = html.new_figure(side + 1, side)
    axes = drawn.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    for (row, column), count in np.ndenumerate(counts):
        # On the map itself, so the colour follows the cell and not the page.
        ink = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=ink)
    confused = [
        f"{counts[i, j]} {names[i]} taken for {names[j]}"
        for i, j in np.argwhere(counts > 0)
        if i != j
    ]
    return html.figure(drawn, "Confusion matrix: " + (", ".join(confused) or "no mistakes"))


def _classes(evaluation: Evaluation) -> Markup:
    rows = [
        (one.name, one.examples, _percent_or_dash(one.precision), _percent_or_dash(one.recall))
        for one in evaluation.classes
    ]
    columns = ["Class", "Test examples", "Precision", "Recall"]
    return html.table(columns, rows, "How each class was recognised")


def _percent_or_dash(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _mistakes(evaluation: Evaluation, mistakes: Sequence[Mistake]) -> Markup:
    if not mistakes:
        return html.paragraph("There are none.")
    rows: dict[str, list[bytes]] = {}
    names = evaluation.class_names
    for one in mistakes:
        predicted = names[int(np.argmax(one.probabilities))]
        rows.setdefault(f"{names[one.label]} taken for {predicted}", []).append(one.jpeg)
    intro = "The test photos on which the model was most sure and wrong."
    return html.paragraph(intro) + html.contact_sheet(rows)
