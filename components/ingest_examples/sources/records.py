"""TFRecord shards in the public flowers schema, e.g. `gs://flowers-public/tfrecords-jpeg-192x192-2`.

Every record is looked at before anything is written: its checksums, its features, the size it says
its image has, and the range of its class. One that fails is listed and rejected like a bad photo,
and so is every record that the name of a shard counts and the shard does not hold.
"""

import dataclasses
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

import simplejpeg

from components.common import storage
from components.common.errors import DataError
from components.common.example_proto import CLASS, IMAGE, LABEL, ONE_HOT_CLASS, SIZE, Features
from components.common.files import DATASET_FILE
from components.common.resizing import resize_of
from components.common.tfrecords import Record, count_in_name, payload_place, read_records
from components.ingest_examples.sources.base import Listing, Photo, check_class_names
from components.ingest_examples.sources.folders import Tree

# No example is smaller, its framing included, in bytes.
_SMALLEST_EXAMPLE = 128
# A shard that was cut may have lost so many, whatever is left of it.
_LOST_BY_A_CUT = 100_000
# Digits of the number of a record in its name, at least.
_DIGITS = 6


class _Found(NamedTuple):
    """A record as its features describe it."""

    name: str
    place: str
    split: str
    label: int
    class_name: str
    damage: str


@dataclasses.dataclass(frozen=True)
class RecordReader:
    """Reads the images of records; the place of a photo is `shard:offset:length`.

    Attributes:
        shards: Places of the shards, by their number.
    """

    shards: tuple[str, ...]

    def read(self, photos: Sequence[Photo]) -> Iterator[bytes | OSError]:
        """Reads neighbours of a shard in one go."""
        for shard, group in groupby(photos, lambda photo: int(photo.place.split(":")[0])):
            places = [tuple(map(int, photo.place.split(":")[1:])) for photo in group]
            start = min(offset for offset, _ in places)
            end = max(offset + length for offset, length in places)
            (content,) = storage.read_spans(self.shards[shard], [(start, end - start)])
            for offset, length in places:
                yield _image(content[offset - start : offset - start + length])


def _image(payload: bytes) -> bytes | OSError:
    try:
        return Features(payload).bytes(IMAGE)
    except DataError as error:
        # It was whole when it was listed.
        return OSError(f"the shard has changed: {error}")


def list_records(tree: Tree) -> Listing:
    """The images of all shards of a tree.

    Raises:
        DataError: There is no good record, classes cannot be named, or the number in the name of a
            shard is no count.
    """
    names = tree.shards()
    splits = tree.split_folders()
    reader = RecordReader(tuple(storage.join(tree.images, name) for name in names))
    found = [
        record
        for number, name in enumerate(names)
        for record in _records(number, name, splits.get(name.split("/")[0], ""), reader)
    ]
    class_names = _class_names(tree.images, found)
    # As they lie in the shards: sorted by name, number 1000000 would come before 100001.
    photos = [_photo(record, class_names) for record in found]
    return Listing(class_names, photos, reader, _resize(tree))


def _resize(tree: Tree) -> str:
    """How the photos of a data set of ours became squares; empty for the shards of others."""
    if DATASET_FILE not in tree.files:
        return ""
    place = storage.join(tree.images, DATASET_FILE)
    try:
        return resize_of(json.loads(storage.read(place)))
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror})") from error
    except (ValueError, AttributeError) as error:
        raise DataError(f"{place}: not a data set description ({error})") from error


def _records(number: int, name: str, split: str, reader: RecordReader) -> Iterator[_Found]:
    index = 0
    with _open(reader.shards[number]) as file:
        for index, record in enumerate(read_records(file), start=1):
            yield _look_at(number, _name(name, index - 1), split, record)
        size = file.seek(0, io.SEEK_END)
    counted = count_in_name(name) or 0
    if counted > index:
        _check_count(reader.shards[number], counted, size)
    for missing in range(index, counted):
        damage = f"the name of the shard counts it, the shard ends after {index}"
        yield _Found(_name(name, missing), "", split, -1, "", damage)


