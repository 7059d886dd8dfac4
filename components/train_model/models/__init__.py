"""The model zoo: each module builds one architecture, or one family, from its recipe's data."""

from collections.abc import Callable
from typing import Any

import keras

from components.train_model.architectures import ModelConfig
from components.train_model.models import (
    backbones,
    convnet,
    dense,
    inception,
    separable,
    squeezenet,
    squeezenet_lab,
)

# The configuration of each is checked by `ModelConfig.kinds`, under the same names.
_BUILDERS: dict[str, Callable[[Any, int | None, int], keras.Model]] = {
    "dense": dense.build,
    "convnet": convnet.build,
    "separable": separable.build,
    "inception": inception.build,
    "squeezenet_lab": squeezenet_lab.build,
    "squeezenet": squeezenet.build,
    "mobilenet_v2": backbones.build_mobilenet_v2,
    "xception": backbones.build_xception,
}


def build_model(config: ModelConfig, image_size: int | None, classes: int) -> keras.Model:
    """Builds the architecture that a recipe names, with random weights.

    Args:
        config: Architecture as data.
        image_size: Side of the square input, in pixels; None for a net that takes any, where
            the architecture can.
        classes: Number of classes.

    Returns:
        An uncompiled model. Input shape: `uint8` [batch, image_size, image_size, 3], 0 to 255;
        scaling is inside. Output shape: `float32` [batch, classes], probabilities.
    """
    return _BUILDERS[config.name](config, image_size, classes)
