"""The train split with augmented copies of every example."""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from components.augment_examples.config import AugmentConfig
from components.augment_examples.report import Samples, write_report
from components.common import augmentation, image_ops
from components.common.augmentation_draws import draw_for_augmentation
from components.common.dataset import Dataset, DatasetWriter, load_dataset
from components.common.errors import DataError
from components.common.example_proto import CLASS, Features, encode_example
from components.common.examples import parse_features
from components.common.outputs import staged
from components.common.pipelining import without_tuner
from components.common.policy import AugmentPolicy
from components.common.progress import Progress, progress, say
from components.common.tfrecords import read_shard, shard_count

STEP = "augment-examples"
SPLIT = "train"


def augment(
    examples: Path, config: AugmentConfig, augmented: Path, report: Path, workers: int = 0
) -> Dataset:
    """Writes the train split anew: each example as it is, followed by its copies.

    The seed of a copy comes from the bytes of its example, so the result is the same for any
    number of workers and for any division into shards.

    Args:
        examples: Data set of `ingest_examples`; only its train split is read.
        config: How many copies, and what may be done to them.
        augmented: Folder to make: a data set with a train split and no other.
        report: HTML page to make: pictures before and after.
        workers: Images augmented at a time; 0 for as many as the cores take.

    Returns:
        The data set written.

    Raises:
        DataError: The examples are absent or damaged.
    """
    source = load_dataset(examples)
    shards = source.shards(SPLIT)
    count = source.counts[SPLIT] * (1 + config.copies)
    began = time.monotonic()
    with (
        staged(report, augmented) as (page, output),
        progress(STEP, "examples", count) as shown,
    ):
        output.mkdir()
        writer = DatasetWriter(
            output, source.class_names, source.image_size, source.fingerprint, source.resize
        )
        samples = Samples()
        versions = _versions(shards, source, config, workers)
        for index, shard in enumerate(shards):
            examples_here = shard_count(shard)
            payloads = (
                payload
                for original, copies in itertools.islice(versions, examples_here)
                for payload in _told(samples, original, copies, source, shown)
            )
            total = examples_here * (1 + config.copies)
            writer.write(SPLIT, (index, len(shards)), total, payloads)
        dataset = writer.finish()
        write_report(samples, config, source, page)
    say(STEP, f"wrote {count} examples: {source.counts[SPLIT]} and {config.copies} copies of each")
    made = source.counts[SPLIT] * config.copies
    say(STEP, f"{made / max(time.monotonic() - began, 1e-9):,.0f} copies/s")
    return dataclasses.replace(dataset, path=augmented)


def _told(
    samples: Samples,
    original: bytes,
    copies: list[bytes],
    source: Dataset,
    shown: Progress,
) -> Iterator[bytes]:
    """The payloads of one example and its copies; keeps some for the page."""
    features = Features(original)
    label = features.ints(CLASS, 1)[0]
    samples.look_at(source.class_names[label], features, copies)
    yield original
    for jpeg in copies:
        yield encode_example(jpeg, label, source.class_names, source.image_size)
    shown.advance(1 + len(copies))


def _versions(
    shards: list[Path], source: Dataset, config: AugmentConfig, workers: int
) -> Iterator[tuple[bytes, list[bytes]]]:
    """Every payload of all shards in order, with its augmented copies as JPEG.

    One pipeline for all shards: building it takes longer than a shard. Each image is decoded once,
    and its copies are made in threads that hold no lock of Python's.
    """
    damage: list[DataError] = []

    def payloads() -> Iterator[bytes]:
        try:
            yield from itertools.chain.from_iterable(map(read_shard, shards))
        except DataError as error:
            # TensorFlow would make a page of it.
            damage.append(error)

    records = tf.data.Dataset.from_generator(
        payloads, output_signature=tf.TensorSpec([], tf.string)
    )
    made = records.map(
        lambda serialized: (serialized, _copies_of(serialized, source.image_size, config)),
        num_parallel_calls=workers or tf.data.AUTOTUNE,
        deterministic=True,
    )
    for serialized, copies in without_tuner(made).prefetch(tf.data.AUTOTUNE):
        yield serialized.numpy(), copies.numpy().tolist()
    if damage:
        raise damage[0]


def _copies_of(serialized: tf.Tensor, image_size: int, config: AugmentConfig) -> tf.Tensor:
    """The augmented copies of an example, JPEG bytes [copies]."""
    jpeg, _ = parse_features(serialized)
    image = tf.ensure_shape(image_ops.decode_jpeg(jpeg), [image_size, image_size, 3])
    example_id = tf.strings.to_hash_bucket_fast(jpeg, 2**31 - 1)
    seed = tf.stack([tf.cast(example_id, tf.int32), tf.constant(config.seed, tf.int32)])
    return tf.map_fn(
        lambda copy: image_ops.encode_jpeg(
            _augmented(image, tf.random.fold_in(seed, copy), config.policy)
        ),
        tf.range(1, config.copies + 1),
        fn_output_signature=tf.TensorSpec([], tf.string),
    )


def _augmented(image: tf.Tensor, seed: tf.Tensor, policy: AugmentPolicy) -> tf.Tensor:
    draws = draw_for_augmentation(1, seed)
    return augmentation.augment(image[tf.newaxis], draws, policy)[0]
