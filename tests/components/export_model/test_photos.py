"""Tests of licence and credits, which a finished model goes without rather than be lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.common import gcs
from components.export_model.photos import find_rights
from tests.buckets import FaultyProxy, emulator

MANIFEST = "path,author\na.jpg,Ada\n"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A bucket with an import file, and a licence and a manifest beside it."""
    with emulator() as server, FaultyProxy(server) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.address)
        gcs._client().create_bucket("photos")
        gcs.write_blob("gs://photos/set/import.csv", b"gs://photos/set/a.jpg,circles\n")
        gcs.write_blob("gs://photos/set/LICENSE.txt", b"free")
        gcs.write_blob("gs://photos/set/manifest.csv", MANIFEST.encode())
        yield proxy
        gcs.close_client()


@pytest.mark.parametrize("images", ["", "import.csv", "import.jsonl"])
def test_licence_and_credits_lie_beside_the_photos_or_their_import_file(
    tmp_path: Path, images: str
) -> None:
    (tmp_path / "LICENSE.txt").write_text("free")
    (tmp_path / "manifest.csv").write_text(MANIFEST)
    if images:
        (tmp_path / images).touch()
    rights = find_rights(str(tmp_path / images), "manifest.csv", "")
    assert (rights.licence, rights.authors) == ("free", {"Ada": 1})


def test_licence_lies_beside_an_import_file_of_a_bucket(bucket: FaultyProxy) -> None:
    rights = find_rights("gs://photos/set/import.csv", "manifest.csv", "")
    assert (rights.licence, rights.authors) == ("free", {"Ada": 1})
    assert not any("import.csv/" in path for path in bucket.asked)


def test_licence_that_is_denied_is_told(
    bucket: FaultyProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who may not list a bucket is denied what is not there, too."""
    bucket.plan = lambda path, _: "403" if "LICENSE" in path else ""
    rights = find_rights("gs://photos/set", "manifest.csv", "")
    assert (rights.licence, rights.authors) == ("", {"Ada": 1})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "[export-model] the licence file of the photos cannot be looked up, the card goes without: "
        "gs://photos/set/LICENSE.txt: no permission (HTTP 403"
    )


def test_files_that_cannot_be_read_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("LICENSE.txt", "manifest.csv"):
        (tmp_path / name).symlink_to(name)
    rights = find_rights(str(tmp_path), "manifest.csv", "all mine")
    assert (rights.licence, rights.licence_text, rights.authors) == ("all mine", "", {})
    licence, authors = capsys.readouterr().out.splitlines()
    assert "the licence file of the photos cannot be looked up" in licence
    assert "the credits of the photos cannot be looked up" in authors
