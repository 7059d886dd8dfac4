"""What a net costs: multiplications per image, layer by layer."""

import math

import keras
from keras import layers


def multiplications(model: keras.Model) -> int:
    """Multiplications of all convolutions and dense layers for one image.

    Args:
        model: Built for images of one size.
    """
    return sum(_of_layer(layer) for layer in model.layers)


def _of_layer(layer: keras.Layer) -> int:
    if isinstance(layer, keras.Model):
        return multiplications(layer)
    if isinstance(layer, layers.SeparableConv2D):
        kernels = [layer.depthwise_kernel, layer.pointwise_kernel]
    elif isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)):
        kernels = [layer.kernel]
    else:
        return 0
    # Each weight of a kernel is used once at every position of the result.
    positions: int = math.prod(layer.output.shape[1:-1])
    weights: int = sum(math.prod(kernel.shape) for kernel in kernels)
    return positions * weights
