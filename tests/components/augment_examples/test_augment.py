"""Tests of the augmented train split: same bytes always, and no other split touched."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.augment_examples.augment import augment
from components.augment_examples.config import AugmentConfig
from components.common.config import build
from components.common.dataset import Dataset, load_dataset
from components.common.errors import ConfigError, DataError
from components.common.examples import parse_example, parse_features
from components.common.tfrecords import read_shard, shard_count
from tests.builders import make_dataset

SIZE = 32
IDENTITY = {
    "flip": False,
    "saturation": [1, 1],
    "brightness": 0,
    "contrast": 0,
    "crop_area": 1,
}


def run(examples: Path, output: Path, workers: int = 0, **options: Any) -> Dataset:
    config = build(AugmentConfig, {"copies": 2} | options)
    return augment(examples, config, output, output.with_name(f"{output.name}.html"), workers)


def payloads(path: Path, split: str = "train") -> list[bytes]:
    shards = load_dataset(path).shards(split)
    return [payload for shard in shards for payload in read_shard(shard)]


def digests_below(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def image_of(payload: bytes) -> np.ndarray:
    image, _ = parse_example(tf.constant(payload), SIZE)
    return np.asarray(image.numpy(), np.int64)


def test_copy_says_how_photos_became_squares(tmp_path: Path) -> None:
    examples = make_dataset(tmp_path / "examples", resize="stretch")
    run(examples, tmp_path / "augmented", copies=0)
    assert load_dataset(tmp_path / "augmented").resize == "stretch"


@pytest.fixture(scope="module")
def augmented(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The train split of the shared data set, with two copies of each example."""
    output = tmp_path_factory.mktemp("augmented") / "augmented"
    run(dataset_folder, output)
    return output


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_gives_the_same_bytes(
    dataset_folder: Path, augmented: Path, tmp_path: Path, workers: int
) -> None:
    run(dataset_folder, tmp_path / "again", workers=workers)
    assert digests_below(tmp_path / "again") == digests_below(augmented)


@pytest.mark.parametrize("shards", [1, 3])
def test_any_division_into_shards_gives_the_same_examples(
    augmented: Path, tmp_path: Path, shards: int
) -> None:
    examples = make_dataset(tmp_path / "examples", train_shards=shards)
    other = run(examples, tmp_path / "augmented")
    assert len(other.shards("train")) == shards
    assert payloads(tmp_path / "augmented") == payloads(augmented)
    assert other.fingerprint == load_dataset(augmented).fingerprint


def test_originals_are_unchanged_and_in_order(dataset_folder: Path, augmented: Path) -> None:
    assert payloads(augmented)[::3] == payloads(dataset_folder)


