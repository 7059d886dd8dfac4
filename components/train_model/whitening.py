"""First filters that answer alike for every direction in which patches of the photos differ.

Source: the patch whitening of Page, "How to train your ResNet" (2018), with the negations of
Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024).
"""

from typing import Any

import keras
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from components.common import augmentation
from components.common.dataset import Dataset
from components.train_model.config import TrainConfig
from components.train_model.input_pipeline import damage_is_data_error, decode_examples

_EXAMPLES = 256
# Along each side of an image; more say nothing new.
_PATCHES = 16
# Added to every variance, of pixels from -1 to 1: what is weaker is noise, not to be made louder.
_NOISE = 2e-3


def whiten_stem(net: keras.Model, dataset: Dataset, config: TrainConfig) -> None:
    """Gives the first convolution of a net its first weights by the train split.

    Args:
        net: Its first convolution is named `conv1`.
        dataset: With the train split, in which the classes are mixed.
        config: Augmentation, size and seed of the training.

    Raises:
        DataError: An example is damaged.
    """
    kernel, size = net.get_layer("conv1").kernel, config.train_size(dataset.image_size)
    count = min(_EXAMPLES, dataset.counts["train"])
    batches = decode_examples(dataset, "train").take(count).batch(count)
    with damage_is_data_error(dataset):
        images, _ = next(batches.as_numpy_iterator())
    if config.policy is not None:
        rng = np.random.default_rng(config.seed)
        # The hue is drawn by itself, so that without it the filters are those of before.
        columns = (augmentation.DRAWS - 1, 1)
        draws = np.hstack([rng.random((count, width), np.float32) for width in columns])
        images = augmentation.augment(images, draws, config.policy, size)
    filters = whitening_filters(
        keras.ops.convert_to_numpy(images), kernel.shape[0], kernel.shape[-1]
    )
    kernel.assign(filters)


def whitening_filters(images: NDArray[Any], side: int, count: int) -> NDArray[np.float32]:
    """Finds the filters of a whitening of patches, the strongest direction first.

    Args:
        images: `uint8` [examples, height, width, 3].
        side: Of a patch, in pixels.
        count: Filters, an even number; the second half is the first with its signs changed, since
            an activation takes half of what a filter says.

    Returns:
        `float32` [side, side, 3, count].
    """
    stride = max(1, images.shape[1] // _PATCHES)
    windows = sliding_window_view(images, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    patches = np.moveaxis(windows, 3, -1).reshape(-1, side * side * 3) / 127.5
    variances, directions = np.linalg.eigh(np.cov(patches, rowvar=False))
    strongest = directions[:, ::-1][:, : count // 2]
    # The sign of an eigenvector is an accident of the machine.
    strongest *= np.sign(strongest[np.abs(strongest).argmax(axis=0), np.arange(count // 2)])
    filters = strongest / np.sqrt(variances[::-1][: count // 2] + _NOISE)
    both = np.concatenate([filters, -filters], axis=1)
    return both.reshape(side, side, 3, count).astype(np.float32)
