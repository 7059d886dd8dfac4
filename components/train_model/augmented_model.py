"""A net that augments its own batches while it is trained."""

from collections.abc import Iterator
from typing import Any

import keras
from keras import KerasTensor

from components.common import augmentation
from components.train_model import mixing
from components.train_model.config import TrainConfig
from components.train_model.models.batch_norm import following_all_parts

DRAWS = augmentation.DRAWS + mixing.DRAWS


class AugmentedModel(keras.Model):
    """Trains a net on augmented batches, and answers as the net does.

    Args:
        net: Images to probabilities.
        config: What to do to the images.
        test_size: Where it is asked, it sees the images at this side; 0 for as they are.
    """

    def __init__(self, net: keras.Model, config: TrainConfig, test_size: int = 0) -> None:
        # The draws are float32 whatever the net computes in.
        super().__init__(name="augmented", dtype="float32")
        self.net = net
        self._config = config
        self._test_size = test_size
        # The net has all weights there are.
        self.built = True

    def call(
        self, inputs: KerasTensor | tuple[KerasTensor, KerasTensor], training: bool = False
    ) -> KerasTensor:
        """Gives probabilities, `float32` [batch, classes].

        Args:
            inputs: Images, `uint8` [batch, side, side, 3]; in training with `float32`
                [batch, DRAWS], which decide what is done to each.
            training: Augment, and let dropout and BatchNorm learn.
        """
        # The JAX backend plans a training step with `training` unset.
        images, draws = inputs if isinstance(inputs, tuple) else (inputs, None)
        if not training:
            return self.net(self._resized(images), training=False)
        config = self._config
        if config.policy is not None:
            of_policy = draws[:, : augmentation.DRAWS]
            size = config.train_size(images.shape[1])
            images = augmentation.augment(images, of_policy, config.policy, size)
        if config.mixes:
            images = mixing.mix(images, draws[:, augmentation.DRAWS :], config)
        return self.net(images, training=True)

    def build_for(self, spec: Any) -> None:
        """Builds metrics and loss for batches of a shape.

        Keras takes a first batch for that, after which a shuffled input begins with other ones.

        Args:
            spec: `tf.TensorSpec` of every part of a batch.
        """
        symbols = keras.tree.map_structure(
            lambda one: KerasTensor(one.shape.as_list(), one.dtype.name), spec
        )
        self._symbolic_build(data_batch=symbols)

    def set_config(self, config: TrainConfig) -> None:
        """Sets what is done to the images from the next graph on."""
        self._config = config

    def set_steps_per_execution(self, steps: int) -> None:
        """Sets how many steps the device does before the host looks at them."""
        self.steps_per_execution = steps
        # Graphs that know the former number, and the former configuration.
        self.train_function = self.test_function = None

    def _resized(self, images: KerasTensor) -> KerasTensor:
        if self._test_size in (0, images.shape[1]):
            return images
        return augmentation.resize(images, self._test_size)


class GhostBatchModel(AugmentedModel):
    """The same, for TensorFlow: a step computes each ghost batch of a batch by itself.

    Nothing joins them before the gradients, so that each can have a core of its own. Small
    operations keep several cores much less busy when each is divided among all of them.

    Args:
        *arguments: As `AugmentedModel` has them.
        ghosts: Ghost batches in the batch of one step.
        **options: As `AugmentedModel` has them.
    """

    def __init__(self, *arguments: Any, ghosts: int = 1, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._ghosts = ghosts

    def train_step(self, data: Any) -> dict[str, Any]:
        """Takes one step.

        Args:
            data: Images `uint8` [batch, side, side, 3] and draws `float32` [batch, DRAWS], and
                targets `float32` [batch, classes].

        Returns:
            Mean loss and accuracy of the epoch up to here, by name.
        """
        if self._ghosts == 1:
            figures: dict[str, Any] = super().train_step(data)
            return figures
        import tensorflow as tf

        inputs, targets = data
        size = targets.shape[0] // self._ghosts
        weights = self.trainable_weights
        losses, gradients, answers = [], [], []
        with following_all_parts():
            for first in range(0, targets.shape[0], size):
                one, expected = keras.tree.map_structure(
                    lambda all_of_them, at=first: all_of_them[at : at + size], (inputs, targets)
                )
                with tf.GradientTape() as tape:
                    answer = self(one, training=True)
                    loss = self.compute_loss(one, expected, answer) / self._ghosts
                    scaled = self.optimizer.scale_loss(loss)
                losses.append(loss)
                gradients.append(tape.gradient(scaled, weights))
                answers.append(answer)
        of_batch = [tf.add_n(parts) for parts in zip(*gradients, strict=True)]
        self.optimizer.apply_gradients(zip(of_batch, weights, strict=True))
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        # Keras divides the loss of each replica by their number, for the sum to be the mean.
        self._loss_tracker.update_state(tf.add_n(losses) * replicas, targets.shape[0])
        of_step: dict[str, Any] = self.compute_metrics(inputs, targets, tf.concat(answers, axis=0))
        return of_step


class SplitModel(GhostBatchModel):
    """The same, for TensorFlow's strategies: each replica runs the step on its part of a batch.

    Keras's own loop does one step at a time where there are replicas, cannot run on several hosts,
    and gives the mean of what replicas measure, where they may have measured unlike numbers of
    examples.

    Args:
        *arguments: As `GhostBatchModel` has them.
        **options: Likewise.
    """

    def build_for(self, spec: Any) -> None:
        """As `AugmentedModel.build_for`, for the batches of one replica."""
        super().build_for(spec)
        self._spec = spec

    def train_step(self, data: Any) -> dict[str, Any]:
        """Takes one step on one replica."""
        import tensorflow as tf

        # Between several hosts a batch loses its size on the way.
        sized = keras.tree.map_structure(
            lambda one, spec: tf.ensure_shape(one, spec.shape), data, self._spec
        )
        figures: dict[str, Any] = super().train_step(sized)
        return figures

    def make_train_function(self, force: bool = False) -> None:
        """Makes what does all steps of one execution."""
        if self.train_function is None or force:
            self.train_function = self._over_replicas(self.train_step, self.steps_per_execution)

    def make_test_function(self, force: bool = False) -> None:
        """Makes what tests all batches of one execution."""
        if self.test_function is None or force:
            self.test_function = self._over_replicas(self.test_step, self.steps_per_execution)

    def _over_replicas(self, step: Any, count: int) -> Any:
        import tensorflow as tf

        def function(iterator: Iterator[Any]) -> dict[str, Any]:
            for _ in tf.range(count):
                self.distribute_strategy.run(step, args=(next(iterator),))
            # Read out here, the metrics are those of all replicas.
            figures: dict[str, Any] = self.get_metrics_result()
            return figures

        return tf.function(function)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Everything is built already: Keras would take a batch to learn its shapes."""
