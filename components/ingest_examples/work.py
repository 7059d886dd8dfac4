"""The two functions that do all the work, wherever they run.

`prepare_part` turns a run of photos into a file of images; `write_shard` turns a row of such images
into a shard. Between the two, one process decides what goes where (`plan.py`). Both write what
their task says and nothing else, so the same task gives the same bytes in a process of this machine
and on a worker of Dataflow, once or several times.
"""

import dataclasses
import hashlib
from collections import defaultdict
from typing import NamedTuple

from components.common import storage
from components.common.example_proto import encode_example
from components.common.tfrecords import frame
from components.ingest_examples.ledger import Row
from components.ingest_examples.photos import Prepared, Reason, prepare
from components.ingest_examples.sources.base import NO_LABEL, Photo, Reader


@dataclasses.dataclass(frozen=True)
class PartTask:
    """Photos to prepare.

    Attributes:
        reader: Reads them.
        photos: Neighbours in the listing.
        image_size: Side of the stored square images, in pixels.
        place: File to write, the images one after the other.
    """

    reader: Reader
    photos: tuple[Photo, ...]
    image_size: int
    place: str


class Image(NamedTuple):
    """A prepared image, where it lies, and its label."""

    place: str
    offset: int
    length: int
    label: int


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """A shard to write.

    Attributes:
        place: File to write.
        images: Its examples, in order.
        class_names: Every class, in label order.
        image_size: Side of the images, in pixels.
    """

    place: str
    images: tuple[Image, ...]
    class_names: tuple[str, ...]
    image_size: int


def prepare_part(task: PartTask) -> list[Row]:
    """Reads, checks, crops, resizes and encodes photos; a row for each, in order."""
    contents = iter(task.reader.read([photo for photo in task.photos if not photo.damage]))
    rows, images, offset = [], [], 0
    for photo in task.photos:
        ready = (
            _rejected(photo.damage) if photo.damage else prepare(next(contents), task.image_size)
        )
        rows.append(
            Row(
                ready.sha256,
                ready.phash,
                ready.width,
                ready.height,
                offset,
                len(ready.jpeg),
                ready.reason,
                ready.detail,
            )
        )
        images.append(ready.jpeg)
        offset += len(ready.jpeg)
    storage.write(task.place, b"".join(images))
    return rows


def _rejected(damage: str) -> Prepared:
    reason = Reason.NO_LABEL if damage == NO_LABEL else Reason.DAMAGED
    return Prepared(reason=reason, detail=damage)


def write_shard(task: ShardTask) -> list[bytes]:
    """Writes a shard; the SHA-256 of each of its records, in order."""
    jpegs = read_images(task.images)
    digests, records = [], []
    for jpeg, image in zip(jpegs, task.images, strict=True):
        payload = encode_example(jpeg, image.label, task.class_names, task.image_size)
        digests.append(hashlib.sha256(payload).digest())
        records.append(frame(payload))
    storage.write(task.place, b"".join(records))
    return digests


def read_images(images: tuple[Image, ...]) -> list[bytes]:
    """Reads prepared images, in order; each file is opened once."""
    by_place: dict[str, list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        by_place[image.place].append(index)
    jpegs = [b""] * len(images)
    for place, indices in by_place.items():
        spans = [(images[index].offset, images[index].length) for index in indices]
        for index, jpeg in zip(indices, storage.read_spans(place, spans), strict=True):
            jpegs[index] = jpeg
    return jpegs
