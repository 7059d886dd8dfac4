"""TFRecord shards: names that carry their counts, writing, and an integrity check.

A TFRecord file is a row of records, each
    uint64 length | uint32 masked CRC32C of length | payload | uint32 masked CRC32C of payload
so a cut or a flipped bit shows when the file is read. That a whole record is missing at the end
does not, which is why the name of a shard ends in `-COUNT.tfrec` and the count is checked.

Needs no TensorFlow. Source of the format: tensorflow/core/lib/io/record_writer.h.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import google_crc32c

from components.common.errors import DataError

_COUNT = re.compile(r"-(\d+)\.tfrec$")
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER = _LENGTH.size + _CRC.size
# What a damaged length may ask for at most; no example of ours comes near.
_MAX_PAYLOAD = 1 << 30
_PIECE = 1 << 24


def shard_name(split: str, index: int, shards: int, count: int) -> str:
    """Name of a shard, e.g. `train-00003-of-00016-230.tfrec`."""
    return f"{split}-{index:05d}-of-{shards:05d}-{count}.tfrec"


def shard_count(path: Path) -> int:
    """Number of examples in a shard, from its name alone.

    Raises:
        DataError: The name does not end in `-COUNT.tfrec`.
    """
    count = count_in_name(path.name)
    if count is None:
        raise DataError(f"shard {path}: expected a name that ends in -COUNT.tfrec")
    return count


def count_in_name(name: str) -> int | None:
    """The number of examples that a name ends in, or None where it ends otherwise."""
    found = _COUNT.search(name)
    return int(found[1]) if found else None


def frame(payload: bytes) -> bytes:
    """One record as it stands in a file."""
    length = _LENGTH.pack(len(payload))
    return b"".join([length, _masked_crc(length), payload, _masked_crc(payload)])


def _masked_crc(content: bytes) -> bytes:
    """The CRC32C as TFRecord stores it, so that a CRC over a CRC is no fixed point."""
    crc = google_crc32c.value(content)
    return _CRC.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def write_shard(path: Path, payloads: Iterable[bytes]) -> int:
    """Writes a shard and returns how many examples it holds."""
    count = 0
    with path.open("wb") as file:
        for payload in payloads:
            file.write(frame(payload))
            count += 1
    return count


class Record(NamedTuple):
    """One record of a file, or a place where one should be.

    Attributes:
        offset: Where it starts in the file, in bytes.
        length: Length of the payload, in bytes; -1 where nobody knows it.
        payload: The bytes, or None where they are damaged.
        damage: What is wrong with it; empty for a good record.
    """

    offset: int
    length: int
    payload: bytes | None
    damage: str = ""


def read_records(file: BinaryIO) -> Iterator[Record]:
    """Reads a file of records to its end, damaged ones included.

    Behind a damaged payload the next record is read as usual. Behind a damaged length nobody knows
    where the next one starts, so that is the last one given.
    """
    offset = 0
    while header := file.read(_HEADER):
        record = _read_record(file, header, offset)
        yield record
        if record.length < 0:
            return
        offset += _HEADER + record.length + _CRC.size


def _read_record(file: BinaryIO, header: bytes, offset: int) -> Record:
    if len(header) < _HEADER:
        return Record(offset, -1, None, "cut in the middle of a record")
    (length,) = _LENGTH.unpack_from(header)
    if header[_LENGTH.size :] != _masked_crc(header[: _LENGTH.size]) or length > _MAX_PAYLOAD:
        return Record(offset, -1, None, "the checksum of a length is wrong")
    payload = _read_up_to(file, length)
    crc = file.read(_CRC.size)
    if len(payload) < length or len(crc) < _CRC.size:
        return Record(offset, -1, None, "cut in the middle of a record")
    if crc != _masked_crc(payload):
        return Record(offset, length, None, "the checksum of a record is wrong")
    return Record(offset, length, payload)


def _read_up_to(file: BinaryIO, length: int) -> bytes:
    """Reads so many bytes, or what there is; asks for memory only as the bytes come."""
    if length <= _PIECE:
        return file.read(length)
    pieces = []
    while length > 0 and (piece := file.read(min(length, _PIECE))):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def payload_place(record: Record) -> tuple[int, int]:
    """Where the payload of a record stands in its file: offset and length."""
    return record.offset + _HEADER, record.length


def read_shard(path: Path) -> Iterator[bytes]:
    """Reads the payloads of a shard in order, every CRC checked.

    Raises:
        DataError: A record is damaged or cut, or there are not as many as the name says.
    """
    expected = shard_count(path)
    count = 0
    try:
        with path.open("rb") as file:
            for record in read_records(file):
                if record.payload is None:
                    raise DataError(
                        f"shard {path}: damaged behind example {count}: {record.damage}; "
                        "ingest the photos anew"
                    )
                yield record.payload
                count += 1
    except OSError as error:
        raise DataError(
            f"shard {path}: damaged behind example {count}: {error.strerror}; "
            "ingest the photos anew"
        ) from error
    if count != expected:
        raise DataError(
            f"shard {path}: expected {expected} examples as its name says, found {count}; "
            "ingest the photos anew"
        )
