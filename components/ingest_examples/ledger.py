"""The ledger of ingestion: one line per photo that was listed, and none missing."""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.common.dataset import SPLITS, Dataset
from components.ingest_examples.photos import Reason
from components.ingest_examples.sources import Photo

REASONS = tuple(Reason)
_NONE = -1
# Photos that a message names: there may be thousands that are alike.
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Entry:
    """One photo's line in the ledger: everything but its pixels.

    Attributes:
        name: Name of the photo in its source.
        class_name: Its label.
        split: Where it was written; empty when it was rejected.
        reason: Why it was rejected; empty when it was written.
        detail: What the reason rests on.
        group: Key that decided the split.
        sha256: Digest of the photo as the source holds it, in hexadecimal; empty if unread.
        phash: Perceptual hash, 16 hexadecimal digits.
        width: Of the photo as it came, in pixels.
        height: Of the photo as it came, in pixels.
    """

    name: str
    class_name: str
    split: str = ""
    reason: str = ""
    detail: str = ""
    group: str = ""
    sha256: str = ""
    phash: str = ""
    width: int = 0
    height: int = 0


class Groups(NamedTuple):
    """Which group each photo belongs to.

    Attributes:
        column: Column of the manifest that names the groups.
        of: Group by name of the photo; empty where the manifest leaves it empty.
    """

    column: str
    of: dict[str, str]


class Row(NamedTuple):
    """What a worker found out about a photo.

    Attributes:
        sha256: 32 bytes; none if it was not read.
        phash: 64-bit perceptual hash.
        width: In pixels.
        height: In pixels.
        offset: Where its record lies in the file of its part, in bytes.
        length: Length of that record, in bytes.
        digest: SHA-256 of the payload of that record, 32 bytes.
        reason: Why it cannot be used, or None.
        detail: What the reason rests on.
    """

    sha256: bytes
    phash: int
    width: int
    height: int
    offset: int
    length: int
    digest: bytes
    reason: Reason | None
    detail: str


