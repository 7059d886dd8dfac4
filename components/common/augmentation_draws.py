"""The chance that `augmentation.augment` takes, drawn by TensorFlow where examples are read."""

import tensorflow as tf

from components.common import augmentation


def draw_for_augmentation(count: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws what decides about the images of a batch.

    Args:
        count: Images.
        seed: `int32` [2], which decides all.

    Returns:
        `float32` [count, DRAWS], uniform between 0 and 1.
    """
    first = tf.random.stateless_uniform([count, augmentation.DRAWS - 1], seed)
    # The hue came last: drawn by itself, it leaves trainings without it as they were.
    hue = tf.random.stateless_uniform([count, 1], tf.random.fold_in(seed, 1))
    return tf.concat([first, hue], axis=1)
