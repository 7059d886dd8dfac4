"""Outputs that appear whole or not at all."""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.common.errors import ConfigError

_PARTIAL = ".partial-"
# Beside the last output, while all are put in place; names them, and the process.
_PLACING = ".placing"
# What a file system over an object store says of the rename of a folder; gcsfuse, by which Vertex
# AI mounts buckets, that too many files are open.
_CANNOT_RENAME = frozenset(
    {errno.EMFILE, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV}
)


def remove(path: Path) -> None:
    """Removes a file or a folder tree; an absent path is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _claim(target: Path) -> Path:
    """Checks that `target` is free and can be made, and returns an unused temporary sibling."""
    # A rename replaces an empty folder, which is what a caller often prepares.
    if target.exists() and not _is_empty_folder(target):
        raise ConfigError(
            f"output {target} already exists: expected a new or an empty folder; "
            "name another --output or remove it first"
        )
    partial = _partial(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Before the work, not after it: whether anything can be written here.
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise ConfigError(
            f"output {target} cannot be made ({error.strerror}): name a folder that can be written"
        ) from error
    # Left over from a killed run: nobody will finish them.
    for sibling in target.parent.iterdir():
        prefix, partial_mark, owner = sibling.name.partition(_PARTIAL)
        if partial_mark and prefix == f".{target.name}" and not _is_running(owner):
            remove(sibling)
    return partial


def _partial(target: Path) -> Path:
    """An unused temporary sibling; its name says which process it belongs to."""
    return target.with_name(f".{target.name}{_PARTIAL}{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _is_running(owner: str) -> bool:
    """Whether the process that a partial output belongs to is another one, and still runs here.

    A partial output with our own number is of an earlier container, where numbers start anew.
    """
    try:
        pid = int(owner.partition("-")[0])
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    return pid != os.getpid()


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _put_in_place(partial: Path, target: Path) -> None:
    if partial.is_file() and target.is_dir():
        target.rmdir()
    try:
        partial.rename(target)
    except OSError as error:
        if error.errno not in _CANNOT_RENAME or not partial.is_dir():
            raise
        _put_files_in_place(partial, target)


def _put_files_in_place(partial: Path, target: Path) -> None:
    """Renames the files of a folder, those at its top last, which say what the others are."""
    if not target.exists():
        target.mkdir()
    elif not _is_empty_folder(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        for path in sorted(partial.rglob("*"), key=lambda path: (-len(path.parts), path)):
            place = target / path.relative_to(partial)
            if path.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                path.rename(place)
    except BaseException:
        remove(target)
        raise


def _put_all_in_place(partials: tuple[Path, ...], targets: tuple[Path, ...]) -> None:
    """Puts outputs in place, or removes those that are when one fails."""
    note = _note(targets)
    write_text(note, json.dumps([os.getpid(), *map(str, targets)]))
    placed = []
    try:
        for partial, target in zip(partials, targets, strict=True):
            _put_in_place(partial, target)
            placed.append(target)
    except BaseException:
        for target in placed:
            remove(target)
        raise
    finally:
        note.unlink()


def _remove_unfinished(targets: tuple[Path, ...]) -> None:
    """Removes what an earlier process put in place before it was killed in the midst."""
    note = _note(targets)
    if not note.is_file():
        return
    owner, *placed = json.loads(note.read_text(encoding="utf-8"))
    if not _is_running(str(owner)):
        for target in targets:
            if str(target) in placed:
                remove(target)
        note.unlink()


def _note(targets: tuple[Path, ...]) -> Path:
    return targets[-1].with_name(f".{targets[-1].name}{_PLACING}")


def _sync(path: Path) -> None:
    """Flushes every file under `path` to the disk, so that a rename never outruns its data."""
    files = (p for p in path.rglob("*") if p.is_file()) if path.is_dir() else (path,)
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def staged(*targets: Path) -> Iterator[tuple[Path, ...]]:
    """Gives a temporary sibling for each target and renames them all at the end.

    The caller writes to the temporary paths, as files or as folders. When the block ends well they
    are flushed and renamed in the order given, so name last the target that others take as the
    sign that the step is done. When it raises, or when the process is killed, no target exists.
    Where folders cannot be renamed, as in a mounted bucket, their files are, one by one. A kill
    in the midst of the renames leaves a note of them, by which the next try removes what is there.

    Args:
        targets: Paths that do not exist yet, or empty folders.

    Yields:
        One path per target, in the same file system, that does not exist yet.

    Raises:
        ConfigError: A target exists and is not an empty folder, or its parent cannot be made.
    """
    # In full, so that the folder one stands in has a name and a parent.
    targets = tuple(Path(os.path.abspath(target)) for target in targets)  # noqa: PTH100
    _remove_unfinished(targets)
    partials = tuple(_claim(target) for target in targets)
    try:
        yield partials
        for partial in partials:
            _sync(partial)
        _put_all_in_place(partials, targets)
    finally:
        for partial in partials:
            remove(partial)


def write_bytes(path: Path, content: bytes, *, flush: bool = False) -> None:
    """Puts a file at `path` in one step, so that a reader never sees half of it."""
    partial = _partial(path)
    try:
        partial.write_bytes(content)
        if flush:
            _sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces the file at `path` in one step, so that a reader never sees half of it."""
    partial = _partial(path)
    try:
        partial.write_text(text, encoding="utf-8")
        _sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
