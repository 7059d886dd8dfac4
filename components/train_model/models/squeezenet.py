"""SqueezeNet: a convolutional net of fire modules.

Source: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters" (2016), and
the public "Keras on TPU" flowers lab, whose fire modules with BatchNorm this follows. Unlike the
lab's, the convolution in front of a BatchNorm has no bias, since the BatchNorm has one.
"""

from collections.abc import Callable

import keras
from keras import layers

from components.train_model.config import ModelConfig

_MOMENTUM = 0.9
Block = Callable[[keras.KerasTensor], keras.KerasTensor]


def _convolution(
    x: keras.KerasTensor, filters: int, kernel: int, name: str, strides: int = 1
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters,
        kernel,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_bn")(x)


def _relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.Activation("relu", name=f"{name}_relu")(x)


def fire_module(squeeze: int, expand: int, name: str = "fire", bypass: bool = False) -> Block:
    """Makes a fire module: a 1x1 squeeze, then 1x1 and 3x3 expand convolutions side by side.

    Args:
        squeeze: Filters of the squeeze convolution.
        expand: Filters of both expand convolutions together; half are 1x1, half 3x3.
        name: Prefix of the layers' names.
        bypass: Add the input to the output where their shapes are equal. The sum stands in front
            of the activation, so that a module can take away from its input too.

    Returns:
        A function from `float32` [batch, height, width, channels] to
        `float32` [batch, height, width, expand].
    """

    def apply(x: keras.KerasTensor) -> keras.KerasTensor:
        squeezed = _relu(_convolution(x, squeeze, 1, f"{name}_squeeze1x1"), f"{name}_squeeze1x1")
        wide = layers.Concatenate(name=f"{name}_concat")(
            [
                _convolution(squeezed, expand // 2, 1, f"{name}_expand1x1"),
                _convolution(squeezed, expand // 2, 3, f"{name}_expand3x3"),
            ]
        )
        if bypass and x.shape[-1] == expand:
            wide = layers.Add(name=f"{name}_bypass")([x, wide])
        return _relu(wide, name)

    return apply


def build(config: ModelConfig, image_size: int, classes: int) -> keras.Model:
    """Builds the net; see `components.train_model.models.build_model`."""
    inputs = layers.Input([image_size, image_size, 3], dtype="uint8", name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(inputs)
    x = _relu(_convolution(x, config.stem_filters, 3, "conv1", config.stem_stride), "conv1")
    number = 2
    for stage, fires in enumerate(config.stages, start=1):
        if stage > 1 or config.stem_pool:
            x = layers.MaxPooling2D(3, 2, padding="same", name=f"pool{stage}")(x)
        for squeeze, expand in fires:
            x = fire_module(squeeze, expand, f"fire{number}", config.bypass)(x)
            number += 1
    x = layers.GlobalAveragePooling2D(name="average")(x)
    if config.dropout:
        x = layers.Dropout(config.dropout, name="dropout")(x)
    # Probabilities stay float32 whatever the precision of the net.
    outputs = layers.Dense(classes, activation="softmax", dtype="float32", name="softmax")(x)
    return keras.Model(inputs, outputs, name="squeezenet")
