"""Licence and credits of the photos, from what lies beside them."""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from components.common import storage
from components.common.errors import FlowersError
from components.common.import_files import folder_of
from components.common.progress import say
from components.export_model.config import STEP

_LICENCE_FILES = ("LICENSE.txt", "LICENSE", "LICENSE.md", "LICENCE.txt", "LICENCE", "CREDITS.txt")
_AUTHOR_COLUMNS = ("author", "photographer", "creator", "credit")
# A licence file is kept up to this size, so that a model stays a model.
_MOST_BYTES = 2**21
_SYNTHETIC = "synthetic://"


@dataclasses.dataclass(frozen=True)
class PhotoRights:
    """Whose photos a model has learnt from.

    Attributes:
        licence: What the photos may be used for, in the words of their licence file; empty where
            nothing says so.
        licence_text: The whole file, which may name every photographer; empty for none.
        authors: Photographer -> number of photos, the most frequent first.
    """

    licence: str = ""
    licence_text: str = ""
    authors: dict[str, int] = dataclasses.field(default_factory=dict)


def find_rights(images: str, manifest: str, licence: str) -> PhotoRights:
    """Looks beside the photos, and says what cannot be looked up.

    Args:
        images: Where the photos are; may be empty.
        manifest: Their manifest; may be empty.
        licence: What the user says, which goes before the file.
    """
    if images.startswith(_SYNTHETIC):
        return PhotoRights(licence or "drawn by this project; nobody else has rights in them")
    text, authors = "", dict[str, int]()
    with _optional("the licence file"):
        text = _licence_text(folder_of(images))
    with _optional("the credits"):
        authors = _authors(_manifest_text(folder_of(images), manifest))
    first, _, _ = text.partition("\n\n")
    return PhotoRights(licence or " ".join(first.split())[:1000], text, authors)


@contextmanager
def _optional(what: str) -> Iterator[None]:
    """Goes on without what cannot be looked up: a trained model must not be lost to it."""
    try:
        yield
    except (OSError, FlowersError, csv.Error) as error:
        say(STEP, f"{what} of the photos cannot be looked up, the card goes without: {error}")


def _licence_text(folder: str) -> str:
    for name in _LICENCE_FILES if folder else ():
        content = _read(storage.join(folder, name))
        if content is not None and len(content) <= _MOST_BYTES:
            return content.decode(errors="replace")
    return ""


def _manifest_text(folder: str, manifest: str) -> str:
    if not manifest:
        return ""
    beside = _read(storage.join(folder, manifest)) if "://" not in manifest else None
    content = beside if beside is not None else _read(manifest)
    return content.decode("utf-8-sig", errors="replace") if content is not None else ""


def _authors(manifest: str) -> dict[str, int]:
    rows = csv.DictReader(io.StringIO(manifest, newline=""))
    column = next((name for name in _AUTHOR_COLUMNS if name in (rows.fieldnames or ())), None)
    if column is None:
        return {}
    return dict(Counter(row[column].strip() for row in rows if row[column]).most_common())


def _read(place: str) -> bytes | None:
    """A file, or None where there is none."""
    if PurePosixPath(place).name in {"", "."}:
        return None
    try:
        return storage.read(place)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
