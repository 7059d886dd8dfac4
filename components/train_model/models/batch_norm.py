"""BatchNorm over the whole batch or over equal parts of it, on either runtime.

Left to themselves, TensorFlow's strategies take the means of a replica, and JAX, whose replicas are
one program, those of the whole batch. On TensorFlow, Keras writes BatchNorm as a dozen operations,
each of which goes through memory once; here it is the one that TensorFlow has for it.
"""

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras
from keras import KerasTensor, ops

from components.train_model.precision import computing_in

# What the layers have seen of each part of a batch, while they wait for the last part.
_Statistics = defaultdict["BatchNormalization", list[tuple[KerasTensor, KerasTensor]]]
_WAITING: ContextVar[_Statistics | None] = ContextVar("_WAITING", default=None)


def set_batch_norm(net: keras.Model, groups: int, replicas: int, split: bool) -> keras.Model:
    """Makes every BatchNorm of a net take its means over equal groups of the examples.

    Args:
        net: A net with its first weights.
        groups: Groups in what all replicas see at once; 1 for all examples together, 0 to leave
            the means as they are.
        replicas: Devices over which a batch is split.
        split: Each replica runs the step on its part of the batch, as TensorFlow's do; without it
            one step runs over the whole batch.

    Returns:
        The net, or a copy with the same weights, and the same names in a file of weights.
    """
    if groups == 1 and replicas > 1:
        for layer in net._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = split
        return net
    if groups == 1 and not on_tensorflow():
        return net

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            return BatchNormalization(groups=groups // replicas if split else groups, **config)
        return layer.__class__.from_config(config)

    # Loss scaling goes by the policy of the net, which a copy takes from the block that makes it.
    with computing_in(net.dtype_policy.name):
        copy = keras.models.clone_model(net, clone_function=clone, recursive=True)
    copy.set_weights(net.get_weights())
    return copy


@contextlib.contextmanager
def following_all_parts() -> Iterator[None]:
    """Within it nets are called with one part of a batch after the other.

    The moving statistics move once, at its end, by the means over all parts.
    """
    waiting: _Statistics = defaultdict(list)
    token = _WAITING.set(waiting)
    try:
        yield
    finally:
        _WAITING.reset(token)
    for layer, parts in waiting.items():
        layer.follow(*(ops.mean(ops.stack(of_parts), 0) for of_parts in zip(*parts, strict=True)))


class BatchNormalization(keras.layers.BatchNormalization):
    """BatchNorm over equal groups of the examples; the moving statistics take the mean over all.

    With one group on TensorFlow it is the single fused operation.

    A file of weights knows layers by the names of their classes, hence this one.

    Args:
        groups: Groups in one call; 0 to normalise by the moving statistics, which stay.
        **options: Of Keras's layer.
    """

    def __init__(self, groups: int, **options: Any) -> None:
        super().__init__(**options)
        self.groups = groups

    def call(
        self, inputs: KerasTensor, training: bool | None = None, mask: Any = None
    ) -> KerasTensor:
        """Normalises; the last axis is that of the channels, as everywhere here."""
        if not (training and self.trainable and self.groups):
            return super().call(inputs, training=False, mask=mask)
        shape = inputs.shape
        if self.groups == 1 and len(shape) == 4 and on_tensorflow():
            return self._normalise_at_once(inputs)
        each = shape[0] // self.groups
        x = ops.cast(inputs, "float32")
        mean, variance = ops.moments(
            ops.reshape(x, [self.groups, each, *shape[1:]]), list(range(1, len(shape)))
        )
        self.follow(ops.mean(mean, 0), ops.mean(variance, 0))
        factor = ops.rsqrt(variance + self.epsilon)
        if self.scale:
            factor = factor * self.gamma
        offset = -mean * factor
        if self.center:
            offset = offset + self.beta
        # Spread over the images: the compiler of TPUs crashes where they are split into groups
        # once more to be normalised.
        factor, offset = (
            ops.reshape(ops.repeat(one, each, axis=0), [-1, *[1] * (len(shape) - 2), shape[-1]])
            for one in (factor, offset)
        )
        return ops.cast(x * factor + offset, self.compute_dtype)

    def _normalise_at_once(self, inputs: KerasTensor) -> KerasTensor:
        """Normalises `[batch, height, width, channels]` over all but the channels."""
        import tensorflow as tf

        zeros = ops.zeros([inputs.shape[-1]])
        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            ops.convert_to_tensor(self.gamma) if self.scale else zeros + 1.0,
            ops.convert_to_tensor(self.beta) if self.center else zeros,
            epsilon=self.epsilon,
        )
        # TensorFlow gives the variance of what the batch was drawn from; Keras follows that of the
        # batch.
        each = math.prod(inputs.shape[:-1])
        self.follow(mean, variance * ((each - 1) / each))
        return y

    def follow(self, mean: KerasTensor, variance: KerasTensor) -> None:
        """Moves the statistics for later; all replicas keep the same.

        Args:
            mean: `float32` [channels], of the examples.
            variance: Likewise.
        """
        waiting = _WAITING.get()
        if waiting is not None:
            waiting[self].append((mean, variance))
            return
        mean, variance = _over_replicas([mean, variance])
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1.0 - self.momentum))

    def get_config(self) -> dict[str, Any]:
        """What makes the same layer again."""
        config: dict[str, Any] = super().get_config() | {"groups": self.groups}
        return config


def on_tensorflow() -> bool:
    """Whether TensorFlow is Keras's backend."""
    return bool(keras.backend.backend() == "tensorflow")


def _over_replicas(values: list[KerasTensor]) -> list[KerasTensor]:
    """Means over TensorFlow's replicas; elsewhere there is one step, which has them all."""
    if not on_tensorflow():
        return values
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    reduced: list[KerasTensor] = context.all_reduce(tf.distribute.ReduceOp.MEAN, values)
    return reduced
