"""Which photo goes to which split, and which must not go anywhere.

The rule is a pure function of a photo and its group, so a photo never moves between splits when
the data set grows:

    u = SHA-256(salt, group) read as a number in [0, 1)
    test if u < test_fraction, validation if u is in the next validation_fraction, else train

The group is the value of a column that the user names (the photographer, say), or else the
perceptual hash of the photo itself. Photos that look alike may still have groups that fall into
two splits. No rule could then keep both: whichever of the two moved would have been elsewhere in
a smaller data set. So the one in the less protected split is set aside, with its reason: train
gives way to validation and test, and validation to test.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

# Of 64 bits. On 3,119 photos of flowers every one of the 28 pairs at 8 bits or less is of one
# photographer and one scene; at 12 bits most pairs are of strangers.
NEAR_DUPLICATE_BITS = 8
# What gives way to what: the gate must see nothing that training saw.
PROTECTION = {"train": 0, "validation": 1, "test": 2}
_BLOCK = 1024


class Fractions(NamedTuple):
    """How much of the data goes to the two splits that are not trained on."""

    validation: float
    test: float


def choose_split(group: str, fractions: Fractions, salt: str) -> str:
    """The split of a group.

    Args:
        group: Key of the group.
        fractions: Expected shares, in groups.
        salt: Another salt gives another, independent division.
    """
    digest = hashlib.sha256(f"{salt}\n{group}".encode("utf-8", "surrogateescape")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < fractions.test:
        return "test"
    if position < fractions.test + fractions.validation:
        return "validation"
    return "train"


def near_duplicates(hashes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Finds every pair of 64-bit perceptual hashes that differ in few bits.

    Compares all pairs, block by block: 8 MB at a time, ten million pairs in 50 ms.

    Yields:
        Pairs of indices (i, j) with i < j, sorted.
    """
    values = np.array(hashes, np.uint64)
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK, np.newaxis]
        distances = np.bitwise_count(block ^ values[np.newaxis, start:])
        rows, columns = np.nonzero(distances <= NEAR_DUPLICATE_BITS)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            if row < column:
                yield start + row, start + column


def straddlers(splits: Sequence[str], pairs: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Finds the photos to set aside so that no near-duplicate pair lies in two splits.

    Args:
        splits: Split of each photo.
        pairs: Near-duplicates, as `near_duplicates` gives them.

    Returns:
        Index of the photo to set aside -> index of the one it looks like, in a split that is
        protected more.
    """
    aside: dict[int, int] = {}
    for first, second in pairs:
        weaker, stronger = sorted((first, second), key=lambda index: PROTECTION[splits[index]])
        if splits[weaker] != splits[stronger]:
            aside.setdefault(weaker, stronger)
    return aside


def exact_duplicates(digests: Sequence[str]) -> list[list[int]]:
    """Groups the indices of equal digests; only groups of two and more, each in order."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        groups[digest].append(index)
    return [group for group in groups.values() if len(group) > 1]
