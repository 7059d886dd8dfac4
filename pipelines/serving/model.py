"""An exported model: found, loaded, asked."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from components.common import gcs, storage
from components.common.config import read_mapping
from components.common.errors import DataError, UserError
from components.common.resizing import resize_of

_GRAPH = "saved_model.pb"
_EXTRA = "assets.extra"
# Where a SavedModel lies below what people name: a run, an export, a version in a registry.
_BELOW = (
    "",
    "saved_model",
    "steps/export-model/saved_model",
    "serving/saved_model",
    "flowers/serving/saved_model",
)


@contextmanager
def saved_model_at(place: str) -> Iterator[Path]:
    """Finds the SavedModel that a place stands for; one in a bucket is fetched.

    Args:
        place: A SavedModel, or the folder of a run, of an export or of a registry; `gs://` too.

    Raises:
        DataError: There is none.
    """
    if not storage.is_remote(place):
        yield _find(place)
        return
    with tempfile.TemporaryDirectory(prefix="flowers-model-") as folder:
        _fetch(place.rstrip("/") + "/", Path(folder))
        try:
            found = _find(folder)
        except DataError as error:
            raise DataError(_complaint(place)) from error
        yield found


def _find(place: str) -> Path:
    for below in _BELOW:
        folder = Path(place, below)
        if (folder / _GRAPH).is_file():
            return folder
    raise DataError(_complaint(place))


def _complaint(place: str) -> str:
    return (
        f"model {place}: expected a SavedModel that flowers exported, or a folder of a run or a "
        "registry that holds one"
    )


def _fetch(place: str, folder: Path) -> None:
    bucket, prefix = gcs.split_place(place)
    for blob in gcs.list_blobs(place):
        target = (folder / blob.name[len(prefix) :]).resolve()
        if blob.name.endswith("/") or not target.is_relative_to(folder.resolve()):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gcs.read_blob(f"{gcs.SCHEME}{bucket}/{blob.name}", crc32c=blob.crc32c))


class ServedModel:
    """A SavedModel of `export_model`, loaded.

    Attributes:
        class_names: Every class, in the order of the probabilities.
        image_size: Side of the square input, in pixels.
        resize: How a photo becomes such a square; see `components.common.resizing`.
        metadata: What the export wrote down about it.
        card: The model card; empty where the export wrote none.
    """

    def __init__(self, folder: Path) -> None:
        """Loads it.

        Raises:
            DataError: It is damaged, or was exported by an earlier version.
        """
        from components.common.step import import_tensorflow_quietly

        import_tensorflow_quietly()
        import tensorflow as tf

        try:
            self._loaded = tf.saved_model.load(str(folder))
            self._classify = self._loaded.signatures["classify"]
            self.metadata = read_mapping(str(folder / _EXTRA / "flowers.json"))
            self.class_names: tuple[str, ...] = tuple(self.metadata["class_names"])
            self.image_size = int(self.metadata["image_size"])
            self.resize = resize_of(self.metadata)
        # TensorFlow's errors are no OSError; those of a damaged file are many.
        except (OSError, KeyError, ValueError, UserError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"model {folder}: expected a SavedModel with the signature classify, as "
                f"flowers exports it; export it anew ({reason})"
            ) from error
        self._explain = self._loaded.signatures.get("explain")
        self.card = _read_card(folder / _EXTRA)
        self.licence = _read_text(folder / _EXTRA / "PHOTOS_LICENSE.txt")
        self.card_text = _read_text(folder / _EXTRA / "model_card.md")

    @property
    def explains(self) -> bool:
        """Whether it says where it looked."""
        return self._explain is not None

    def warm_up(self, max_batch: int) -> None:
        """Asks it once for every size of batch, so that no user waits for a first time."""
        for size in range(1, max_batch + 1):
            self.predict(np.zeros([size, self.image_size, self.image_size, 3], np.uint8))
        if self._explain is not None:
            self.explain(np.zeros([1, self.image_size, self.image_size, 3], np.uint8))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Asks about images.

        Args:
            images: `uint8` [batch, image_size, image_size, 3], RGB.

        Returns:
            Probabilities, `float32` [batch, classes].
        """
        import tensorflow as tf

        answer: np.ndarray = self._classify(images=tf.constant(images))["probabilities"].numpy()
        return answer

    def explain(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Asks about images, and where it looked.

        Args:
            images: As `predict` takes them.

        Returns:
            Probabilities, and heat maps `float32` [batch, height, width], 0 to 1.
        """
        import tensorflow as tf

        assert self._explain is not None
        answer = self._explain(images=tf.constant(images))
        return answer["probabilities"].numpy(), answer["heat_map"].numpy()


def _read_card(folder: Path) -> dict[str, Any]:
    text = _read_text(folder / "model_card.json")
    card: dict[str, Any] = json.loads(text) if text else {}
    return card


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
