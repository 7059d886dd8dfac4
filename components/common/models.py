"""A trained model on disk: the net without its optimizer, and what describes it (`model_files`)."""

import dataclasses
from pathlib import Path

import keras

from components.common.config import to_json
from components.common.errors import DataError, FlowersError
from components.common.files import file_digest
from components.common.model_files import METADATA_FILE, MODEL_FILE, ModelMetadata, model_digest


def save_model(model: keras.Model, metadata: ModelMetadata, folder: Path) -> None:
    """Writes a model into a folder that exists."""
    model.save(folder / MODEL_FILE)
    complete = dataclasses.replace(metadata, digest=file_digest(folder / MODEL_FILE))
    text = to_json(dataclasses.asdict(complete))
    (folder / METADATA_FILE).write_text(text, encoding="utf-8")


def load_model(folder: Path) -> keras.Model:
    """Reads the net, uncompiled.

    The digest is checked first: Keras fills a file whose weights do not fit with random ones, and
    only warns.

    Raises:
        DataError: The file is absent or damaged, or holds code of its own.
    """
    path = folder / MODEL_FILE
    model_digest(folder)
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    # What a signal says meanwhile.
    except FlowersError:
        raise
    # Damage was found by the digest; what is left are files that were made so, with layers that
    # would run code of their own, say, and there is no end to what Keras raises for those.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"model {path}: expected a Keras file of known layers ({reason})"
        ) from error
