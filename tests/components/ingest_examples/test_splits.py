"""Tests of the rule that divides photos into splits, as laws where there is one."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ingest_examples.splits import (
    NEAR_DUPLICATE_BITS,
    Fractions,
    choose_split,
    exact_duplicates,
    near_duplicates,
    straddlers,
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


def divided(groups: list[str], hashes: list[int]) -> dict[int, str]:
    """Index of every photo that is kept -> its split."""
    splits = [choose_split(group, FRACTIONS, "salt") for group in groups]
    aside = straddlers(splits, list(near_duplicates(hashes)))
    return {index: split for index, split in enumerate(splits) if index not in aside}


@given(hash_lists())
def test_near_duplicates_are_those_of_brute_force(hashes: list[int]) -> None:
    assert list(near_duplicates(hashes)) == brute_force(hashes)


def test_near_duplicates_are_found_across_blocks() -> None:
    # Spread by a multiplication: far apart in bits as strangers are.
    hashes = [(index * 0x9E3779B97F4A7C15) % 2**64 for index in range(2_500)]
    hashes[2_400] = hashes[3] ^ 0b1011
    hashes[1_024] = hashes[1_023] ^ 0b1
    found = set(near_duplicates(hashes))
    assert {(3, 2_400), (1_023, 1_024)} <= found
    assert found == set(brute_force(hashes))


@pytest.mark.parametrize(
    ("bits", "expected"), [(NEAR_DUPLICATE_BITS, [(0, 1)]), (NEAR_DUPLICATE_BITS + 1, [])]
)
def test_bits_decide_who_looks_alike(bits: int, expected: list[tuple[int, int]]) -> None:
    assert list(near_duplicates([0, 2**bits - 1])) == expected


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
    splits = [choose_split(f"{value:x}", FRACTIONS, "salt") for value in hashes]
    aside = straddlers(splits, list(near_duplicates(hashes)))
    assert not {index for index in aside if splits[index] == "test"}


@pytest.mark.parametrize(
    ("splits", "aside"),
    [
        (["train", "test"], {0: 1}),
        (["test", "train"], {1: 0}),
        (["train", "validation"], {0: 1}),
        (["validation", "test"], {0: 1}),
        (["train", "train"], {}),
        (["test", "test"], {}),
    ],
)
def test_less_protected_split_gives_way(splits: list[str], aside: dict[int, int]) -> None:
    assert straddlers(splits, [(0, 1)]) == aside


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
    splits = [choose_split(f"phash:{index:016x}", FRACTIONS, "flowers") for index in range(5_000)]
    # Four standard deviations of a binomial share.
    tolerance = 4 * (share * (1 - share) / 5_000) ** 0.5
    assert abs(splits.count(split) / 5_000 - share) < tolerance


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
    groups = exact_duplicates(digests)
    expected = {digest for digest in digests if digests.count(digest) > 1}
    assert {digests[group[0]] for group in groups} == expected
    for group in groups:
        assert group == [i for i, digest in enumerate(digests) if digest == digests[group[0]]]
