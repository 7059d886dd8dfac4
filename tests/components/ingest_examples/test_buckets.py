"""Tests of photos in Cloud Storage: a real server, a faulty way to it, nothing lost or doubled."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.common import gcs, storage
from components.common.dataset import Dataset
from components.common.errors import ConfigError, DataError, FlowersError
from components.ingest_examples import sources
from components.ingest_examples.config import IngestConfig, PhotosConfig
from components.ingest_examples.ingest import ingest, ingest_to
from components.ingest_examples.ledger import IngestResult
from components.ingest_examples.runners import LocalRunner
from components.ingest_examples.sources import find_class_names, open_source
from tests.buckets import FaultyProxy, emulator
from tests.builders import CLASS_NAMES

PLACE = "gs://photos/set"
FEW = "gs://photos/few"
# A connection that breaks is left to the garbage collector by urllib3, which warns of it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CONFIG = IngestConfig(image_size=32)
# As patient as the product, but each wait a fiftieth.
QUICK = gcs.Patience(connect=2.0, read=0.3, first_wait=0.01, deadline=10.0)
FAULTS = ("429", "503", "reset", "cut", "flip", "stall")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with emulator() as address:
        yield address


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with FaultyProxy(server) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.address)
        monkeypatch.setattr(gcs, "PATIENT", QUICK)
        yield proxy
        gcs.close_client()


@pytest.fixture(scope="module")
def bucket(server: str, photos_folder: Path) -> str:
    """The ninety photos of the folder, in a bucket."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage as google

    client = google.Client(
        project="emulated",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": server},
    )
    made = client.create_bucket("photos")
    for path in sorted(photos_folder.rglob("*.jpg")):
        name = path.relative_to(photos_folder).as_posix()
        made.blob(f"set/{name}").upload_from_string(path.read_bytes())
        if path.stem <= "004":
            made.blob(f"few/{name}").upload_from_string(path.read_bytes())
    made.blob("set/").upload_from_string(b"")
    made.blob("set/LICENSE.txt").upload_from_string(b"free")
    made.blob("set/circles/.hidden").upload_from_string(b"no photo")
    made.blob("other/circles/1.jpg").upload_from_string(b"not of this set")
    return PLACE


