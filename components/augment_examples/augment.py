"""The train split with augmented copies of every example."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from components.augment_examples.config import AugmentConfig
from components.common import image_ops
from components.common.dataset import Dataset, DatasetWriter, load_dataset
from components.common.examples import encode_example, parse_features
from components.common.outputs import staged
from components.common.progress import Progress, progress, say
from components.common.tfrecords import read_shard, shard_count

STEP = "augment-examples"
SPLIT = "train"


def augment(examples: Path, config: AugmentConfig, augmented: Path, workers: int = 0) -> Dataset:
    """Writes the train split anew: each example as it is, followed by its copies.

    The seed of a copy comes from the bytes of its example, so the result is the same for any
    number of workers and for any division into shards.

    Args:
        examples: Data set of `ingest_examples`; only its train split is read.
        config: How many copies, and what may be done to them.
        augmented: Folder to make: a data set with a train split and no other.
        workers: Images augmented at a time; 0 for as many as the cores take.

    Returns:
        The data set written.

    Raises:
        DataError: The examples are absent or damaged.
    """
    source = load_dataset(examples)
    shards = source.shards(SPLIT)
    count = source.counts[SPLIT] * (1 + config.copies)
    with staged(augmented) as (output,), progress(STEP, "examples", count) as shown:
        output.mkdir()
        writer = DatasetWriter(output, source.class_names, source.image_size)
        for index, shard in enumerate(shards):
            payloads = _shown(_versions(shard, source, config, workers), shown)
            total = shard_count(shard) * (1 + config.copies)
            writer.write(SPLIT, (index, len(shards)), total, payloads)
        dataset = writer.finish()
    say(STEP, f"wrote {count} examples: {source.counts[SPLIT]} and {config.copies} copies of each")
    return dataclasses.replace(dataset, path=augmented)


def _shown(payloads: Iterator[bytes], shown: Progress) -> Iterator[bytes]:
    for payload in payloads:
        yield payload
        shown.advance()


def _versions(shard: Path, source: Dataset, config: AugmentConfig, workers: int) -> Iterator[bytes]:
    """Every payload of a shard, each followed by its augmented copies."""
    copies = _augmented_jpegs(shard, source.image_size, config, workers)
    for payload in read_shard(shard):
        yield payload
        for _ in range(config.copies):
            jpeg, label = next(copies)
            yield encode_example(jpeg, label, source.class_names, source.image_size)


def _augmented_jpegs(
    shard: Path, image_size: int, config: AugmentConfig, workers: int
) -> Iterator[tuple[bytes, int]]:
    """The copies of every example of a shard, as JPEG and label, in order."""
    records = tf.data.TFRecordDataset(str(shard)).flat_map(
        lambda serialized: tf.data.Dataset.range(1, config.copies + 1).map(
            lambda copy: (serialized, copy)
        )
    )
    copies = records.map(
        lambda serialized, copy: _augment_one(serialized, copy, image_size, config),
        num_parallel_calls=workers or tf.data.AUTOTUNE,
        deterministic=True,
    )
    for jpeg, label in copies.prefetch(tf.data.AUTOTUNE):
        yield jpeg.numpy(), int(label.numpy())


def _augment_one(
    serialized: tf.Tensor, copy: tf.Tensor, image_size: int, config: AugmentConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    jpeg, label = parse_features(serialized)
    image = tf.ensure_shape(image_ops.decode_jpeg(jpeg), [image_size, image_size, 3])
    example_id = tf.strings.to_hash_bucket_fast(jpeg, 2**31 - 1)
    seed = tf.stack([tf.cast(example_id, tf.int32), tf.constant(config.seed, tf.int32)])
    seed = tf.random.fold_in(seed, tf.cast(copy, tf.int32))
    return image_ops.encode_jpeg(image_ops.augment(image, seed, config.policy)), label
