"""Grad-CAM: where in an image a net found what speaks for a class.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization" (2017).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from components.common.layers import single_layers

_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)
NO_FEATURE_MAP = "it has no convolution, so no feature map says where it looked"

Explain = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def make_explain(net: keras.Model) -> Explain | None:
    """Makes the function that explains the answers of a net.

    Args:
        net: An image classifier; layers may stand in nets inside it.

    Returns:
        A function from `uint8` [batch, side, side, 3] to the probabilities, `float32`
        [batch, classes], and to the heat maps of the most probable classes, `float32`
        [batch, height, width], 0 to 1, where 1 is the hottest place of each image. None for a net
        without a feature map, see `NO_FEATURE_MAP`.
    """
    layer = find_feature_map(net)
    if layer is None:
        return None
    head = _softmax_head(net)

    def explain(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape, _calls(layer, tape) as maps, _calls(head, None) as heads:
            probabilities = net(images, training=False)
            best = tf.argmax(probabilities, axis=1)
            scores = _logits(head, heads[0][0]) if head else tf.math.log(probabilities + 1e-12)
            score = tf.gather(scores, best, axis=1, batch_dims=1)
        # A net that is asked about the mirror image too is explained by its first answer.
        features = maps[0][1]
        weights = tf.reduce_mean(tape.gradient(score, features), axis=[1, 2], keepdims=True)
        heat = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))
        hottest = tf.reduce_max(heat, axis=[1, 2], keepdims=True)
        return probabilities, tf.math.divide_no_nan(heat, hottest)

    return explain


def find_feature_map(net: keras.Model) -> keras.layers.Layer | None:
    """The last layer whose output still has places, behind at least one convolution."""
    found, convolved = None, False
    for layer in single_layers(net):
        convolved = convolved or isinstance(layer, _CONVOLUTIONS)
        if convolved and _has_places(layer):
            found = layer
    return found


def _has_places(layer: keras.layers.Layer) -> bool:
    shape = getattr(layer.output, "shape", ())
    return len(shape) == 4 and all(side is None or side > 1 for side in shape[1:3])


def _softmax_head(net: keras.Model) -> keras.layers.Dense | None:
    """The last dense layer with a softmax: its logits do not saturate as probabilities do."""
    heads = [one for one in single_layers(net) if isinstance(one, keras.layers.Dense)]
    if heads and heads[-1].activation is keras.activations.softmax:
        return heads[-1]
    return None


def _logits(head: keras.layers.Dense, inputs: tf.Tensor) -> tf.Tensor:
    logits = tf.matmul(tf.cast(inputs, tf.float32), tf.cast(head.kernel, tf.float32))
    return logits if head.bias is None else logits + tf.cast(head.bias, tf.float32)


@contextlib.contextmanager
def _calls(
    layer: keras.layers.Layer | None, tape: tf.GradientTape | None
) -> Iterator[list[tuple[tf.Tensor, tf.Tensor]]]:
    """Notes inputs and outputs of a layer, wherever in a net it stands.

    A second net that ends at the layer would not do: one inside another is closed to it.
    """
    noted: list[tuple[tf.Tensor, tf.Tensor]] = []
    if layer is None:
        yield noted
        return
    call = layer.call

    def note(inputs: tf.Tensor, *arguments: Any, **named: Any) -> tf.Tensor:
        outputs = call(inputs, *arguments, **named)
        if tape is not None:
            # Also where all weights are frozen, of which no tape takes notice.
            tape.watch(outputs)
        noted.append((inputs, outputs))
        return outputs

    layer.call = note
    try:
        yield noted
    finally:
        layer.call = call
