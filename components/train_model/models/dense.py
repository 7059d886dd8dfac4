"""A net without convolutions: every unit sees every pixel, and none is seen in context.

Source: the public "Keras on TPU" flowers lab, which starts from it.
"""

import keras
from keras import layers

from components.train_model.architectures import DenseConfig
from components.train_model.models import blocks


def build(config: DenseConfig, image_size: int | None, classes: int) -> keras.Model:
    """Builds the net; see `components.train_model.models.build_model`."""
    inputs = blocks.image_input(image_size)
    x = layers.Flatten(name="flatten")(blocks.scale_to_unit(inputs))
    for number, units in enumerate(config.units, start=1):
        x = layers.Dense(units, activation="relu", name=f"dense{number}")(x)
    outputs = blocks.classify(x, config.dropout, classes)
    return keras.Model(inputs, outputs, name=config.name)
