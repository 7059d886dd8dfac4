"""What a SavedModel says of photos."""

import itertools
from collections.abc import Collection, Iterable, Iterator
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
    """A photo of a split.

    Attributes:
        jpeg: As it is stored.
        class_name: Its true class.
    """

    jpeg: bytes
    class_name: str


class SplitPhotos(Collection[Photo]):
    """A split in the order of its shards, read anew whenever it is gone through.

    Args:
        dataset: The examples.
        split: Which of them.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        self._dataset = dataset
        self._split = split

    def __len__(self) -> int:
        return self._dataset.counts[self._split]

    def __iter__(self) -> Iterator[Photo]:
        names = self._dataset.class_names
        for shard in self._dataset.shards(self._split):
            for payload in read_shard(shard):
                jpeg, label = parse_features(payload)
                yield Photo(jpeg.numpy(), names[int(label)])

    def __contains__(self, photo: object) -> bool:
        return any(one == photo for one in self)


def predict(saved_model: Path, photos: Iterable[bytes]) -> Iterator[Prediction]:
    """Asks a SavedModel of `export_model` about photos, a batch at a time.

    Raises:
        DataError: It cannot be loaded, or has another signature.
    """
    try:
        serve = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        raise DataError(f"model {saved_model}: expected a SavedModel of export_model") from error
    remaining = iter(photos)
    while batch := list(itertools.islice(remaining, _BATCH)):
        answer = serve(image_bytes=tf.constant(batch))
        # Every photo has the same classes.
        names = [name.decode() for name in answer["class_names"].numpy()[0]]
        shares = answer["probabilities"].numpy().tolist()
        for label, row in zip(answer["label"].numpy(), shares, strict=True):
            yield Prediction(label.decode(), dict(zip(names, row, strict=True)))
