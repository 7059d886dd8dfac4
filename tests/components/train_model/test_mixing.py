import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from components.train_model.config import ConstantConfig, TrainConfig
from components.train_model.mixing import DRAWS, draw_mixing, mix, swap_neighbours

BOTH = TrainConfig(
    epochs=1, global_batch_size=3, schedule=ConstantConfig(peak=0.1), mixup=1.0, cutmix=1.0
)
MIXUP = dataclasses.replace(BOTH, cutmix=0.0)
CUTMIX = dataclasses.replace(BOTH, mixup=0.0)
SEEDS = range(20)


def mixed(seed, config, size=8):
    """Three images of one value each, whose targets are one-hot, mixed."""
    values = np.array([0, 100, 200], np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (3, size, size, 3))
    draws, targets = draw_mixing(tf.eye(3), tf.constant([seed, 7]), config, size)
    return mix(tf.constant(images), draws, config).numpy(), targets.numpy()


@pytest.mark.parametrize("config", [MIXUP, CUTMIX, BOTH])
def test_shapes_and_types_are_static(config):
    draws, targets = draw_mixing(tf.eye(3), tf.constant([1, 2]), config, 8)
    assert (draws.shape, draws.dtype) == ((3, DRAWS), tf.float32)
    assert (targets.shape, targets.dtype) == ((3, 3), tf.float32)
    images, _ = mixed(1, config)
    assert (images.shape, images.dtype) == ((3, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("config", [MIXUP, CUTMIX, BOTH])
def test_targets_say_what_is_in_the_image(config):
    for seed in SEEDS:
        images, targets = mixed(seed, config)
        expected = targets @ [0.0, 100.0, 200.0]
        np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), expected, atol=0.51)
        np.testing.assert_allclose(targets.sum(axis=1), np.ones(3), rtol=1e-6)


@pytest.mark.parametrize("config", [CUTMIX, BOTH])
def test_cut_mix_pastes_whole_pixels_of_one_box(config):
    # No two numbers of an image are the same, and none is that of the other image there.
    size = 9
    numbers = np.random.default_rng(0).permutation(size * size * 3).astype(np.uint8)
    one = numbers.reshape(size, size, 3)
    images = np.stack([one, one ^ 1])
    boxes = 0
    for seed in SEEDS:
        draws, _ = draw_mixing(tf.eye(2), tf.constant([seed, 7]), config, size)
        if draws[0, 0] > 0:
            continue
        result = mix(tf.constant(images), draws, config).numpy()[0]
        pasted = (result == images[1]).all(axis=2)
        assert np.array_equal(pasted, (result != images[0]).any(axis=2))
        rows, columns = np.flatnonzero(pasted.any(axis=1)), np.flatnonzero(pasted.any(axis=0))
        assert pasted.sum() == len(rows) * len(columns)
        if len(rows):
            boxes += 1
            assert rows[-1] - rows[0] + 1 == len(rows)
            assert columns[-1] - columns[0] + 1 == len(columns)
    assert boxes > len(SEEDS) / 4


def test_every_image_is_mixed_in_its_own_way():
    shares = {float(mixed(seed, MIXUP)[1][index, index]) for seed in SEEDS for index in (0, 1)}
    assert len(shares) == 2 * len(SEEDS)


def test_small_alpha_leaves_most_images_nearly_whole():
    def largest(alpha):
        config = dataclasses.replace(MIXUP, mixup=alpha)
        return np.mean([mixed(seed, config)[1][0].max() for seed in range(40)])

    assert largest(0.05) > 0.93
    assert largest(5.0) < 0.75


def test_both_are_used():
    kinds = set()
    for seed in SEEDS:
        images, targets = mixed(seed, BOTH)
        if 0.05 < targets[0, 0] < 0.95:
            kinds.add("cutmix" if set(np.unique(images[0])) <= {0, 100} else "mixup")
    assert kinds == {"mixup", "cutmix"}


@pytest.mark.parametrize("probability", [0.0, 0.25])
def test_some_images_are_left_alone(probability):
    config = dataclasses.replace(BOTH, mix_probability=probability)
    whole = [mixed(seed, config)[1][0, 0] == 1.0 for seed in range(200)]
    # Four standard deviations, and the boxes too small to hold a pixel.
    assert 1.0 - probability - 0.13 < np.mean(whole) <= 1.0 - probability + 0.16


def test_last_image_of_an_odd_batch_is_left_alone():
    images, targets = mixed(1, BOTH)
    assert np.unique(images[2]).tolist() == [200]
    assert targets[2].tolist() == [0.0, 0.0, 1.0]


def test_neighbours_are_swapped():
    assert swap_neighbours(tf.range(6)).numpy().tolist() == [1, 0, 3, 2, 5, 4]
    assert swap_neighbours(tf.range(3)).numpy().tolist() == [1, 0, 2]


def test_seed_decides():
    assert np.array_equal(mixed(1, BOTH)[1], mixed(1, BOTH)[1])
    assert not np.array_equal(mixed(1, BOTH)[1], mixed(2, BOTH)[1])
