"""Modules of parallel branches, each of which looks at another scale.

Source: Szegedy et al., "Going Deeper with Convolutions" (2015), figure 2b, with BatchNorm as in
their later nets.
"""

import keras
from keras import layers

from components.train_model.architectures import Inception, InceptionConfig
from components.train_model.models import blocks


def inception_module(x: keras.KerasTensor, filters: Inception, name: str) -> keras.KerasTensor:
    """Concatenates a 1x1, a reduced 3x3, a reduced 5x5 and a pooled branch.

    Args:
        x: `float32` [batch, height, width, channels].
        filters: Of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 and pool projection.
        name: Prefix of the layers' names.

    Returns:
        `float32` [batch, height, width, channels of the four branches together].
    """
    one, reduce3, three, reduce5, five, projection = filters
    pooled = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    branches = [
        _convolution(x, one, 1, f"{name}_1x1"),
        _convolution(_convolution(x, reduce3, 1, f"{name}_3x3_reduce"), three, 3, f"{name}_3x3"),
        _convolution(_convolution(x, reduce5, 1, f"{name}_5x5_reduce"), five, 5, f"{name}_5x5"),
        _convolution(pooled, projection, 1, f"{name}_pool_proj"),
    ]
    return layers.Concatenate(name=f"{name}_concat")(branches)


def _convolution(
    x: keras.KerasTensor, filters: int, kernel: int, name: str, strides: int = 1
) -> keras.KerasTensor:
    return blocks.relu(blocks.convolution(x, filters, kernel, name, strides), name)


def build(config: InceptionConfig, image_size: int | None, classes: int) -> keras.Model:
    """Builds the net; see `components.train_model.models.build_model`."""
    inputs = blocks.image_input(image_size)
    x = _convolution(blocks.scale_around_zero(inputs), config.stem_filters, 3, "conv1", strides=2)
    for stage, modules in enumerate(config.stages, start=1):
        x = layers.MaxPooling2D(3, 2, padding="same", name=f"pool{stage}")(x)
        for position, filters in enumerate(modules):
            # The letters of the paper: inception3a, 3b, 4a, ...
            x = inception_module(x, filters, f"inception{stage}{chr(ord('a') + position)}")
    outputs = blocks.classify(blocks.average(x), config.dropout, classes)
    return keras.Model(inputs, outputs, name=config.name)
