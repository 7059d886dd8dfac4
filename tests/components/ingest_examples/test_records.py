"""Tests of TFRecord shards as a source: verified, re-split, and no record lost silently."""

import math
import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from components.common.dataset import load_dataset
from components.common.errors import ConfigError, DataError
from components.common.example_proto import encode_example
from components.common.examples import parse_features
from components.common.tfrecords import frame, read_shard, write_shard
from components.ingest_examples.config import IngestConfig, PhotosConfig
from components.ingest_examples.ingest import ingest
from components.ingest_examples.ledger import IngestResult
from components.ingest_examples.sources import find_class_names, open_source, records
from tests.builders import CLASS_NAMES, make_jpegs

SIZE = 32


def run(images: Path, output: Path, **options: object) -> IngestResult:
    config = IngestConfig(image_size=SIZE, **options)  # type: ignore[arg-type]
    places = output / "examples", output / "report.html"
    return ingest(PhotosConfig(str(images)), config, *places, workers=1)


def payloads(count: int = 90) -> list[bytes]:
    return [
        encode_example(jpeg, index % 3, CLASS_NAMES, SIZE)
        for index, jpeg in enumerate(make_jpegs(count, SIZE))
    ]


def make_shards(folder: Path, records: list[bytes]) -> Path:
    """Three shards, named as the public ones are."""
    folder.mkdir()
    size = math.ceil(len(records) / 3)
    for number in range(3):
        part = records[number * size : (number + 1) * size]
        write_shard(folder / f"flowers{number:02d}-{len(part)}.tfrec", part)
    return folder


def images_in(result: IngestResult) -> set[bytes]:
    dataset = load_dataset(result.dataset.path)
    return {
        parse_features(tf.constant(payload))[0].numpy()
        for split in dataset.counts
        for shard in dataset.shards(split)
        for payload in read_shard(shard)
    }


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return make_shards(tmp_path / "shards", payloads())


def test_images_of_the_right_size_are_kept_bit_for_bit(shards: Path, tmp_path: Path) -> None:
    result = run(shards, tmp_path)
    assert images_in(result) == set(make_jpegs(90, SIZE))
    assert set(result.dataset.counts) == {"train", "validation", "test"}
    assert result.dataset.class_names == CLASS_NAMES


def test_labels_are_those_of_the_records(shards: Path) -> None:
    source = open_source(str(shards))
    contents = list(source.reader.read(source.photos))
    labels = dict(zip(make_jpegs(90, SIZE), [CLASS_NAMES[n % 3] for n in range(90)], strict=True))
    assert [photo.class_name for photo in source.photos] == [labels[one] for one in contents]  # type: ignore[index]
    assert find_class_names(str(shards)) == ()


def test_own_split_of_shards_is_kept(tmp_path: Path) -> None:
    records = payloads()
    for split, part in (
        ("train", records[:60]),
        ("validation", records[60:75]),
        ("test", records[75:]),
    ):
        (tmp_path / "divided" / split).mkdir(parents=True)
        write_shard(tmp_path / "divided" / split / f"{split}-{len(part)}.tfrec", part)
    result = run(tmp_path / "divided", tmp_path)
    assert result.dataset.counts == {"train": 60, "validation": 15, "test": 15}
    for entry in result.entries:
        assert entry.split == entry.name.split("/")[0]


def test_class_order_is_that_of_the_numbers(tmp_path: Path) -> None:
    names = ("zebra", "ant", "mole")
    records = [
        encode_example(jpeg, index % 3, names, SIZE)
        for index, jpeg in enumerate(make_jpegs(9, SIZE))
    ]
    assert open_source(str(make_shards(tmp_path / "shards", records))).class_names == names


def changed(**features: object) -> bytes:
    example = tf.train.Example.FromString(payloads(1)[0])
    for key, value in features.items():
        feature = example.features.feature[key]
        if value is None:
            del example.features.feature[key]
        else:
            feature.CopyFrom(value)
    serialized: bytes = example.SerializeToString()
    return serialized


