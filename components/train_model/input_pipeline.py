"""Shards to batches, as an accelerator needs them: static shapes, and never waiting for a disk."""

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from components.common import image_ops
from components.common.dataset import Dataset
from components.common.errors import DataError
from components.common.examples import parse_example
from components.common.policy import AugmentPolicy

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


def train_batches(
    dataset: Dataset, global_batch_size: int, policy: AugmentPolicy | None, seed: int
) -> tf.data.Dataset:
    """Endless batches of the train split, shuffled anew and augmented anew in every epoch.

    Args:
        dataset: The examples.
        global_batch_size: Examples per batch; a smaller rest is dropped, so shapes are static.
        policy: Augmentation, or None.
        seed: Of the order and of the augmentation.

    Returns:
        `uint8` [global_batch_size, image_size, image_size, 3] and `int64` [global_batch_size].
    """
    count = dataset.counts["train"]
    # Shuffle before repeat: an epoch holds every example once.
    examples = read_examples(dataset, "train").shuffle(count, seed=seed).repeat()
    if policy is not None:
        examples = examples.enumerate().map(
            lambda index, example: (
                image_ops.augment(example[0], _seed(seed, index), policy),
                example[1],
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    return examples.batch(global_batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _seed(seed: int, index: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.constant(seed, tf.int32), tf.cast(index % 2**31, tf.int32)])


def eval_batches(dataset: Dataset, split: str, batch_size: int) -> tf.data.Dataset:
    """A split once, in order, the smaller last batch included.

    Returns:
        `uint8` [batch, image_size, image_size, 3] and `int64` [batch].
    """
    return read_examples(dataset, split).batch(batch_size).prefetch(tf.data.AUTOTUNE)
