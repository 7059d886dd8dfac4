"""Optimizers: Keras's own, LARS, which it does not have, and Muon for convolutions.

On TensorFlow, Keras writes a step of Adam as a dozen operations for each variable; here it is the
one that TensorFlow has for it. On a CPU the dozen take a sixth of all the time of a small net.
"""

import functools
import math
from typing import Any

import keras
from keras import ops

from components.train_model.config import (
    AdamwConfig,
    LarsConfig,
    MuonConfig,
    OptimizerConfig,
    SgdConfig,
)
from components.train_model.models import blocks
from components.train_model.models.batch_norm import on_tensorflow

# Decaying what shifts or scales a feature takes from the net what BatchNorm gives it.
_NOT_DECAYED = ["gamma", "beta", "bias"]


def make_optimizer(config: OptimizerConfig, schedule: Any, ema: float = 0.0) -> Any:
    """Makes the optimizer that a recipe names.

    Args:
        config: Which one, and its numbers.
        schedule: Learning rate, a number or a Keras schedule.
        ema: Momentum of the moving average of the weights; 0 for none.

    Returns:
        A Keras optimizer.
    """
    common = {
        "learning_rate": schedule,
        "global_clipnorm": config.clip_norm or None,
        "use_ema": ema > 0.0,
    }
    if ema:
        common["ema_momentum"] = ema
    if isinstance(config, SgdConfig):
        optimizer = _adapted(keras.optimizers.SGD)(
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay or None,
            **common,
        )
    elif isinstance(config, LarsConfig):
        optimizer = _adapted(Lars)(
            momentum=config.momentum,
            trust=config.trust,
            weight_decay=config.weight_decay,
            **common,
        )
    elif isinstance(config, MuonConfig):
        optimizer = _adapted(Muon)(
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            adam_weight_decay=config.weight_decay,
            adam_lr_ratio=config.adam_ratio,
            exclude_layers=list(blocks.HEAD),
            **common,
        )
    elif isinstance(config, AdamwConfig):
        kind = AdamW if config.name == "adamw" else Lamb
        optimizer = _adapted(kind)(weight_decay=config.weight_decay, **common)
    else:
        return _adapted(Adam)(**common)
    optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    return optimizer


class _Adapted:
    """What every optimizer does here otherwise than in Keras."""

    def finalize_variable_values(self, var_list: list[Any]) -> None:
        """Leaves the weights as they are: a fit may be a part of a training, and goes on.

        The moving average is taken where the epoch to keep is written.
        """

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        """Clips the gradient of the whole batch; Keras on TensorFlow clips that of each replica."""
        if on_tensorflow():
            import tensorflow as tf

            context = tf.distribute.get_replica_context()
            if context is not None and context.num_replicas_in_sync > 1:
                grads = context.all_reduce(tf.distribute.ReduceOp.SUM, grads)
        clipped: list[Any] = super()._clip_gradients(grads)  # type: ignore[misc]
        return clipped

    def _all_reduce_sum_gradients(self, grads_and_vars: list[Any]) -> list[Any]:
        """Is done already."""
        return grads_and_vars


@functools.cache
def _adapted(kind: type) -> Any:
    return type(kind.__name__, (_Adapted, kind), {})