def test_copies_follow_their_original(augmented: Path) -> None:
    versions = payloads(augmented)
    labels = [int(parse_features(tf.constant(payload))[1]) for payload in versions]
    assert labels == [index // 3 % 3 for index in range(len(versions))]


def test_every_copy_differs_from_its_original(augmented: Path) -> None:
    images = [image_of(payload) for payload in payloads(augmented)]
    changes = [np.abs(images[index] - images[index - index % 3]).mean() for index in range(72)]
    assert min(change for index, change in enumerate(changes) if index % 3) > 1


def test_no_two_examples_are_the_same(augmented: Path) -> None:
    assert len(set(payloads(augmented))) == 72


@pytest.mark.parametrize("key", ["image", "class", "label", "size", "one_hot_class"])
def test_copy_has_the_features_of_its_original(augmented: Path, key: str) -> None:
    original, copy = (tf.train.Example.FromString(p) for p in payloads(augmented)[:2])
    before, after = (example.features.feature[key] for example in (original, copy))
    assert (before == after) == (key != "image")


def test_count_is_in_names_and_description(augmented: Path) -> None:
    dataset = load_dataset(augmented)
    assert dataset.counts == {"train": 72}
    assert [shard_count(path) for path in dataset.shards("train")] == [36, 36]


def test_result_is_what_was_written(dataset_folder: Path, tmp_path: Path) -> None:
    result = run(dataset_folder, tmp_path / "augmented")
    assert load_dataset(tmp_path / "augmented") == result


def test_description_is_that_of_the_examples(dataset_folder: Path, augmented: Path) -> None:
    before, after = load_dataset(dataset_folder), load_dataset(augmented)
    assert (after.class_names, after.image_size) == (before.class_names, before.image_size)
    assert after.fingerprint != before.fingerprint


def test_train_is_the_only_split(augmented: Path) -> None:
    assert sorted(path.name for path in augmented.iterdir()) == ["dataset.json", "train"]


def test_examples_are_left_as_they_were(dataset_folder: Path, tmp_path: Path) -> None:
    before = digests_below(dataset_folder)
    run(dataset_folder, tmp_path / "augmented")
    assert digests_below(dataset_folder) == before


def test_other_splits_are_not_even_read(
    dataset_folder: Path, augmented: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(dataset_folder, tmp_path / "copy"))
    shutil.rmtree(copy / "validation")
    shutil.rmtree(copy / "test")
    run(copy, tmp_path / "augmented")
    assert digests_below(tmp_path / "augmented") == digests_below(augmented)


def test_another_seed_gives_other_copies(
    dataset_folder: Path, augmented: Path, tmp_path: Path
) -> None:
    run(dataset_folder, tmp_path / "other", seed=1)
    pairs = list(zip(payloads(augmented), payloads(tmp_path / "other"), strict=True))
    assert [one == other for one, other in pairs] == [index % 3 == 0 for index in range(72)]


def test_more_copies_keep_the_first_ones(
    dataset_folder: Path, augmented: Path, tmp_path: Path
) -> None:
    run(dataset_folder, tmp_path / "more", copies=3)
    more = payloads(tmp_path / "more")
    assert [payload for index, payload in enumerate(more) if index % 4 < 3] == payloads(augmented)


def test_no_copies_leave_the_train_split(dataset_folder: Path, tmp_path: Path) -> None:
    result = run(dataset_folder, tmp_path / "augmented", copies=0)
    assert result.counts == {"train": 24}
    assert payloads(tmp_path / "augmented") == payloads(dataset_folder)


def test_identity_policy_gives_the_same_image(dataset_folder: Path, tmp_path: Path) -> None:
    run(dataset_folder, tmp_path / "augmented", copies=1, policy=IDENTITY)
    original, copy = (image_of(payload) for payload in payloads(tmp_path / "augmented")[:2])
    # It is encoded once more, which costs a level or two.
    assert np.abs(original - copy).mean() < 2


def test_policy_is_applied(dataset_folder: Path, tmp_path: Path) -> None:
    grey = IDENTITY | {"saturation": [0, 0]}
    run(dataset_folder, tmp_path / "augmented", copies=1, policy=grey)
    copies = [image_of(payload) for payload in payloads(tmp_path / "augmented")[1::2]]
    assert max(np.ptp(copy, axis=2).mean() for copy in copies) < 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"copies": -1}, "copies: expected 0 to 100, received -1"),
        ({"copies": 101}, "copies: expected 0 to 100, received 101"),
        ({"seed": -1}, "seed: expected 0 to 2147483647, received -1"),
        ({"policy": {"flip": 1}}, "policy.flip: expected true or false, received 1"),
        ({"policy": {"crop_area": 0.01}}, "policy.crop_area: expected 0.05 to 1, received 0.01"),
        ({"policy": {"saturation": [2, 1]}}, "policy.saturation: expected 0 to 1, received 2"),
        ({"policy": {"hue": 1}}, "policy.hue: expected 0 to 0.5, received 1"),
        ({"policy": {"blur": 1}}, "policy.blur: unknown key; expected one of flip"),
    ],
)
def test_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(AugmentConfig, options)
    assert str(error.value).startswith(message)


def test_absent_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give the output folder of ingest_examples"):
        run(tmp_path / "absent", tmp_path / "augmented")


def test_data_set_without_a_train_split_is_refused(tmp_path: Path) -> None:
    examples = make_dataset(tmp_path / "examples", counts={"test": 3})
    with pytest.raises(DataError, match=r"expected a split 'train', found \['test'\]"):
        run(examples, tmp_path / "augmented")


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_damaged_shard_leaves_nothing(dataset_folder: Path, tmp_path: Path, damage: str) -> None:
    copy = Path(shutil.copytree(dataset_folder, tmp_path / "copy"))
    shard = load_dataset(copy).shards("train")[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    half = shard.read_bytes()[: len(content) // 2]
    shard.write_bytes({"cut": half, "flipped": bytes(content), "emptied": b""}[damage])
    with pytest.raises(DataError, match=f"{shard.name}: .*ingest the photos anew"):
        run(copy, tmp_path / "augmented")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def pictures(page: Path) -> list[str]:
    return re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page.read_text())


def test_page_shows_examples_and_their_copies(dataset_folder: Path, augmented: Path) -> None:
    shown = pictures(augmented.with_name("augmented.html"))
    jpegs = [
        base64.b64encode(parse_features(tf.constant(payload))[0].numpy()).decode()
        for payload in payloads(augmented)
    ]
    # Two examples of each of three classes, whose labels are 0, 1, 2, 0, 1, 2, ...
    assert sorted(shown) == sorted(jpegs[:18])


def test_page_of_no_copies_says_so(dataset_folder: Path, tmp_path: Path) -> None:
    run(dataset_folder, tmp_path / "augmented", copies=0)
    assert "No copies were made." in (tmp_path / "augmented.html").read_text()


def test_output_that_exists_is_refused(dataset_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ConfigError, match="already exists"):
        run(dataset_folder, tmp_path)


def test_command_writes_the_same_data_set(
    dataset_folder: Path, augmented: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"crop_area": 0.35}))
    arguments = ["--examples", dataset_folder, "--output", output, "--copies", 2]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "components.augment_examples",
            *map(str, arguments),
            "--policy",
            str(policy),
        ],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert digests_below(output / "augmented") == digests_below(augmented)
