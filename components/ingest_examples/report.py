"""The page about the data: what was read, what was written, and what was not and why."""

from collections import Counter
from pathlib import Path

import numpy as np
from markupsafe import Markup

from components.common import html
from components.common.dataset import SPLITS, Dataset
from components.common.resizing import CROP, STRETCH
from components.ingest_examples.ledger import IngestResult
from components.ingest_examples.splits import NEAR_DUPLICATE_BITS

_ROWS = 200
_SIZE_RANGES = 8
_SQUARES = {CROP: "the middle of each photo", STRETCH: "all of each photo, stretched"}
_NAMES = 6
# Classes of which the page has pictures.
CLASSES_SHOWN = 20


def write_report(result: IngestResult, images: str, path: Path) -> None:
    """Writes the page as one HTML file."""
    sections = [
        html.Section("Data", _summary(result, images)),
        html.Section("Pictures", _pictures(result)),
        html.Section("Sizes of the photos", _sizes(result)),
        html.Section("Rejected photos", _rejects(result)),
        html.Section("Photos that look alike", _near_duplicates(result)),
    ]
    html.write_page(path, "Data report", sections)


def _pictures(result: IngestResult) -> Markup:
    sheet, classes = result.contact_sheet, len(result.dataset.class_names)
    left_out = f"The first {len(sheet)} of {classes} classes." if len(sheet) < classes else ""
    return (html.paragraph(left_out) if left_out else Markup()) + html.contact_sheet(sheet)


def _summary(result: IngestResult, images: str) -> Markup:
    values = {
        "Read": f"{len(result.ledger)}",
        "Written": f"{result.written}",
        "Rejected": f"{result.rejected.total()}",
        "Image size": f"{result.dataset.image_size} px, {_SQUARES[result.dataset.resize]}",
        "Fingerprint": result.dataset.fingerprint[:12],
    }
    return (
        html.paragraph(f"Photos from {images}.")
        + html.figures(values)
        + _classes(result.ledger.counts(), result.dataset)
    )


def _classes(counts: Counter[tuple[str, str]], dataset: Dataset) -> Markup:
    """Examples per class and split, as numbers and as bars; however many classes there are."""
    per_class = [[counts[name, split] for split in SPLITS] for name in dataset.class_names]
    most = max(map(sum, per_class))
    rows = [
        [name, *numbers, html.stacked_bar(numbers, most)]
        for name, numbers in zip(dataset.class_names, per_class, strict=True)
    ]
    rows.append(["all", *(dataset.counts[split] for split in SPLITS), ""])
    columns = ["Class", *(html.legend(place, split) for place, split in enumerate(SPLITS)), ""]
    return html.table(columns, rows, "Examples per class and split")


def _sizes(result: IngestResult) -> Markup:
    ledger = result.ledger
    sides = ledger.sides[ledger.usable()].min(axis=1)
    # Edges are whole pixels, and the last range has its upper edge too.
    edges = np.unique(np.linspace(sides.min(), sides.max() + 1, _SIZE_RANGES + 1).round())
    counts, _ = np.histogram(sides, edges)
    rows = [
        [f"{low:.0f} to {high - 1:.0f} px", int(count), html.stacked_bar([count], counts.max())]
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    small = int((sides < result.dataset.image_size).sum())
    return html.table(["Short side", "Photos", ""], rows, "Short sides of the photos") + (
        html.paragraph(
            f"{small} of {len(sides)} photos have a side below the stored size of "
            f"{result.dataset.image_size} px and were enlarged."
        )
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
