"""A net that augments its own batches while it is trained."""

import keras
from keras import KerasTensor, ops

from components.common import augmentation
from components.train_model import mixing
from components.train_model.config import TrainConfig

DRAWS = augmentation.DRAWS + mixing.DRAWS


class AugmentedModel(keras.Model):
    """Trains a net on augmented batches, and answers as the net does.

    Args:
        net: Images to probabilities.
        config: What to do to the images.
        size: Side of the images that the net is trained on, in pixels.
        reduction: Where it is asked, it sees the means of blocks of so many pixels squared, as
            `reduce_first` has it.
    """

    def __init__(
        self, net: keras.Model, config: TrainConfig, size: int, reduction: int = 1
    ) -> None:
        # The draws are float32 whatever the net computes in.
        super().__init__(name="augmented", dtype="float32")
        self.net = net
        self._config = config
        self._size = size
        self._reduction = reduction
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
            return self.net(self._reduced(images), training=False)
        config = self._config
        if config.policy is not None:
            of_policy = draws[:, : augmentation.DRAWS]
            images = augmentation.augment(images, of_policy, config.policy, self._size)
        if config.mixes:
            images = mixing.mix(images, draws[:, augmentation.DRAWS :])
        return self.net(images, training=True)

    def _reduced(self, images: KerasTensor) -> KerasTensor:
        if self._reduction == 1:
            return images
        pixels = ops.cast(images, "float32")
        means = ops.average_pool(pixels, self._reduction, data_format="channels_last")
        return ops.cast(means + 0.5, "uint8")
