"""MixUp and CutMix: neighbours in a batch are mixed, so that a batch can be divided among replicas.

What is mixed how is drawn on the host, with the targets that follow from it; the pixels are mixed
where the model runs.
"""

import tensorflow as tf
from keras import KerasTensor, ops

from components.train_model.config import TrainConfig

# Share of the other image, and the edges of the box that shows nothing but the other image.
DRAWS = 5


def draw_mixing(
    targets: tf.Tensor, seed: tf.Tensor, config: TrainConfig, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws how to mix each image of a batch; where both ways are on, each half of the time.

    Args:
        targets: `float32` [batch, classes].
        seed: `int32` [2].
        config: The alphas of Beta(alpha, alpha), from which the share of MixUp and the area of the
            box of CutMix are drawn, and how many images are mixed.
        size: Side of the images, in pixels.

    Returns:
        `float32` [batch, DRAWS] for `mix`, and the targets mixed by what each image will show.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018); Yun et al.,
        "CutMix" (2019).
    """
    batch = targets.shape[0]
    for_choice, for_share, for_area, for_centre = tf.unstack(tf.random.split(seed, 4))
    mixup_chance = 0.5 if config.mixup and config.cutmix else float(config.mixup > 0.0)
    chance = tf.random.stateless_uniform([2, batch], for_choice)
    mixes_up, mixes = chance[0] < mixup_chance, chance[1] < config.mix_probability
    share = tf.where(mixes & mixes_up, _beta(for_share, batch, config.mixup), 0.0)
    area = tf.where(mixes & ~mixes_up, _beta(for_area, batch, config.cutmix), 0.0)
    box = _box(area, for_centre, size)
    pasted = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / size**2
    neighbours = [min(index ^ 1, batch - 1) for index in range(batch)]
    # A box and a share never come together.
    other = (share + pasted)[:, tf.newaxis]
    mixed = (1.0 - other) * targets + other * tf.gather(targets, neighbours)
    return tf.concat([share[:, tf.newaxis], box], axis=1), mixed


def _box(area: tf.Tensor, seed: tf.Tensor, size: int) -> tf.Tensor:
    """Top, left, bottom and right in whole pixels; cut off at the edge of the image."""
    centre = tf.random.stateless_uniform([area.shape[0], 2], seed)
    half = 0.5 * tf.sqrt(area)[:, tf.newaxis]
    edges = tf.concat([centre - half, centre + half], axis=1)
    return tf.round(tf.clip_by_value(edges, 0.0, 1.0) * float(size))


def _beta(seed: tf.Tensor, count: int, alpha: float) -> tf.Tensor:
    """Draws from Beta(alpha, alpha), `float32` [count]; zeros for an alpha of 0."""
    if not alpha:
        return tf.zeros([count])
    first, second = tf.unstack(tf.random.stateless_gamma([2, count], seed, alpha))
    # Both can be too small for a float; then nothing is mixed.
    return tf.math.divide_no_nan(first, first + second)


def mix(images: KerasTensor, draws: KerasTensor, config: TrainConfig) -> KerasTensor:
    """Mixes each image of a batch with its neighbour.

    Args:
        images: `uint8` [batch, size, size, 3].
        draws: `float32` [batch, DRAWS], of `draw_mixing`.
        config: Which of MixUp and CutMix are on.

    Returns:
        `uint8`, of the same shape.
    """
    share, top, left, bottom, right = ops.unstack(draws[:, :, None, None], DRAWS, axis=1)
    _, size, _, channels = images.shape
    # Rows of numbers, all channels side by side: choosing is slow where a shape is spread over
    # another.
    pixels = ops.reshape(images, [-1, size, size * channels])
    others = swap_neighbours(pixels)
    if config.mixup:
        floats = ops.cast(pixels, "float32")
        floats = floats + share * (ops.cast(others, "float32") - floats)
        pixels = ops.cast(ops.round(floats), "uint8")
    if config.cutmix:
        rows = ops.arange(size, dtype="float32")[None, :, None]
        columns = ops.repeat(ops.arange(size, dtype="float32"), channels)[None, None]
        inside = (rows >= top) & (rows < bottom) & ((columns >= left) & (columns < right))
        pixels = ops.where(inside, others, pixels)
    return ops.reshape(pixels, [-1, size, size, channels])


def swap_neighbours(batch: KerasTensor) -> KerasTensor:
    """Swaps the first with the second, the third with the fourth; a last odd one stays."""
    count, *rest = batch.shape
    pairs = ops.reshape(batch[: count // 2 * 2], [count // 2, 2, *rest])
    swapped = ops.reshape(ops.flip(pairs, axis=1), [count // 2 * 2, *rest])
    return ops.concatenate([swapped, batch[-1:]]) if count % 2 else swapped
