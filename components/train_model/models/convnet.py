"""A plain stack of 3x3 and 1x1 convolutions with biases, without BatchNorm.

Source: the convolutional net of the public "Keras on TPU" flowers lab, whose numbers are those of
the recipe `convnet`.
"""

import keras
from keras import layers

from components.train_model.architectures import ConvnetConfig
from components.train_model.models import blocks


def build(config: ConvnetConfig, image_size: int | None, classes: int) -> keras.Model:
    """Builds the net; see `components.train_model.models.build_model`."""
    inputs = blocks.image_input(image_size)
    x = blocks.scale_to_unit(inputs)
    number = 1
    for stage, convolutions in enumerate(config.stages, start=1):
        if stage > 1:
            x = layers.MaxPooling2D(2, name=f"pool{stage}")(x)
        for filters, kernel in convolutions:
            x = layers.Conv2D(
                filters, kernel, padding="same", activation="relu", name=f"conv{number}"
            )(x)
            number += 1
    outputs = blocks.classify(blocks.average(x), config.dropout, classes)
    return keras.Model(inputs, outputs, name=config.name)
