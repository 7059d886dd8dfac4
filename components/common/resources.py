"""Which resource of the machine an error is about, for a line that says what to do."""

import errno
import re
import socket
from collections.abc import Iterator

_NO_SPACE = "no space left on the disk{where}: free some and start again"
_TOO_LARGE = "a file would be larger than this machine allows{where}: raise the limit (ulimit -f)"
_READ_ONLY = "the disk cannot be written{where} ({reason}): name a folder that can be written"
_DISK_FAULT = "the disk fails{where} ({reason}): look after it, and start again"
_NO_FILES = "too many open files{where}: raise the limit (ulimit -n)"
_NO_MEMORY = (
    "not enough memory ({reason}): give the step more, or set a smaller train.global_batch_size "
    "or train.batch_per_replica"
)
_NO_NETWORK = "the network fails ({reason}): look after the connection, and start again"
_BY_NUMBER = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: _TOO_LARGE,
    errno.EROFS: _READ_ONLY,
    errno.EIO: _DISK_FAULT,
    errno.EMFILE: _NO_FILES,
    errno.ENFILE: _NO_FILES,
    errno.ENOMEM: _NO_MEMORY,
    errno.ENETUNREACH: _NO_NETWORK,
    errno.EHOSTUNREACH: _NO_NETWORK,
}
# Libraries in C++ hand on the words of the system and not its number: HDF5, TensorFlow, the linker.
_BY_WORDS = {
    "No space left on device": _NO_SPACE,
    "Disk quota exceeded": _NO_SPACE,
    "File too large": _TOO_LARGE,
    "Read-only file system": _READ_ONLY,
    "Cannot allocate memory": _NO_MEMORY,
    "failed to map segment": _NO_MEMORY,
    "Unable to allocate": _NO_MEMORY,
    "OOM when allocating": _NO_MEMORY,
    # JAX, as its CPUs, GPUs and TPUs say it.
    "Out of memory allocating": _NO_MEMORY,
    "Out of memory while trying to allocate": _NO_MEMORY,
    "Ran out of memory in memory space": _NO_MEMORY,
    "Error allocating device buffer": _NO_MEMORY,
    "bad_alloc": _NO_MEMORY,
}
_WORDS = re.compile("|".join(map(re.escape, _BY_WORDS)))


def lacking_resource(error: BaseException) -> str:
    """Says what the machine lacks and what to do about it; empty for an error of another kind.

    Args:
        error: What ended a step; what it was raised from counts too.
    """
    return next((said for one in _chain(error) if (said := _of_one(one))), "")


def _of_one(error: BaseException) -> str:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    if isinstance(error, OSError):
        where = f" for {error.filename}" if error.filename else ""
        if error.errno in _BY_NUMBER:
            return _BY_NUMBER[error.errno].format(where=where, reason=error.strerror)
        if isinstance(error, (socket.gaierror, ConnectionError)) and not isinstance(
            error, BrokenPipeError
        ):
            return _NO_NETWORK.format(reason=reason)
    if isinstance(error, MemoryError):
        return _NO_MEMORY.format(reason=reason)
    found = _WORDS.search(str(error))
    return _BY_WORDS[found[0]].format(where="", reason=reason) if found else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
