"""Tests that photos never move between splits unasked."""

import csv
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.common.errors import ConfigError, DataError
from components.ingest_examples.config import IngestConfig, PhotosConfig
from components.ingest_examples.ingest import ingest
from components.ingest_examples.ledger import Groups, IngestResult, Ledger, Row
from components.ingest_examples.plan import assign_splits, set_duplicates_aside
from components.ingest_examples.sources import Photo
from pipelines.history import check_earlier_splits
from tests.builders import CLASS_NAMES, draw_photo, encode

CONFIG = IngestConfig(image_size=32)


def run(
    images: Path, output: Path, photos: dict[str, Any] | None = None, **options: Any
) -> IngestResult:
    config = IngestConfig(image_size=32, **options)
    places = output / "examples", output / "report.html"
    return ingest(PhotosConfig(str(images), **(photos or {})), config, *places, workers=1)


@pytest.fixture(scope="module")
def earlier(photos_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    run(photos_folder, folder)
    return folder / "examples"


@st.composite
def photo_lists(draw: st.DrawFn) -> list[tuple[str, str, int]]:
    """Photos as (group, class, content); equal contents are copies, close ones look alike."""
    one = st.tuples(
        st.sampled_from(["", "Ann", "Ben", "Cleo", "Dora"]),
        st.sampled_from(CLASS_NAMES),
        st.integers(0, 15).map(lambda number: number % 4 + (number // 4) * 0xFFFF_0000_FFFF),
    )
    return draw(st.lists(one, max_size=12))


def splits_of(photos: list[tuple[str, str, int]]) -> dict[str, str]:
    """Name of each photo that is kept -> its split."""
    names = [f"{number:03d}" for number in range(len(photos))]
    groups = Groups("who", {name: who for name, (who, _, _) in zip(names, photos, strict=True)})
    listed = [Photo(name, kind) for name, (_, kind, _) in zip(names, photos, strict=True)]
    ledger = Ledger(listed, groups)
    rows = [
        Row((value + 1).to_bytes(32, "big"), value, 64, 64, 0, 1, bytes(32), None, "")
        for _, _, value in photos
    ]
    ledger.take(0, 0, rows)
    assign_splits(ledger, CONFIG)
    set_duplicates_aside(ledger)
    return {entry.name: entry.split for entry in ledger.entries() if entry.split}


@given(photo_lists(), photo_lists())
@settings(max_examples=300)
def test_adding_photos_never_moves_an_old_one(
    old: list[tuple[str, str, int]], new: list[tuple[str, str, int]]
) -> None:
    before, after = splits_of(old), splits_of(old + new)
    moved = {
        name: (before[name], after[name])
        for name in before
        if name in after and before[name] != after[name]
    }
    assert not moved


@given(photo_lists())
def test_order_of_the_photos_moves_none(photos: list[tuple[str, str, int]]) -> None:
    forwards, backwards = splits_of(photos), splits_of(photos[::-1])
    last = len(photos) - 1
    for name, split in forwards.items():
        assert backwards.get(f"{last - int(name):03d}", split) == split


def test_the_same_rule_is_accepted(photos_folder: Path, earlier: Path, tmp_path: Path) -> None:
    result = run(photos_folder, tmp_path, {"previous": str(earlier)})
    before = json.loads((earlier / "dataset.json").read_text())
    assert result.dataset.fingerprint == before["fingerprint"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_salt": ""}, "salt 'flowers' is now ''"),
        ({"test_fraction": 0.25}, "test_fraction 0.15 is now 0.25"),
    ],
)
def test_another_rule_is_refused_unless_forced(
    photos_folder: Path, earlier: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"{message}; photos would move .*--new-splits true"):
        run(photos_folder, tmp_path, {"previous": str(earlier)}, **options)
    assert list(tmp_path.iterdir()) == []
    forced = {"previous": str(earlier), "new_splits": True}
    assert run(photos_folder, tmp_path / "forced", forced, **options).written == 90


def test_more_may_validate_since_the_test_split_stays(
    photos_folder: Path, earlier: Path, tmp_path: Path
) -> None:
    """As with another recipe."""
    result = run(photos_folder, tmp_path, {"previous": str(earlier)}, validation_fraction=0.2)
    with (earlier / "photos.csv").open(newline="") as file:
        before = {row["name"]: row["split"] for row in csv.DictReader(file)}
    after = {entry.name: entry.split for entry in result.entries}
    moves = {(before[name], after[name]) for name in before if before[name] != after[name]}
    assert moves == {("train", "validation")}


def test_group_column_that_is_new_is_refused(
    photos_folder: Path, earlier: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,who\n")
    options = {"previous": str(earlier), "manifest": str(manifest), "group_column": "who"}
    with pytest.raises(ConfigError, match="group_column '' is now 'who'"):
        run(photos_folder, tmp_path, options)


def test_photo_whose_group_changed_is_refused(photos_folder: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    names = [path.relative_to(photos_folder).as_posix() for path in photos_folder.rglob("*.jpg")]

    def write(who: dict[str, str]) -> dict[str, Any]:
        manifest.write_text("path,who\n" + "".join(f"{n},{who.get(n, '')}\n" for n in names))
        return {"manifest": str(manifest), "group_column": "who"}

    first = run(photos_folder, tmp_path / "first", write({}))
    trained = next(entry.name for entry in first.entries if entry.split == "train")
    tested = next(entry.name for entry in first.entries if entry.split == "test")
    options = write({tested: "Kim"}) | {"previous": str(tmp_path / "first" / "examples")}
    assert trained != tested
    with pytest.raises(DataError, match=f"1 photos .* the first is {tested} from test to train"):
        run(photos_folder, tmp_path / "second", options)


def test_more_photos_are_accepted(photos_folder: Path, earlier: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(photos_folder, tmp_path / "photos"))
    for number in range(700, 720):
        (root / "circles" / f"{number}.jpg").write_bytes(encode(draw_photo(0, number)))
    assert run(root, tmp_path / "out", {"previous": str(earlier)}).written >= 105


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read .No such file or directory.; expected the examples folder"),
        ("nonsense", "not a data set description"),
        ("[]", "not a data set description"),
        ('{"split_rule": {"salt": 1}}', "split_rule: salt: expected text"),
    ],
)
def test_previous_that_is_none_is_refused(
    photos_folder: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        run(photos_folder, tmp_path / "out", {"previous": str(tmp_path)})


def make_run(runs: Path, name: str, images: str, earlier: Path) -> None:
    examples = runs / name / "steps" / "ingest-examples" / "examples"
    shutil.copytree(earlier, examples)
    content = {"parameters": {"images": images}}
    (runs / name / "run.json").write_text(json.dumps(content))


def test_earlier_run_of_the_same_photos_is_found(
    photos_folder: Path, earlier: Path, tmp_path: Path
) -> None:
    photos = PhotosConfig(str(photos_folder))
    make_run(tmp_path, "20260101-000000-quick", str(photos_folder.resolve()), earlier)
    check_earlier_splits(photos, CONFIG, tmp_path)
    other = IngestConfig(image_size=32, test_fraction=0.3)
    with pytest.raises(ConfigError, match=r"test_fraction 0.15 is now 0.3"):
        check_earlier_splits(photos, other, tmp_path)
    check_earlier_splits(photos, IngestConfig(image_size=32, validation_fraction=0.02), tmp_path)
    check_earlier_splits(PhotosConfig(str(photos_folder), new_splits=True), other, tmp_path)
    with tempfile.TemporaryDirectory() as elsewhere:
        check_earlier_splits(photos, other, Path(elsewhere))
        check_earlier_splits(PhotosConfig(elsewhere), other, tmp_path)


def test_run_that_is_no_run_of_ours_is_passed_over(photos_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for content in ("nonsense", "[]", "{}", '{"parameters": []}'):
        (tmp_path / "x" / "run.json").write_text(content)
        check_earlier_splits(PhotosConfig(str(photos_folder)), CONFIG, tmp_path)
