"""Which photo goes to which split and shard, and which goes nowhere.

All of it follows from the ledger, which is the same wherever the photos were prepared.
"""

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.common.dataset import SPLITS
from components.common.tfrecords import shard_name
from components.ingest_examples.config import IngestConfig
from components.ingest_examples.ledger import Ledger
from components.ingest_examples.photos import Reason
from components.ingest_examples.splits import (
    PROTECTION,
    Fractions,
    choose_split,
    exact_duplicates,
    look_alikes,
)

# Small enough that a thousand photos spread over several readers, large enough that opening a
# file costs nothing beside reading it.
EXAMPLES_PER_SHARD = 256
_PROTECTION = np.array([PROTECTION[split] for split in SPLITS], np.int8)


class Shard(NamedTuple):
    """A shard to write: its split, its name, and the indices of its photos, in order."""

    split: str
    name: str
    photos: list[int]


def assign_splits(ledger: Ledger, config: IngestConfig) -> None:
    """Gives every usable photo the split of its group, or the one that its source gives it.

    A split that the source leaves out is taken from its train photos. What the source does not
    divide is divided as if there were nothing else.
    """
    fractions = Fractions(config.validation_fraction, config.test_fraction)
    given = {photo.split for photo in ledger.photos}
    lacking = set() if "" in given else set(SPLITS) - given
    carved = Fractions(
        config.validation_fraction if "validation" in lacking else 0.0,
        config.test_fraction if "test" in lacking else 0.0,
    )
    for index in ledger.usable().tolist():
        group = ledger.group(index)
        if group is None:
            ledger.reject(index, Reason.NOT_IN_MANIFEST, "no row has this path")
            continue
        split = ledger.photos[index].split
        if not split:
            split = choose_split(group, fractions, config.split_salt)
        elif split == "train":
            split = choose_split(group, carved, config.split_salt)
        ledger.split[index] = SPLITS.index(split)


def set_duplicates_aside(ledger: Ledger) -> list[list[int]]:
    """Rejects copies, copies under two labels, and look-alikes that would straddle two splits.

    Returns:
        Clusters of photos that look alike, copies left out, each in order.
    """
    usable = ledger.usable()
    for copies in exact_duplicates(ledger.sha256[usable]):
        _reject_copies(ledger, usable[copies].tolist())
    usable = ledger.usable()
    found = look_alikes(ledger.phash[usable], _PROTECTION[ledger.split[usable]])
    splits = ledger.split[usable]
    for weaker in np.nonzero(found.stronger >= 0)[0].tolist():
        stronger = int(found.stronger[weaker])
        name = ledger.photos[int(usable[stronger])].name
        ledger.reject(
            int(usable[weaker]),
            Reason.NEAR_DUPLICATE,
            f"looks like {name} in {SPLITS[splits[stronger]]}",
        )
    return _clusters(usable, found.cluster)


def _reject_copies(ledger: Ledger, copies: Sequence[int]) -> None:
    """Keeps the first of equal photos in the split protected most; none when labels differ."""
    photos = ledger.photos
    if len({photos[index].class_name for index in copies}) == 1:
        kept = max(copies, key=lambda index: (_PROTECTION[ledger.split[index]], -index))
        for index in copies:
            if index != kept:
                ledger.reject(index, Reason.EXACT_DUPLICATE, f"same bytes as {photos[kept].name}")
        return
    for index in copies:
        others = ledger.first_names((other for other in copies if other != index), len(copies) - 1)
        ledger.reject(index, Reason.TWO_LABELS, f"same bytes as {others}")


def _clusters(usable: NDArray[np.intp], cluster: NDArray[np.intp]) -> list[list[int]]:
    numbers, counts = np.unique(cluster, return_counts=True)
    several = np.isin(cluster, numbers[counts > 1])
    members: dict[int, list[int]] = defaultdict(list)
    for index in np.nonzero(several)[0].tolist():
        members[int(cluster[index])].append(int(usable[index]))
    return sorted(members.values())


def divide_into_shards(ledger: Ledger) -> Iterator[Shard]:
    """The shards of all splits, of equal length give or take one."""
    for split in SPLITS:
        # A fixed order that mixes the classes, so that each shard is a fair sample.
        chosen = sorted(ledger.in_split(split).tolist(), key=lambda index: _mixed(ledger, index))
        shards = math.ceil(len(chosen) / EXAMPLES_PER_SHARD)
        for number in range(shards):
            photos = chosen[number::shards]
            yield Shard(split, shard_name(split, number, shards, len(photos)), photos)


def _mixed(ledger: Ledger, index: int) -> bytes:
    return hashlib.sha256(os.fsencode(ledger.photos[index].name)).digest()
