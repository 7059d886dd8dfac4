"""The ledger of ingestion: one line per photo that was read, and none missing."""

import dataclasses
from collections import Counter
from typing import NamedTuple

from components.common.dataset import Dataset
from components.ingest_examples.photos import Reason


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
        sha256: Digest of the photo as the source holds it.
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

    def rejected(self, reason: Reason, detail: str) -> "Entry":
        """The same photo, not written after all."""
        return dataclasses.replace(self, split="", reason=reason.value, detail=detail)


class Groups(NamedTuple):
    """Which group each photo belongs to.

    Attributes:
        column: Column of the manifest that names the groups.
        of: Group by name of the photo; empty where the manifest leaves it empty.
    """

    column: str
    of: dict[str, str]


@dataclasses.dataclass(frozen=True)
class IngestResult:
    """What came of it.

    Attributes:
        dataset: The shards that were written.
        entries: One line per photo that was read; read = written + rejected.
        near_duplicates: Pairs of names that look alike.
        contact_sheet: A few encoded images per class.
    """

    dataset: Dataset
    entries: tuple[Entry, ...]
    near_duplicates: tuple[tuple[str, str], ...]
    contact_sheet: dict[str, list[bytes]]

    @property
    def written(self) -> int:
        """Number of photos written to the three splits."""
        return sum(not entry.reason for entry in self.entries)

    @property
    def rejected(self) -> Counter[str]:
        """Number of photos not written, by reason."""
        return Counter(entry.reason for entry in self.entries if entry.reason)
