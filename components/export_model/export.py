"""Exports a model as a SavedModel that takes photos as they are, and checks what it wrote."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.common import image_ops
from components.common.config import to_json
from components.common.dataset import Dataset, load_dataset
from components.common.errors import DataError, FlowersError
from components.common.evaluation import Evaluation, load_evaluation
from components.common.examples import parse_features
from components.common.models import ModelMetadata, load_metadata, load_model, model_digest
from components.common.outputs import staged
from components.common.progress import progress, say
from components.common.tfrecords import read_shard

STEP = "export-model"
# TensorFlow keeps this folder beside a SavedModel and gives it no meaning of its own.
METADATA_FILE = Path("assets.extra", "flowers.json")
_BATCH = 64


def export(examples: Path, model: Path, evaluation: Path, saved_model: Path) -> None:
    """Writes the SavedModel once it is shown to say what the evaluated model says.

    Args:
        examples: Data set with the test split that was evaluated on.
        model: Model folder of `train_model`.
        evaluation: JSON file of `evaluate_model` for this model and this data set.
        saved_model: Folder to make. Signature `serving_default`:
            `image_bytes` `tf.string` [batch], JPEG or another format TensorFlow decodes, any size,
            to `probabilities` `float32` [batch, classes], `class_names` `tf.string`
            [batch, classes], and `label` `tf.string` [batch], the most probable class.

    Raises:
        DataError: The evaluation is of another model or data set, or an input is damaged.
        FlowersError: The exported model disagrees with the evaluated one on a test image.
    """
    dataset = load_dataset(examples)
    scores = load_evaluation(evaluation)
    _check_origin(dataset, model, scores)
    net, metadata = load_model(model), load_metadata(model)
    with staged(saved_model) as (folder,):
        _write(net, metadata, folder)
        _write_metadata(metadata, scores, folder / METADATA_FILE)
        checked = _compare(net, folder, dataset)
    say(STEP, f"exported; top-1 is the same as evaluated on all {checked} test images")


def _check_origin(dataset: Dataset, model: Path, scores: Evaluation) -> None:
    """Only what was evaluated may leave."""
    pairs = {
        "model": (scores.model_digest, model_digest(model)),
        "data set": (scores.data_fingerprint, dataset.fingerprint),
    }
    for name, (expected, received) in pairs.items():
        if expected != received:
            raise DataError(
                f"the evaluation is of another {name}: expected digest {expected[:12]}, received "
                f"{received[:12]}; evaluate this {name} first"
            )


def _write(net: keras.Model, metadata: ModelMetadata, folder: Path) -> None:
    names = tf.constant(metadata.class_names)

    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(
            lambda encoded: _preprocess(encoded, metadata.image_size),
            image_bytes,
            fn_output_signature=tf.TensorSpec(
                [metadata.image_size, metadata.image_size, 3], tf.uint8
            ),
        )
        probabilities = net(images, training=False)
        return {
            "probabilities": probabilities,
            "class_names": tf.tile(names[tf.newaxis], [tf.shape(probabilities)[0], 1]),
            "label": tf.gather(names, tf.argmax(probabilities, axis=1)),
        }

    archive = keras.export.ExportArchive()
    archive.track(net)
    archive.add_endpoint(
        "serving_default", serve, [tf.TensorSpec([None], tf.string, name="image_bytes")]
    )
    archive.write_out(str(folder), verbose=False)


def _preprocess(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """One photo as it is sent -> `uint8` [image_size, image_size, 3], as ingestion does it."""
    return image_ops.fill(image_ops.decode_image(encoded), image_size)


def _write_metadata(metadata: ModelMetadata, scores: Evaluation, path: Path) -> None:
    path.parent.mkdir()
    content: dict[str, Any] = {
        "class_names": metadata.class_names,
        "image_size": metadata.image_size,
        "architecture": metadata.architecture,
        "parameters": metadata.parameters,
        "data_fingerprint": metadata.data_fingerprint,
        "model_digest": scores.model_digest,
        "accuracy": scores.accuracy,
        "accuracy_interval": [scores.accuracy_low, scores.accuracy_high],
        "test_examples": scores.examples,
    }
    path.write_text(to_json(content), encoding="utf-8")


def _compare(net: keras.Model, folder: Path, dataset: Dataset) -> int:
    """Asks both models about every test image; returns how many there are."""
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    payloads = [payload for shard in dataset.shards("test") for payload in read_shard(shard)]
    different = []
    with progress(STEP, "examples", len(payloads)) as shown:
        for start in range(0, len(payloads), _BATCH):
            jpegs = [parse_features(payload)[0] for payload in payloads[start : start + _BATCH]]
            expected = net.predict_on_batch(tf.stack([image_ops.decode_jpeg(j) for j in jpegs]))
            received = serve(image_bytes=tf.stack(jpegs))["probabilities"].numpy()
            disagree = np.argmax(expected, axis=1) != np.argmax(received, axis=1)
            different += [start + int(index) for index in np.flatnonzero(disagree)]
            shown.advance(len(jpegs))
    if different:
        raise FlowersError(
            f"the exported model disagrees with the evaluated one on {len(different)} of "
            f"{len(payloads)} test images, the first is number {different[0]}; nothing is exported"
        )
    return len(payloads)
