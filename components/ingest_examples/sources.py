"""Where photos come from: each source gives a list of photos that any process can read."""

import csv
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from components.common.config import Range, check
from components.common.errors import ConfigError, DataError
from components.ingest_examples import synthetic

SYNTHETIC_SCHEME = "synthetic"


class Photo(Protocol):
    """A labelled photo that has not been read yet. It can be sent to another process."""

    @property
    def name(self) -> str:
        """Unique within the source and the same on every machine, e.g. `daisy/1.jpg`."""

    @property
    def class_name(self) -> str:
        """The label."""

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            OSError: It cannot be read.
        """


@dataclasses.dataclass(frozen=True)
class FilePhoto:
    """A photo in a local folder, which it may not leave through a symbolic link."""

    name: str
    class_name: str
    path: Path
    root: Path

    def read(self) -> bytes:
        """The bytes of the file."""
        if not self.path.resolve().is_relative_to(self.root.resolve()):
            raise OSError("the link leads outside the folder of images")
        # Opening a pipe would wait for ever.
        if self.path.exists() and not self.path.is_file():
            raise OSError("not a regular file")
        return self.path.read_bytes()


@dataclasses.dataclass(frozen=True)
class SyntheticPhoto:
    """A photo that is drawn when it is read."""

    name: str
    class_name: str
    index: int
    seed: int

    def read(self) -> bytes:
        """Draws the photo."""
        return synthetic.render_jpeg(self.class_name, self.index, self.seed)


@dataclasses.dataclass(frozen=True)
class Source:
    """All photos of a source.

    Attributes:
        class_names: Every class in label order, which is the order of the names.
        photos: Sorted by name.
    """

    class_names: tuple[str, ...]
    photos: tuple[Photo, ...]


def find_class_names(images: str) -> tuple[str, ...]:
    """Names the classes at a place, without listing its photos.

    Args:
        images: A folder that holds one folder per class, or
            `synthetic://flowers?per_class=200&seed=7`, whose two numbers may be left out.

    Returns:
        Every class in label order, which is the order of the names.

    Raises:
        DataError: There is no such folder, or no second class in it.
        ConfigError: The place is of a kind that is not known.
    """
    if _is_synthetic(images):
        _synthetic_options(images)
        return synthetic.CLASS_NAMES
    if "://" in images:
        raise ConfigError(
            f"--images {images}: expected a local folder or synthetic://flowers; copy the photos "
            "to a folder first"
        )
    names = tuple(folder.name for folder in _class_folders(Path(images)))
    if len(names) < 2:
        raise DataError(
            f"--images {images}: expected at least two classes, found only {names[0]!r}; add a "
            "folder for each further class"
        )
    for name in names:
        _check_class_name(name)
    return names


def open_source(images: str) -> Source:
    """Lists the photos at a place.

    Args:
        images: As for `find_class_names`.

    Raises:
        DataError: There are no photos, or there is no second class.
        ConfigError: The place is of a kind that is not known.
    """
    names = find_class_names(images)
    photos = _synthetic_photos(images) if _is_synthetic(images) else _folder_photos(Path(images))
    return Source(names, photos)


def _is_synthetic(images: str) -> bool:
    return images.startswith(f"{SYNTHETIC_SCHEME}://")


def _synthetic_options(images: str) -> tuple[int, int]:
    """Number of photos per class, and the seed."""
    options = {"per_class": 200, "seed": 7}
    try:
        place = urlsplit(images)
        query = parse_qsl(place.query, keep_blank_values=True, strict_parsing=bool(place.query))
        options |= {key: int(value) for key, value in query}
        if (place.netloc, place.path) != ("flowers", "") or len(options) > 2:
            raise ValueError
    except ValueError as error:
        raise ConfigError(
            f"--images {images}: expected synthetic://flowers?per_class=NUMBER&seed=NUMBER"
        ) from error
    check("--images: per_class", options["per_class"], Range(1, 100_000))
    check("--images: seed", options["seed"], Range(0, 2**31 - 1))
    return options["per_class"], options["seed"]


def _synthetic_photos(images: str) -> tuple[Photo, ...]:
    per_class, seed = _synthetic_options(images)
    return tuple(
        SyntheticPhoto(f"{name}/{index:05d}.jpg", name, index, seed)
        for name in synthetic.CLASS_NAMES
        for index in range(per_class)
    )


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"--images {root} {state}: expected a folder with one folder per class")
    folders = sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if not folders:
        files = sum(path.is_file() for path in root.iterdir())
        raise DataError(
            f"--images {root}: expected one folder per class, found no folder and {files} files; "
            "put the photos of each class into a folder that has the name of the class"
        )
    return folders


def _folder_photos(root: Path) -> tuple[Photo, ...]:
    folders = _class_folders(root)
    photos = [
        FilePhoto(path.relative_to(root).as_posix(), folder.name, path, root)
        for folder in folders
        for path in _files(folder)
    ]
    if not photos:
        raise DataError(
            f"--images {root}: found {len(folders)} class folders and no file in them; "
            "expected photos"
        )
    return tuple(sorted(photos, key=lambda photo: photo.name))


def _check_class_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"class folder {name!r}: expected a name in UTF-8, since it becomes the label; "
            "rename the folder"
        ) from error


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder but hidden ones, which file managers leave behind.

    A link to a folder is not followed but given as if it were a file, so that it is listed.
    """
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        links = [name for name in subfolders if Path(parent, name).is_symlink()]
        for name in [*names, *links]:
            if not name.startswith("."):
                yield Path(parent, name)


def read_groups(manifest: Path, column: str) -> dict[str, str]:
    """Reads which group each photo belongs to.

    Args:
        manifest: CSV with a header; its column `path` holds the names of the photos.
        column: The column whose equal values make a group, e.g. the photographer.

    Returns:
        Group by name of the photo; empty where the manifest leaves the column empty.

    Raises:
        DataError: The file is absent or is not such a CSV.
    """
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            columns = list(rows.fieldnames or [])
            missing = [name for name in ("path", column) if name not in columns]
            if missing:
                raise DataError(
                    f"--manifest {manifest}: expected a column {missing[0]!r}, found "
                    f"{', '.join(columns) or 'none'}"
                )
            return {row["path"]: (row[column] or "").strip() for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--manifest {manifest}: cannot be read as CSV ({error})") from error
