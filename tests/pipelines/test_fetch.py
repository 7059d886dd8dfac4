"""Tests of the download: resumed, verified, and clear when the network does not let it through."""

import contextlib
import hashlib
import io
import random
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import ConfigError, DataError, FlowersError
from components.ingest_examples.sources import read_groups
from pipelines.fetch import FLOWER_PHOTOS, Archive, Patience, fetch

QUICK = Patience(timeout=0.3, tries=3, first_wait=0.01)


CONTENTS: dict[str, bytes] = {}


def content_of(name: str) -> bytes:
    """Bytes that no compression makes shorter, or those of `CONTENTS`."""
    return CONTENTS.get(name) or random.Random(name).randbytes(200_000)


def archive_bytes(names: tuple[str, ...] = ("daisy/1.jpg", "roses/2.jpg", "LICENSE.txt")) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(f"flower_photos/{name}")
            content = content_of(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Site:
    """A web server with one file; `faults` says how the next requests go wrong."""

    def __init__(self, content: bytes, ranges: bool = True) -> None:
        self.content = content
        self.ranges = ranges
        self.faults: list[str] = []
        self.asked: list[str | None] = []

    def archive(self, **changes: Any) -> Archive:
        known: dict[str, Any] = {
            "url": self.url,
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "size": len(self.content),
        }
        return Archive(**(known | changes))

    url = ""


@contextlib.contextmanager
def serve(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.asked.append(asked)
            fault = site.faults.pop(0) if site.faults else ""
            if fault.isdigit():
                self.send_error(int(fault))
                return
            start = int(asked.split("=")[1].rstrip("-")) if asked and site.ranges else 0
            body = site.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
            if fault == "cut":
                self.wfile.flush()
                self.connection.shutdown(2)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}/flower_photos.tgz"
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(archive_bytes())) as site:
        yield site


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_archive_becomes_a_folder_of_class_folders(site: Site, tmp_path: Path) -> None:
    fetch(site.archive(), tmp_path / "photos", QUICK)
    assert files_below(tmp_path) == {
        "photos/daisy/1.jpg",
        "photos/roses/2.jpg",
        "photos/LICENSE.txt",
    }
    photo = tmp_path / "photos" / "daisy" / "1.jpg"
    assert photo.read_bytes() == content_of("daisy/1.jpg")
    assert len(site.asked) == 1


