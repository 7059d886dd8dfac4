"""Shards to batches, as an accelerator needs them: static shapes, and never waiting for a disk."""

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from components.common import image_ops
from components.common.dataset import Dataset
from components.common.errors import DataError
from components.common.examples import parse_example
from components.train_model.config import TrainConfig
from components.train_model.mixing import mix

_READERS = 8


@contextmanager
def damage_is_data_error(*datasets: Dataset) -> Iterator[None]:
    """Turns what TensorFlow says of damaged shards into a line for the user.

    Args:
        datasets: Those that are read within the block, for the message.

    Raises:
        DataError: A record is damaged, lost, or of another size than `dataset.json` says.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        folders = " or ".join(str(dataset.path) for dataset in datasets)
        reason = " ".join(str(error.message).split())[:200]
        raise DataError(
            f"{folders}: damaged examples ({reason}); ingest the photos anew"
        ) from error


def read_examples(dataset: Dataset, split: str) -> tf.data.Dataset:
    """Reads a split once, decoded and cached in memory.

    Images stay `uint8`: that is a quarter of the cache and of the way to the device.

    Returns:
        `uint8` [image_size, image_size, 3] and `int64` scalar label, every example once. The order
        is the same on every run.
    """
    paths = [str(path) for path in dataset.shards(split)]
    readers = min(_READERS, len(paths))
    shards = tf.data.Dataset.from_tensor_slices(paths)
    records = shards.interleave(
        tf.data.TFRecordDataset,
        cycle_length=readers,
        num_parallel_calls=readers,
        deterministic=True,
    )
    examples = records.map(
        lambda serialized: parse_example(serialized, dataset.image_size),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    # Keras plans an epoch by the cardinality, and a shard that lost a record ends the run here.
    return examples.apply(tf.data.experimental.assert_cardinality(dataset.counts[split])).cache()


def train_batches(dataset: Dataset, config: TrainConfig, first_step: int = 0) -> tf.data.Dataset:
    """Endless batches of the train split, shuffled, augmented and mixed anew in every epoch.

    Args:
        dataset: The examples.
        config: Batch size, augmentation and seed. What is left of an epoch and is smaller than
            a batch joins the next epoch, so shapes are static.
        first_step: Batches to leave out; a training that goes on sees what it would have seen.

    Returns:
        `uint8` [global_batch_size, size, size, 3] of the size of `train_size`, and `float32`
        [global_batch_size, classes], one-hot or mixed.
    """
    size, batch_size = train_size(dataset, config), config.global_batch_size
    # Shuffle before repeat: an epoch holds every example once.
    shuffled = read_examples(dataset, "train").shuffle(dataset.counts["train"], seed=config.seed)
    examples = shuffled.repeat().enumerate().skip(first_step * batch_size)
    batches = examples.map(
        lambda index, example: (
            _augment(example[0], index, size, config),
            tf.one_hot(example[1], len(dataset.class_names)),
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    ).batch(batch_size, drop_remainder=True)
    if config.mixup or config.cutmix:
        batches = batches.enumerate(first_step).map(
            lambda step, batch: mix(batch, _seed(config, step), config.mixup, config.cutmix),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    return batches.prefetch(tf.data.AUTOTUNE)


def train_size(dataset: Dataset, config: TrainConfig) -> int:
    """Side of the images that training sees, in pixels."""
    return config.crop_size or dataset.image_size


def _augment(image: tf.Tensor, index: tf.Tensor, size: int, config: TrainConfig) -> tf.Tensor:
    if config.policy is None:
        return image
    return image_ops.augment(image, _seed(config, index), config.policy, size)


def _seed(config: TrainConfig, index: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.constant(config.seed, tf.int32), tf.cast(index % 2**31, tf.int32)])


def eval_batches(dataset: Dataset, split: str, batch_size: int) -> tf.data.Dataset:
    """A split once, in order, the smaller last batch included.

    Returns:
        `uint8` [batch, image_size, image_size, 3] and `float32` [batch, classes], one-hot.
    """
    classes = len(dataset.class_names)
    examples = read_examples(dataset, split).map(
        lambda image, label: (image, tf.one_hot(label, classes))
    )
    return examples.batch(batch_size).prefetch(tf.data.AUTOTUNE)
