"""Photos in Google Cloud Storage, and readers that fetch many at a time."""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath

from components.common import gcs
from components.common.errors import DataError
from components.ingest_examples.sources.base import Photo
from components.ingest_examples.sources.folders import Level, Tree, peek, read_file

# Requests under way in each process: enough to hide the way to the service, few enough that the
# photos that wait fit in memory.
_REQUESTS = 16


def read_bucket(images: str) -> Tree:
    """Lists `gs://bucket/prefix`.

    Raises:
        DataError: There is no such bucket, or nothing below the prefix.
    """
    root = images.rstrip("/") + "/"
    _, prefix = gcs.split_place(root)
    files = {}
    for blob in gcs.list_blobs(root):
        name = blob.name.removeprefix(prefix)
        # Consoles make an empty object for a folder.
        if _is_shown(name) and not name.endswith("/"):
            files[name] = blob.crc32c
    if not files:
        raise DataError(f"--images {images}: found no object below it; expected photos")
    return Tree(images, files, _folders(files))


def peek_bucket(images: str) -> Tree:
    """A first look at `gs://bucket/prefix`; raises as `read_bucket` does."""
    root = images.rstrip("/") + "/"
    _, prefix = gcs.split_place(root)

    def level_of(below: str) -> Level:
        folders, names = gcs.list_level(f"{root}{below}")
        relative = (
            [name.removeprefix(prefix).rstrip("/") for name in group] for group in (folders, names)
        )
        return Level(*([name for name in group if _is_shown(name)] for group in relative))

    tree = peek(images, level_of)
    if not tree.files and not tree.folders:
        raise DataError(f"--images {images}: found no object below it; expected photos")
    return tree


def _is_shown(name: str) -> bool:
    return bool(name) and not any(part.startswith(".") for part in name.split("/"))


def _folders(files: Iterable[str]) -> frozenset[str]:
    """The folders of the first two levels."""
    parents = {PurePosixPath(name).parts[:-1] for name in files}
    return frozenset("/".join(parts[:depth]) for parts in parents for depth in (1, 2) if parts)


@dataclasses.dataclass(frozen=True)
class BucketReader:
    """Reads objects below a prefix; the place of a photo is its CRC32C as it was listed."""

    root: str

    def read(self, photos: Sequence[Photo]) -> Iterator[bytes | OSError]:
        """Reads many at a time, in order."""
        root = self.root.rstrip("/")
        places = [(f"{root}/{photo.name}", photo.place) for photo in photos]
        return _read_many(places)


@dataclasses.dataclass(frozen=True)
class PlaceReader:
    """Reads photos whose place says all: `gs://bucket/name`, or a path of this machine."""

    def read(self, photos: Sequence[Photo]) -> Iterator[bytes | OSError]:
        """Reads many at a time, in order."""
        return _read_many([(photo.place, "") for photo in photos])


def _read_many(places: Sequence[tuple[str, str]]) -> Iterator[bytes | OSError]:
    pending: deque[Future[bytes | OSError]] = deque()
    with ThreadPoolExecutor(_REQUESTS) as pool:
        try:
            for place, crc32c in places:
                pending.append(pool.submit(_read_one, place, crc32c))
                if len(pending) > _REQUESTS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _read_one(place: str, crc32c: str) -> bytes | OSError:
    try:
        if place.startswith(gcs.SCHEME):
            return gcs.read_blob(place, crc32c)
        return read_file(place)
    except gcs.BlobNotFoundError:
        return OSError("there is no such object")
    except OSError as error:
        return error
