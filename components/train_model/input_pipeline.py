"""Shards to batches, as an accelerator needs them: static shapes, and never waiting for a disk."""

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from components.common import augmentation
from components.common.dataset import Dataset
from components.common.errors import DataError
from components.common.examples import parse_example
from components.train_model import mixing
from components.train_model.config import TrainConfig

_READERS = 8
_BLOCK = 16


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
    return decode_examples(dataset, split).cache()


def decode_examples(dataset: Dataset, split: str) -> tf.data.Dataset:
    """Reads and decodes a split; as `read_examples`, without the cache."""
    paths = [str(path) for path in dataset.shards(split)]
    readers = min(_READERS, len(paths))
    records = tf.data.Dataset.from_tensor_slices(paths).interleave(
        tf.data.TFRecordDataset,
        cycle_length=readers,
        # To go from one reader to the next takes as long as a tenth of a decoded image.
        block_length=_BLOCK,
        num_parallel_calls=readers,
        deterministic=True,
    )
    examples = records.map(
        lambda serialized: parse_example(serialized, dataset.image_size),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    # Keras plans an epoch by the cardinality, and a shard that lost a record ends the run here.
    return examples.apply(tf.data.experimental.assert_cardinality(dataset.counts[split]))


def train_batches(dataset: Dataset, config: TrainConfig, first_step: int = 0) -> tf.data.Dataset:
    """Endless batches of the train split, shuffled anew in every epoch, with what to do to them.

    The images come as they are stored: `AugmentedModel` augments and mixes them where the model
    runs, so that the host has nothing to do but to copy.

    Args:
        dataset: The examples.
        config: Batch size, mixing and seed. What is left of an epoch and is smaller than a batch
            joins the next epoch, so shapes are static.
        first_step: Batches to leave out; a training that goes on sees what it would have seen.

    Returns:
        `uint8` [global_batch_size, image_size, image_size, 3] and `float32` [global_batch_size,
        DRAWS], together the inputs of `AugmentedModel`; and its targets, `float32`
        [global_batch_size, classes], one-hot or mixed.
    """
    # Shuffle before repeat: an epoch holds every example once.
    shuffled = read_examples(dataset, "train").shuffle(dataset.counts["train"], seed=config.seed)
    batches = shuffled.repeat().batch(config.global_batch_size, drop_remainder=True)
    return (
        batches.enumerate()
        .skip(first_step)
        .map(
            lambda step, batch: _with_draws(step, batch[0], batch[1], dataset, config),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .prefetch(tf.data.AUTOTUNE)
    )


def _with_draws(
    step: tf.Tensor, images: tf.Tensor, labels: tf.Tensor, dataset: Dataset, config: TrainConfig
) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor]:
    seed = tf.stack([tf.constant(config.seed, tf.int32), tf.cast(step % 2**31, tf.int32)])
    for_policy, for_mixing = tf.unstack(tf.random.split(seed))
    targets = tf.one_hot(labels, len(dataset.class_names))
    draws = tf.random.stateless_uniform([config.global_batch_size, augmentation.DRAWS], for_policy)
    if config.mixes:
        size = train_size(dataset, config)
        mixes, targets = mixing.draw_mixing(targets, for_mixing, config, size)
    else:
        mixes = tf.zeros([config.global_batch_size, mixing.DRAWS])
    return (images, tf.concat([draws, mixes], axis=1)), targets


def train_size(dataset: Dataset, config: TrainConfig) -> int:
    """Side of the images that training sees, in pixels."""
    return config.crop_size or dataset.image_size


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