def _name(shard: str, index: int) -> str:
    return f"{shard}#{index:0{_DIGITS}d}"


def _check_count(place: str, counted: int, size: int) -> None:
    """Refuses a number that a shard cannot have held, such as a date: each takes memory."""
    most = max(size // _SMALLEST_EXAMPLE, _LOST_BY_A_CUT)
    if counted > most:
        raise DataError(
            f"shard {place}: expected at most {most} records in {size} bytes, found {counted} as "
            "the count that its name ends in; rename it, so that it ends in -COUNT.tfrec or "
            "without such a number"
        )


def _open(place: str) -> BinaryIO:
    try:
        if storage.is_remote(place):
            return io.BytesIO(storage.read(place))
        return Path(place).open("rb")
    except OSError as error:
        raise DataError(f"shard {place}: cannot be read ({error.strerror})") from error


def _look_at(number: int, name: str, split: str, record: Record) -> _Found:
    if record.payload is None:
        return _Found(name, "", split, -1, "", record.damage)
    try:
        label, class_name = _check(Features(record.payload))
    except DataError as error:
        return _Found(name, "", split, -1, "", str(error))
    offset, length = payload_place(record)
    return _Found(name, f"{number}:{offset}:{length}", split, label, class_name, "")


def _check(features: Features) -> tuple[int, str]:
    """Class and its name, if all features are what they should be.

    Raises:
        DataError: Names the feature.
    """
    (label,) = features.ints(CLASS, 1)
    one_hot = features.floats(ONE_HOT_CLASS)
    if not 0 <= label < len(one_hot):
        raise DataError(f"class {label}: expected 0 to {len(one_hot) - 1}")
    if [float(index == label) for index in range(len(one_hot))] != one_hot:
        raise DataError(f"one_hot_class does not say {label} as class does")
    try:
        class_name = features.bytes(LABEL).decode()
    except UnicodeDecodeError as error:
        raise DataError("label is not text in UTF-8") from error
    if not class_name:
        raise DataError("label is empty")
    _check_size(features.ints(SIZE, 2), features.bytes(IMAGE))
    return label, class_name


def _check_size(size: list[int], jpeg: bytes) -> None:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        raise DataError(f"image is not a JPEG ({error})") from error
    if size != [height, width]:
        raise DataError(f"size says {size}, the image has {[height, width]}")


def _class_names(images: str, found: Sequence[_Found]) -> tuple[str, ...]:
    """The name of each class: what most records with that number call it."""
    votes: dict[int, Counter[str]] = defaultdict(Counter)
    for record in found:
        if not record.damage:
            votes[record.label][record.class_name] += 1
    names = [votes[label].most_common(1)[0][0] for label in sorted(votes)]
    if sorted(votes) != list(range(len(votes))) or len(set(names)) < len(names):
        listed = ", ".join(
            f"{label} {name!r}" for label, name in zip(sorted(votes), names, strict=True)
        )
        raise DataError(
            f"--images {images}: expected classes 0, 1, 2, ... each with a name of its own, "
            f"found {listed}"
        )
    if not names:
        first = next((record for record in found), None)
        reason = f"the first is {first.name}: {first.damage}" if first else "there is none at all"
        raise DataError(f"--images {images}: found no good record ({reason})")
    return check_class_names(images, names, "add records of each further class")


def _photo(record: _Found, class_names: tuple[str, ...]) -> Photo:
    damage = record.damage
    if not damage and class_names[record.label] != record.class_name:
        damage = f"class {record.label} is {class_names[record.label]!r}, label says "
        damage += repr(record.class_name)
    class_name = "" if damage else class_names[record.label]
    return Photo(record.name, class_name, record.place, record.split, damage)
