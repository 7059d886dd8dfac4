"""A tree of files, local or in a bucket: what its folders mean, and a reader of local files."""

import dataclasses
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from components.common.errors import DataError
from components.ingest_examples.sources.base import (
    SPLIT_NAMES,
    Listing,
    Photo,
    Reader,
    check_class_names,
)

SHARD_SUFFIXES = (".tfrec", ".tfrecord", ".tfrecords")


def _is_place_of_shards(folders: list[str]) -> bool:
    return not folders or (len(folders) == 1 and folders[0].lower() in SPLIT_NAMES)


@dataclasses.dataclass(frozen=True)
class Tree:
    """Names of a tree, relative to its root, with `/` between the parts.

    Attributes:
        images: The root, as the user named it.
        files: Every file that is not hidden, with what a reader needs to find it.
        folders: The folders of the first two levels, empty ones included.
    """

    images: str
    files: dict[str, str]
    folders: frozenset[str]

    def shards(self) -> list[str]:
        """Names of the files that hold records: at the top, or in the folder of a split."""
        return sorted(
            name
            for name in self.files
            if name.endswith(SHARD_SUFFIXES) and _is_place_of_shards(name.split("/")[:-1])
        )

    def split_folders(self) -> dict[str, str]:
        """Folder of the first level -> split, where the data set comes divided; else nothing.

        It does when every folder of the first level has the name of a split, `train` is one of
        them, and photos do not lie in it directly, since then `train` is a class.
        """
        tops = {name.split("/")[0] for name in self.folders}
        splits = {name: SPLIT_NAMES[name.lower()] for name in tops if name.lower() in SPLIT_NAMES}
        inner = any("/" in name for name in self.folders)
        if len(splits) < max(2, len(tops)) or "train" not in splits.values():
            return {}
        if len(set(splits.values())) < len(splits):
            raise DataError(
                f"--images {self.images}: expected one folder per split, found {sorted(splits)}"
            )
        return splits if inner or self.shards() else {}


class Level(NamedTuple):
    """What one folder holds, hidden names left out."""

    folders: list[str]
    files: list[str]


def list_level(root: Path, below: str) -> Level:
    """What a local folder holds.

    Args:
        root: The root of the tree.
        below: The folder in it, empty or ending in `/`.

    Returns:
        Names relative to the root. A link to a folder is not followed but given as if it were a
        file, so that it is listed; at the top it is a class like others.

    Raises:
        DataError: It may not be listed, or a link at the top leads in a circle.
    """
    try:
        return _list_level(root, below)
    except OSError as error:
        raise DataError(
            f"--images {root}: expected folders of photos, found {error.filename or root / below}, "
            f"which cannot be listed ({error.strerror}); make it readable, or take it out"
        ) from error


def _list_level(root: Path, below: str) -> Level:
    level = Level([], [])
    with os.scandir(root / below) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            is_folder = entry.is_dir(follow_symlinks=not below)
            (level.folders if is_folder else level.files).append(f"{below}{entry.name}")
    return level


def read_tree(root: Path) -> Tree:
    """Lists a local folder.

    Raises:
        DataError: There is no such folder, or one in it cannot be listed.
    """
    _check_folder(root)
    files: list[str] = []
    folders: list[str] = []
    pending = [""]
    while pending:
        level = list_level(root, pending.pop())
        files += level.files
        folders += (name for name in level.folders if name.count("/") < 2)
        pending += (f"{name}/" for name in level.folders)
    return Tree(str(root), dict.fromkeys(files, ""), frozenset(folders))


def _check_folder(root: Path) -> None:
    try:
        if root.is_dir():
            return
        state = "is not a folder" if root.exists() else "does not exist"
    except OSError as error:
        state = f"cannot be read ({error.strerror})"
    raise DataError(f"--images {root} {state}: expected a folder with one folder per class")


def peek(images: str, level_of: Callable[[str], Level]) -> Tree:
    """The folders of a tree and the shards in it, without its photos.

    Args:
        images: The root, as the user named it.
        level_of: Gives what a folder of the tree holds.
    """
    top = level_of("")
    folders, files = list(top.folders), list(top.files)
    if all(name.lower() in SPLIT_NAMES for name in top.folders):
        for level in (level_of(f"{name}/") for name in top.folders):
            folders += level.folders
            files += level.files
    return Tree(images, dict.fromkeys(files, ""), frozenset(folders))


def peek_folder(root: Path) -> Tree:
    """A first look at a local folder; raises as `read_tree` does."""
    _check_folder(root)
    return peek(str(root), lambda below: list_level(root, below))


def find_class_folders(tree: Tree) -> tuple[str, ...]:
    """The classes of a tree of photos, in the order of their names.

    Raises:
        DataError: There is no folder per class, or only one.
    """
    depth = 2 if tree.split_folders() else 1
    names = sorted(
        {
            parts[-1]
            for parts in (folder.split("/") for folder in tree.folders)
            if len(parts) == depth
        }
    )
    if not names:
        files = sum("/" not in name for name in tree.files)
        raise DataError(
            f"--images {tree.images}: expected one folder per class, found no folder and {files} "
            "files; put the photos of each class into a folder that has the name of the class"
        )
    return check_class_names(tree.images, names)


def list_tree(tree: Tree, reader: Reader) -> Listing:
    """The photos of a tree of class folders, or of `train/` and `test/` with such folders.

    Raises:
        DataError: There are no class folders, or no photos in them.
    """
    names = find_class_folders(tree)
    splits = tree.split_folders()
    # One text per class, however many photos share it.
    known = {name: name for name in names}
    photos = []
    for name in sorted(tree.files):
        parts = PurePosixPath(name).parts
        folders = parts[1:-1] if splits else parts[:-1]
        # What lies beside the class folders, a manifest or a licence, is no photo.
        if folders and folders[0] in known:
            split = splits.get(parts[0], "")
            photos.append(Photo(name, known[folders[0]], tree.files[name], split))
    if not photos:
        raise DataError(
            f"--images {tree.images}: found {len(names)} class folders and no file in them; "
            "expected photos"
        )
    return Listing(names, photos, reader)


@dataclasses.dataclass(frozen=True)
class FolderReader:
    """Reads files of a local folder, which they may not leave through a symbolic link."""

    root: str

    def read(self, photos: Sequence[Photo]) -> Iterator[bytes | OSError]:
        """Reads one file after the other."""
        for photo in photos:
            try:
                yield self._read(os.path.join(self.root, photo.name))  # noqa: PTH118
            except OSError as error:
                yield error

    def _read(self, path: str) -> bytes:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            # Strict, so that links that lead in a circle end in an OSError.
            target = Path(os.path.realpath(path, strict=True))
            if not target.is_relative_to(Path(self.root).resolve()):
                raise OSError("the link leads outside the folder of images")
            mode = target.stat().st_mode
        # Opening a pipe would wait for ever.
        if not stat.S_ISREG(mode):
            raise OSError("not a regular file")
        return read_file(path)


def read_file(path: str) -> bytes:
    """The bytes of a local file; three system calls, since there may be a million of them."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()
