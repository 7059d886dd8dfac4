"""The files a model leaves in beside its SavedModel, and how each is asked."""

import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.common.model_files import MODEL_FILE
from components.common.processes import count_cores

# `uint8` [batch, side, side, 3] -> `float32` [batch, classes].
Predict = Callable[[np.ndarray], np.ndarray]
_OPSET = 17


@dataclasses.dataclass(frozen=True)
class Written:
    """A file, and how it is asked.

    Attributes:
        name: What people call the format.
        path: The file, or a folder.
        predict: Asks it about images.
        tolerance: Accuracy that it may lose before it is flagged, as a share.
        file: Its name in the end, where it has another one meanwhile.
    """

    name: str
    path: Path
    predict: Predict
    tolerance: float = 0.001
    file: str = ""


def copy_keras(model: Path, folder: Path) -> Written:
    """The Keras file, as it was evaluated."""
    path = folder / MODEL_FILE
    shutil.copyfile(model / MODEL_FILE, path)
    net = keras.models.load_model(path, compile=False, safe_mode=True)
    return Written("Keras", path, lambda images: np.asarray(net.predict_on_batch(images)))


def write_litert(net: keras.Model, folder: Path, photos: Sequence[np.ndarray]) -> list[Written]:
    """Writes LiteRT files in float and in int8.

    Input: `image`, [1, side, side, 3], 0 to 255, `float32` and `uint8`. Output: probabilities,
    `float32` [1, classes].

    Args:
        net: The model.
        folder: Where to.
        photos: Images of the train split, `uint8` [side, side, 3], which set the ranges of int8.
    """
    with _hushed(), tempfile.TemporaryDirectory() as scratch:
        _write_float_input(net, scratch)
        plain = _converter(scratch).convert()
        converter = _converter(scratch)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [photo[np.newaxis].astype(np.float32)] for photo in photos
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        small = converter.convert()
    (folder / "model.tflite").write_bytes(plain)
    (folder / "model_int8.tflite").write_bytes(small)
    return [
        Written("LiteRT float", folder / "model.tflite", _litert(plain)),
        Written("LiteRT int8", folder / "model_int8.tflite", _litert(small), tolerance=0.01),
    ]


def _write_float_input(net: keras.Model, folder: str) -> None:
    """A SavedModel of the net behind a `float32` input: int8 ranges end at a cast of bytes."""
    shape = net.input_shape[1:]
    inputs = keras.Input(shape, dtype="float32", name="image")
    floating = keras.models.clone_model(net, input_tensors=inputs)
    floating.set_weights(net.get_weights())
    archive = keras.export.ExportArchive()
    archive.track(floating)
    archive.add_endpoint(
        "serve",
        lambda image: floating(image, training=False),
        [tf.TensorSpec([1, *shape], tf.float32, name="image")],
    )
    archive.write_out(folder, verbose=False)


def _converter(saved_model: str) -> Any:
    return tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=["serve"])


def _litert(content: bytes) -> Predict:
    with _hushed(), warnings.catch_warnings():
        # It speaks of another package, which would be a second runtime in the image.
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter")
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=count_cores())
        interpreter.allocate_tensors()
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()

    def predict(images: np.ndarray) -> np.ndarray:
        answers = []
        for image in images:
            interpreter.set_tensor(inputs["index"], image[np.newaxis].astype(inputs["dtype"]))
            interpreter.invoke()
            answers.append(interpreter.get_tensor(outputs["index"])[0])
        return np.stack(answers)

    return predict


def write_onnx(net: keras.Model, folder: Path) -> Written:
    """Writes ONNX. Input: `image`, `uint8` [batch, side, side, 3]; output: probabilities."""
    import onnxruntime
    import tf2onnx

    path = folder / "model.onnx"
    spec = tf.TensorSpec([None, *net.input_shape[1:]], tf.uint8, name="image")
    function = tf.function(lambda image: net(image, training=False), input_signature=[spec])
    with _hushed():
        tf2onnx.convert.from_function(
            function, input_signature=[spec], opset=_OPSET, output_path=str(path)
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return Written("ONNX", path, lambda images: np.asarray(session.run(None, {"image": images})[0]))


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Turns away what converters write to descriptor 2, and shows it when one fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except Exception:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
