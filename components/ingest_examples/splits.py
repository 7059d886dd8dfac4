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
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Of 64 bits. On 3,119 photos of flowers 28 of the 30 pairs at 8 bits or less are of one
# photographer; at 12 bits most pairs are of strangers.
NEAR_DUPLICATE_BITS = 8
# What gives way to what: the gate must see nothing that training saw.
PROTECTION = {"train": 0, "validation": 1, "test": 2}
_BANDS = 5
assert NEAR_DUPLICATE_BITS < 2 * _BANDS, "a pair may differ in two bits of every band"
_COMPARISONS = 1 << 20
Indices = NDArray[np.intp]


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


def near_duplicates(hashes: NDArray[np.uint64]) -> Iterator[tuple[Indices, Indices]]:
    """Finds every pair of different 64-bit perceptual hashes that differ in few bits.

    Two hashes at most 8 bits apart, cut into 5 bands, are at most one bit apart in one of the bands
    at least (pigeonhole), so only those are compared: of 100,000 hashes one pair in a hundred.

    Args:
        hashes: Each value once.

    Yields:
        Pairs as two arrays of indices (i, j), i < j, a block at a time so that memory stays flat. A
        pair may come more than once.
    """
    edges = np.linspace(0, 64, _BANDS + 1).astype(int)
    for low, high in pairwise(edges.tolist()):
        width = high - low
        keys = (hashes >> np.uint64(low)) & np.uint64(2**width - 1)
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], np.arange(2**width + 1, dtype=np.uint64))
        for flip in (0, *(1 << bit for bit in range(width))):
            yield from _pairs_of_buckets(hashes, keys, order, starts, flip)


def _pairs_of_buckets(
    hashes: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    order: Indices,
    starts: Indices,
    flip: int,
) -> Iterator[tuple[Indices, Indices]]:
    """Compares each hash with those whose band is its own but for the bits of `flip`."""
    others = (keys ^ np.uint64(flip)).astype(np.intp)
    counts = starts[others + 1] - starts[others]
    ends = np.cumsum(counts)
    first = 0
    while first < len(hashes):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _COMPARISONS, side="right")))
        part = counts[first:last]
        left = np.repeat(np.arange(first, last), part)
        within = np.arange(len(left)) - np.repeat(np.cumsum(part) - part, part)
        right = order[np.repeat(starts[others[first:last]], part) + within]
        close = np.bitwise_count(hashes[left] ^ hashes[right]) <= NEAR_DUPLICATE_BITS
        chosen = close & (left < right)
        if chosen.any():
            yield left[chosen], right[chosen]
        first = last


class LookAlikes(NamedTuple):
    """What near-duplicates mean for each photo.

    Attributes:
        cluster: Number of the cluster of each photo; photos of a cluster look alike, directly or
            through others.
        stronger: Index of a photo that it looks like and that is in a split protected more, so that
            it has to give way; -1 where there is none.
    """

    cluster: Indices
    stronger: Indices


def look_alikes(hashes: NDArray[np.uint64], protection: NDArray[np.int8]) -> LookAlikes:
    """Clusters photos that look alike, and finds which must be set aside.

    Args:
        hashes: Perceptual hash of each photo.
        protection: `PROTECTION` of the split of each photo.
    """
    values, inverse = np.unique(hashes, return_inverse=True)
    # Of the photos with one hash, the first in the split protected most stands for all.
    by_strength = np.lexsort((np.arange(len(hashes)), -protection, inverse))
    lead = by_strength[np.searchsorted(inverse[by_strength], np.arange(len(values)))]
    best = lead.copy()
    roots = np.arange(len(values))
    for left, right in near_duplicates(values):
        _join(roots, left, right)
        for here, there in ((left, right), (right, left)):
            _keep_strongest(best, protection, here, lead[there])
    stronger = best[inverse]
    return LookAlikes(roots[inverse], np.where(protection[stronger] > protection, stronger, -1))


def _keep_strongest(
    best: Indices, protection: NDArray[np.int8], here: Indices, candidates: Indices
) -> None:
    """Puts a candidate in the place of the best so far where it is protected more."""
    order = np.lexsort((candidates, -protection[candidates], here))
    here, candidates = here[order], candidates[order]
    chosen = np.ones(len(here), bool)
    chosen[1:] = here[1:] != here[:-1]
    here, candidates = here[chosen], candidates[chosen]
    better = protection[candidates] > protection[best[here]]
    best[here[better]] = candidates[better]


def _join(roots: Indices, left: Indices, right: Indices) -> None:
    """Joins the clusters of each pair; the root of a cluster is its smallest member."""
    while True:
        one, other = roots[left], roots[right]
        apart = one != other
        if not apart.any():
            return
        low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
        np.minimum.at(roots, high, low)
        while (roots != roots[roots]).any():
            roots[:] = roots[roots]


def exact_duplicates(digests: NDArray[np.uint8]) -> list[list[int]]:
    """Groups the indices of equal digests; only groups of two and more, each in order.

    Args:
        digests: `uint8` [n, 32].
    """
    if not len(digests):
        return []
    values = np.ascontiguousarray(digests).view(f"V{digests.shape[1]}").ravel()
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in np.nonzero(counts[inverse] > 1)[0].tolist():
        groups[int(inverse[index])].append(index)
    return sorted(groups.values())