def ints(*values: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def texts(*values: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


@pytest.mark.parametrize(
    ("record", "detail"),
    [
        pytest.param(lambda: b"\xff\xff", "not a tf.train.Example", id="no example"),
        pytest.param(lambda: changed(image=None), "feature 'image' is missing", id="no image"),
        pytest.param(
            lambda: changed(image=ints(1)),
            "feature 'image': expected bytes_list, found int64_list",
            id="image of another type",
        ),
        pytest.param(lambda: changed(image=texts(b"no")), "image is not a JPEG", id="no JPEG"),
        pytest.param(
            lambda: changed(**{"class": ints(3)}), "class 3: expected 0 to 2", id="class range"
        ),
        pytest.param(
            lambda: changed(**{"class": ints(1)}),
            "one_hot_class does not say 1 as class does",
            id="one hot",
        ),
        pytest.param(
            lambda: changed(**{"class": ints(0, 1)}),
            "feature 'class': expected 1 values, received 2",
            id="two classes",
        ),
        pytest.param(
            lambda: changed(size=ints(32, 31)),
            "size says [32, 31], the image has [32, 32]",
            id="size",
        ),
        pytest.param(lambda: changed(label=texts(b"\xff")), "label is not text", id="label bytes"),
        pytest.param(
            lambda: changed(label=texts(b"other")),
            "class 0 is 'circles', label says 'other'",
            id="label name",
        ),
    ],
)
def test_wrong_record_is_rejected_with_its_reason(
    tmp_path: Path, record: object, detail: str
) -> None:
    records = payloads()
    make_shards(tmp_path / "shards", [*records, record()])  # type: ignore[operator]
    result = run(tmp_path / "shards", tmp_path, max_reject_fraction=0.1)
    assert result.written == 90
    (bad,) = (entry for entry in result.entries if entry.reason)
    assert bad.reason == "damaged"
    assert bad.detail.startswith(detail)


@pytest.mark.parametrize(
    ("damage", "written", "details"),
    [
        ("payload", 89, ["the checksum of a record is wrong"]),
        ("length", 70, ["the checksum of a length is wrong"]),
        ("cut", 75, ["cut in the middle of a record"]),
        ("record", 89, ["the name of the shard counts it, the shard ends after 29"]),
    ],
)
def test_damaged_shard_loses_no_record_silently(
    shards: Path, tmp_path: Path, damage: str, written: int, details: list[str]
) -> None:
    shard = sorted(shards.iterdir())[1]
    content = bytearray(shard.read_bytes())
    records = [len(frame(payload)) for payload in read_shard(shard)]
    if damage == "payload":
        content[sum(records[:10]) + 20] ^= 1
    elif damage == "length":
        content[sum(records[:10])] ^= 1
    elif damage == "cut":
        del content[sum(records[:15]) + 30 :]
    else:
        del content[sum(records[:29]) :]
    shard.write_bytes(content)
    result = run(shards, tmp_path, max_reject_fraction=0.5)
    assert len(result.entries) == 90
    assert result.written == written
    assert result.rejected == {"damaged": 90 - written}
    lost = [entry.detail for entry in result.entries if entry.reason]
    assert lost[: len(details)] == details
    assert all("the name of the shard counts it" in detail for detail in lost[len(details) :])


def test_number_in_a_name_that_is_no_count_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    write_shard(tmp_path / "shards" / "flowers-20240131.tfrec", payloads())
    message = (
        r"flowers-20240131.tfrec: expected at most 100000 records in \d+ bytes, found 20240131"
    )
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path / "shards"))


def test_shard_that_is_cut_to_nothing_loses_no_record_silently(shards: Path) -> None:
    sorted(shards.iterdir())[1].write_bytes(b"")
    lost = [photo for photo in open_source(str(shards)).photos if photo.damage]
    assert [photo.name for photo in lost] == [
        f"flowers01-30.tfrec#{index:06d}" for index in range(30)
    ]


def test_records_keep_their_order_when_their_numbers_grow(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As text, 10 comes before 2, and so does the millionth record of a shard."""
    monkeypatch.setattr(records, "_DIGITS", 1)
    source = open_source(str(shards))
    assert [photo.name for photo in source.photos[:30]] == [
        f"flowers00-30.tfrec#{index}" for index in range(30)
    ]
    assert list(source.reader.read(source.photos)) == make_jpegs(90, SIZE)


def test_records_are_read_in_any_order(shards: Path) -> None:
    source = open_source(str(shards))
    read = list(source.reader.read(source.photos[::-1]))
    assert read == make_jpegs(90, SIZE)[::-1]


def test_shards_without_a_good_record_are_refused(tmp_path: Path) -> None:
    make_shards(tmp_path / "shards", [b"\xff"] * 3)
    with pytest.raises(DataError, match=r"found no good record .the first is .*not a tf.train"):
        open_source(str(tmp_path / "shards"))


def test_classes_that_share_a_name_are_refused(tmp_path: Path) -> None:
    names = ("ant", "ant", "mole")
    records = [
        encode_example(jpeg, index % 3, names, SIZE)
        for index, jpeg in enumerate(make_jpegs(9, SIZE))
    ]
    with pytest.raises(DataError, match="each with a name of its own, found 0 'ant', 1 'ant'"):
        open_source(str(make_shards(tmp_path / "shards", records)))


def test_shards_of_one_class_are_refused(tmp_path: Path) -> None:
    make_shards(
        tmp_path / "shards",
        [encode_example(jpeg, 0, ("ant",), SIZE) for jpeg in make_jpegs(3, SIZE)],
    )
    with pytest.raises(DataError, match="found only 'ant'; add records of each further class"):
        open_source(str(tmp_path / "shards"))


def test_our_own_examples_are_read_back(shards: Path, tmp_path: Path) -> None:
    first = run(shards, tmp_path / "first")
    shutil.rmtree(shards)
    again = run(first.dataset.path, tmp_path / "again")
    assert again.dataset.fingerprint == first.dataset.fingerprint


def test_how_our_own_examples_became_squares_is_kept(shards: Path, tmp_path: Path) -> None:
    first = run(shards, tmp_path / "first", resize="stretch").dataset.path
    with pytest.raises(ConfigError, match=r"resize: expected stretch, .* received crop; "):
        run(first, tmp_path / "cropped", resize="crop")
    assert not (tmp_path / "cropped").exists()
    assert run(first, tmp_path / "again", resize="stretch").dataset.resize == "stretch"


@pytest.mark.parametrize("content", ["nonsense", "[]"])
def test_damaged_description_of_our_examples_is_refused(
    shards: Path, tmp_path: Path, content: str
) -> None:
    examples = run(shards, tmp_path / "first").dataset.path
    (examples / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json: not a data set description"):
        open_source(str(examples))
