"""Tests of ingestion from a folder of photos to shards, ledger and page."""

import csv
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from components.common.dataset import SPLITS, fingerprint, load_dataset
from components.common.errors import ConfigError, DataError
from components.common.examples import parse_example, parse_features
from components.common.resizing import RESIZES
from components.common.tfrecords import read_shard
from components.ingest_examples import ingest as module
from components.ingest_examples.config import IngestConfig, PhotosConfig
from components.ingest_examples.ingest import ingest
from components.ingest_examples.ledger import Entry, IngestResult
from components.ingest_examples.photos import Reason, perceptual_hash, prepare
from components.ingest_examples.splits import Fractions, choose_split
from tests.builders import CLASS_NAMES, draw_photo, encode, make_photos

SIZE = 32
PHOTOGRAPHERS = ("Ann", "Ben", "Cleo", "Dora", "Emil", "Fay", "Gus", "Hal", "Ida", "Jon")


def run(
    images: Path | str,
    output: Path,
    workers: int = 1,
    manifest: str = "",
    group_column: str = "",
    **options: Any,
) -> IngestResult:
    photos = PhotosConfig(str(images), manifest, group_column)
    config = IngestConfig(image_size=SIZE, **options)
    return ingest(photos, config, output / "examples", output / "report.html", workers)


def copy_of(photos: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(photos, tmp_path / "photos"))


def digests_below(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def payloads(result: IngestResult, split: str) -> list[bytes]:
    shards = load_dataset(result.dataset.path).shards(split)
    return [payload for shard in shards for payload in read_shard(shard)]


def read_ledger(result: IngestResult) -> list[dict[str, str]]:
    with (result.dataset.path / "photos.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def entry_of(result: IngestResult, name: str) -> Entry:
    (found,) = (entry for entry in result.entries if entry.name == name)
    return found


def split_of(image: Image.Image) -> str:
    config = IngestConfig()
    fractions = Fractions(config.validation_fraction, config.test_fraction)
    phash = perceptual_hash(np.asarray(image))
    return choose_split(f"phash:{phash:016x}", fractions, config.split_salt)


def look_alikes(label: int, number: int) -> Iterator[Image.Image]:
    """Versions of a photo with a small spot, whose hashes differ in a few bits."""
    for x, y in product(range(0, 60, 4), range(0, 44, 4)):
        image = draw_photo(label, number)
        image.paste((255, 255, 0), (x, y, x + 4, y + 4))
        yield image


def bits_between(one: Image.Image, other: Image.Image) -> int:
    return (perceptual_hash(np.asarray(one)) ^ perceptual_hash(np.asarray(other))).bit_count()


def look_alike_in(split: str, label: int, number: int) -> Image.Image:
    return next(image for image in look_alikes(label, number) if split_of(image) == split)


def bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels in 1 bit each, some 50 KB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return len(body).to_bytes(4, "big") + kind + body + checksum.to_bytes(4, "big")

    side = (20_000).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            chunk(b"IHDR", side + side + bytes([1, 0, 0, 0, 0])),
            chunk(b"IDAT", zlib.compress(bytes(20_000 * 2_501))),
            chunk(b"IEND", b""),
        ]
    )


