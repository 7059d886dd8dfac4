"""Files by their place, which is a path of this machine or `gs://bucket/name`.

What runs on one machine and what runs on many differ in where they keep their files, and in nothing
else. A file is written whole or not at all, and writing it again is harmless.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from components.common import gcs
from components.common.outputs import write_bytes


def is_remote(place: str) -> bool:
    """Whether a place is in Google Cloud Storage."""
    return place.startswith(gcs.SCHEME)


def join(folder: str, *names: str) -> str:
    """The place of a file in a folder."""
    return "/".join([folder.rstrip("/"), *names])


def exists(place: str) -> bool:
    """Whether there is such a file, or anything in such a folder."""
    if not is_remote(place):
        return Path(place).exists()
    place = place.rstrip("/")
    _, name = gcs.split_place(place)
    # A listing goes by the beginning of names, and has others that begin alike.
    within = f"{name}/" if name else ""
    return any(blob.name == name or blob.name.startswith(within) for blob in gcs.list_blobs(place))


def read(place: str) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be read.
    """
    if not is_remote(place):
        return Path(place).read_bytes()
    try:
        return gcs.read_blob(place)
    except gcs.BlobNotFoundError as error:
        raise FileNotFoundError(2, "there is no such object", place) from error


def read_spans(place: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Parts of a file, each given as offset and length in bytes."""
    if is_remote(place):
        return [gcs.read_blob(place, span=span) for span in spans]
    parts = []
    with Path(place).open("rb", buffering=0) as file:
        for offset, length in spans:
            file.seek(offset)
            parts.append(file.read(length))
    return parts


def write(place: str, content: bytes, *, flush: bool = False) -> None:
    """Writes a file in one step; its folder is made.

    Args:
        place: The file.
        content: Its bytes.
        flush: Return when it is on the disk, as a file in Cloud Storage always is.
    """
    if is_remote(place):
        gcs.write_blob(place, content)
        return
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content, flush=flush)


def remove_folder(place: str) -> None:
    """Removes a folder and all in it; an absent one is fine."""
    if not is_remote(place):
        shutil.rmtree(place, ignore_errors=True)
        return
    bucket, _ = gcs.split_place(place)
    for blob in list(gcs.list_blobs(place.rstrip("/") + "/")):
        gcs.delete_blob(f"{gcs.SCHEME}{bucket}/{blob.name}")
