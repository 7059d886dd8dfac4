"""TFRecord shards: names that carry their counts, writing, and an integrity check.

A TFRecord file is a row of records, each
    uint64 length | uint32 masked CRC32C of length | payload | uint32 masked CRC32C of payload
so a cut or a flipped bit shows when the file is read. That a whole record is missing at the end
does not, which is why the name of a shard ends in `-COUNT.tfrec` and the count is checked.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow as tf

from components.common.errors import DataError

_COUNT = re.compile(r"-(\d+)\.tfrec$")


def shard_name(split: str, index: int, shards: int, count: int) -> str:
    """Name of a shard, e.g. `train-00003-of-00016-230.tfrec`."""
    return f"{split}-{index:05d}-of-{shards:05d}-{count}.tfrec"


def shard_count(path: Path) -> int:
    """Number of examples in a shard, from its name alone.

    Raises:
        DataError: The name does not end in `-COUNT.tfrec`.
    """
    found = _COUNT.search(path.name)
    if not found:
        raise DataError(f"shard {path}: expected a name that ends in -COUNT.tfrec")
    return int(found[1])


def write_shard(path: Path, payloads: Iterable[bytes]) -> int:
    """Writes a shard and returns how many examples it holds."""
    count = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in payloads:
            writer.write(payload)
            count += 1
    return count


def read_shard(path: Path) -> Iterator[bytes]:
    """Reads the payloads of a shard in order, every CRC checked.

    Raises:
        DataError: A record is damaged or cut, or there are not as many as the name says.
    """
    expected = shard_count(path)
    count = 0
    try:
        for payload in tf.data.TFRecordDataset(str(path)):
            yield payload.numpy()
            count += 1
    except tf.errors.OpError as error:
        raise DataError(
            f"shard {path}: damaged behind example {count}: {error.message}; ingest the photos anew"
        ) from error
    if count != expected:
        raise DataError(
            f"shard {path}: expected {expected} examples as its name says, found {count}; "
            "ingest the photos anew"
        )
