"""Import files of Vertex AI for single-label image classification: CSV and JSON Lines.

    [ML_USE,]gs://bucket/photo.jpg,label
    {"imageGcsUri": "gs://bucket/photo.jpg", "classificationAnnotation": {"displayName": "label"},
     "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": "training"}}

A photo may also be named by a path, relative to the folder of the file.

Source: https://cloud.google.com/vertex-ai/docs/image-data/classification/prepare-data
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from components.common import gcs, storage
from components.common.errors import DataError
from components.ingest_examples.sources.base import (
    NO_LABEL,
    SPLIT_NAMES,
    Listing,
    Photo,
    check_class_names,
)
from components.ingest_examples.sources.buckets import PlaceReader

_UNASSIGNED = "unassigned"
_LABEL = "classificationAnnotation.displayName"
_ML_USE = "aiplatform.googleapis.com/ml_use"


class _Row(NamedTuple):
    number: int
    uri: str
    label: str
    split: str


def list_import_file(images: str) -> Listing:
    """The photos that an import file names.

    Args:
        images: The file, local or `gs://bucket/name`; ends in `.csv` or `.jsonl`.

    Raises:
        DataError: It cannot be read, or a row is not as above.
    """
    rows = list(_parse(images, _read_text(images)))
    if not rows:
        raise DataError(f"--images {images}: expected rows with a photo and its label, found none")
    labels = sorted({row.label for row in rows} - {""})
    names = check_class_names(images, labels, f"name the class of each photo in {_field(images)}")
    seen: Counter[str] = Counter()
    photos = []
    for row in rows:
        seen[row.uri] += 1
        # Named twice, it is read twice: whether the labels agree shows with the other duplicates.
        name, listed_as = row.uri, ""
        if seen[row.uri] > 1:
            name, listed_as = f"{row.uri} (row {row.number})", row.uri
        damage = "" if row.label else NO_LABEL
        place = _resolve(images, row.uri)
        photos.append(Photo(name, row.label, place, row.split, damage, listed_as))
    return Listing(names, sorted(photos, key=lambda photo: photo.name), PlaceReader())


def _read_text(images: str) -> str:
    try:
        return storage.read(images).decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"--images {images}: cannot be read ({error.strerror}); expected an import file"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"--images {images}: expected text in UTF-8 ({error})") from error


def _resolve(images: str, uri: str) -> str:
    if storage.is_remote(uri):
        return uri
    if storage.is_remote(images):
        return storage.join(images.rpartition("/")[0], uri)
    return str(Path(images).parent / uri)


def _is_csv(images: str) -> bool:
    return images.lower().endswith(".csv")


def _field(images: str) -> str:
    """Where a row says the class of its photo."""
    return "LABEL of [ML_USE,]URI,LABEL" if _is_csv(images) else _LABEL


def _parse(images: str, text: str) -> Iterator[_Row]:
    parse = _parse_csv if _is_csv(images) else _parse_json_lines
    try:
        yield from parse(text)
    except (csv.Error, ValueError) as error:
        raise DataError(f"--images {images}: {error}") from error


def _parse_csv(text: str) -> Iterator[_Row]:
    for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), start=1):
        values = [cell.strip() for cell in cells]
        if not any(values):
            continue
        split = ""
        if values[0].lower() in (*SPLIT_NAMES, _UNASSIGNED):
            split = _split(values.pop(0), number)
        if len(values) > 2 and any(values[2:]):
            raise ValueError(
                f"row {number}: expected [ML_USE,]URI,LABEL, found {len(values) - 1} labels; "
                "one label per photo"
            )
        uri, label = [*values, "", ""][:2]
        yield _row(number, uri, label, split)


def _parse_json_lines(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield _parse_json_line(number, line)


def _parse_json_line(number: int, line: str) -> _Row:
    expected = f"expected imageGcsUri and {_LABEL}"
    try:
        content: Any = json.loads(line)
        annotation = content.get("classificationAnnotation") or {}
        label = annotation.get("displayName") or ""
        labels = content.get("dataItemResourceLabels") or {}
        use = labels.get(_ML_USE) or ""
        return _row(number, str(content["imageGcsUri"]), str(label), _split(str(use), number))
    except KeyError as error:
        raise ValueError(f"row {number}: {expected}, found no {error.args[0]}") from error
    except (json.JSONDecodeError, AttributeError, RecursionError) as error:
        raise ValueError(f"row {number}: {expected}, found {line[:60]!r}") from error


def _row(number: int, uri: str, label: str, split: str) -> _Row:
    if not uri or "\0" in uri:
        raise ValueError(f"row {number}: expected {gcs.SCHEME}BUCKET/NAME or a path, found {uri!r}")
    return _Row(number, uri, label, split)


def _split(use: str, number: int) -> str:
    word = use.lower()
    if word in ("", _UNASSIGNED):
        return ""
    if word not in SPLIT_NAMES:
        raise ValueError(
            f"row {number}: expected training, validation, test or unassigned as ML_USE, "
            f"found {use!r}"
        )
    return SPLIT_NAMES[word]
