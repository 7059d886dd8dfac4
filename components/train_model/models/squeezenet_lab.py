"""The SqueezeNet of the public lab, to the last weight: 120,613 of them for five classes.

Convolutions have biases, and BatchNorm stands behind the activation. The first one has no stride,
so that most of the work is done on maps of the full size.

Source: 07_Keras_Flowers_TPU_squeezenet.ipynb of GoogleCloudPlatform/training-data-analyst.
"""

import keras
from keras import layers

from components.train_model.architectures import SqueezenetLabConfig
from components.train_model.models import blocks

_FIRES = ((24, 48), (48, 96), (64, 128), (48, 96), (24, 48))


def _convolution(x: keras.KerasTensor, filters: int, kernel: int, name: str) -> keras.KerasTensor:
    x = layers.Conv2D(filters, kernel, padding="same", activation="relu", name=name)(x)
    return blocks.batch_norm(x, f"{name}_bn")


def _fire(x: keras.KerasTensor, squeeze: int, expand: int, name: str) -> keras.KerasTensor:
    squeezed = _convolution(x, squeeze, 1, f"{name}_squeeze1x1")
    return layers.Concatenate(name=f"{name}_concat")(
        [
            _convolution(squeezed, expand // 2, 1, f"{name}_expand1x1"),
            _convolution(squeezed, expand // 2, 3, f"{name}_expand3x3"),
        ]
    )


def build(config: SqueezenetLabConfig, image_size: int | None, classes: int) -> keras.Model:
    """Builds the net; see `components.train_model.models.build_model`."""
    inputs = blocks.image_input(image_size)
    x = _convolution(blocks.scale_to_unit(inputs), 32, 3, "conv1")
    for number, (squeeze, expand) in enumerate(_FIRES, start=2):
        if number > 2:
            x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
        x = _fire(x, squeeze, expand, f"fire{number}")
    outputs = blocks.classify(blocks.average(x), config.dropout, classes)
    return keras.Model(inputs, outputs, name=config.name)
