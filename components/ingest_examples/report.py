"""The page about the data: what was read, what was written, and what was not and why."""

from collections import Counter
from pathlib import Path

import numpy as np
from markupsafe import Markup

from components.common import html
from components.common.dataset import SPLITS
from components.ingest_examples.ledger import IngestResult
from components.ingest_examples.splits import NEAR_DUPLICATE_BITS

_ROWS = 200
_NAMES = 6


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
        "Read": f"{len(result.ledger)}",
        "Written": f"{result.written}",
        "Rejected": f"{result.rejected.total()}",
        "Image size": f"{result.dataset.image_size} px",
        "Fingerprint": result.dataset.fingerprint[:12],
    }
    counts = result.ledger.counts()
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
    ledger = result.ledger
    sides = ledger.sides[ledger.usable()].min(axis=1)
    drawn = html.new_figure(height=2.4)
    axes = drawn.subplots()
    axes.hist(sides, bins=30)
    axes.axvline(result.dataset.image_size, linestyle="--", color=html.COLOURS[1])
    axes.set_xlabel("short side in pixels; the dashed line is the stored size")
    axes.set_ylabel("photos")
    small = int((sides < result.dataset.image_size).sum())
    return html.figure(drawn, "Histogram of the short sides of the photos") + html.paragraph(
        f"{small} of {len(sides)} photos are smaller than the stored size and were enlarged."
    )


def _rejects(result: IngestResult) -> Markup:
    rejected = result.ledger.rejected().tolist()
    if not rejected:
        return html.paragraph("None: every photo that was read was written.")
    reasons = html.table(
        ["Reason", "Photos"], result.rejected.most_common(), "Rejected photos by reason"
    )
    entries = map(result.ledger.entry, rejected[:_ROWS])
    rows = [(entry.name, entry.reason, entry.detail) for entry in entries]
    caption = f"{len(rejected)} rejected, of which at most {_ROWS} are shown; photos.csv has all"
    return reasons + html.table(["Photo", "Reason", "Detail"], rows, caption)


def _near_duplicates(result: IngestResult) -> Markup:
    groups = result.near_duplicates
    if not groups:
        return html.paragraph("None were found.")
    names = {name for group in groups for name in group}
    labels = {photo.name: photo.class_name for photo in result.ledger.photos if photo.name in names}
    rows = [
        (
            ", ".join(group[:_NAMES]) + (", ..." if len(group) > _NAMES else ""),
            len(group),
            "yes" if len({labels[name] for name in group}) == 1 else "no, look at these",
        )
        for group in groups
    ]
    rows.sort(key=lambda row: row[2] == "yes")
    caption = (
        f"{len(groups)} groups, of which at most {_ROWS} are shown: perceptual hashes at most "
        f"{NEAR_DUPLICATE_BITS} of 64 bits apart"
    )
    return html.table(["Photos", "How many", "Same label"], rows[:_ROWS], caption)
