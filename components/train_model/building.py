"""The model that is trained, as a recipe describes it; the check for TPUs compiles the same."""

import keras

from components.common.errors import ConfigError
from components.train_model.architectures import ModelConfig
from components.train_model.augmented_model import AugmentedModel, GhostBatchModel, SplitModel
from components.train_model.config import FROZEN, TrainConfig
from components.train_model.models import build_model
from components.train_model.models.batch_norm import on_tensorflow, set_batch_norm
from components.train_model.precision import computing_in

# A training is so many times as long as the memory of its statistics: 0.005 % is left of the first.
_TIMES_FORGOTTEN = 10


def build_net(
    architecture: ModelConfig, config: TrainConfig, image_size: int, classes: int, precision: str
) -> keras.Model:
    """Builds the net with random weights.

    Args:
        architecture: Which net.
        config: How it is trained.
        image_size: Side of the stored images, in pixels.
        classes: Number of classes.
        precision: Name of a Keras dtype policy.

    Returns:
        `uint8` [batch, side, side, 3] to `float32` [batch, classes]. The side is open where the
        net trains on other sizes than it validates.
    """
    side = architecture.net_size(image_size)
    sizes = {phase.train_size(image_size) for phase in config.after_head().values()}
    with computing_in(precision):
        return build_model(architecture, side if sizes == {side} else None, classes)


def wrap_for_training(
    net: keras.Model,
    architecture: ModelConfig,
    config: TrainConfig,
    replicas: int,
    *,
    split: bool,
) -> AugmentedModel:
    """Puts the augmentation around a net, and BatchNorm over what the recipe says.

    Args:
        net: With its first weights.
        architecture: Which net it is.
        config: How it is trained.
        replicas: Devices over which a batch is split.
        split: Each replica runs the step on its part of the batch, as TensorFlow's do; without it
            one step runs over the whole batch.

    Returns:
        The model for `fit`, not compiled.

    Raises:
        ConfigError: A replica that runs a step of its own would have a part of a ghost batch.
    """
    ghosts = config.ghost_batches(replicas)
    arguments = config, architecture.test_size
    frozen = config.batch_norm == FROZEN
    if not on_tensorflow():
        net = set_batch_norm(net, 0 if frozen else ghosts, replicas, split)
        return AugmentedModel(net, *arguments)
    together = replicas if split and ghosts > 1 else 1
    if frozen and ghosts % together:
        # No means are taken, and a ghost batch only keeps the cores of a CPU busy.
        ghosts = together
    if ghosts % together:
        raise ConfigError(
            "train.ghost_batch_size: expected a divisor of the "
            f"{config.batch_size(replicas) // replicas} examples of each replica, received "
            f"{config.ghost_batch_size}; runtime jax takes any divisor of a batch"
        )
    net = set_batch_norm(net, 0 if frozen else together, replicas, split)
    kind = SplitModel if split else GhostBatchModel
    return kind(net, *arguments, ghosts=ghosts // together)


def average_statistics(net: keras.Model, momentum: float, steps: int) -> None:
    """Lets BatchNorm's moving statistics be about as old as averaged weights, before training.

    Averaged weights with the statistics of the last few steps are a net that has never been. But
    statistics that begin as zeros and ones must forget those within the training.

    Args:
        net: Its layers are changed.
        momentum: That of the weights, per step.
        steps: All steps of the training.
    """
    most = max(0.0, 1.0 - _TIMES_FORGOTTEN / steps)
    for layer in net._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = max(layer.momentum, min(momentum, most))
