"""What a SavedModel says of photos."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from components.common.dataset import Dataset
from components.common.errors import DataError
from components.common.examples import parse_features
from components.common.tfrecords import read_shard
from components.deploy_model.registry import Prediction

_BATCH = 64


class Photo(NamedTuple):
    """A test photo.

    Attributes:
        jpeg: As it is stored.
        class_name: Its true class.
    """

    jpeg: bytes
    class_name: str


def test_photos(dataset: Dataset) -> list[Photo]:
    """Every photo of the test split, in the order of the shards."""
    parsed = (
        parse_features(payload) for shard in dataset.shards("test") for payload in read_shard(shard)
    )
    return [Photo(jpeg.numpy(), dataset.class_names[int(label)]) for jpeg, label in parsed]


def predict(saved_model: Path, photos: Sequence[bytes]) -> list[Prediction]:
    """Asks a SavedModel of `export_model` about photos.

    Raises:
        DataError: It cannot be loaded, or has another signature.
    """
    try:
        serve = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        raise DataError(f"model {saved_model}: expected a SavedModel of export_model") from error
    predictions: list[Prediction] = []
    for start in range(0, len(photos), _BATCH):
        answer = serve(image_bytes=tf.constant(photos[start : start + _BATCH]))
        rows = zip(
            answer["label"].numpy(),
            answer["class_names"].numpy(),
            answer["probabilities"].numpy().tolist(),
            strict=True,
        )
        predictions += [
            Prediction(label.decode(), dict(zip((n.decode() for n in names), shares, strict=True)))
            for label, names, shares in rows
        ]
    return predictions
