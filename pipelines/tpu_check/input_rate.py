"""What a core of a host delivers to the devices: the input pipeline of training, measured here."""

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from components.common.dataset import DatasetWriter
from components.common.example_proto import encode_example
from components.common.image_ops import encode_jpeg
from components.train_model.config import TrainConfig
from components.train_model.input_pipeline import train_batches

_EXAMPLES = 256
_SECONDS = 2.0


def measure_input_rate(config: TrainConfig, image_size: int) -> float:
    """Images per second of one core, decoded and cached as from the second epoch on.

    The time is that of all cores together, so other work on this machine does not count.

    Args:
        config: Mixing and seed.
        image_size: Side of the examples, in pixels.
    """
    with tempfile.TemporaryDirectory() as scratch:
        writer = DatasetWriter(Path(scratch), ("a", "b"), image_size)
        writer.write("train", (0, 1), _EXAMPLES, _payloads(image_size))
        batch = min(config.global_batch_size or config.batch_per_replica, _EXAMPLES)
        # BatchNorm has no say in the input, whose batch may be a smaller one here.
        config = dataclasses.replace(
            config, global_batch_size=batch, batch_per_replica=0, ghost_batch_size=0
        )
        batches = iter(train_batches(writer.finish(), config))
        # The first epoch decodes, and fills the buffers.
        for _ in range(2 * _EXAMPLES // batch):
            next(batches)
        images, began, spent = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - began < _SECONDS:
            next(batches)
            images += batch
        return images / (time.process_time() - spent)


def _payloads(size: int) -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    for number in range(_EXAMPLES):
        # Noise would not compress; blotches are as smooth as photos are.
        blotches = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = np.kron(blotches, np.ones((size // 8 + 1, size // 8 + 1, 1), np.uint8))
        jpeg = encode_jpeg(tf.constant(image[:size, :size])).numpy()
        yield encode_example(jpeg, number % 2, ("a", "b"), size)
