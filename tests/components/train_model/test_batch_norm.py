"""BatchNorm in one operation gives what Keras's dozen give."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from components.train_model.building import average_statistics
from components.train_model.models.batch_norm import following_all_parts, set_batch_norm
from components.train_model.precision import BFLOAT16, FLOAT16, FLOAT32, computing_in

IMAGES = np.random.default_rng(0).normal(3.0, 2.0, [6, 5, 5, 4]).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=IMAGES.shape).astype(np.float32)


def make_net(precision=FLOAT32, **options):
    with computing_in(precision):
        inputs = layers.Input([None, None, IMAGES.shape[-1]])
        return keras.Model(inputs, layers.BatchNormalization(momentum=0.9, **options)(inputs))


def train_on(net, images):
    """What a step of training sees of a net: outputs, gradients, and statistics after it."""
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = tf.cast(net(images, training=True), tf.float32)
        loss = tf.reduce_sum(outputs * WEIGHTS[: len(outputs)])
    gradients = tape.gradient(loss, [images, *net.trainable_variables])
    return [one.numpy() for one in (outputs, *gradients, *net.non_trainable_variables)]


@pytest.mark.parametrize(
    "options", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.1}], ids=str
)
def test_training_is_that_of_keras(options):
    net = make_net(**options)
    net.set_weights([one + 0.5 for one in net.get_weights()])
    copy = set_batch_norm(net, groups=1, replicas=1, split=False)
    assert copy is not net
    for one, other in zip(train_on(net, IMAGES), train_on(copy, IMAGES), strict=True):
        np.testing.assert_allclose(other, one, atol=2e-5)


@pytest.mark.parametrize(
    ("ema", "steps", "momentum"),
    # Below that of the layer; as that of the weights; no longer than a tenth of the training.
    [(0.5, 100_000, 0.9), (0.99, 100_000, 0.99), (0.99, 500, 0.98), (0.99, 5, 0.9)],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_statistics_are_about_as_old_as_averaged_weights(ema, steps, momentum, groups):
    net = make_net()
    average_statistics(net, ema, steps)
    copy = set_batch_norm(net, groups=groups, replicas=1, split=False)
    *_, mean, _ = train_on(copy, IMAGES)
    np.testing.assert_allclose(mean, (1.0 - momentum) * IMAGES.mean((0, 1, 2)), rtol=1e-4)


def test_answers_are_those_of_keras():
    net = make_net()
    train_on(net, IMAGES)
    copy = set_batch_norm(net, groups=1, replicas=1, split=False)
    np.testing.assert_array_equal(copy.predict(IMAGES), net.predict(IMAGES))


def test_frozen_statistics_stay():
    copy = set_batch_norm(make_net(), groups=1, replicas=1, split=False)
    copy.layers[-1].trainable = False
    outputs, *_ = train_on(copy, IMAGES)
    np.testing.assert_allclose(outputs, IMAGES, rtol=1e-3)
    np.testing.assert_array_equal(copy.non_trainable_variables[-1], np.ones(4))


@pytest.mark.parametrize("precision", [BFLOAT16, FLOAT16])
def test_precision_of_the_net_is_kept(precision):
    net = make_net(precision)
    copy = set_batch_norm(net, groups=1, replicas=1, split=False)
    assert copy.dtype_policy.name == precision
    assert copy(IMAGES, training=True).dtype == precision.removeprefix("mixed_")
    assert {variable.dtype for variable in copy.variables} == {"float32"}


def test_bfloat16_is_near_float32():
    net = make_net()
    copy = set_batch_norm(make_net(BFLOAT16), groups=1, replicas=1, split=False)
    expected, *_, mean, variance = train_on(net, IMAGES)
    received, *_, mean16, variance16 = train_on(copy, IMAGES)
    np.testing.assert_allclose(received, expected, atol=0.03)
    np.testing.assert_allclose(mean16, mean, rtol=0.01)
    np.testing.assert_allclose(variance16, variance, rtol=0.01)


def test_names_in_a_file_of_weights_are_those_of_keras(tmp_path):
    net = make_net()
    copy = set_batch_norm(net, groups=1, replicas=1, split=False)
    train_on(copy, IMAGES)
    copy.save_weights(tmp_path / "kept.weights.h5")
    net.load_weights(tmp_path / "kept.weights.h5")
    for one, other in zip(net.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_is_one_operation():
    copy = set_batch_norm(make_net(), groups=1, replicas=1, split=False)
    step = tf.function(lambda images: copy(images, training=True))
    traced = step.get_concrete_function(tf.TensorSpec(IMAGES.shape))
    types = [operation.type for operation in traced.graph.get_operations()]
    assert types.count("FusedBatchNormV3") == 1
    assert "SquaredDifference" not in types


def test_groups_are_normalised_each_by_itself():
    copy = set_batch_norm(make_net(), groups=2, replicas=1, split=False)
    halves = set_batch_norm(make_net(), groups=1, replicas=1, split=False)
    expected = [halves(half, training=True) for half in np.split(IMAGES, 2)]
    np.testing.assert_allclose(copy(IMAGES, training=True), np.concatenate(expected), atol=1e-5)


def test_statistics_follow_the_mean_of_all_parts_once():
    whole = set_batch_norm(make_net(), groups=2, replicas=1, split=False)
    parts = set_batch_norm(make_net(), groups=1, replicas=1, split=False)
    whole(IMAGES, training=True)
    before = parts.layers[-1].moving_mean.numpy()
    with following_all_parts():
        for half in np.split(IMAGES, 2):
            parts(half, training=True)
        np.testing.assert_array_equal(parts.layers[-1].moving_mean, before)
    for one, other in zip(
        whole.non_trainable_variables, parts.non_trainable_variables, strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert np.abs(parts.layers[-1].moving_mean.numpy() - before).max() > 0.1


@pytest.mark.parametrize(("replicas", "split"), [(1, False), (2, False), (2, True)])
def test_scale_and_shift_learn_where_the_means_stay(replicas, split):
    net = make_net()
    train_on(net, IMAGES)
    copy = set_batch_norm(net, groups=0, replicas=replicas, split=split)
    outputs, _, scale, shift, mean, variance = train_on(copy, IMAGES)
    np.testing.assert_allclose(outputs, net.predict(IMAGES), atol=1e-5)
    np.testing.assert_array_equal(mean, net.layers[-1].moving_mean)
    np.testing.assert_array_equal(variance, net.layers[-1].moving_variance)
    assert min(np.abs(scale).min(), np.abs(shift).min()) > 0
