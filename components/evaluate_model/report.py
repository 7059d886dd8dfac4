"""The page about the evaluation: accuracy, classes, confusion, calibration, the worst mistakes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from components.common import html, pictures
from components.common.evaluation import Evaluation, class_intervals, percent

# More classes than this are not told apart on one chart; the tables and evaluation.json have them.
_CLASSES_DRAWN = 40
_CLASSES_LISTED = 200
_COUNTS_DRAWN = 25
_SHOWN_PROBABILITIES = 3
_SHOWN_PAIRS = 10


class Mistake(NamedTuple):
    """A test example that was taken for another class.

    Attributes:
        jpeg: The stored image.
        label: The true class, as an index.
        probabilities: `float32` [classes].
        heat: Where the net looked, `float32` [height, width], 0 to 1; None where nobody asked.
    """

    jpeg: bytes
    label: int
    probabilities: np.ndarray
    heat: np.ndarray | None = None


def write_report(evaluation: Evaluation, mistakes: Sequence[Mistake], path: Path) -> None:
    """Writes the page as one HTML file."""
    sections = [
        html.Section("Evaluation", _figures(evaluation)),
        html.Section("Classes", _classes(evaluation)),
        html.Section("Confusion matrix", _confusion(evaluation)),
        html.Section("Calibration", _calibration(evaluation)),
        html.Section("Worst mistakes", _mistakes(evaluation, mistakes)),
    ]
    html.write_page(path, "Evaluation report", sections)


def _figures(evaluation: Evaluation) -> Markup:
    error = evaluation.calibration_error
    return html.figures(
        {
            "Test accuracy": percent(evaluation.accuracy),
            "95 % interval": _interval((evaluation.accuracy_low, evaluation.accuracy_high)),
            "Correct": f"{evaluation.correct} of {evaluation.examples}",
            "Loss": f"{evaluation.loss:.3f}",
            "Calibration error": "-" if error is None else f"{error:.3f}",
            "Test images in train": f"{evaluation.train_overlap}",
        }
    )


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else " to ".join(percent(end) for end in ends)


def _classes(evaluation: Evaluation) -> Markup:
    rows = [
        (
            one.name,
            one.examples,
            _percent_or_dash(one.precision),
            _interval(ends.precision),
            _percent_or_dash(one.recall),
            _interval(ends.recall),
        )
        for one, ends in zip(evaluation.classes, class_intervals(evaluation), strict=True)
    ]
    caption = "How each class was recognised, with 95 % intervals"
    if len(rows) > _CLASSES_LISTED:
        recalls = [one.recall or 0.0 for one in evaluation.classes]
        worst = sorted(range(len(rows)), key=recalls.__getitem__)[:_CLASSES_LISTED]
        rows = [rows[index] for index in worst]
        caption += f"; the {_CLASSES_LISTED} with the lowest recall of {len(recalls)}"
    columns = ["Class", "Test examples", "Precision", "Interval", "Recall", "Interval"]
    return _class_chart(evaluation) + html.table(columns, rows, caption)


def _class_chart(evaluation: Evaluation) -> Markup:
    names = evaluation.class_names
    if len(names) > _CLASSES_DRAWN:
        return Markup()
    drawn = html.new_figure(height=1.0 + 0.35 * len(names))
    axes = drawn.subplots()
    intervals = class_intervals(evaluation)
    for offset, kind in ((-0.14, "precision"), (0.14, "recall")):
        shares = [getattr(one, kind) for one in evaluation.classes]
        places = [index for index, share in enumerate(shares) if share is not None]
        ends = np.array([getattr(intervals[index], kind) for index in places]).reshape(-1, 2)
        values = np.array([shares[index] for index in places])
        spread = np.abs(ends.T - values)
        axes.errorbar(
            values, np.array(places) + offset, xerr=spread, fmt="o", markersize=4, label=kind
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share, with its 95 % interval")
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    told = ", ".join(
        f"{one.name} {_percent_or_dash(one.precision)} and {_percent_or_dash(one.recall)}"
        for one in evaluation.classes
    )
    return html.figure(drawn, f"Precision and recall of each class: {told}")


def _percent_or_dash(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _confusion(evaluation: Evaluation) -> Markup:
    counts = np.array(evaluation.confusion)
    names = evaluation.class_names
    pairs = sorted(
        ((int(counts[i, j]), names[i], names[j]) for i, j in np.argwhere(counts > 0) if i != j),
        key=lambda pair: -pair[0],
    )
    told = [f"{count} {true} taken for {taken}" for count, true, taken in pairs[:_CLASSES_DRAWN]]
    chart = html.figure(
        _draw_confusion(counts, names),
        "Confusion matrix: " + (", ".join(told) or "no mistakes"),
    )
    if not pairs:
        return chart
    rows = [(true, taken, count) for count, true, taken in pairs[:_SHOWN_PAIRS]]
    caption = f"The most frequent of {len(pairs)} confusions"
    return chart + html.table(["True class", "Taken for", "Examples"], rows, caption)


def _draw_confusion(counts: np.ndarray, names: tuple[str, ...]) -> Figure:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(2.2 + 0.55 * len(names), 9.0)
    drawn = html.new_figure(side + 1, side)
    axes = drawn.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    # With many classes every so many is named, or no name could be read.
    places = range(0, len(names), -(-len(names) // _CLASSES_DRAWN))
    shown = [names[place] for place in places]
    axes.set_xticks(places, shown, rotation=30 if len(names) < 12 else 90, ha="right")
    axes.set_yticks(places, shown)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    if len(names) <= _COUNTS_DRAWN:
        for (row, column), count in np.ndenumerate(counts):
            # On the map itself, so the colour follows the cell and not the page.
            ink = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=ink)
    return drawn


def _calibration(evaluation: Evaluation) -> Markup:
    bins = evaluation.calibration
    if not bins:
        return html.paragraph("The evaluation says nothing about it.")
    drawn = html.new_figure(height=3.4)
    left, right = drawn.subplots(1, 2, width_ratios=[1, 1])
    confidences = [one.confidence for one in bins]
    left.plot([0, 1], [0, 1], linestyle=":", color=html.COLOURS[2], label="as sure as right")
    left.plot(confidences, [one.accuracy for one in bins], marker="o", label="this model")
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    left.legend(frameon=False)
    widths = [one.high - one.low for one in bins]
    right.bar([one.low for one in bins], [one.examples for one in bins], widths, align="edge")
    right.set(xlim=(0, 1), xlabel="confidence", ylabel="test examples")
    told = "; ".join(
        f"at {one.confidence:.2f} right in {one.accuracy:.2f} of {one.examples}" for one in bins
    )
    error = evaluation.calibration_error or 0.0
    mean = sum(one.confidence * one.examples for one in bins) / evaluation.examples
    leaning = "more" if mean > evaluation.accuracy else "less"
    text = (
        f"Confidence and accuracy differ by {100 * error:.1f} points in the mean (expected "
        f"calibration error over {len(bins)} bins). The model is {leaning} sure ({mean:.1%} in the "
        f"mean) than it is right ({percent(evaluation.accuracy)})."
    )
    return html.paragraph(text) + html.figure(drawn, f"Reliability diagram: {told}")


def _mistakes(evaluation: Evaluation, mistakes: Sequence[Mistake]) -> Markup:
    if not mistakes:
        return html.paragraph("There are none.")
    intro = "The test photos on which the model was most sure and wrong."
    if any(one.heat is not None for one in mistakes):
        intro += (
            " Beside the first ones: where the net found what spoke for its answer (Grad-CAM; the "
            "warmer, the more)."
        )
    else:
        intro += " There is no Grad-CAM: the net has no feature map that says where it looked."
    return html.paragraph(intro) + html.gallery(
        [_card(one, evaluation.class_names) for one in mistakes]
    )


def _card(mistake: Mistake, names: tuple[str, ...]) -> html.Card:
    order = np.argsort(-mistake.probabilities, kind="stable")[:_SHOWN_PROBABILITIES]
    shown = [int(index) for index in order]
    if mistake.label not in shown:
        shown.append(mistake.label)
    title = f"{names[mistake.label]}, taken for {names[shown[0]]}"
    images = [(pictures.shrink(mistake.jpeg), title)]
    if mistake.heat is not None:
        overlay = pictures.overlay(mistake.jpeg, mistake.heat)
        images.append((overlay, f"Grad-CAM for {names[shown[0]]}"))
    bars = [
        (names[index], float(mistake.probabilities[index]), index == mistake.label)
        for index in shown
    ]
    return html.Card(title, images, bars)
