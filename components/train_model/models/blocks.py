"""What several architectures are made of."""

import difflib
from typing import Any

import keras
from keras import layers, ops

from components.common import augmentation
from components.common.errors import ConfigError
from components.common.layers import single_layers

# Short trainings see few batches, so the statistics must follow them fast.
BATCH_NORM_MOMENTUM = 0.9
HEAD = ("dropout", "softmax")
_RESIZE = "resize"


def image_input(image_size: int | None) -> keras.KerasTensor:
    """The input of every architecture: `uint8` [batch, image_size, image_size, 3], 0 to 255."""
    return layers.Input([image_size, image_size, 3], dtype="uint8", name="image")


def scale_to_unit(images: keras.KerasTensor) -> keras.KerasTensor:
    """Scales 0 to 255 to [0, 1], as the public lab's nets take it."""
    return layers.Rescaling(1 / 255, name="scale")(images)


def scale_around_zero(images: keras.KerasTensor) -> keras.KerasTensor:
    """Scales 0 to 255 to [-1, 1], as Xception and MobileNetV2 document it."""
    return layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(images)


def convolution(
    x: keras.KerasTensor, filters: int, kernel: int, name: str, strides: int = 1
) -> keras.KerasTensor:
    """A convolution without bias and its BatchNorm, which has one."""
    x = bare_convolution(x, filters, kernel, name, strides)
    return batch_norm(x, f"{name}_bn")


def bare_convolution(
    x: keras.KerasTensor, filters: int, kernel: int, name: str, strides: int = 1
) -> keras.KerasTensor:
    """A convolution that leaves shift and scale to a BatchNorm behind it."""
    return layers.Conv2D(
        filters,
        kernel,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def batch_norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """BatchNorm with the project's momentum."""
    return layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=name)(x)


def relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """The activation behind a block."""
    return layers.Activation("relu", name=f"{name}_relu")(x)


def classify(features: keras.KerasTensor, dropout: float, classes: int) -> keras.KerasTensor:
    """The head: dropout and a softmax, which stays `float32` whatever the precision of the net."""
    if dropout:
        features = layers.Dropout(dropout, name="dropout")(features)
    return layers.Dense(classes, activation="softmax", dtype="float32", name="softmax")(features)


def average(x: keras.KerasTensor) -> keras.KerasTensor:
    """Global average pooling, which takes maps of any size."""
    return layers.GlobalAveragePooling2D(name="average")(x)


def choose_learning_layers(model: keras.Model, head_only: bool, fine_tune_at: str = "") -> None:
    """Says which layers learn; a BatchNorm that does not keeps its statistics too.

    Args:
        model: A net that `build_model` built.
        head_only: None but the head.
        fine_tune_at: Name of the first layer that learns otherwise; "" for all.

    Raises:
        ConfigError: No layer has that name.
    """
    for layer in model.layers:
        if layer.name not in HEAD:
            layer.trainable = not head_only
    if not fine_tune_at:
        return
    in_order = list(single_layers(model))
    names = [layer.name for layer in in_order]
    if fine_tune_at not in names:
        like = difflib.get_close_matches(fine_tune_at, names, n=1) or names[-1:]
        raise ConfigError(
            f"train.fine_tune_at: expected one of the {len(names)} layers of the net, such as "
            f"{like[0]}, received {fine_tune_at}"
        )
    for layer in in_order[: names.index(fine_tune_at)]:
        layer.trainable = False


def average_over_flip(model: keras.Model) -> keras.Model:
    """Wraps a net so that it answers for an image and its mirror image together.

    Args:
        model: Images to probabilities.

    Returns:
        A model of the same inputs and outputs, which shares the weights.
    """
    inputs = layers.Input(model.input_shape[1:], dtype="uint8", name="image")
    both: list[Any] = [model(inputs), model(keras.ops.flip(inputs, axis=2))]
    outputs = layers.Average(dtype="float32", name="both_ways")(both)
    return keras.Model(inputs, outputs, name=f"{model.name}_both_ways")


def resize_first(net: keras.Model, size: int, image_size: int) -> keras.Model:
    """Wraps a net so that it looks at its images at another size.

    It does what `augmentation.resize` does, in layers that every format of an export has: a dense
    layer without bias resizes an axis.

    Args:
        net: Images to probabilities, for images of any size or of this one.
        size: Side of the images that the net looks at, in pixels.
        image_size: Side of the images that the result takes, in pixels.

    Returns:
        A model that shares the weights: `uint8` [batch, image_size, image_size, 3] to the outputs
        of the net.
    """
    resize = layers.Dense(size, use_bias=False, trainable=False, dtype="float32", name=_RESIZE)
    images = layers.Input([image_size, image_size, 3], dtype="uint8", name="image")
    x = layers.Rescaling(1.0, dtype="float32", name="pixels")(images)
    x = resize(layers.Permute((1, 3, 2), name="columns_last")(x))
    x = resize(layers.Permute((3, 2, 1), name="rows_last")(x))
    matrix = augmentation.resizing_matrix(image_size, size)
    resize.set_weights([ops.convert_to_numpy(matrix).T])
    x = layers.Permute((3, 1, 2), name="channels_last")(x)
    # Keras cuts off fractions where a net takes whole numbers.
    rounded = layers.Rescaling(
        1.0, offset=augmentation.ROUNDING, dtype="float32", name="for_rounding"
    )(x)
    return keras.Model(images, net(rounded), name=f"{net.name}_at_{size}")


def weights_of_net(model: keras.Model) -> list[Any]:
    """Values of all weights of a net, without those that `resize_first` put in front of it."""
    return [one.numpy() for one in model.weights if one.path.split("/")[-2] != _RESIZE]
