"""A stack of depthwise separable convolutions: space first, channel by channel, then channels.

A kernel of k x k over c channels to f costs k*k*c + c*f multiplications per position in place of
k*k*c*f.

Source: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (2017), section 2.
"""

import keras
from keras import layers

from components.train_model.architectures import SeparableConfig
from components.train_model.models import blocks


def build(config: SeparableConfig, image_size: int | None, classes: int) -> keras.Model:
    """Builds the net; see `components.train_model.models.build_model`."""
    inputs = blocks.image_input(image_size)
    x = blocks.convolution(
        blocks.scale_around_zero(inputs), config.stem_filters, 3, "conv1", strides=2
    )
    x = blocks.relu(x, "conv1")
    number = 2
    for stage, widths in enumerate(config.stages, start=1):
        if stage > 1:
            x = layers.MaxPooling2D(2, name=f"pool{stage}")(x)
        for filters in widths:
            name = f"sepconv{number}"
            x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
            x = blocks.relu(blocks.batch_norm(x, f"{name}_bn"), name)
            number += 1
    outputs = blocks.classify(blocks.average(x), config.dropout, classes)
    return keras.Model(inputs, outputs, name=config.name)
