"""Tests of the rule that divides photos into splits, as laws where there is one."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ingest_examples import splits
from components.ingest_examples.splits import (
    NEAR_DUPLICATE_BITS,
    PROTECTION,
    Fractions,
    choose_split,
    exact_duplicates,
    look_alikes,
    near_duplicates,
)

FRACTIONS = Fractions(validation=0.1, test=0.15)
SPLITS = ("train", "validation", "test")
HASHES = st.integers(0, 2**64 - 1)


@st.composite
def hash_lists(draw: st.DrawFn) -> list[int]:
    """Hashes of which some differ in few bits, as those of look-alikes do."""
    hashes = draw(st.lists(HASHES, max_size=12))
    if hashes:
        for _ in range(draw(st.integers(0, 12))):
            bits = draw(st.sets(st.integers(0, 63), max_size=NEAR_DUPLICATE_BITS + 2))
            hashes.append(draw(st.sampled_from(hashes)) ^ sum(1 << bit for bit in bits))
    return draw(st.permutations(hashes))


def brute_force(hashes: list[int]) -> list[tuple[int, int]]:
    return [
        (i, j)
        for i, j in combinations(range(len(hashes)), 2)
        if (hashes[i] ^ hashes[j]).bit_count() <= NEAR_DUPLICATE_BITS
    ]


def pairs_found(hashes: list[int]) -> set[tuple[int, int]]:
    """All pairs of different hashes that are found, as pairs of values."""
    values = np.array(sorted(set(hashes)), np.uint64)
    found = set()
    for left, right in near_duplicates(values):
        found |= set(zip(values[left].tolist(), values[right].tolist(), strict=True))
    return found


def pairs_expected(hashes: list[int]) -> set[tuple[int, int]]:
    values = sorted(set(hashes))
    return {(values[i], values[j]) for i, j in brute_force(values)}


def aside(hashes: list[int], splits: list[str]) -> dict[int, int]:
    """Index of each photo to set aside -> index of the one it gives way to."""
    protection = np.array([PROTECTION[split] for split in splits], np.int8)
    stronger = look_alikes(np.array(hashes, np.uint64), protection).stronger.tolist()
    return {index: other for index, other in enumerate(stronger) if other >= 0}


def divided(groups: list[str], hashes: list[int]) -> dict[int, str]:
    """Index of every photo that is kept -> its split."""
    splits = [choose_split(group, FRACTIONS, "salt") for group in groups]
    gone = aside(hashes, splits)
    return {index: split for index, split in enumerate(splits) if index not in gone}


@given(hash_lists())
def test_near_duplicates_are_those_of_brute_force(hashes: list[int]) -> None:
    assert pairs_found(hashes) == pairs_expected(hashes)


def test_near_duplicates_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "_COMPARISONS", 100)
    # Spread by a multiplication: far apart in bits as strangers are.
    hashes = [(index * 0x9E3779B97F4A7C15) % 2**64 for index in range(1, 2_500)]
    hashes += [hashes[3] ^ 0b1011, hashes[1_023] ^ 0b1]
    found = pairs_found(hashes)
    assert len(found) >= 2
    assert found == pairs_expected(hashes)


@pytest.mark.parametrize("bits", [NEAR_DUPLICATE_BITS, NEAR_DUPLICATE_BITS + 1])
def test_bits_decide_who_looks_alike(bits: int) -> None:
    assert bool(pairs_found([0, 2**bits - 1])) == (bits == NEAR_DUPLICATE_BITS)


@given(hash_lists(), st.data())
def test_no_pair_that_looks_alike_is_kept_in_two_splits(
    hashes: list[int], data: st.DataObject
) -> None:
    groups = data.draw(st.lists(st.text(max_size=3), min_size=len(hashes), max_size=len(hashes)))
    kept = divided(groups, hashes)
    pairs = [(i, j) for i, j in brute_force(hashes) if i in kept and j in kept]
    assert all(kept[i] == kept[j] for i, j in pairs)


@given(hash_lists(), hash_lists())
def test_more_photos_never_move_an_old_one(old: list[int], new: list[int]) -> None:
    before = divided([f"{value:x}" for value in old], old)
    both = old + new
    after = divided([f"{value:x}" for value in both], both)
    # It may be set aside for a newcomer it looks like, but is never in another split.
    assert {index: split for index, split in after.items() if index < len(old)}.items() <= (
        before.items()
    )


@given(hash_lists())
def test_photo_in_test_is_never_set_aside(hashes: list[int]) -> None:
    chosen = [choose_split(f"{value:x}", FRACTIONS, "salt") for value in hashes]
    assert not {index for index in aside(hashes, chosen) if chosen[index] == "test"}


@given(hash_lists(), st.data())
def test_photo_gives_way_to_the_strongest_it_looks_like(
    hashes: list[int], data: st.DataObject
) -> None:
    kinds = st.sampled_from(SPLITS)
    chosen = data.draw(st.lists(kinds, min_size=len(hashes), max_size=len(hashes)))
    strength = [PROTECTION[split] for split in chosen]
    for index, other in aside(hashes, chosen).items():
        around = [
            number
            for number, value in enumerate(hashes)
            if (value ^ hashes[index]).bit_count() <= NEAR_DUPLICATE_BITS
        ]
        assert other in around
        assert strength[other] == max(strength[number] for number in around) > strength[index]


@given(hash_lists())
def test_clusters_are_the_connected_photos(hashes: list[int]) -> None:
    cluster = look_alikes(np.array(hashes, np.uint64), np.zeros(len(hashes), np.int8)).cluster
    expected = list(range(len(hashes)))
    for i, j in brute_force(hashes):
        old, new = expected[j], expected[i]
        expected = [new if number == old else number for number in expected]
    pairs = list(combinations(range(len(hashes)), 2))
    assert [cluster[i] == cluster[j] for i, j in pairs] == [
        expected[i] == expected[j] for i, j in pairs
    ]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["train", "test"], {0: 1}),
        (["test", "train"], {1: 0}),
        (["train", "validation"], {0: 1}),
        (["validation", "test"], {0: 1}),
        (["train", "train"], {}),
        (["test", "test"], {}),
    ],
)
def test_less_protected_split_gives_way(chosen: list[str], expected: dict[int, int]) -> None:
    assert aside([0, 1], chosen) == expected
    assert aside([7, 7], chosen) == expected


@given(st.text(), st.text())
def test_group_alone_decides_the_split(group: str, salt: str) -> None:
    assert choose_split(group, FRACTIONS, salt) == choose_split(group, FRACTIONS, salt)
    assert choose_split(group, FRACTIONS, salt) in SPLITS


@given(st.text(), st.floats(0.01, 0.4), st.floats(0, 0.05))
def test_larger_test_fraction_takes_no_photo_out_of_test(
    group: str, test: float, more: float
) -> None:
    if choose_split(group, Fractions(0.1, test), "salt") == "test":
        assert choose_split(group, Fractions(0.1, test + more), "salt") == "test"


# The rule is a promise for ever: data that was tested on must never be trained on.
@pytest.mark.parametrize(
    ("group", "split"),
    [
        ("phash:0000000000000000", "train"),
        ("phash:ffffffffffffffff", "test"),
        ("photographer:Ann", "train"),
        ("photographer:Gus", "validation"),
    ],
)
def test_split_of_known_groups(group: str, split: str) -> None:
    assert choose_split(group, FRACTIONS, "flowers") == split


@pytest.mark.parametrize(("split", "share"), [("train", 0.75), ("validation", 0.1), ("test", 0.15)])
def test_fractions_are_about_right(split: str, share: float) -> None:
    chosen = [choose_split(f"phash:{index:016x}", FRACTIONS, "flowers") for index in range(5_000)]
    # Four standard deviations of a binomial share.
    tolerance = 4 * (share * (1 - share) / 5_000) ** 0.5
    assert abs(chosen.count(split) / 5_000 - share) < tolerance


def test_another_salt_divides_independently() -> None:
    groups = [f"g{index}" for index in range(2_000)]
    in_test = [
        {group for group in groups if choose_split(group, FRACTIONS, salt) == "test"}
        for salt in ("one", "two")
    ]
    # Of independent divisions 0.15 squared, 45 of 2,000, are in both.
    assert 20 < len(in_test[0] & in_test[1]) < 75


def test_group_that_is_not_utf8_has_a_split() -> None:
    assert choose_split("photographer:\udce9", FRACTIONS, "salt") in SPLITS


@given(st.lists(st.sampled_from("abcdef")))
def test_exact_duplicates_are_groups_of_equals(digests: list[str]) -> None:
    padded = b"".join(digest.encode().ljust(32, b"\0") for digest in digests)
    groups = exact_duplicates(np.frombuffer(padded, np.uint8).reshape(-1, 32))
    expected = {digest for digest in digests if digests.count(digest) > 1}
    assert {digests[group[0]] for group in groups} == expected
    for group in groups:
        assert group == [i for i, digest in enumerate(digests) if digest == digests[group[0]]]