@pytest.fixture(scope="module")
def local(photos_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> IngestResult:
    """What the same photos give when they lie in a folder."""
    folder = tmp_path_factory.mktemp("local")
    places = folder / "examples", folder / "report.html"
    return ingest(PhotosConfig(str(photos_folder)), CONFIG, *places, workers=1)


def read_all(place: str) -> dict[str, bytes | OSError]:
    source = open_source(place)
    read = source.reader.read(source.photos)
    return {photo.name: content for photo, content in zip(source.photos, read, strict=True)}


def test_bucket_has_the_photos_of_the_folder(
    bucket: str, proxy: FaultyProxy, photos_folder: Path
) -> None:
    expected = {
        path.relative_to(photos_folder).as_posix(): path.read_bytes()
        for path in photos_folder.rglob("*.jpg")
    }
    assert read_all(bucket) == expected


def test_classes_are_found_without_listing_the_photos(bucket: str, proxy: FaultyProxy) -> None:
    assert find_class_names(bucket) == CLASS_NAMES
    assert proxy.asked["GET /storage/v1/b/photos/o"] == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_that_fails_once_is_tried_again(
    bucket: str, proxy: FaultyProxy, photos_folder: Path, fault: str
) -> None:
    # A listing has no checksum, and a flipped byte in it may still be JSON.
    proxy.plan = lambda path, tries: fault if tries == 0 and "/download/" in path else ""
    read = read_all(FEW)
    assert len(read) == 15
    assert all(read[name] == (photos_folder / name).read_bytes() for name in read)
    assert proxy.faults == {fault: 15}
    downloads = {path: tries for path, tries in proxy.asked.items() if "/download/" in path}
    # A connection that was reset may take a second request with it.
    assert min(downloads.values()) >= 2


@pytest.mark.parametrize("fault", ["429", "503", "reset", "cut", "stall"])
def test_listing_that_fails_is_tried_again(bucket: str, proxy: FaultyProxy, fault: str) -> None:
    proxy.plan = lambda path, tries: fault if tries < 2 and path.endswith("/photos/o") else ""
    assert len(open_source(FEW).photos) == 15
    assert proxy.faults == {fault: 2}


def test_bucket_and_folder_give_the_same_bytes_through_a_faulty_network(
    bucket: str, proxy: FaultyProxy, local: IngestResult, tmp_path: Path
) -> None:
    names = iter(FAULTS * 100)
    proxy.plan = lambda path, tries: next(names) if tries == 0 and "/download/" in path else ""
    places = tmp_path / "examples", tmp_path / "report.html"
    result = ingest(PhotosConfig(bucket), CONFIG, *places, workers=1)
    assert sum(proxy.faults.values()) == 90
    assert result.dataset.fingerprint == local.dataset.fingerprint
    assert result.entries == local.entries


def test_output_may_be_a_bucket(
    bucket: str, proxy: FaultyProxy, local: IngestResult, tmp_path: Path
) -> None:
    with LocalRunner(1) as runner:
        out, scratch = "gs://photos/out", "gs://photos/scratch"
        result = ingest_to(PhotosConfig(bucket), CONFIG, out, scratch, runner)
    assert result.dataset.fingerprint == local.dataset.fingerprint
    for split, count in local.dataset.counts.items():
        for shard in local.dataset.shards(split):
            assert storage.read(f"{out}/examples/{split}/{shard.name}") == shard.read_bytes()
        assert count
    assert (
        storage.read(f"{out}/examples/photos.csv")
        == (local.dataset.path / "photos.csv").read_bytes()
    )
    assert not storage.exists(scratch)
    # Names that begin alike are others.
    assert storage.exists(f"{out}/examples")
    assert not storage.exists(f"{out}/exam")
    assert not storage.exists(f"{out}/examples/photos")
    with LocalRunner(1) as runner, pytest.raises(ConfigError, match="already holds examples"):
        ingest_to(PhotosConfig(bucket), CONFIG, out, scratch, runner)


def test_photo_that_vanished_is_rejected(bucket: str, proxy: FaultyProxy) -> None:
    proxy.plan = lambda path, _: "404" if path.endswith("set/circles/007.jpg") else ""
    read = read_all(bucket)
    assert str(read.pop("circles/007.jpg")) == "there is no such object"
    assert sum(isinstance(content, bytes) for content in read.values()) == 89


def test_missing_bucket_is_one_line(proxy: FaultyProxy) -> None:
    with pytest.raises(DataError) as error:
        open_source("gs://absent-bucket/photos")
    assert str(error.value) == "gs://absent-bucket: there is no such bucket; check the name"


def test_empty_prefix_is_one_line(bucket: str, proxy: FaultyProxy) -> None:
    with pytest.raises(DataError, match="found no object below it; expected photos"):
        open_source("gs://photos/nothing")


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("403", DataError, "no permission .HTTP 403.*; ask for the role"),
        ("401", ConfigError, "no valid Google credential .*gcloud auth application-default login"),
        ("503", FlowersError, "did not answer in time .*; try again later"),
    ],
)
def test_what_will_not_pass_is_one_line(
    bucket: str,
    proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    kind: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(gcs, "PATIENT", dataclasses.replace(QUICK, deadline=0.2))
    proxy.plan = lambda path, tries: code
    for act in (lambda: list(gcs.list_blobs(PLACE)), lambda: gcs.read_blob(PLACE)):
        with pytest.raises(kind, match=message) as error:
            act()
        assert "\n" not in str(error.value)


def test_a_photo_that_is_denied_ends_the_run(
    bucket: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    proxy.plan = lambda path, _: "403" if path.endswith("set/circles/007.jpg") else ""
    with pytest.raises(DataError, match=r"circles/007.jpg: no permission"):
        ingest(PhotosConfig(bucket), CONFIG, tmp_path / "examples", tmp_path / "report.html", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["gs://", "gs:///x", "gs://UPPER/x"])
def test_place_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="expected gs://BUCKET/NAME"):
        sources.open_source(place)


def test_span_is_a_part_of_the_object(bucket: str, proxy: FaultyProxy, local: IngestResult) -> None:
    assert isinstance(local.dataset, Dataset)
    whole = gcs.read_blob(f"{PLACE}/circles/000.jpg")
    assert gcs.read_blob(f"{PLACE}/circles/000.jpg", span=(10, 20)) == whole[10:30]
    assert gcs.read_blob(f"{PLACE}/circles/000.jpg", span=(10, 0)) == b""
