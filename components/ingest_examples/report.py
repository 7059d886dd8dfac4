"""The page about the data: what was read, what was written, and what was not and why."""

from collections import Counter
from pathlib import Path

import numpy as np
from markupsafe import Markup

from components.common import html
from components.common.dataset import SPLITS
from components.ingest_examples.ledger import IngestResult

_ROWS = 200


def write_report(result: IngestResult, images: str, path: Path) -> None:
    """Writes the page as one HTML file."""
    sections = [
        html.Section("Data", _summary(result, images)),
        html.Section("Pictures", html.contact_sheet(result.contact_sheet)),
        html.Section("Sizes of the photos", _sizes(result)),
        html.Section("Rejected photos", _rejects(result)),
        html.Section("Photos that look alike", _near_duplicates(result)),
    ]
    html.write_page(path, "Data report", sections)


def _summary(result: IngestResult, images: str) -> Markup:
    values = {
        "Read": f"{len(result.entries)}",
        "Written": f"{result.written}",
        "Rejected": f"{result.rejected.total()}",
        "Image size": f"{result.dataset.image_size} px",
        "Fingerprint": result.dataset.fingerprint[:12],
    }
    counts = Counter((entry.class_name, entry.split) for entry in result.entries)
    names = result.dataset.class_names
    rows = [[name, *(counts[name, split] for split in SPLITS)] for name in names]
    rows.append(["all", *(result.dataset.counts[split] for split in SPLITS)])
    return (
        html.paragraph(f"Photos from {images}.")
        + html.figures(values)
        + html.table(["Class", *SPLITS], rows, "Examples per class and split")
        + _class_chart(counts, names)
    )


def _class_chart(counts: Counter[tuple[str, str]], names: tuple[str, ...]) -> Markup:
    drawn = html.new_figure(height=0.8 + 0.35 * len(names))
    axes = drawn.subplots()
    left = np.zeros(len(names))
    for split in SPLITS:
        widths = np.array([counts[name, split] for name in names])
        axes.barh(names, widths, left=left, label=split, height=0.65)
        left += widths
    axes.invert_yaxis()
    axes.set_xlabel("examples")
    axes.legend(frameon=False, ncols=len(SPLITS), loc="lower left", bbox_to_anchor=(0, 1))
    return html.figure(drawn, "Bars: examples per class, divided into the three splits")


def _sizes(result: IngestResult) -> Markup:
    sides = [min(entry.width, entry.height) for entry in result.entries if not entry.reason]
    drawn = html.new_figure(height=2.4)
    axes = drawn.subplots()
    axes.hist(sides, bins=30)
    axes.axvline(result.dataset.image_size, linestyle="--", color=html.COLOURS[1])
    axes.set_xlabel("short side in pixels; the dashed line is the stored size")
    axes.set_ylabel("photos")
    small = sum(side < result.dataset.image_size for side in sides)
    return html.figure(drawn, "Histogram of the short sides of the photos") + html.paragraph(
        f"{small} of {len(sides)} photos are smaller than the stored size and were enlarged."
    )


def _rejects(result: IngestResult) -> Markup:
    rejected = [entry for entry in result.entries if entry.reason]
    if not rejected:
        return html.paragraph("None: every photo that was read was written.")
    reasons = html.table(
        ["Reason", "Photos"], result.rejected.most_common(), "Rejected photos by reason"
    )
    rows = [(entry.name, entry.reason, entry.detail) for entry in rejected[:_ROWS]]
    caption = f"{len(rejected)} rejected, of which at most {_ROWS} are shown; photos.csv has all"
    return reasons + html.table(["Photo", "Reason", "Detail"], rows, caption)


def _near_duplicates(result: IngestResult) -> Markup:
    pairs = result.near_duplicates
    if not pairs:
        return html.paragraph("None were found.")
    labels = {entry.name: entry.class_name for entry in result.entries}
    rows = [
        (first, second, "yes" if labels[first] == labels[second] else "no, look at these")
        for first, second in sorted(pairs, key=lambda pair: labels[pair[0]] == labels[pair[1]])
    ]
    columns = ["Photo", "looks like", "Same label"]
    caption = f"{len(pairs)} pairs, of which at most {_ROWS} are shown"
    return html.table(columns, rows[:_ROWS], caption)