class Ledger:
    """What is known of every photo, some hundred bytes each.

    Attributes:
        photos: As they were listed; all columns have their order.
        sha256: `uint8` [n, 32], zero if unread.
        phash: `uint64` [n].
        part: `int32` [n], the part whose file holds the record.
        offset: `int64` [n], in that file.
        length: `int32` [n], in bytes.
        digest: `uint8` [n, 32], the SHA-256 of the payload of the record.
        split: `int8` [n], index into `SPLITS`, -1 for none.
        reason: `int8` [n], index into `REASONS`, -1 for a photo that can be used.
    """

    def __init__(self, photos: Sequence[Photo], groups: Groups | None) -> None:
        count = len(photos)
        self.photos = photos
        self._groups = groups
        self.sha256 = np.zeros((count, 32), np.uint8)
        self.phash = np.zeros(count, np.uint64)
        self.part = np.zeros(count, np.int32)
        self.offset = np.zeros(count, np.int64)
        self.length = np.zeros(count, np.int32)
        self.digest = np.zeros((count, 32), np.uint8)
        self.sides = np.zeros((count, 2), np.int32)
        self.split = np.full(count, _NONE, np.int8)
        self.reason = np.full(count, _NONE, np.int8)
        self._details: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.photos)

    def take(self, part: int, first: int, rows: Sequence[Row]) -> None:
        """Enters what a worker found out about neighbours, `first` being the index of the first."""
        place = slice(first, first + len(rows))
        digests = b"".join(row.sha256.ljust(32, b"\0") for row in rows)
        self.sha256[place] = np.frombuffer(digests, np.uint8).reshape(-1, 32)
        of_records = b"".join(row.digest for row in rows)
        self.digest[place] = np.frombuffer(of_records, np.uint8).reshape(-1, 32)
        self.phash[place] = np.array([row.phash for row in rows], np.uint64)
        self.part[place] = part
        self.offset[place] = [row.offset for row in rows]
        self.length[place] = [row.length for row in rows]
        sides = [(row.width, row.height) for row in rows]
        self.sides[place] = np.array(sides, np.int32).reshape(-1, 2)
        for index, row in enumerate(rows, start=first):
            if row.reason is not None:
                self.reject(index, row.reason, row.detail)

    def reject(self, index: int, reason: Reason, detail: str) -> None:
        """Marks a photo as not to be written."""
        self.reason[index] = REASONS.index(reason)
        self.split[index] = _NONE
        self._details[index] = detail

    def usable(self) -> NDArray[np.intp]:
        """Indices of the photos that are not rejected, in order."""
        return np.nonzero(self.reason == _NONE)[0]

    def in_split(self, split: str) -> NDArray[np.intp]:
        """Indices of the photos of a split, in order."""
        return np.nonzero(self.split == SPLITS.index(split))[0]

    def rejected(self) -> NDArray[np.intp]:
        """Indices of the rejected photos, in order."""
        return np.nonzero(self.reason != _NONE)[0]

    def reasons(self) -> Counter[str]:
        """Number of rejected photos by reason."""
        indices, counts = np.unique(self.reason[self.rejected()], return_counts=True)
        return Counter(
            {
                REASONS[index].value: count
                for index, count in zip(indices.tolist(), counts.tolist(), strict=True)
            }
        )

    def digests(self) -> Iterator[tuple[str, bytes]]:
        """Split and SHA-256 of every record to write."""
        for split in SPLITS:
            for index in self.in_split(split).tolist():
                yield split, self.digest[index].tobytes()

    def counts(self) -> Counter[tuple[str, str]]:
        """Number of photos to write by class and split."""
        return Counter(
            (self.photos[index].class_name, SPLITS[self.split[index]])
            for index in np.nonzero(self.split != _NONE)[0].tolist()
        )

    def first_names(self, indices: Iterable[int], count: int) -> str:
        """The names of the first of so many photos, and how many more there are."""
        names = [self.photos[index].name for index in islice(indices, _NAMED)]
        more = f" and {count - len(names)} more" if count > len(names) else ""
        return ", ".join(names) + more

    def group(self, index: int) -> str | None:
        """Key that decides the split of a photo; None where the manifest does not know it."""
        if self._groups is not None:
            name = self.photos[index].listed_as or self.photos[index].name
            if name not in self._groups.of:
                return None
            # An empty cell says that nobody knows: then the photo is a group of its own.
            if value := self._groups.of[name]:
                return f"{self._groups.column}:{value}"
        return f"phash:{self.phash[index]:016x}"

    def entry(self, index: int) -> Entry:
        """The line of a photo."""
        photo, reason, split = self.photos[index], self.reason[index], self.split[index]
        digest = self.sha256[index]
        return Entry(
            name=photo.name,
            class_name=photo.class_name,
            split="" if split == _NONE else SPLITS[split],
            reason="" if reason == _NONE else REASONS[reason].value,
            detail=self._details.get(index, ""),
            group=self.group(index) or "",
            sha256=digest.tobytes().hex() if digest.any() else "",
            phash=f"{self.phash[index]:016x}",
            width=int(self.sides[index, 0]),
            height=int(self.sides[index, 1]),
        )

    def entries(self) -> Iterator[Entry]:
        """The lines of all photos."""
        return map(self.entry, range(len(self)))

    def to_csv(self) -> bytes:
        """The ledger as a file."""
        fields = [field.name for field in dataclasses.fields(Entry)]
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(fields)
        writer.writerows([getattr(entry, name) for name in fields] for entry in self.entries())
        # File names are bytes: one that is not UTF-8 must not make the ledger unreadable.
        return text.getvalue().encode("utf-8", "backslashreplace")


@dataclasses.dataclass(frozen=True)
class IngestResult:
    """What came of it.

    Attributes:
        dataset: The shards that were written.
        ledger: One line per photo that was listed; read = written + rejected.
        near_duplicates: Groups of names that look alike.
        contact_sheet: A few encoded images per class.
    """

    dataset: Dataset
    ledger: Ledger
    near_duplicates: tuple[tuple[str, ...], ...]
    contact_sheet: dict[str, list[bytes]]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All lines of the ledger at once, for a data set that is small."""
        return tuple(self.ledger.entries())

    @property
    def written(self) -> int:
        """Number of photos written to the three splits."""
        return len(self.ledger.usable())

    @property
    def rejected(self) -> Counter[str]:
        """Number of photos not written, by reason."""
        return self.ledger.reasons()
