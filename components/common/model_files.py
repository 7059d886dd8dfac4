"""What describes a trained model on disk; needs neither Keras nor TensorFlow.

DIR/model.keras     the Keras file
DIR/model.json      class names, image size, where it came from
DIR/history.json    what the training measured, epoch by epoch
"""

import dataclasses
from pathlib import Path
from typing import Any

from components.common.config import build, read_mapping
from components.common.errors import DataError, UserError
from components.common.files import file_digest
from components.common.resizing import CROP

MODEL_FILE = "model.keras"
METADATA_FILE = "model.json"
HISTORY_FILE = "history.json"


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """What a model is.

    Attributes:
        class_names: Every class, in the order of the outputs.
        image_size: Side of the square input, in pixels.
        data_fingerprint: Fingerprint of the data set it was trained on.
        architecture: Name of the builder.
        parameters: Number of weights.
        digest: SHA-256 of the Keras file, in hexadecimal; `save_model` fills it in.
        augmented_fingerprint: Fingerprint of the augmented copy of that data set.
        resize: How its photos became squares; see `components.common.resizing`.
        wiring: Keys of the recipe's `model` that decide how its layers are connected; empty for a
            model of an earlier version.
    """

    class_names: tuple[str, ...]
    image_size: int
    data_fingerprint: str
    architecture: str
    parameters: int
    digest: str = ""
    augmented_fingerprint: str = ""
    resize: str = CROP
    wiring: dict[str, Any] = dataclasses.field(default_factory=dict)


def load_metadata(folder: Path) -> ModelMetadata:
    """Reads what describes a model.

    Raises:
        DataError: The folder holds no model, or its description is damaged.
    """
    try:
        return build(ModelMetadata, read_mapping(str(folder / METADATA_FILE)))
    except UserError as error:
        raise DataError(
            f"model {folder}: expected the model folder of train_model ({error})"
        ) from error


def model_digest(folder: Path) -> str:
    """SHA-256 of the Keras file, in hexadecimal, checked against what describes the model.

    Raises:
        DataError: The file is absent, or is not the one that was saved.
    """
    path = folder / MODEL_FILE
    expected = load_metadata(folder).digest
    try:
        received = file_digest(path)
    except OSError as error:
        raise DataError(f"model {path}: expected a Keras file ({error.strerror})") from error
    if received != expected:
        raise DataError(
            f"model {path}: expected a Keras file with digest {expected[:12]}, received "
            f"{received[:12]}; it was changed or damaged, so train the model anew"
        )
    return received
