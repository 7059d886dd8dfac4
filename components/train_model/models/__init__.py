"""The model zoo: each module builds one architecture from its recipe's data."""

from typing import Protocol

import keras

from components.train_model.config import ModelConfig
from components.train_model.models import squeezenet


class Builder(Protocol):
    """Builds an uncompiled model."""

    def __call__(self, config: ModelConfig, image_size: int, classes: int) -> keras.Model:
        """See `build_model`."""


_BUILDERS: dict[str, Builder] = {"squeezenet": squeezenet.build}


def build_model(config: ModelConfig, image_size: int, classes: int) -> keras.Model:
    """Builds the architecture that a recipe names.

    Args:
        config: Architecture as data.
        image_size: Side of the square input, in pixels.
        classes: Number of classes.

    Returns:
        An uncompiled model. Input shape: `uint8` [batch, image_size, image_size, 3], 0 to 255;
        scaling is inside. Output shape: `float32` [batch, classes], probabilities.
    """
    return _BUILDERS[config.name](config, image_size, classes)
