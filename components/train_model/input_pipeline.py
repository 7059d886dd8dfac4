"""Shards to batches, as an accelerator needs them: static shapes, and never waiting for a disk."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from components.common.augmentation_draws import draw_for_augmentation
from components.common.dataset import Dataset
from components.common.errors import DataError
from components.common.examples import parse_example
from components.common.pipelining import without_tuner
from components.common.tfrecords import shard_count
from components.train_model import mixing
from components.train_model.config import TrainConfig
from components.train_model.hosts import ALONE, Hosts

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


def read_examples(dataset: Dataset, split: str, hosts: Hosts = ALONE) -> tf.data.Dataset:
    """Reads a split once, decoded and cached in memory.

    Images stay `uint8`: that is a quarter of the cache and of the way to the device.

    Args:
        dataset: The examples.
        split: Which of them.
        hosts: Each of several hosts reads a part of its own.

    Returns:
        `uint8` [image_size, image_size, 3] and `int64` scalar label, every example once. The order
        is the same on every run.
    """
    return decode_examples(dataset, split, hosts).cache()


def decode_examples(dataset: Dataset, split: str, hosts: Hosts = ALONE) -> tf.data.Dataset:
    """Reads and decodes a split; as `read_examples`, without the cache."""
    shards = dataset.shards(split)
    part = hosts.share(dataset.counts[split])
    pieces = find_pieces(shards, part)
    readers = max(1, min(_READERS, len(pieces)))
    records = tf.data.Dataset.from_tensor_slices(
        (
            tf.constant([str(piece.path) for piece in pieces], tf.string),
            tf.constant([piece.skip for piece in pieces], tf.int64),
            tf.constant([piece.take for piece in pieces], tf.int64),
        )
    ).interleave(
        _read_piece if hosts.count > 1 else lambda path, _, __: tf.data.TFRecordDataset(path),
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
    whole = examples.apply(tf.data.experimental.assert_cardinality(len(part)))
    return without_tuner(whole)


class Piece(NamedTuple):
    """What a host reads of a shard.

    Attributes:
        path: The shard.
        skip: Records of other hosts in front of its own.
        take: Records of its own.
    """

    path: Path
    skip: int
    take: int


def find_pieces(shards: list[Path], part: range) -> list[Piece]:
    """Finds where a part of all records lies; the names of shards tell without a read.

    Args:
        shards: All shards of a split, in order.
        part: Positions of the records, counted over all shards.
    """
    pieces, first = [], 0
    for path in shards:
        end = first + shard_count(path)
        start, stop = max(first, part.start), min(end, part.stop)
        if start < stop:
            pieces.append(Piece(path, start - first, stop - start))
        first = end
    return pieces


def _read_piece(path: tf.Tensor, skip: tf.Tensor, take: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(path).skip(skip).take(take)


def train_batches(
    dataset: Dataset,
    config: TrainConfig,
    first_step: int = 0,
    *,
    begin: int = 0,
    replicas: int = 1,
    hosts: Hosts = ALONE,
) -> tf.data.Dataset:
    """Endless batches of the train split, shuffled anew in every epoch, with what to do to them.

    The images come as they are stored: `AugmentedModel` augments and mixes them where the model
    runs, so that the host has nothing to do but to copy.

    Args:
        dataset: The examples.
        config: Batch size, mixing and seed. What is left of an epoch and is smaller than a batch
            joins the next epoch, so shapes are static.
        first_step: Number of the first batch; a training that goes on sees what it would have
            seen.
        begin: Number of the first batch of the phase, which shuffles on its own, so that nothing
            is read of what came before.
        replicas: Devices over which a batch is split, over all hosts.
        hosts: Each host reads examples of its own, and gives its part of every batch.

    Returns:
        `uint8` [batch, image_size, image_size, 3] and `float32` [batch, DRAWS], together the
        inputs of `AugmentedModel`; and its targets, `float32` [batch, classes], one-hot or mixed.
        `batch` is this host's part of the batch over all replicas.
    """
    examples = read_examples(dataset, "train", hosts)
    # Shuffle before repeat: an epoch holds every example once.
    count = len(hosts.share(dataset.counts["train"]))
    shuffled = examples.shuffle(count, seed=config.seed + begin)
    size = config.batch_size(replicas) // hosts.count
    batches = shuffled.repeat().batch(size, drop_remainder=True)
    return (
        batches.enumerate(begin)
        .skip(first_step - begin)
        .map(
            # No two hosts draw alike.
            lambda step, batch: _with_draws(
                step * hosts.count + hosts.index, batch[0], batch[1], dataset, config
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .prefetch(tf.data.AUTOTUNE)
    )


def _with_draws(
    number: tf.Tensor, images: tf.Tensor, labels: tf.Tensor, dataset: Dataset, config: TrainConfig
) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor]:
    seed = tf.stack([tf.constant(config.seed, tf.int32), tf.cast(number % 2**31, tf.int32)])
    for_policy, for_mixing = tf.unstack(tf.random.split(seed))
    targets = tf.one_hot(labels, len(dataset.class_names))
    size = images.shape[0]
    draws = draw_for_augmentation(size, for_policy)
    if config.mixes:
        side = config.train_size(dataset.image_size)
        mixes, targets = mixing.draw_mixing(targets, for_mixing, config, side)
    else:
        mixes = tf.zeros([size, mixing.DRAWS])
    return (images, tf.concat([draws, mixes], axis=1)), targets


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


class Weighted(NamedTuple):
    """A split for several replicas, all of whose batches are full.

    Attributes:
        batches: Without an end: `uint8` [batch, image_size, image_size, 3], `float32`
            [batch, classes], one-hot, and `float32` [batch], which weighs what only fills up with
            nothing, and the examples so that the weights over all hosts have a mean of 1.
        steps: Batches of one pass.
    """

    batches: tf.data.Dataset
    steps: int


def weighted_batches(
    dataset: Dataset,
    split: str,
    batch_size: int,
    *,
    replicas: int,
    hosts: Hosts = ALONE,
    steps_multiple: int = 1,
) -> Weighted:
    """A split in order, for replicas that all need as many examples.

    Args:
        dataset: The examples.
        split: Which of them.
        batch_size: About as many examples per step over all replicas.
        replicas: Devices over which a batch is split, over all hosts.
        hosts: Each host reads examples of its own, and all have as many batches.
        steps_multiple: The number of batches is a multiple of this one.
    """
    total, mine = dataset.counts[split], len(hosts.share(dataset.counts[split]))
    executions = math.ceil(total / (batch_size * steps_multiple))
    steps = executions * steps_multiple
    # On each replica of this host, which has as many of them as every other.
    each = math.ceil(math.ceil(total / hosts.count) / steps * hosts.count / replicas)
    size = each * replicas // hosts.count
    slots = steps * size
    weight = slots * hosts.count / total
    classes, side = len(dataset.class_names), dataset.image_size
    examples = read_examples(dataset, split, hosts).map(
        lambda image, label: (image, tf.one_hot(label, classes), weight)
    )
    nothing = (tf.zeros([side, side, 3], tf.uint8), tf.zeros([classes]), 0.0)
    filling = tf.data.Dataset.from_tensors(nothing).repeat(slots - mine)
    full = examples.concatenate(filling).repeat().batch(size, drop_remainder=True)
    return Weighted(full.prefetch(tf.data.AUTOTUNE), steps)
