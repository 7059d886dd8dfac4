"""Damaged inputs by the hundred, by `make damage` by the thousand: no crash, no hang, none lost."""

import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf

from components.common.dataset import load_dataset
from components.common.errors import DataError
from components.common.example_proto import encode_example
from components.common.examples import parse_features
from components.common.resizing import CROP
from components.common.tfrecords import read_shard, write_shard
from components.ingest_examples.config import IngestConfig, PhotosConfig
from components.ingest_examples.ingest import ingest
from components.ingest_examples.ledger import IngestResult
from components.ingest_examples.sources import open_source
from components.ingest_examples.work import PartTask, prepare_part
from tests.builders import CLASS_NAMES, make_jpegs, make_photos
from tests.damage import damaged_inputs, damaged_shards, is_image

SIZE = 32
GOOD = 90
# The slowest input takes some tenths of a second; one that takes this long hangs.
SECONDS_EACH = 5.0


@pytest.fixture(scope="module")
def count(request: pytest.FixtureRequest) -> int:
    number: int = request.config.getoption("--damaged-inputs")
    return number


@pytest.fixture(scope="module")
def result(count: int, tmp_path_factory: pytest.TempPathFactory) -> IngestResult:
    """Ninety good photos and the damaged ones, ingested in two processes."""
    folder = tmp_path_factory.mktemp("damage")
    root = make_photos(folder / "photos")
    for name, content in damaged_inputs(count):
        (root / "circles" / f"damaged-{name}").write_bytes(content)
    config = IngestConfig(image_size=SIZE, max_reject_fraction=1.0)
    places = folder / "examples", folder / "report.html"
    return ingest(PhotosConfig(str(root)), config, *places, workers=2)


def test_read_is_written_and_rejected_exactly(result: IngestResult, count: int) -> None:
    assert len(result.entries) == GOOD + count
    assert result.written + result.rejected.total() == GOOD + count
    assert sum(result.dataset.counts.values()) == result.written
    assert all(bool(entry.reason) != bool(entry.split) for entry in result.entries)
    assert all(entry.detail for entry in result.entries if entry.reason)


def test_no_good_photo_is_lost(result: IngestResult) -> None:
    good = [entry for entry in result.entries if "damaged" not in entry.name]
    assert len(good) == GOOD
    assert not [entry for entry in good if entry.reason]


def test_every_reason_comes_up(result: IngestResult) -> None:
    expected = {"not an image", "truncated", "damaged", "too large", "too small", "unreadable"}
    assert expected <= set(result.rejected)


def test_what_is_written_is_whole(result: IngestResult) -> None:
    dataset = load_dataset(result.dataset.path)
    jpegs = [
        parse_features(tf.constant(payload))[0].numpy()
        for split in dataset.counts
        for shard in dataset.shards(split)
        for payload in read_shard(shard)
    ]
    assert len(jpegs) == result.written
    assert all(is_image(jpeg, SIZE) for jpeg in jpegs)


def test_no_input_hangs(count: int, tmp_path: Path) -> None:
    slow = []
    source = open_source("synthetic://flowers?per_class=1")
    for name, content in damaged_inputs(min(count, 150)):
        (tmp_path / "photo").write_bytes(content)
        began = time.monotonic()
        task = PartTask(
            _Bytes(content),  # type: ignore[arg-type]
            tuple(source.photos[:1]),
            source.class_names,
            SIZE,
            CROP,
            str(tmp_path / "part"),
        )
        (row,) = prepare_part(task)
        assert (row.reason is None) == (row.length > 0)
        if time.monotonic() - began > SECONDS_EACH:
            slow.append(name)
    assert not slow


class _Bytes:
    """A reader of one photo."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, photos: object) -> list[bytes]:
        return [self._content]


def test_damaged_shards_lose_no_record_silently(count: int, tmp_path: Path) -> None:
    jpegs = make_jpegs(12, SIZE)
    records = [encode_example(jpeg, i % 3, CLASS_NAMES, SIZE) for i, jpeg in enumerate(jpegs)]
    write_shard(tmp_path / "whole-12.tfrec", records)
    whole = (tmp_path / "whole-12.tfrec").read_bytes()
    seen: Counter[str] = Counter()
    for content in damaged_shards(whole, max(count // 4, 60)):
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            root = Path(folder)
            (root / "good-12.tfrec").write_bytes(whole)
            (root / "worse-12.tfrec").write_bytes(content)
            try:
                source = open_source(folder)
            except DataError:
                seen["refused"] += 1
                continue
            rows = prepare_part(
                PartTask(
                    source.reader,
                    tuple(source.photos),
                    source.class_names,
                    SIZE,
                    CROP,
                    str(root / "part"),
                )
            )
        assert len(rows) == len(source.photos) >= 24
        written = sum(row.reason is None for row in rows)
        assert written + sum(row.reason is not None for row in rows) == len(rows)
        assert written >= 12
        seen["lost some" if written < 24 else "lost none"] += 1
    assert seen["lost some"] > 0.9 * seen.total()