class LossScaling(keras.optimizers.LossScaleOptimizer):
    """Keras's, for replicas whose gradients are not summed yet.

    Keras takes the first replica's word for whether gradients are finite, and would let the others
    put infinite ones into the weights.
    """

    def check_finite(self, grads: list[Any]) -> Any:
        """Whether the gradients of every replica are finite, `bool` scalar."""
        finite = super().check_finite(grads)
        if not on_tensorflow():
            return finite
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return finite
        broken = ops.cast(ops.logical_not(finite), "float32")
        return context.all_reduce(tf.distribute.ReduceOp.SUM, broken) == 0.0

    def save_own_variables(self, store: Any) -> None:
        """Saves the scale; the inner optimizer saves its own, which Keras's would save twice."""
        for index, variable in enumerate(self._variables):
            store[str(index)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saves."""
        for index, variable in enumerate(self._variables):
            variable.assign(store[str(index)])


class _AtOnce:
    """Adam's step for one variable in one operation, where there is one."""

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Takes one step for one variable."""
        if not on_tensorflow():
            super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]
            return
        import tensorflow as tf

        kind = variable.dtype
        index = self._get_variable_index(variable)
        steps = ops.cast(self.iterations + 1, kind)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=ops.power(ops.cast(self.beta_1, kind), steps),
            beta2_power=ops.power(ops.cast(self.beta_2, kind), steps),
            lr=ops.cast(learning_rate, kind),
            beta1=ops.cast(self.beta_1, kind),
            beta2=ops.cast(self.beta_2, kind),
            epsilon=ops.cast(self.epsilon, kind),
            grad=ops.cast(gradient, kind),
        )


class Adam(_AtOnce, keras.optimizers.Adam):
    """Keras's Adam."""


class AdamW(_AtOnce, keras.optimizers.AdamW):
    """Keras's AdamW."""


class Lamb(keras.optimizers.Lamb):
    """Keras's LAMB, in which biases and BatchNorm step as in Adam.

    Keras makes every step as long as the variable is, so that a bias, which begins at zero, would
    hardly leave it. Its decay is apart from that length, as in AdamW; the paper's is part of it.

    Source: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes"
    (2020), whose published code leaves these out of the layer-wise adaptation.
    """

    # Keras's Adam asks for it.
    amsgrad = False

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Takes one step for one variable."""
        kind = keras.optimizers.Lamb if self._use_weight_decay(variable) else keras.optimizers.Adam
        kind.update_step(self, gradient, variable, learning_rate)


class Lars(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling.

    Each kernel takes a step of at most `trust` times the length of the kernel, however large its
    gradient, and shorter the more gradient and decay cancel out; biases and BatchNorm, which have
    few and small numbers, step as in plain momentum.

    Args:
        learning_rate: A number or a Keras schedule.
        momentum: Part of the last step that is taken again.
        trust: Longest step at a learning rate of 1, as a part of the length of the weights.
        weight_decay: Decay that is added to the gradient; the two are measured apart.
        **options: Of every Keras optimizer.

    Source: You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks" (2017),
    algorithm 1.
    """

    def __init__(
        self,
        learning_rate: Any,
        momentum: float,
        trust: float,
        weight_decay: float,
        name: str = "lars",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.momentum = momentum
        self.trust = trust
        # Not Keras's `weight_decay`, which is decoupled from the gradient.
        self.decay = weight_decay

    def build(self, variables: list[Any]) -> None:
        """Makes one momentum for each variable."""
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Takes one step for one variable."""
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        momentum = self.momentums[self._get_variable_index(variable)]
        if self._use_weight_decay(variable):
            length = _length(variable)
            most = _length(gradient) + self.decay * length
            # A kernel of zeros has no length to compare with, and steps as it is.
            scale = ops.where(
                ops.logical_and(length > 0, most > 0),
                self.trust * length / ops.maximum(most, 1e-12),
                1.0,
            )
            gradient = scale * (gradient + self.decay * variable)
        step = self.momentum * momentum - rate * gradient
        self.assign(momentum, step)
        self.assign_add(variable, step)

    def get_config(self) -> dict[str, Any]:
        """What makes the same optimizer again."""
        config: dict[str, Any] = super().get_config() | {
            "momentum": self.momentum,
            "trust": self.trust,
            "weight_decay": self.decay,
        }
        return config


class Muon(keras.optimizers.Muon):
    """Keras's Muon, for convolutions as well.

    Keras takes matrices only. Here the kernel of a convolution, `float` [height, width, channels,
    filters], is the matrix [height * width * channels, filters]. A depthwise kernel would have a
    single column, all of whose steps are orthogonal; it steps by AdamW, as do biases, BatchNorm and
    the layers of `exclude_layers`.

    Args:
        **options: Of `keras.optimizers.Muon`; `exclude_layers` are parts of names here.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with
    the scale of Liu et al., "Muon is scalable for LLM training" (2025).
    """

    # Keras hands its parts out by these two alone, and has no public place for them.
    def _should_use_adamw(self, variable: Any) -> bool:
        shape = variable.shape
        named = any(name in variable.path for name in self.exclude_layers)
        return named or len(shape) < 2 or shape[-1] == 1

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        gradient = ops.cast(gradient, variable.dtype)
        self.assign(m, self.momentum * m + gradient)
        ahead = gradient + self.momentum * m if self.nesterov else m
        matrix = ops.reshape(ahead, [-1, variable.shape[-1]])
        step = self.zeropower_via_newtonschulz5(matrix, self.ns_steps)
        rate = ops.cast(lr, variable.dtype) * (self.rms_rate * math.sqrt(max(matrix.shape)))
        self.assign_sub(variable, rate * ops.reshape(step, variable.shape))


def _handle(variable: Any) -> Any:
    """The resource behind a variable of Keras or of TensorFlow."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def _length(values: Any) -> Any:
    """Euclidean length of a tensor of any shape, `float` scalar."""
    return ops.sqrt(ops.sum(ops.square(values)))
