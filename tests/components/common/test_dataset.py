"""Tests of a folder of shards and of what describes it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.common.dataset import SPLITS, Dataset, load_dataset, save_dataset
from components.common.errors import DataError
from components.common.files import DATASET_FILE
from components.common.tfrecords import read_shard
from tests.builders import CLASS_NAMES

DESCRIPTION: dict[str, Any] = {
    "class_names": ["a", "żółw"],
    "image_size": 32,
    "counts": {"train": 3, "test": 1},
    "fingerprint": "0" * 64,
}


def write(folder: Path, content: str) -> Path:
    (folder / DATASET_FILE).write_text(content, encoding="utf-8")
    return folder


def test_description_is_read_as_it_was_written(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, ("a", "żółw"), 32, {"train": 3, "test": 1}, "0" * 64)
    save_dataset(dataset, tmp_path)
    assert load_dataset(tmp_path) == dataset


def test_description_does_not_hold_its_own_place(tmp_path: Path) -> None:
    save_dataset(Dataset(tmp_path, ("a", "b"), 32, {"train": 3}, "0"), tmp_path)
    content = json.loads((tmp_path / DATASET_FILE).read_text(encoding="utf-8"))
    assert sorted(content) == [
        "class_names",
        "counts",
        "fingerprint",
        "image_size",
        "resize",
        "source_fingerprint",
        "split_rule",
    ]


def test_moved_folder_is_read_at_its_new_place(dataset_folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(dataset_folder, tmp_path / "moved"))
    assert all(path.is_relative_to(moved) for path in load_dataset(moved).shards("train"))


def test_data_set_is_described(dataset_folder: Path) -> None:
    dataset = load_dataset(dataset_folder)
    assert (dataset.class_names, dataset.image_size) == (CLASS_NAMES, 32)
    assert dataset.counts == {"train": 24, "validation": 9, "test": 9}


@pytest.mark.parametrize(("split", "count"), [("train", 24), ("validation", 9), ("test", 9)])
def test_shards_hold_every_example(dataset_folder: Path, split: str, count: int) -> None:
    shards = load_dataset(dataset_folder).shards(split)
    assert sum(len(list(read_shard(shard))) for shard in shards) == count


def test_shards_are_in_order(dataset_folder: Path) -> None:
    shards = load_dataset(dataset_folder).shards("train")
    assert [path.name for path in shards] == [
        "train-00000-of-00002-12.tfrec",
        "train-00001-of-00002-12.tfrec",
    ]


def test_split_that_is_absent_is_refused(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, json.dumps(DESCRIPTION)))
    with pytest.raises(
        DataError, match=r"expected a split 'validation', found \['test', 'train'\]"
    ):
        dataset.shards("validation")


@pytest.mark.parametrize("split", SPLITS)
def test_missing_shard_is_found(dataset_folder: Path, tmp_path: Path, split: str) -> None:
    copy = Path(shutil.copytree(dataset_folder, tmp_path / "copy"))
    next((copy / split).iterdir()).unlink()
    with pytest.raises(DataError, match=f"in split '{split}', the shard names count"):
        load_dataset(copy).shards(split)


def test_shard_too_many_is_found(dataset_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(dataset_folder, tmp_path / "copy"))
    shutil.copy(copy / "test" / "test-00000-of-00001-9.tfrec", copy / "train" / "other-9.tfrec")
    with pytest.raises(DataError, match=r"expected 24 examples in split 'train', .* count 33"):
        load_dataset(copy).shards("train")


def test_shard_without_a_count_is_found(dataset_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(dataset_folder, tmp_path / "copy"))
    (copy / "test" / "test.tfrec").touch()
    with pytest.raises(DataError, match="expected a name that ends in"):
        load_dataset(copy).shards("test")


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_folder_without_a_description_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected a folder with dataset\.json; give the output"):
        load_dataset(tmp_path / name)


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"expected a folder with dataset\.json"):
        load_dataset(tmp_path / "file")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        "{}",
        json.dumps(DESCRIPTION | {"image_size": "large"}),
        json.dumps(DESCRIPTION | {"image_size": None}),
        json.dumps(DESCRIPTION | {"counts": [3, 1]}),
        json.dumps(DESCRIPTION | {"counts": {"train": "many"}}),
        json.dumps(DESCRIPTION | {"class_names": 3}),
        json.dumps(DESCRIPTION | {"class_names": "ab"}),
        json.dumps(DESCRIPTION | {"class_names": [1, 2]}),
        json.dumps(DESCRIPTION | {"path": 3, "more": 4}),
    ],
)
def test_wrong_description_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"not a data set description .* ingest the photos anew"):
        load_dataset(write(tmp_path, content))


@pytest.mark.parametrize("key", sorted(DESCRIPTION))
def test_description_without_a_key_is_refused(tmp_path: Path, key: str) -> None:
    content = {name: value for name, value in DESCRIPTION.items() if name != key}
    with pytest.raises(DataError, match=rf"not a data set description \({key}: missing"):
        load_dataset(write(tmp_path, json.dumps(content)))
