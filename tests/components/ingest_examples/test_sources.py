"""Tests of where photos come from: folders, the synthetic flowers, and manifests."""

import errno
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from components.common.errors import ConfigError, DataError, UserError
from components.ingest_examples.sources import find_class_names, open_source, read_groups
from components.ingest_examples.synthetic import CLASS_NAMES, render_jpeg

ODD_NAMES = [
    "with space.jpg",
    "'quoted'.jpg",
    '"twice".jpg',
    "line\nbreak.jpg",
    "日本語.jpg",
    "żółw ünd é.jpg",
    "comma,semicolon;.jpg",
    "<b>&amp;.jpg",
    "$x_$.jpg",
    "-rf.jpg",
    "no suffix",
    "🌷.jpg",
]


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))
    return root


def contents(images: Path | str) -> list[bytes | OSError]:
    """What the reader of a place gives for its photos, in order."""
    source = open_source(str(images))
    return list(source.reader.read(source.photos))


def names_in(root: Path) -> list[str]:
    return [photo.name for photo in open_source(str(root)).photos]


def test_folders_are_the_classes_in_order_of_their_names(tmp_path: Path) -> None:
    make_files(tmp_path, "tulips/1.jpg", "daisy/1.jpg", "Roses/1.jpg")
    assert open_source(str(tmp_path)).class_names == ("Roses", "daisy", "tulips")


def test_photos_are_sorted_and_found_at_any_depth(tmp_path: Path) -> None:
    make_files(tmp_path, "b/1.jpg", "a/2.jpg", "a/deep/er/3.jpg", "a/1.jpg")
    assert names_in(tmp_path) == ["a/1.jpg", "a/2.jpg", "a/deep/er/3.jpg", "b/1.jpg"]


def test_photo_of_a_subfolder_has_the_class_of_the_top_folder(tmp_path: Path) -> None:
    make_files(tmp_path, "a/deep/1.jpg", "b/1.jpg")
    assert [photo.class_name for photo in open_source(str(tmp_path)).photos] == ["a", "b"]


def test_photo_gives_the_bytes_of_its_file(tmp_path: Path) -> None:
    make_files(tmp_path, "a/1.jpg", "b/1.jpg")
    assert contents(tmp_path) == [b"a/1.jpg", b"b/1.jpg"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_file_name_is_kept(tmp_path: Path, name: str) -> None:
    make_files(tmp_path, f"a/{name}", "b/1.jpg")
    assert names_in(tmp_path) == [f"a/{name}", "b/1.jpg"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_class_name_is_kept(tmp_path: Path, name: str) -> None:
    make_files(tmp_path, f"{name}/1.jpg", "zzz/1.jpg")
    assert name in open_source(str(tmp_path)).class_names


@pytest.mark.parametrize(
    "name", ["a/.DS_Store", "a/.thumbnails/1.jpg", ".git/config", "a/deep/._1.jpg"]
)
def test_hidden_file_is_ignored(tmp_path: Path, name: str) -> None:
    make_files(tmp_path, "a/1.jpg", "b/1.jpg", name)
    assert names_in(tmp_path) == ["a/1.jpg", "b/1.jpg"]


def test_hidden_folder_is_no_class(tmp_path: Path) -> None:
    make_files(tmp_path, "a/1.jpg", "b/1.jpg", ".cache/1.jpg")
    assert open_source(str(tmp_path)).class_names == ("a", "b")


def test_file_beside_the_class_folders_is_no_photo(tmp_path: Path) -> None:
    make_files(tmp_path, "a/1.jpg", "b/1.jpg", "manifest.csv")
    assert names_in(tmp_path) == ["a/1.jpg", "b/1.jpg"]


def test_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    root = make_files(tmp_path / "photos", "a/1.jpg", "b/1.jpg")
    secret = make_files(tmp_path, "secret.txt") / "secret.txt"
    (root / "a" / "link.jpg").symlink_to(secret)
    error = contents(root)[1]
    assert isinstance(error, OSError)
    assert str(error) == "the link leads outside the folder of images"


def test_link_within_the_folder_is_read(tmp_path: Path) -> None:
    root = make_files(tmp_path / "photos", "a/1.jpg", "b/1.jpg")
    (root / "a" / "link.jpg").symlink_to(root / "b" / "1.jpg")
    assert contents(root)[1] == b"b/1.jpg"


def test_links_in_a_circle_are_not_read(tmp_path: Path) -> None:
    make_files(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "link.jpg").symlink_to("other.jpg")
    (tmp_path / "a" / "other.jpg").symlink_to("link.jpg")
    first, *links, last = contents(tmp_path)
    assert (first, last) == (b"a/1.jpg", b"b/1.jpg")
    assert [link.errno for link in links if isinstance(link, OSError)] == [errno.ELOOP] * 2


@pytest.mark.parametrize("look", [open_source, find_class_names])
def test_folder_that_cannot_be_listed_is_refused(
    tmp_path: Path, look: Callable[[str], object]
) -> None:
    make_files(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "circle").symlink_to("circle")
    message = r"found .*/circle, which cannot be listed \(Too many levels of symbolic links\); make"
    with pytest.raises(DataError, match=message):
        look(str(tmp_path))


def test_folder_that_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"cannot be read \(File name too long\): expected a folder"
    ):
        open_source(str(tmp_path / ("x" * 300)))


def test_folder_that_is_a_link_itself_is_read(tmp_path: Path) -> None:
    make_files(tmp_path / "photos", "a/1.jpg", "b/1.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert contents(tmp_path / "link") == [b"a/1.jpg", b"b/1.jpg"]


@pytest.mark.parametrize("kind", ["folder", "synthetic"])
def test_source_can_be_sent_to_another_process(tmp_path: Path, kind: str) -> None:
    make_files(tmp_path, "a/1.jpg", "b/1.jpg")
    images = {"folder": str(tmp_path), "synthetic": "synthetic://flowers?per_class=1"}[kind]
    source = open_source(images)
    sent = pickle.loads(pickle.dumps(source))
    assert list(sent.reader.read(sent.photos)) == list(source.reader.read(source.photos))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param([], "found no folder and 0 files", id="empty folder"),
        pytest.param(["1.jpg", "2.jpg"], "found no folder and 2 files", id="no class folders"),
        pytest.param(
            ["a/.hidden", "b/.hidden"], "found 2 class folders and no file in them", id="no files"
        ),
        pytest.param(["a/1.jpg"], "expected at least two classes, found only 'a'", id="one class"),
    ],
)
def test_folder_without_labelled_photos_is_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    make_files(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path))


