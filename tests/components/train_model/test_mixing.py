import numpy as np
import pytest
import tensorflow as tf

from components.train_model.mixing import cut_mix, mix, mix_up


def batch(size=8):
    """Three images of one value each, whose targets are one-hot."""
    values = np.array([0, 100, 200], np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (3, size, size, 3))
    return tf.constant(images), tf.eye(3)


def seeds(count):
    return [tf.constant([number, 7]) for number in range(count)]


@pytest.mark.parametrize("function", [mix_up, cut_mix])
def test_shapes_and_types_stay(function):
    images, targets = function(batch(), seeds(1)[0], 1.0)
    assert images.shape == (3, 8, 8, 3)
    assert images.dtype == tf.uint8
    assert targets.dtype == tf.float32


@pytest.mark.parametrize("function", [mix_up, cut_mix])
def test_targets_say_what_is_in_the_image(function):
    for seed in seeds(20):
        images, targets = function(batch(), seed, 1.0)
        expected = tf.linalg.matvec(targets, [0.0, 100.0, 200.0])
        found = tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2, 3])
        np.testing.assert_allclose(found, expected, atol=0.51)


def test_cut_mix_pastes_whole_pixels():
    for seed in seeds(10):
        images, _ = cut_mix(batch(), seed, 1.0)
        assert set(np.unique(images[0])) <= {0, 200}


def test_cut_mix_pastes_one_box():
    images, _ = cut_mix(batch(32), tf.constant([3, 7]), 1.0)
    pasted = images.numpy()[0, :, :, 0] == 200
    rows, columns = pasted.any(axis=1), pasted.any(axis=0)
    assert pasted.any()
    assert np.array_equal(pasted, rows[:, None] & columns[None, :])


def test_small_alpha_leaves_most_images_nearly_whole():
    def largest(alpha):
        return np.mean([np.max(mix_up(batch(), seed, alpha)[1][0]) for seed in seeds(40)])

    assert largest(0.05) > 0.93
    assert largest(5.0) < 0.75


def test_both_are_used():
    kinds = set()
    for seed in seeds(20):
        images, targets = mix(batch(), seed, 1.0, 1.0)
        if 0.05 < targets[0, 0] < 0.95:
            kinds.add("cutmix" if set(np.unique(images[0])) <= {0, 200} else "mixup")
    assert kinds == {"mixup", "cutmix"}


def test_seed_decides():
    def mixed(seed):
        return mix(batch(), tf.constant(seed), 1.0, 1.0)[1].numpy().tolist()

    assert mixed([1, 2]) == mixed([1, 2])
    assert mixed([1, 2]) != mixed([1, 3])
