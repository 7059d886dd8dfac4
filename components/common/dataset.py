"""A folder of shards: what is in it, without reading a record.

DIR/dataset.json                     class names, image size, counts, fingerprint
DIR/train/train-00000-of-00004-580.tfrec ...
DIR/validation/... DIR/test/...      a step that makes one split only leaves the others out
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from components.common.config import build, read_mapping, to_json
from components.common.errors import DataError, UserError
from components.common.files import DATASET_FILE
from components.common.resizing import CROP
from components.common.tfrecords import shard_count, shard_name, write_shard

SPLITS = ("train", "validation", "test")
Payloads = Iterable[bytes]


@dataclasses.dataclass(frozen=True)
class SplitRule:
    """What decides the split of a photo beside its group; see `ingest_examples.splits`.

    Attributes:
        salt: Goes into the hash of a group.
        validation_fraction: Share of the groups that goes to validation.
        test_fraction: Share of the groups that goes to test.
        group_column: Column of the manifest that names the groups; empty for the photo's own hash.
    """

    salt: str
    validation_fraction: float
    test_fraction: float
    group_column: str = ""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Shards of one or more splits and what describes them.

    Attributes:
        path: The folder.
        class_names: Every class, in label order.
        image_size: Side of the square images, in pixels.
        counts: Number of examples per split.
        fingerprint: SHA-256 over the sorted digests of all records, in hexadecimal. The same
            photos with the same options have the same fingerprint wherever they were read.
        split_rule: What divided it; None where another step made it.
        source_fingerprint: Fingerprint of the data set it was made from; empty for one of photos.
        resize: How photos became squares; see `components.common.resizing`.
    """

    path: Path
    class_names: tuple[str, ...]
    image_size: int
    counts: dict[str, int]
    fingerprint: str
    split_rule: SplitRule | None = None
    source_fingerprint: str = ""
    resize: str = CROP

    def shards(self, split: str) -> list[Path]:
        """The shards of a split, in order.

        Raises:
            DataError: The split is absent, or its shards do not hold as many examples as
                `dataset.json` says.
        """
        if split not in self.counts:
            raise DataError(
                f"data set {self.path}: expected a split {split!r}, found {sorted(self.counts)}"
            )
        paths = sorted((self.path / split).glob("*.tfrec"))
        found = sum(shard_count(path) for path in paths)
        if found != self.counts[split]:
            raise DataError(
                f"data set {self.path}: expected {self.counts[split]} examples in split "
                f"{split!r}, the shard names count {found}; ingest the photos anew"
            )
        return paths


def describe_dataset(dataset: Dataset) -> str:
    """What `dataset.json` says of a data set."""
    content = dataclasses.asdict(dataset)
    del content["path"]
    return to_json(content)


def save_dataset(dataset: Dataset, folder: Path) -> None:
    """Writes `dataset.json` into `folder`, which may be a temporary one."""
    (folder / DATASET_FILE).write_text(describe_dataset(dataset), encoding="utf-8")


def fingerprint(digests: Iterable[tuple[str, bytes]]) -> str:
    """The fingerprint of a data set from the split and the SHA-256 of each of its records."""
    lines = sorted(f"{split} {digest.hex()}" for split, digest in digests)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class DatasetWriter:
    """Writes a data set shard by shard into a folder that exists, and knows its fingerprint."""

    def __init__(
        self,
        folder: Path,
        class_names: tuple[str, ...],
        image_size: int,
        source_fingerprint: str = "",
        resize: str = CROP,
    ) -> None:
        self._folder = folder
        self._class_names = class_names
        self._image_size = image_size
        self._source_fingerprint = source_fingerprint
        self._resize = resize
        self._counts: Counter[str] = Counter()
        self._digests: list[tuple[str, bytes]] = []

    def write(self, split: str, place: tuple[int, int], count: int, payloads: Payloads) -> None:
        """Writes one shard.

        Args:
            split: The split it belongs to.
            place: Which shard it is, and of how many.
            count: Number of examples, for the name.
            payloads: The serialized examples, just as many.
        """
        folder = self._folder / split
        folder.mkdir(exist_ok=True)
        name = shard_name(split, *place, count)
        written = write_shard(folder / name, self._digested(split, payloads))
        assert written == count, f"{name}: {written} examples came"
        self._counts[split] += count

    def _digested(self, split: str, payloads: Payloads) -> Iterator[bytes]:
        for payload in payloads:
            self._digests.append((split, hashlib.sha256(payload).digest()))
            yield payload

    def finish(self) -> Dataset:
        """Writes `dataset.json` and returns what it says."""
        dataset = Dataset(
            self._folder,
            self._class_names,
            self._image_size,
            dict(self._counts),
            fingerprint(self._digests),
            source_fingerprint=self._source_fingerprint,
            resize=self._resize,
        )
        save_dataset(dataset, self._folder)
        return dataset


def load_dataset(path: Path) -> Dataset:
    """Reads the description of a data set.

    Raises:
        DataError: The folder, or `dataset.json` in it, is absent or not as `save_dataset` writes.
    """
    file = path / DATASET_FILE
    if not file.is_file():
        raise DataError(
            f"data set {path}: expected a folder with {DATASET_FILE}; give the output folder of "
            "ingest_examples or augment_examples"
        )
    try:
        return build(Dataset, read_mapping(str(file)) | {"path": path})
    except UserError as error:
        raise DataError(
            f"data set {file}: not a data set description ({error}); ingest the photos anew"
        ) from error