def test_classes_are_named_in_label_order(tmp_path: Path) -> None:
    make_files(tmp_path, "b/1.jpg", "a/1.jpg")
    assert find_class_names(str(tmp_path)) == ("a", "b")
    assert find_class_names("synthetic://flowers") == open_source("synthetic://flowers").class_names


def test_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist: expected a folder with one folder per"):
        open_source(str(tmp_path / "absent"))


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    make_files(tmp_path, "photos.zip")
    with pytest.raises(DataError, match="is not a folder: expected a folder with one folder per"):
        open_source(str(tmp_path / "photos.zip"))


@pytest.mark.parametrize("images", ["https://example.org/photos", "s3://b", "file:///tmp"])
def test_place_of_another_kind_is_refused(images: str) -> None:
    with pytest.raises(ConfigError, match="expected a folder, gs://BUCKET/PREFIX, an import file"):
        open_source(images)


@pytest.mark.parametrize("images", ["http://[x", "//[photos", "synthetic://[flowers"])
def test_place_with_a_bracket_is_refused(images: str) -> None:
    with pytest.raises(UserError, match="expected"):
        open_source(images)


def test_synthetic_flowers_have_the_given_number_per_class() -> None:
    source = open_source("synthetic://flowers?per_class=2&seed=5")
    assert [photo.name for photo in source.photos] == [
        f"{name}/{index:05d}.jpg" for name in CLASS_NAMES for index in (0, 1)
    ]


def test_synthetic_photo_is_drawn_with_the_given_seed() -> None:
    images = "synthetic://flowers?per_class=2&seed=5"
    assert contents(images)[1] == render_jpeg(CLASS_NAMES[0], 1, 5)


def test_synthetic_options_have_defaults() -> None:
    source = open_source("synthetic://flowers")
    assert len(source.photos) == 200 * len(CLASS_NAMES)
    assert next(source.reader.read(source.photos[:1])) == render_jpeg(CLASS_NAMES[0], 0, 7)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("synthetic://animals", "expected synthetic://flowers"),
        ("synthetic://", "expected synthetic://flowers"),
        ("synthetic://flowers?count=3", "expected synthetic://flowers"),
        ("synthetic://flowers?per_class=many", "expected synthetic://flowers\\?per_class=NUMBER"),
        ("synthetic://flowers?per_class=1.5", "expected synthetic://flowers\\?per_class=NUMBER"),
        ("synthetic://flowers?seed=x", "expected synthetic://flowers\\?per_class=NUMBER"),
    ],
)
def test_wrong_synthetic_place_is_refused(images: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_source(images)


@pytest.mark.parametrize("per_class", ["0", "-3"])
def test_synthetic_flowers_without_photos_are_refused(per_class: str) -> None:
    with pytest.raises(UserError, match="per_class"):
        open_source(f"synthetic://flowers?per_class={per_class}")


def test_groups_are_read_by_path(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("photographer,path\nAnn,a/1.jpg\n Ben ,a/2.jpg\n,b/1.jpg\n")
    assert read_groups(str(manifest), "photographer") == {
        "a/1.jpg": "Ann",
        "a/2.jpg": "Ben",
        "b/1.jpg": "",
    }


def test_manifest_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    # A byte order mark, CRLF, a quoted cell with comma and line break, and a short row.
    manifest.write_bytes(b'\xef\xbb\xbfpath,who\r\n"a,b\nc.jpg",Zo\xc3\xab\r\nd.jpg\r\n')
    assert read_groups(str(manifest), "who") == {"a,b\nc.jpg": "Zoë", "d.jpg": ""}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,who\n", "expected a column 'photographer', found path, who"),
        (b"photographer,file\n", "expected a column 'path', found photographer, file"),
        (b"", "expected a column 'path', found none"),
        (b"path,photographer\n\xff\xfe,x\n", "cannot be read as CSV"),
    ],
)
def test_wrong_manifest_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_groups(str(manifest), "photographer")


@pytest.mark.parametrize("name", ["absent.csv", "."])
def test_unreadable_manifest_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_groups(str(tmp_path / name), "photographer")
