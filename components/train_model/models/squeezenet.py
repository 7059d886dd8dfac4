"""SqueezeNet: a convolutional net of fire modules.

Source: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters" (2016), and
the public "Keras on TPU" flowers lab, whose fire modules with BatchNorm this follows. Unlike the
lab's, the convolution in front of a BatchNorm has no bias, since the BatchNorm has one.
Squeeze-and-excitation as in Hu et al., "Squeeze-and-Excitation Networks" (2018); stochastic depth,
with one chance for every module, as in Huang et al., "Deep Networks with Stochastic Depth" (2016).
"""

from collections.abc import Callable

import keras
from keras import layers

from components.train_model.architectures import SqueezenetConfig
from components.train_model.models import blocks

Block = Callable[[keras.KerasTensor], keras.KerasTensor]


def fire_module(
    squeeze: int,
    expand: int,
    name: str = "fire",
    bypass: bool = False,
    complex_bypass: bool = False,
    se_reduction: int = 0,
    drop_path: float = 0.0,
) -> Block:
    """Makes a fire module: a 1x1 squeeze, then 1x1 and 3x3 expand convolutions side by side.

    Args:
        squeeze: Filters of the squeeze convolution.
        expand: Filters of both expand convolutions together; half are 1x1, half 3x3.
        name: Prefix of the layers' names.
        bypass: Add the input to the output where their shapes are equal. The sum stands in front
            of the activation, so that a module can take away from its input too.
        complex_bypass: Add it whatever the shapes, where they differ through a 1x1 convolution.
        se_reduction: Weigh the channels by squeeze-and-excitation, whose bottleneck is so many
            times narrower than `expand`; 0 for none.
        drop_path: Chance that an image in training takes the bypass alone.

    Returns:
        A function from `float32` [batch, height, width, channels] to
        `float32` [batch, height, width, expand].
    """

    def apply(x: keras.KerasTensor) -> keras.KerasTensor:
        squeezed = blocks.convolution(x, squeeze, 1, f"{name}_squeeze1x1")
        squeezed = blocks.relu(squeezed, f"{name}_squeeze1x1")
        wide = layers.Concatenate(name=f"{name}_concat")(
            [
                blocks.bare_convolution(squeezed, expand // 2, 1, f"{name}_expand1x1"),
                blocks.bare_convolution(squeezed, expand // 2, 3, f"{name}_expand3x3"),
            ]
        )
        # One BatchNorm over both halves is the same as one for each, in half the time.
        wide = blocks.batch_norm(wide, f"{name}_bn")
        added = x
        if complex_bypass and x.shape[-1] != expand:
            added = blocks.convolution(x, expand, 1, f"{name}_bypass1x1")
        adds = (bypass or complex_bypass) and added.shape[-1] == expand
        drop = None
        if adds and drop_path:
            drop = layers.Dropout(drop_path, (None, 1, 1, 1), name=f"{name}_drop_path")
        if se_reduction:
            wide = squeeze_and_excitation(wide, se_reduction, f"{name}_se", drop)
        elif drop:
            wide = drop(wide)
        if adds:
            wide = layers.Add(name=f"{name}_bypass")([added, wide])
        return blocks.relu(wide, name)

    return apply


def squeeze_and_excitation(
    x: keras.KerasTensor, reduction: int, name: str, drop: Block | None = None
) -> keras.KerasTensor:
    """Weighs every channel of an image by what all of its channels hold on average.

    Args:
        x: `float32` [batch, height, width, channels].
        reduction: How many times narrower the bottleneck is than the channels.
        name: Prefix of the layers' names.
        drop: What drops some images. It is given the weights, `float32` [batch, 1, 1, channels],
            which are many times fewer than what they weigh.

    Returns:
        `float32` [batch, height, width, channels].
    """
    channels = x.shape[-1]
    weights = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_average")(x)
    weights = layers.Dense(
        max(1, channels // reduction), "relu", kernel_initializer="he_normal", name=f"{name}_reduce"
    )(weights)
    weights = layers.Dense(channels, "sigmoid", name=f"{name}_expand")(weights)
    if drop:
        weights = drop(weights)
    return layers.Multiply(name=name)([x, weights])


def build(config: SqueezenetConfig, image_size: int | None, classes: int) -> keras.Model:
    """Builds the net; see `components.train_model.models.build_model`."""
    inputs = blocks.image_input(image_size)
    x = blocks.convolution(
        blocks.scale_around_zero(inputs),
        config.stem_filters,
        config.stem_kernel,
        "conv1",
        config.stem_stride,
    )
    x = blocks.relu(x, "conv1")
    number = 2
    for stage, fires in enumerate(config.stages, start=1):
        if stage > 1 or config.stem_pool:
            x = layers.MaxPooling2D(3, 2, padding="same", name=f"pool{stage}")(x)
        for squeeze, expand in fires:
            x = fire_module(
                squeeze,
                expand,
                f"fire{number}",
                config.bypass,
                config.complex_bypass,
                config.se_reduction,
                config.drop_path,
            )(x)
            number += 1
    outputs = blocks.classify(blocks.average(x), config.dropout, classes)
    return keras.Model(inputs, outputs, name=config.name)
