"""Tests of Vertex AI's import files, and of data sets that come divided."""

import json
from pathlib import Path

import pytest

from components.common.errors import DataError
from components.ingest_examples.config import IngestConfig, PhotosConfig
from components.ingest_examples.ingest import ingest
from components.ingest_examples.ledger import IngestResult
from components.ingest_examples.sources import find_class_names, open_source
from components.ingest_examples.splits import Fractions, choose_split
from tests.builders import CLASS_NAMES, draw_photo, encode

USES = ("training", "validation", "test")


def run(images: Path, output: Path, **options: object) -> IngestResult:
    config = IngestConfig(image_size=32, **options)  # type: ignore[arg-type]
    places = output / "examples", output / "report.html"
    return ingest(PhotosConfig(str(images)), config, *places, workers=1)


def rows_of(photos: Path) -> list[tuple[str, str]]:
    return [(str(path), path.parent.name) for path in sorted(photos.rglob("*.jpg"))]


def write_csv(path: Path, rows: list[tuple[str, ...]]) -> Path:
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    return path


def write_jsonl(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    lines = [
        json.dumps(
            {
                "imageGcsUri": uri,
                "classificationAnnotation": {"displayName": label},
                **(
                    {"dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": use}}
                    if use
                    else {}
                ),
            }
        )
        for use, uri, label in rows
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def splits_by_digest(result: IngestResult) -> dict[str, tuple[str, str]]:
    return {entry.sha256: (entry.class_name, entry.split) for entry in result.entries}


def test_csv_gives_what_the_folder_gives(photos_folder: Path, tmp_path: Path) -> None:
    images = write_csv(tmp_path / "import.csv", list(rows_of(photos_folder)))
    by_csv = run(images, tmp_path / "csv")
    by_folder = run(photos_folder, tmp_path / "folder")
    assert splits_by_digest(by_csv) == splits_by_digest(by_folder)
    assert by_csv.dataset.fingerprint == by_folder.dataset.fingerprint


def test_json_lines_give_what_csv_gives(photos_folder: Path, tmp_path: Path) -> None:
    rows = rows_of(photos_folder)
    csv_file = write_csv(tmp_path / "import.csv", list(rows))
    json_file = write_jsonl(tmp_path / "import.jsonl", [("", *row) for row in rows])
    assert open_source(str(csv_file)) == open_source(str(json_file))
    assert find_class_names(str(json_file)) == CLASS_NAMES


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_use_of_a_row_is_its_split(photos_folder: Path, tmp_path: Path, kind: str) -> None:
    rows = [(USES[number % 3], *row) for number, row in enumerate(rows_of(photos_folder))]
    if kind == "csv":
        images = write_csv(tmp_path / "import.csv", [(use.upper(), *row) for use, *row in rows])
    else:
        images = write_jsonl(tmp_path / "import.jsonl", rows)
    result = run(images, tmp_path)
    expected = {uri: "train" if use == "training" else use for use, uri, _ in rows}
    assert {entry.name: entry.split for entry in result.entries} == expected


def test_unassigned_rows_are_divided_beside_the_others(photos_folder: Path, tmp_path: Path) -> None:
    rows = rows_of(photos_folder)
    uses = ["UNASSIGNED" if number % 2 else "test" for number in range(len(rows))]
    images = write_csv(
        tmp_path / "import.csv", [(use, *row) for use, row in zip(uses, rows, strict=True)]
    )
    entries = run(images, tmp_path).entries
    plain = {entry.sha256: entry.split for entry in run(photos_folder, tmp_path / "plain").entries}
    for entry, use in zip(entries, uses, strict=True):
        assert entry.split == ("test" if use == "test" else plain[entry.sha256])


def test_paths_are_relative_to_the_file(photos_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").symlink_to(photos_folder)
    rows = [
        (f"photos/{Path(uri).relative_to(photos_folder)}", label)
        for uri, label in rows_of(photos_folder)
    ]
    source = open_source(str(write_csv(tmp_path / "import.csv", list(rows))))
    contents = list(source.reader.read(source.photos))
    assert contents == [(tmp_path / photo.name).read_bytes() for photo in source.photos]


def test_missing_label_and_missing_photo_are_rejected(photos_folder: Path, tmp_path: Path) -> None:
    rows = [*rows_of(photos_folder), (str(tmp_path / "absent.jpg"), "circles"), ("x.jpg", "")]
    images = write_csv(tmp_path / "import.csv", list(rows))
    result = run(images, tmp_path, max_reject_fraction=0.1)
    assert result.rejected == {"unreadable": 1, "without a label": 1}
    assert result.written == 90


def test_row_given_twice_is_an_exact_duplicate(photos_folder: Path, tmp_path: Path) -> None:
    rows = rows_of(photos_folder)
    images = write_csv(tmp_path / "import.csv", [*rows, rows[3]])
    result = run(images, tmp_path)
    assert result.rejected == {"exact duplicate": 1}
    assert any(entry.name == f"{rows[3][0]} (row 91)" for entry in result.entries)


def test_row_with_two_labels_is_a_conflict(photos_folder: Path, tmp_path: Path) -> None:
    rows = rows_of(photos_folder)
    images = write_csv(tmp_path / "import.csv", [*rows, (rows[3][0], "stripes")])
    result = run(images, tmp_path, max_reject_fraction=0.1)
    assert result.rejected == {"the same photo under two labels": 2}


@pytest.mark.parametrize(
    ("label", "rejected"),
    [
        ("circles", {"exact duplicate": 1}),
        ("stripes", {"the same photo under two labels": 2}),
    ],
)
def test_row_given_twice_has_the_group_of_its_photo(
    photos_folder: Path, tmp_path: Path, label: str, rejected: dict[str, int]
) -> None:
    rows = rows_of(photos_folder)
    images = write_csv(tmp_path / "import.csv", [*rows, (rows[3][0], label)])
    groups = [(uri, "Ann" if uri == rows[3][0] else "") for uri, _ in rows]
    manifest = write_csv(tmp_path / "manifest.csv", [("path", "who"), *groups])
    config = IngestConfig(image_size=32, max_reject_fraction=0.1)
    places = tmp_path / "examples", tmp_path / "report.html"
    photos = PhotosConfig(str(images), str(manifest), "who")
    result = ingest(photos, config, *places, workers=1)
    assert result.rejected == rejected
    twice = [entry.group for entry in result.entries if entry.name.startswith(rows[3][0])]
    assert twice == ["who:Ann", "who:Ann"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "expected rows with a photo and its label, found none"),
        ("a.csv", "a.jpg,x,y\n", r"row 1: expected \[ML_USE,\]URI,LABEL, found 2 labels"),
        ("a.csv", "a.jpg,x\n,y\n", "row 2: expected gs://BUCKET/NAME or a path, found ''"),
        ("a.csv", 'a.jpg,x\n"b.jpg,y\n', "unexpected end of data"),
        ("a.csv", "a.jpg,x\n", "expected at least two classes, found only 'x'"),
        (
            "a.csv",
            "a.jpg\n",
            r"found none; name the class of each photo in LABEL of \[ML_USE,\]URI",
        ),
        (
            "a.jsonl",
            '{"imageGcsUri": "a"}',
            "found none; name the class of each photo in classificationAnnotation.displayName$",
        ),
        ("a.jsonl", "nonsense\n", "row 1: expected imageGcsUri and .*, found 'nonsense'"),
        ("a.jsonl", "[1]\n", "row 1: expected imageGcsUri"),
        ("a.jsonl", "{}\n", "row 1: .* found no imageGcsUri"),
        (
            "a.jsonl",
            '{"imageGcsUri": "a", "dataItemResourceLabels": '
            '{"aiplatform.googleapis.com/ml_use": "play"}}',
            "row 1: expected training, validation, test or unassigned as ML_USE, found 'play'",
        ),
    ],
)
def test_wrong_import_file_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path / name))


