"""Folders between a pod and the bucket; files go over whole, and those that others name go last."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from components.common import gcs, storage
from components.common.errors import ConfigError, FlowersError
from components.common.progress import say
from components.train_model.checkpoint_files import STATE_FILE, is_of_checkpoint, weight_files

STEP = "train-model"
_SECONDS = 30.0


def download(place: str, folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Copies a folder of the bucket; an empty one makes an empty folder.

    Args:
        place: `gs://` folder.
        folder: Made.
        wanted: Whether to copy a file, by its name relative to the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = place.rstrip("/") + "/"
    bucket, prefix = gcs.split_place(root)
    for blob in gcs.list_blobs(root):
        name = blob.name.removeprefix(prefix)
        # Consoles make an empty object for a folder.
        if name.endswith("/") or not name or not wanted(name):
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gcs.read_blob(f"{gcs.SCHEME}{bucket}/{blob.name}"))


def upload(folder: Path, place: str) -> None:
    """Copies a folder into the bucket."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            storage.write(storage.join(place, name), path.read_bytes())


def check_remote(name: str, place: str) -> None:
    """Refuses a place that the pods of several hosts cannot all reach.

    Raises:
        ConfigError: It is not in Cloud Storage.
    """
    if not storage.is_remote(place):
        raise ConfigError(f"{name}: several hosts share gs:// folders, received {place!r}")


class CheckpointMirror:
    """Keeps the checkpoint of a pod in the bucket, so that it outlives the pod's node.

    `state.json` names the files of weights, so it is copied after them, and what it no longer names
    is deleted after it: whenever the copying stops, the bucket holds a whole checkpoint. Training
    goes on meanwhile, and deletes what it replaces; links keep that until it is copied.

    Args:
        folder: The checkpoint; what it holds already came from the bucket.
        place: `gs://` folder.
    """

    def __init__(self, folder: Path, place: str) -> None:
        self._folder = folder
        self._place = place
        self._copied = {
            path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
            for path in folder.rglob("*")
            if path.is_file() and path.name != STATE_FILE
        }
        self._state = b""
        self._lock = threading.Lock()

    def copy(self) -> None:
        """Copies what is new."""
        with self._lock, tempfile.TemporaryDirectory(dir=self._folder.parent) as scratch:
            held = Path(scratch)
            state = self._hold(held)
            if state in (b"", self._state):
                return
            weights = {path.name: path for path in held.iterdir()}
            logs = {
                path.relative_to(self._folder).as_posix(): path
                for path in self._folder.rglob("*")
                if path.is_file() and path.parent != self._folder
            }
            files = weights | logs
            for name, path in sorted(files.items()):
                stamp = path.stat().st_mtime_ns
                if self._copied.get(name) != stamp:
                    storage.write(storage.join(self._place, name), path.read_bytes())
                    self._copied[name] = stamp
            storage.write(storage.join(self._place, STATE_FILE), state)
            self._state = state
            for name in self._copied.keys() - files.keys():
                gcs.delete_blob(storage.join(self._place, name))
                del self._copied[name]

    def _hold(self, held: Path) -> bytes:
        """Links the weights of a checkpoint into a folder.

        Returns:
            Its `state.json`; nothing where there is no whole checkpoint.
        """
        state, before = self._folder / STATE_FILE, b""
        # A checkpoint that is replaced while it is linked is a new one at the next look.
        while state.is_file() and (content := state.read_bytes()) != before:
            for path in held.iterdir():
                path.unlink()
            try:
                for name in weight_files(content):
                    os.link(self._folder / name, held / name)
            except FileNotFoundError:
                before = content
            else:
                return content
        return b""


@contextmanager
def mirrored(folder: Path, place: str) -> Iterator[None]:
    """Brings a checkpoint here and mirrors it while the block runs, and however that ends.

    What else is in the place stays where it is.

    Args:
        folder: Made, if it is not there.
        place: `gs://` folder.
    """
    download(place, folder, is_of_checkpoint)
    mirror, ended = CheckpointMirror(folder, place), threading.Event()

    def work() -> None:
        while not ended.wait(_SECONDS):
            try:
                mirror.copy()
            except FlowersError as error:
                say(STEP, f"the checkpoint is not in the bucket yet: {error}")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        mirror.copy()


def checkpoint_place(place: str, model: str) -> str:
    """Where a training is saved that may be started again on another machine.

    Args:
        place: What was asked for; empty for beside the model.
        model: URI of the model artifact, which is the same when a task is tried again.

    Returns:
        A folder; empty where nothing was asked for and the model is on this machine.
    """
    if place or not storage.is_remote(model):
        return place
    return model.rstrip("/") + "-checkpoint"
