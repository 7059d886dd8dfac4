"""MixUp and CutMix: a batch is mixed with itself in reverse order."""

import tensorflow as tf

Batch = tuple[tf.Tensor, tf.Tensor]


def mix(batch: Batch, seed: tf.Tensor, mixup: float, cutmix: float) -> Batch:
    """Applies one of the two to a whole batch, each half of the time where both are on.

    Args:
        batch: `uint8` [batch, size, size, 3] images and `float32` [batch, classes] targets.
        seed: `int32` [2].
        mixup: Alpha of MixUp; 0 for none.
        cutmix: Alpha of CutMix; 0 for none.

    Returns:
        A batch of the same shapes and types.
    """
    choice, rest = tf.unstack(tf.random.split(seed))
    if mixup and cutmix:
        mixed: Batch = tf.cond(
            tf.random.stateless_uniform([], choice) < 0.5,
            lambda: mix_up(batch, rest, mixup),
            lambda: cut_mix(batch, rest, cutmix),
        )
        return mixed
    return mix_up(batch, rest, mixup) if mixup else cut_mix(batch, rest, cutmix)


def mix_up(batch: Batch, seed: tf.Tensor, alpha: float) -> Batch:
    """Lays each image over another one, at a share drawn from Beta(alpha, alpha).

    Arguments and result as in `mix`.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018).
    """
    images, targets = batch
    share = _beta(seed, alpha)
    pixels = tf.cast(images, tf.float32)
    mixed = share * pixels + (1.0 - share) * pixels[::-1]
    return tf.cast(tf.round(mixed), tf.uint8), share * targets + (1.0 - share) * targets[::-1]


def cut_mix(batch: Batch, seed: tf.Tensor, alpha: float) -> Batch:
    """Pastes a box of another image over each image; targets follow the areas.

    The area of the box is drawn from Beta(alpha, alpha). Arguments and result as in `mix`.

    Source: Yun et al., "CutMix" (2019).
    """
    images, targets = batch
    size = images.shape[1]
    for_share, for_centre = tf.unstack(tf.random.split(seed))
    half = 0.5 * tf.sqrt(1.0 - _beta(for_share, alpha))
    centre = tf.random.stateless_uniform([2], for_centre)
    position = (tf.range(size, dtype=tf.float32) + 0.5) / size
    rows = tf.abs(position - centre[0]) < half
    columns = tf.abs(position - centre[1]) < half
    box = (rows[:, tf.newaxis] & columns)[tf.newaxis, :, :, tf.newaxis]
    # A box at the edge is cut off there, so its area is counted, not drawn.
    pasted = tf.reduce_mean(tf.cast(box, tf.float32))
    mixed = tf.where(box, images[::-1], images)
    return mixed, (1.0 - pasted) * targets + pasted * targets[::-1]


def _beta(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Draws from Beta(alpha, alpha), a `float32` scalar."""
    first, second = tf.unstack(tf.random.stateless_gamma([2], seed, alpha))
    # Both can be too small for a float; then the other image is taken whole.
    return tf.math.divide_no_nan(first, first + second)
