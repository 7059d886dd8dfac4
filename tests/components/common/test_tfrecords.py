"""Tests of shards: what is written is read, and what is damaged is not."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.common.errors import DataError
from components.common.tfrecords import read_shard, shard_count, shard_name, write_shard

PAYLOADS = [b"first", b"", b"the third" * 100]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "train-00000-of-00001-3.tfrec"
    write_shard(path, PAYLOADS)
    return path


def test_payloads_are_read_in_order(shard: Path) -> None:
    assert list(read_shard(shard)) == PAYLOADS


def test_count_is_that_of_the_payloads(tmp_path: Path) -> None:
    assert write_shard(tmp_path / "a-3.tfrec", iter(PAYLOADS)) == 3


@given(st.lists(st.binary(max_size=64), max_size=6))
@settings(max_examples=30)
def test_shard_is_read_as_it_was_written(payloads: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, shard_name("train", 0, 1, len(payloads)))
        write_shard(path, payloads)
        assert list(read_shard(path)) == payloads


@given(st.integers(0, 99_999), st.integers(1, 99_999), st.integers(0))
def test_name_holds_the_count(index: int, shards: int, count: int) -> None:
    assert shard_count(Path("/data", shard_name("train", index, shards, count))) == count


def test_name_is_as_documented() -> None:
    assert shard_name("train", 3, 16, 230) == "train-00003-of-00016-230.tfrec"


def test_names_sort_in_the_order_of_their_numbers() -> None:
    names = [shard_name("train", index, 120, 1) for index in range(120)]
    assert sorted(names) == names


@pytest.mark.parametrize(
    "name", ["train.tfrec", "train-.tfrec", "train-3.tfrecord", "train-3.tfrec.gz", "3.tfrec"]
)
def test_name_without_a_count_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"expected a name that ends in -COUNT\.tfrec"):
        shard_count(Path(name))


def test_record_has_the_documented_layout(shard: Path) -> None:
    # Length, its checksum, payload, its checksum: 16 bytes around each payload.
    content = shard.read_bytes()
    assert len(content) == sum(16 + len(payload) for payload in PAYLOADS)
    assert content[:8] == (5).to_bytes(8, "little")
    assert content[12:17] == b"first"


@pytest.mark.parametrize("position", [0, 7, 8, 11, 12, 16, 17, 20, 37, 60, 900, -5, -1])
@pytest.mark.parametrize("bit", [0, 7])
def test_flipped_bit_is_found(shard: Path, position: int, bit: int) -> None:
    content = bytearray(shard.read_bytes())
    content[position] ^= 1 << bit
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged behind example \d: .*ingest the photos anew"):
        list(read_shard(shard))


@pytest.mark.parametrize("kept", [1, 8, 12, 16, 20, 22, 40, 900])
def test_cut_shard_is_found(shard: Path, kept: int) -> None:
    # A cut within a length looks like the end of the file: then the count is wrong.
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"(damaged behind example|expected 3 examples)"):
        list(read_shard(shard))


@pytest.mark.parametrize(("kept", "count"), [(0, 0), (21, 1), (37, 2)])
def test_shard_cut_between_two_records_is_found(shard: Path, kept: int, count: int) -> None:
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(DataError, match=f"expected 3 examples as its name says, found {count}"):
        list(read_shard(shard))


@pytest.mark.parametrize("count", [2, 4])
def test_name_with_a_wrong_count_is_found(shard: Path, count: int) -> None:
    renamed = shard.rename(shard.with_name(f"train-00000-of-00001-{count}.tfrec"))
    with pytest.raises(DataError, match=f"expected {count} examples as its name says, found 3"):
        list(read_shard(renamed))


def test_payloads_in_front_of_the_damage_are_read(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-1])
    payloads = read_shard(shard)
    assert [next(payloads), next(payloads)] == PAYLOADS[:2]


def test_absent_shard_is_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="damaged behind example 0"):
        list(read_shard(tmp_path / "train-00000-of-00001-3.tfrec"))


def test_folder_in_place_of_a_shard_is_found(tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-00001-3.tfrec").mkdir()
    with pytest.raises(DataError, match="damaged behind example 0"):
        list(read_shard(tmp_path / "train-00000-of-00001-3.tfrec"))