def test_output_may_be_the_folder_that_one_is_in(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    fetch(site.archive(), Path(), QUICK)
    assert "photos/daisy/1.jpg" in files_below(tmp_path)


CREDITS = """All images in this archive are licensed under the Creative Commons
daisy/1.jpg CC-BY by A Guy - and, his dog - https://www.flickr.com/photos/80901381@N04/1/
roses/2.jpg CC-BY https://www.flickr.com/photos/larkander/ - by Johan  Larkander
roses/gone.jpg CC-BY by Nobody - https://www.flickr.com/photos/nobody/
"""


def test_manifest_has_the_author_of_each_photo(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(CONTENTS, "LICENSE.txt", CREDITS.encode())
    names = ("daisy/1.jpg", "roses/2.jpg", "roses/3.jpg", "LICENSE.txt")
    with serve(Site(archive_bytes(names))) as site:
        fetch(site.archive(credits="LICENSE.txt"), tmp_path / "photos", QUICK)
    manifest = tmp_path / "photos" / "MANIFEST.csv"
    assert manifest.read_text(encoding="utf-8").splitlines() == [
        "path,author,source_url",
        'daisy/1.jpg,"A Guy - and, his dog",https://www.flickr.com/photos/80901381@N04/1/',
        "roses/2.jpg,Johan  Larkander,https://www.flickr.com/photos/larkander/",
        "roses/3.jpg,,",
    ]
    assert read_groups(str(manifest), "author") == {
        "daisy/1.jpg": "A Guy - and, his dog",
        "roses/2.jpg": "Johan  Larkander",
        "roses/3.jpg": "",
    }


def test_archive_without_its_credits_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"CREDITS.txt of the archive: cannot be read"):
        fetch(site.archive(credits="CREDITS.txt"), tmp_path / "photos", QUICK)
    assert not (tmp_path / "photos").exists()


@pytest.mark.parametrize("fault", ["503", "429", "cut"])
def test_fault_is_tried_again(site: Site, tmp_path: Path, fault: str) -> None:
    site.faults = [fault, fault]
    fetch(site.archive(), tmp_path / "photos", QUICK)
    assert len(files_below(tmp_path / "photos")) == 3
    assert len(site.asked) == 3


def test_download_goes_on_where_it_ended(site: Site, tmp_path: Path) -> None:
    site.faults = ["cut", "503", "503", "503"]
    with pytest.raises(FlowersError, match="bytes are kept: check the network and call again"):
        fetch(site.archive(), tmp_path / "photos", QUICK)
    kept = (tmp_path / ".photos.download").stat().st_size
    assert 0 < kept < len(site.content)
    fetch(site.archive(), tmp_path / "photos", QUICK)
    assert site.asked[-1] == f"bytes={kept}-"
    assert files_below(tmp_path) == {f"photos/{n}" for n in files_below(tmp_path / "photos")}


def test_server_without_ranges_is_asked_for_all_of_it(tmp_path: Path) -> None:
    with serve(Site(archive_bytes(), ranges=False)) as site:
        site.faults = ["cut"]
        fetch(site.archive(), tmp_path / "photos", QUICK)
    assert len(files_below(tmp_path / "photos")) == 3


def test_wrong_digest_is_refused_and_removed(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected SHA-256 00, received"):
        fetch(site.archive(sha256="00"), tmp_path / "photos", QUICK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", ["403", "404"])
def test_what_is_not_there_is_not_tried_again(site: Site, tmp_path: Path, code: str) -> None:
    site.faults = [code]
    with pytest.raises(ConfigError, match=f"the server says {code}"):
        fetch(site.archive(), tmp_path / "photos", QUICK)
    assert len(site.asked) == 1


def test_no_network_is_one_line(tmp_path: Path) -> None:
    archive = Archive("http://127.0.0.1:9/x.tgz", "00", 10)
    with pytest.raises(FlowersError) as error:
        fetch(archive, tmp_path / "photos", QUICK)
    assert str(error.value) == (
        "http://127.0.0.1:9/x.tgz: cannot be downloaded (the connection is refused); 0 of 10 bytes "
        "are kept: check the network and call again"
    )


def test_full_disk_is_no_fault_of_the_network(site: Site, tmp_path: Path) -> None:
    (tmp_path / ".photos.download").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        fetch(site.archive(), tmp_path / "photos", QUICK)
    assert len(site.asked) == 1


def test_download_that_cannot_be_written_is_one_line(site: Site, tmp_path: Path) -> None:
    (tmp_path / ".photos.download").mkdir()
    with pytest.raises(ConfigError, match=r"cannot be fetched to .*\.photos\.download \("):
        fetch(site.archive(), tmp_path / "photos", QUICK)


def test_output_that_exists_is_refused_before_anything_is_asked(site: Site, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ConfigError, match="already exists"):
        fetch(site.archive(), tmp_path, QUICK)
    assert not site.asked


def test_member_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    with (
        serve(Site(archive_bytes(("../../../outside.jpg",)))) as site,
        pytest.raises(DataError, match="cannot be unpacked"),
    ):
        fetch(site.archive(), tmp_path / "photos", QUICK)
    assert not list(tmp_path.rglob("outside.jpg"))


def test_public_photos_are_named_with_their_digest() -> None:
    assert FLOWER_PHOTOS.url.startswith("https://storage.googleapis.com/download.tensorflow.org/")
    assert len(bytes.fromhex(FLOWER_PHOTOS.sha256)) == 32
