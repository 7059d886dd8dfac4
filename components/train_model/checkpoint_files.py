"""The files of a checkpoint, for whoever moves them; without Keras, unlike `checkpoints.py`."""

import json
import re
from pathlib import Path

from components.common.errors import DataError

STATE_FILE = "state.json"
LOGS_FOLDER = "tensorboard"
SUFFIX = ".weights.h5"
_WEIGHTS = re.compile(rf"(?:\d{{5,}}-\d{{6,}}|kept-\d{{5,}}|partial-\d+){re.escape(SUFFIX)}")


def is_weights(name: str) -> bool:
    """Whether a training saves weights under such a name; all others are somebody else's."""
    return _WEIGHTS.fullmatch(name) is not None


def is_of_checkpoint(name: str) -> bool:
    """Whether a file belongs to a checkpoint, by its name relative to the folder."""
    return name == STATE_FILE or name.startswith(f"{LOGS_FOLDER}/") or is_weights(name)


def weight_files(state: bytes) -> list[str]:
    """Names of the files that a `state.json` names, that of the weights at its position first."""
    content = json.loads(state)
    saved = (content["weights"], content.get("kept_weights"))
    return list(dict.fromkeys(one["file"] for one in saved if one))


def unreadable(checkpoint: str, file: str, error: OSError) -> DataError:
    """What to say of a file that a checkpoint names and nobody can read."""
    return DataError(
        f"checkpoint {checkpoint}: {file} cannot be read ({error.strerror}); delete it all to "
        "start anew"
    )


def pack_checkpoint(folder: Path, checkpoint: str) -> tuple[bytes, bytes]:
    """What another host needs to go on from a checkpoint; nothing where there is none.

    Args:
        folder: That of the checkpoint on this machine.
        checkpoint: What messages call it.

    Returns:
        `state.json` and the weights at its position.

    Raises:
        DataError: The weights are not there.
    """
    file = folder / STATE_FILE
    if not file.exists():
        return b"", b""
    state = file.read_bytes()
    name = weight_files(state)[0]
    try:
        return state, (folder / name).read_bytes()
    except OSError as error:
        raise unreadable(checkpoint, name, error) from error


def unpack_checkpoint(state: bytes, weights: bytes, folder: Path) -> None:
    """Writes what `pack_checkpoint` read on another host."""
    if state:
        (folder / weight_files(state)[0]).write_bytes(weights)
        (folder / STATE_FILE).write_bytes(state)
