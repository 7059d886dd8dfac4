"""The two functions that do all the work, wherever they run.

`prepare_part` turns a run of photos into a file of records; `write_shard` puts such records into a
shard. Between the two, one process decides what goes where (`plan.py`). Both write what their task
says and nothing else, so the same task gives the same bytes in a process of this machine and on a
worker of Dataflow, once or several times.
"""

import dataclasses
import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from components.common import storage
from components.common.example_proto import IMAGE, Features, encode_example
from components.common.tfrecords import frame, read_records
from components.ingest_examples.ledger import Row
from components.ingest_examples.photos import Prepared, Reason, prepare
from components.ingest_examples.sources.base import NO_LABEL, Photo, Reader


@dataclasses.dataclass(frozen=True)
class PartTask:
    """Photos to prepare.

    Attributes:
        reader: Reads them.
        photos: Neighbours in the listing.
        class_names: Every class, in label order.
        image_size: Side of the stored square images, in pixels.
        resize: How a photo becomes a square.
        place: File to write, the records one after the other.
    """

    reader: Reader
    photos: tuple[Photo, ...]
    class_names: tuple[str, ...]
    image_size: int
    resize: str
    place: str


class Span(NamedTuple):
    """Where a record lies: a file, and offset and length in it, in bytes."""

    place: str
    offset: int
    length: int


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """A shard to write.

    Attributes:
        place: File to write.
        records: Its examples, in order.
    """

    place: str
    records: tuple[Span, ...]


def prepare_part(task: PartTask) -> list[Row]:
    """Reads, checks, resizes and encodes photos; a row for each, in order."""
    contents = iter(task.reader.read([photo for photo in task.photos if not photo.damage]))
    labels = {name: label for label, name in enumerate(task.class_names)}
    rows, records, offset = [], [], 0
    for photo in task.photos:
        ready = (
            _rejected(photo.damage)
            if photo.damage
            else prepare(next(contents), task.image_size, task.resize)
        )
        payload = record = b""
        if ready.jpeg:
            label = labels[photo.class_name]
            payload = encode_example(ready.jpeg, label, task.class_names, task.image_size)
            record = frame(payload)
        rows.append(
            Row(
                ready.sha256,
                ready.phash,
                ready.width,
                ready.height,
                offset,
                len(record),
                hashlib.sha256(payload).digest(),
                ready.reason,
                ready.detail,
            )
        )
        records.append(record)
        offset += len(record)
    storage.write(task.place, b"".join(records))
    return rows


def _rejected(damage: str) -> Prepared:
    reason = Reason.NO_LABEL if damage == NO_LABEL else Reason.DAMAGED
    return Prepared(reason=reason, detail=damage)


def write_shard(task: ShardTask) -> None:
    """Writes a shard, and waits for the disk here, where others need not wait too."""
    storage.write(task.place, b"".join(_read(task.records)), flush=True)


def read_images(records: Sequence[Span]) -> list[bytes]:
    """The encoded images of records, in order."""
    images = []
    for content in _read(records):
        (record,) = read_records(io.BytesIO(content))
        assert record.payload is not None, record.damage
        images.append(Features(record.payload).bytes(IMAGE))
    return images


def _read(records: Sequence[Span]) -> list[bytes]:
    """Reads records, in order; each file is opened once."""
    by_place: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        by_place[record.place].append(index)
    contents = [b""] * len(records)
    for place, indices in by_place.items():
        spans = [(records[index].offset, records[index].length) for index in indices]
        for index, content in zip(indices, storage.read_spans(place, spans), strict=True):
            contents[index] = content
    return contents
