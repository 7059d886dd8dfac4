"""Folders between a pod and the bucket; files go over whole, and those that others name go last."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.common import gcs, storage
from components.common.errors import ConfigError, FlowersError
from components.common.progress import say

STEP = "train-model"
_SECONDS = 30.0


def download(place: str, folder: Path) -> None:
    """Copies a folder of the bucket; an empty one makes an empty folder.

    Args:
        place: `gs://` folder.
        folder: Made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = place.rstrip("/") + "/"
    bucket, prefix = gcs.split_place(root)
    for blob in gcs.list_blobs(root):
        target = folder / blob.name.removeprefix(prefix)
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

    `state.json` names the other files, so it is copied after them, and what it no longer names is
    deleted after it: whenever the copying stops, the bucket holds a whole checkpoint.

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
            if path.is_file()
        }
        self._lock = threading.Lock()
        # Not above: whoever only copies outputs needs no Keras.
        from components.train_model.checkpoints import STATE_FILE

        self._state = STATE_FILE

    def copy(self) -> None:
        """Copies what is new."""
        with self._lock:
            state = self._folder / self._state
            if not state.is_file():
                return
            # Read first: files that it names are there, and stay until it is replaced.
            content = state.read_bytes()
            try:
                self._copy_files()
            except FileNotFoundError:
                # Replaced meanwhile by a newer checkpoint, which the next call copies.
                return
            storage.write(storage.join(self._place, self._state), content)
            self._delete_others()

    def _copy_files(self) -> None:
        for path in sorted(self._folder.rglob("*")):
            if not path.is_file() or path.name == self._state or path.name.startswith("partial-"):
                continue
            name, stamp = path.relative_to(self._folder).as_posix(), path.stat().st_mtime_ns
            if self._copied.get(name) != stamp:
                storage.write(storage.join(self._place, name), path.read_bytes())
                self._copied[name] = stamp

    def _delete_others(self) -> None:
        for name in [name for name in self._copied if not (self._folder / name).exists()]:
            gcs.delete_blob(storage.join(self._place, name))
            del self._copied[name]


@contextmanager
def mirrored(folder: Path, place: str) -> Iterator[None]:
    """Brings a checkpoint here and mirrors it while the block runs, and however that ends.

    Args:
        folder: Made, if it is not there.
        place: `gs://` folder.
    """
    download(place, folder)
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