class _Links(HTMLParser):
    """Collects everything by which a page asks for something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = re.findall(r"url\(\s*['\"]?([^)]*)", text)
        self.links += re.findall(r"@import\s+(\S+)", text)
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        asking = ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
        self.links += [value or "" for name, value in attrs if name in asking]


@pytest.fixture(scope="module")
def ingested(photos_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> IngestResult:
    """Ninety good photos, ingested."""
    return run(photos_folder, tmp_path_factory.mktemp("ingested"))


class Damaged(NamedTuple):
    """A run over good and bad photos."""

    result: IngestResult
    page: str


@pytest.fixture(scope="module")
def damaged(photos_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """Ninety good photos and one or two of each kind that cannot be used, ingested."""
    folder = tmp_path_factory.mktemp("damaged")
    root = copy_of(photos_folder, folder)
    (root / "circles" / "text.jpg").write_text("no picture")
    (root / "circles" / "empty.jpg").touch()
    (root / "circles" / "tiny.png").write_bytes(encode(Image.new("RGB", (1, 1)), "PNG"))
    (root / "squares" / "bomb.png").write_bytes(bomb())
    photo = (root / "squares" / "000.jpg").read_bytes()
    (root / "squares" / "cut.jpg").write_bytes(photo[: len(photo) // 2])
    shutil.copy(root / "stripes" / "000.jpg", root / "stripes" / "same.jpg")
    shared = encode(draw_photo(0, 1_000))
    (root / "circles" / "shared.jpg").write_bytes(shared)
    (root / "stripes" / "shared.jpg").write_bytes(shared)
    (folder / "secret").write_bytes(encode(draw_photo(0, 1_001)))
    (root / "circles" / "link.jpg").symlink_to(folder / "secret")
    for split in ("train", "test"):
        image = look_alike_in(split, 0, 1_002)
        (root / "squares" / f"look-{split}.png").write_bytes(encode(image, "PNG"))
    result = run(root, folder, max_reject_fraction=0.2)
    return Damaged(result, (folder / "report.html").read_text(encoding="utf-8"))


def test_every_photo_read_is_written_or_rejected(damaged: Damaged) -> None:
    result = damaged.result
    assert len(result.entries) == 101
    assert result.written + result.rejected.total() == 101
    assert result.written == sum(result.dataset.counts.values())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("circles/text.jpg", Reason.NOT_AN_IMAGE),
        ("circles/empty.jpg", Reason.NOT_AN_IMAGE),
        ("circles/tiny.png", Reason.TOO_SMALL),
        ("circles/link.jpg", Reason.UNREADABLE),
        ("squares/bomb.png", Reason.TOO_LARGE),
        ("squares/cut.jpg", Reason.TRUNCATED),
        ("stripes/same.jpg", Reason.EXACT_DUPLICATE),
        ("circles/shared.jpg", Reason.TWO_LABELS),
        ("stripes/shared.jpg", Reason.TWO_LABELS),
        ("squares/look-train.png", Reason.NEAR_DUPLICATE),
    ],
)
def test_bad_photo_is_rejected_with_its_reason(damaged: Damaged, name: str, reason: Reason) -> None:
    entry = entry_of(damaged.result, name)
    assert (entry.split, entry.reason) == ("", reason.value)
    assert entry.detail


def test_no_good_photo_is_rejected_beside_bad_ones(
    damaged: Damaged, ingested: IngestResult
) -> None:
    kept = {(entry.name, entry.split) for entry in damaged.result.entries if entry.split}
    good = {(entry.name, entry.split) for entry in ingested.entries}
    assert kept == good | {("squares/look-test.png", "test")}


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("stripes/same.jpg", "same bytes as stripes/000.jpg"),
        ("circles/shared.jpg", "same bytes as stripes/shared.jpg"),
        ("squares/look-train.png", "looks like squares/look-test.png in test"),
        ("circles/link.jpg", "the link leads outside the folder of images"),
    ],
)
def test_detail_names_what_the_reason_rests_on(damaged: Damaged, name: str, detail: str) -> None:
    assert entry_of(damaged.result, name).detail == detail


def test_pair_that_looks_alike_is_reported(damaged: Damaged) -> None:
    pair = ("squares/look-test.png", "squares/look-train.png")
    assert damaged.result.near_duplicates == (pair,)


def test_ledger_lists_every_photo(damaged: Damaged) -> None:
    rows = read_ledger(damaged.result)
    assert rows == [
        {key: str(value) for key, value in vars(entry).items()} for entry in damaged.result.entries
    ]


def test_shards_hold_what_the_ledger_says(ingested: IngestResult) -> None:
    in_ledger = Counter((row["split"], row["class_name"]) for row in read_ledger(ingested))
    names = ingested.dataset.class_names
    in_shards = Counter(
        (split, names[int(parse_example(payload, SIZE)[1])])
        for split in SPLITS
        for payload in payloads(ingested, split)
    )
    assert in_shards == in_ledger


def test_photos_go_to_all_splits(ingested: IngestResult) -> None:
    assert set(ingested.dataset.counts) == set(SPLITS)
    assert min(ingested.dataset.counts.values()) >= len(CLASS_NAMES)


def test_no_image_is_in_two_splits(ingested: IngestResult) -> None:
    everything = [payload for split in SPLITS for payload in payloads(ingested, split)]
    assert len(set(everything)) == len(everything) == 90


def test_classes_are_mixed_within_a_shard(ingested: IngestResult) -> None:
    labels = [int(parse_example(payload, SIZE)[1]) for payload in payloads(ingested, "train")]
    assert labels != sorted(labels)


def test_description_is_that_of_the_result(ingested: IngestResult) -> None:
    assert load_dataset(ingested.dataset.path) == ingested.dataset


def test_fingerprint_is_that_of_the_records_in_the_shards(ingested: IngestResult) -> None:
    digests = [
        (split, hashlib.sha256(payload).digest())
        for split in SPLITS
        for payload in payloads(ingested, split)
    ]
    assert ingested.dataset.fingerprint == fingerprint(digests)


def test_output_holds_nothing_else(ingested: IngestResult) -> None:
    folder = ingested.dataset.path
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["dataset.json", "photos.csv", *SPLITS]
    )
    assert sorted(path.name for path in folder.parent.iterdir()) == ["examples", "report.html"]


@pytest.mark.parametrize("workers", [1, 2])
def test_same_photos_give_the_same_bytes(
    ingested: IngestResult, photos_folder: Path, tmp_path: Path, workers: int
) -> None:
    again = run(photos_folder, tmp_path, workers=workers)
    assert again.dataset.fingerprint == ingested.dataset.fingerprint
    assert digests_below(again.dataset.path) == digests_below(ingested.dataset.path)


def test_page_is_the_same_on_every_run(photos_folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(photos_folder, tmp_path / name)
    one, two = ((tmp_path / name / "report.html").read_bytes() for name in ("one", "two"))
    assert one == two


def test_photos_at_another_place_have_the_same_fingerprint(
    ingested: IngestResult, photos_folder: Path, tmp_path: Path
) -> None:
    moved = run(copy_of(photos_folder, tmp_path), tmp_path / "output")
    assert moved.dataset.fingerprint == ingested.dataset.fingerprint


def test_another_photo_changes_the_fingerprint(
    ingested: IngestResult, photos_folder: Path, tmp_path: Path
) -> None:
    root = copy_of(photos_folder, tmp_path)
    (root / "circles" / "900.jpg").write_bytes(encode(draw_photo(0, 900)))
    assert run(root, tmp_path / "output").dataset.fingerprint != ingested.dataset.fingerprint


def test_more_photos_leave_the_old_ones_in_their_splits(
    ingested: IngestResult, photos_folder: Path, tmp_path: Path
) -> None:
    root = copy_of(photos_folder, tmp_path)
    for number in range(500, 530):
        (root / "circles" / f"!{number}.jpg").write_bytes(encode(draw_photo(0, number)))
    grown = run(root, tmp_path / "output")
    splits = {entry.name: entry.split for entry in grown.entries}
    assert all(splits[entry.name] == entry.split for entry in ingested.entries)


def test_another_salt_divides_anew(
    ingested: IngestResult, photos_folder: Path, tmp_path: Path
) -> None:
    other = run(photos_folder, tmp_path, split_salt="2", validation_fraction=0.3, test_fraction=0.3)
    in_test = [
        {entry.name for entry in result.entries if entry.split == "test"}
        for result in (ingested, other)
    ]
    assert not in_test[0] <= in_test[1]


def write_manifest(path: Path, photographer: Callable[[int], str], skip: str = "") -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "photographer"])
        for name in CLASS_NAMES:
            for number in range(30):
                photo = f"{name}/{number:03d}.jpg"
                if photo != skip:
                    writer.writerow([photo, photographer(number)])
    return str(path)


@pytest.mark.parametrize("inside", [True, False])
def test_photos_of_a_group_stay_together(photos_folder: Path, tmp_path: Path, inside: bool) -> None:
    root = copy_of(photos_folder, tmp_path)
    path = (root if inside else tmp_path) / "manifest.csv"
    manifest = write_manifest(path, lambda number: PHOTOGRAPHERS[number % len(PHOTOGRAPHERS)])
    result = run(
        root,
        tmp_path / "output",
        manifest="manifest.csv" if inside else manifest,
        group_column="photographer",
    )
    splits = defaultdict(set)
    for entry in result.entries:
        splits[entry.group].add(entry.split)
    assert set(splits) == {f"photographer:{name}" for name in PHOTOGRAPHERS}
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == set(SPLITS)


def test_photos_of_nobody_are_groups_of_their_own(
    ingested: IngestResult, photos_folder: Path, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path / "manifest.csv", lambda _: "")
    result = run(photos_folder, tmp_path, manifest=manifest, group_column="photographer")
    assert result.entries == ingested.entries


def test_photo_without_a_row_is_rejected(photos_folder: Path, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "manifest.csv", lambda _: "", skip="circles/007.jpg")
    result = run(
        photos_folder,
        tmp_path,
        manifest=manifest,
        group_column="photographer",
        max_reject_fraction=0.02,
    )
    rejected = [(entry.name, entry.reason) for entry in result.entries if entry.reason]
    assert rejected == [("circles/007.jpg", Reason.NOT_IN_MANIFEST.value)]


@pytest.mark.parametrize("resize", RESIZES)
def test_photos_become_squares_as_asked(photos_folder: Path, tmp_path: Path, resize: str) -> None:
    result = run(photos_folder, tmp_path, resize=resize)
    assert load_dataset(result.dataset.path).resize == resize
    written = [payload for split in SPLITS for payload in payloads(result, split)]
    expected = {
        prepare((photos_folder / entry.name).read_bytes(), SIZE, resize).jpeg
        for entry in result.entries
        if entry.split
    }
    assert {parse_features(payload)[0].numpy() for payload in written} == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"manifest": "m.csv"}, "--manifest: goes with --group-column, which is missing"),
        ({"group_column": "who"}, "--group-column: goes with --manifest, which is missing"),
    ],
)
def test_manifest_and_column_go_together(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PhotosConfig("photos", **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 15}, "image_size: expected 16 to 1024, received 15"),
        ({"resize": "squash"}, "resize: expected one of crop, stretch, received 'squash'"),
        ({"test_fraction": 0.0}, "test_fraction: expected 0.01 to 0.8, received 0"),
        ({"test_fraction": float("nan")}, "test_fraction: expected 0.01 to 0.8, received nan"),
        ({"validation_fraction": 0.9}, "validation_fraction: expected 0.01 to 0.8, received 0.9"),
        (
            {"validation_fraction": 0.5, "test_fraction": 0.5},
            "validation_fraction \\+ test_fraction: expected 0.02 to 0.9, received 1",
        ),
        ({"max_reject_fraction": -0.1}, "max_reject_fraction: expected 0 to 1, received -0.1"),
    ],
)
def test_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        IngestConfig(**options)


def test_too_many_bad_photos_fail(photos_folder: Path, tmp_path: Path) -> None:
    root = copy_of(photos_folder, tmp_path)
    (root / "circles" / "text.jpg").write_text("no picture")
    message = (
        r"1 of 91 photos cannot be used \(1 not an image; the first is 'circles/text.jpg'\): "
        r"expected at most 1.0%"
    )
    with pytest.raises(DataError, match=message):
        run(root, tmp_path / "output", max_reject_fraction=0.01)


def test_as_many_bad_photos_as_allowed_pass(photos_folder: Path, tmp_path: Path) -> None:
    root = copy_of(photos_folder, tmp_path)
    for index in range(10):
        (root / "circles" / f"text{index}.jpg").write_text(f"no picture {index}")
    result = run(root, tmp_path / "output", max_reject_fraction=0.1)
    assert (len(result.entries), result.rejected.total()) == (100, 10)


def test_photo_under_two_labels_fails_by_default(photos_folder: Path, tmp_path: Path) -> None:
    root = copy_of(photos_folder, tmp_path)
    shutil.copy(root / "circles" / "000.jpg", root / "stripes" / "copy.jpg")
    with pytest.raises(DataError, match="2 the same photo under two labels"):
        run(root, tmp_path / "output")


def test_photo_under_two_labels_names_three_others(photos_folder: Path, tmp_path: Path) -> None:
    """All of them would make a ledger that no reader of CSV takes."""
    root = copy_of(photos_folder, tmp_path)
    for index in range(40):
        shutil.copy(root / "circles" / "000.jpg", root / "stripes" / f"copy{index:02d}.jpg")
    result = run(root, tmp_path / "output", max_reject_fraction=0.5)
    three = "circles/000.jpg, stripes/copy00.jpg, stripes/copy01.jpg"
    assert entry_of(result, "stripes/copy39.jpg").detail == f"same bytes as {three} and 37 more"
    three = "stripes/copy00.jpg, stripes/copy01.jpg, stripes/copy02.jpg"
    assert entry_of(result, "circles/000.jpg").detail == f"same bytes as {three} and 37 more"


def test_warning_of_look_alikes_with_two_labels_names_three(
    photos_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copy_of(photos_folder, tmp_path)
    original = draw_photo(0, 1_005)
    alike = (image for image in look_alikes(0, 1_005) if bits_between(image, original) <= 4)
    for number, image in enumerate(islice(alike, 5)):
        name = "circles" if number % 2 else "stripes"
        (root / name / f"alike{number}.png").write_bytes(encode(image, "PNG"))
    run(root, tmp_path / "output")
    three = "circles/alike1.png, circles/alike3.png, stripes/alike0.png"
    assert f"the first is {three} and 2 more; see the data report" in capsys.readouterr().out


def test_duplicates_never_fail(photos_folder: Path, tmp_path: Path) -> None:
    root = copy_of(photos_folder, tmp_path)
    for index in range(30):
        shutil.copy(root / "circles" / "000.jpg", root / "circles" / f"copy{index:02d}.jpg")
    result = run(root, tmp_path / "output", max_reject_fraction=0.0)
    assert result.rejected == {Reason.EXACT_DUPLICATE.value: 30}


def test_photo_that_was_set_aside_is_no_reason_without_a_split(
    photos_folder: Path, tmp_path: Path
) -> None:
    root = copy_of(photos_folder, tmp_path)
    # The first gives way to the second, and the third looks like the first.
    first = look_alike_in("validation", 0, 1_003)
    others = [image for image in look_alikes(0, 1_003) if bits_between(image, first) <= 8]
    second, third = (
        next(image for image in others if split_of(image) == split) for split in ("test", "train")
    )
    for number, image in enumerate((first, second, third), start=900):
        (root / "circles" / f"{number}.png").write_bytes(encode(image, "PNG"))
    entry = entry_of(run(root, tmp_path / "output"), "circles/902.png")
    assert entry.reason == Reason.NEAR_DUPLICATE.value
    assert re.fullmatch(r"looks like circles/90\d.png in (validation|test)", entry.detail)


def test_class_of_two_photos_is_refused(photos_folder: Path, tmp_path: Path) -> None:
    root = copy_of(photos_folder, tmp_path)
    (root / "rare").mkdir()
    for number in range(2):
        (root / "rare" / f"{number}.jpg").write_bytes(encode(draw_photo(0, 2_000 + number)))
    reason = r"class 'rare' has 2 usable photos, .* in every split; .* \(some {} are enough\)"
    with pytest.raises(DataError, match=reason.format(70)):
        run(root, tmp_path / "output")
    # The fewer are held out, the more it takes.
    with pytest.raises(DataError, match=reason.format(140)):
        run(root, tmp_path / "other", validation_fraction=0.05)


def test_class_without_photos_is_refused(photos_folder: Path, tmp_path: Path) -> None:
    root = copy_of(photos_folder, tmp_path)
    (root / "none").mkdir()
    with pytest.raises(DataError, match="class 'none' has 0 usable photos"):
        run(root, tmp_path / "output")


@pytest.mark.parametrize("content", [b"no picture", b"", encode(Image.new("RGB", (1, 1)))])
def test_folder_of_bad_photos_only_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in CLASS_NAMES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.jpg").write_bytes(content)
    with pytest.raises(DataError, match="3 of 3 photos cannot be used"):
        run(tmp_path / "photos", tmp_path / "output")


def test_all_bad_photos_are_refused_even_where_all_are_allowed(tmp_path: Path) -> None:
    for name in CLASS_NAMES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.jpg").write_text(f"no picture {name}")
    with pytest.raises(DataError, match="class 'circles' has 0 usable photos"):
        run(tmp_path / "photos", tmp_path / "output", max_reject_fraction=1.0)


@pytest.mark.parametrize("kind", ["empty", "absent"])
def test_nothing_to_ingest_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected (a folder with )?one folder per class"):
        run(tmp_path / kind, tmp_path / "output")


def test_nothing_is_left_of_a_run_that_failed(photos_folder: Path, tmp_path: Path) -> None:
    root = copy_of(photos_folder, tmp_path)
    (root / "circles" / "text.jpg").write_text("no picture")
    output = tmp_path / "output"
    output.mkdir()
    with pytest.raises(DataError):
        run(root, output)
    assert list(output.iterdir()) == []


def test_nothing_is_left_where_the_page_fails_while_shards_are_written(
    photos_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_report", fail)
    with pytest.raises(OSError, match="No space left"):
        run(photos_folder, tmp_path, workers=2)
    assert list(tmp_path.iterdir()) == []


def test_page_has_pictures_of_the_first_classes_only(tmp_path: Path) -> None:
    """Those of a thousand classes would make it 100 MB."""
    names = [f"class {number:02d}" for number in range(22)]
    root = make_photos(tmp_path / "photos", per_class=30, class_names=names)
    result = run(root, tmp_path / "output", test_fraction=0.3, validation_fraction=0.3)
    assert len(result.dataset.class_names) == 22
    page = (tmp_path / "output" / "report.html").read_text()
    pictures = page.partition(">Pictures</h2>")[2].partition("</section>")[0]
    assert "The first 20 of 22 classes." in pictures
    assert "class 19" in pictures
    assert "class 20" not in pictures


def test_output_that_exists_is_not_overwritten(photos_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(ConfigError, match=r"report.html already exists"):
        run(photos_folder, tmp_path)
    assert (tmp_path / "report.html").read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    ["with space", "'a' \"b\"", "line\nbreak", "żółw", "日本語", "<b>&amp;", "$x_$", "1"],
)
def test_odd_names_are_ingested(tmp_path: Path, name: str) -> None:
    root = make_photos(tmp_path / "photos", class_names=(name, "other"))
    (root / name / "000.jpg").rename(root / name / f"{name}.jpg")
    result = run(root, tmp_path / "output")
    assert result.written == 60
    assert set(result.dataset.class_names) == {name, "other"}
    assert f"{name}/{name}.jpg" in [row["name"] for row in read_ledger(result)]


@pytest.mark.parametrize("content", [b"", encode(draw_photo(0, 3_000))])
def test_file_name_that_is_not_utf8_is_ingested(
    photos_folder: Path, tmp_path: Path, content: bytes
) -> None:
    root = copy_of(photos_folder, tmp_path)
    Path(os.fsdecode(os.fsencode(root / "circles") + b"/caf\xe9.jpg")).write_bytes(content)
    result = run(root, tmp_path / "output", max_reject_fraction=0.1)
    assert r"circles/caf\udce9.jpg" in [row["name"] for row in read_ledger(result)]


def test_file_name_that_is_not_utf8_is_told_to_a_strict_pipe(
    photos_folder: Path, tmp_path: Path
) -> None:
    root = copy_of(photos_folder, tmp_path)
    name = os.fsdecode(b"caf\xe9.jpg")
    (root / "circles" / "000.jpg").rename(root / "circles" / name)
    shutil.copy(root / "circles" / name, root / "circles" / "same.jpg")
    command = [sys.executable, "-m", "components.ingest_examples", "--images", str(root)]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "output"), "--workers", "1"],
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert r"(same bytes as circles/caf\udce9.jpg)" in done.stdout


def test_class_name_that_is_not_utf8_is_refused(photos_folder: Path, tmp_path: Path) -> None:
    root = copy_of(photos_folder, tmp_path)
    (root / "circles").rename(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))
    with pytest.raises(DataError, match="expected"):
        run(root, tmp_path / "output")


def test_page_asks_for_nothing_outside(damaged: Damaged) -> None:
    page = _Links(damaged.page)
    assert page.links
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in page.links)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base"}


@pytest.mark.parametrize(
    "text",
    [
        "<dt>Read</dt><dd>101</dd>",
        "<dt>Written</dt><dd>91</dd>",
        "<dt>Rejected</dt><dd>10</dd>",
        "circles/text.jpg",
        "looks like squares/look-test.png in test",
        "the same photo under two labels",
    ],
)
def test_page_says_what_was_read_and_written(damaged: Damaged, text: str) -> None:
    assert text in damaged.page


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_page_counts_each_class(damaged: Damaged, name: str) -> None:
    counts = Counter(entry.split for entry in damaged.result.entries if entry.class_name == name)
    cells = "".join(f'<td class="number">{counts[split]}</td>' for split in SPLITS)
    assert f'<th scope="row">{name}</th>{cells}' in damaged.page


def test_page_shows_pictures_of_every_class(damaged: Damaged) -> None:
    assert Counter(re.findall(r'<img src="data:[^"]+" alt="(\w+)"', damaged.page)) == dict.fromkeys(
        CLASS_NAMES, 8
    )


def test_page_escapes_names(photos_folder: Path, tmp_path: Path) -> None:
    root = copy_of(photos_folder, tmp_path)
    (root / "circles" / "<script>alert(1)<").mkdir()
    (root / "circles" / "<script>alert(1)<" / "script>.jpg").touch()
    run(root, tmp_path / "output", max_reject_fraction=0.1)
    page = (tmp_path / "output" / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "components.ingest_examples", *map(str, arguments)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_writes_the_same_data_set(
    ingested: IngestResult, photos_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    done = command("--images", photos_folder, "--output", output, "--image-size", str(SIZE))
    assert (done.returncode, done.stderr) == (0, "")
    assert digests_below(output / "examples") == digests_below(ingested.dataset.path)


def test_command_ends_with_one_line_and_no_output(tmp_path: Path) -> None:
    output = tmp_path / "output"
    done = command("--images", tmp_path / "absent", "--output", output)
    assert done.returncode == 2
    assert done.stderr == (
        f"ingest-examples: exit 2: --images {tmp_path / 'absent'} does not exist: expected a "
        "folder with one folder per class\n"
    )
    assert list(tmp_path.iterdir()) == []