def test_import_file_that_is_absent_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read .No such file"):
        open_source(str(tmp_path / "absent.csv"))
    (tmp_path / "photo.csv").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match="expected text in UTF-8"):
        open_source(str(tmp_path / "photo.csv"))


def make_divided(root: Path, folders: dict[str, int]) -> Path:
    """A folder per split, a folder per class in it, so many photos in each."""
    number = 0
    for folder, per_class in folders.items():
        for label, name in enumerate(CLASS_NAMES):
            (root / folder / name).mkdir(parents=True)
            for _ in range(per_class):
                number += 1
                photo = encode(draw_photo(label, number))
                (root / folder / name / f"{number:04d}.jpg").write_bytes(photo)
    return root


def test_split_of_a_divided_folder_is_kept(tmp_path: Path) -> None:
    root = make_divided(tmp_path / "photos", {"train": 6, "val": 3, "test": 4})
    assert find_class_names(str(root)) == CLASS_NAMES
    result = run(root, tmp_path)
    splits = {"train": "train", "val": "validation", "test": "test"}
    for entry in result.entries:
        assert entry.split == splits[entry.name.split("/")[0]]
    assert result.dataset.counts == {"train": 18, "validation": 9, "test": 12}


def test_lacking_validation_is_taken_from_train_alone(tmp_path: Path) -> None:
    root = make_divided(tmp_path / "photos", {"train": 30, "test": 5})
    for entry in run(root, tmp_path).entries:
        expected = choose_split(entry.group, Fractions(0.1, 0.0), "flowers")
        assert entry.split == ("test" if entry.name.startswith("test/") else expected)


def test_train_photo_that_is_in_test_too_is_set_aside(tmp_path: Path) -> None:
    root = make_divided(tmp_path / "photos", {"train": 6, "validation": 3, "test": 4})
    copied = next((root / "test" / "circles").iterdir())
    (root / "train" / "circles" / "leak.jpg").write_bytes(copied.read_bytes())
    result = run(root, tmp_path)
    (leak,) = (entry for entry in result.entries if entry.name.endswith("leak.jpg"))
    assert leak.reason == "exact duplicate"


def test_classes_named_train_and_test_are_classes(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"photo")
    source = open_source(str(tmp_path))
    assert source.class_names == ("test", "train")
    assert {photo.split for photo in source.photos} == {""}


def test_class_named_train_beside_others_is_a_class(tmp_path: Path) -> None:
    for name in ("train/old", "bus/old"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.jpg").write_bytes(b"photo")
    assert open_source(str(tmp_path)).class_names == ("bus", "train")


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    root = make_divided(tmp_path / "photos", {"train": 1, "val": 1, "valid": 1})
    with pytest.raises(DataError, match="expected one folder per split, found"):
        open_source(str(root))


def test_manifest_lies_beside_the_import_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "MANIFEST.csv").touch()
    here = PhotosConfig(str(tmp_path / "photos" / "import.csv"), "MANIFEST.csv", "author")
    assert here.manifest_place() == str(tmp_path / "photos" / "MANIFEST.csv")
    remote = PhotosConfig("gs://bucket/photos/import.jsonl", "MANIFEST.csv", "author")
    assert remote.manifest_place() == "gs://bucket/photos/MANIFEST.csv"
