import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from components.common import augmentation
from components.common.policy import AugmentPolicy
from components.train_model import mixing
from components.train_model.augmented_model import AugmentedModel, GhostBatchModel
from components.train_model.config import ConstantConfig, TrainConfig
from components.train_model.models.batch_norm import set_batch_norm
from components.train_model.models.blocks import resize_first

POLICY = AugmentPolicy(crop_area=0.5)


class Watched(layers.Layer):  # type: ignore[misc]
    """Keeps what it has last seen."""

    def call(self, images):
        self.seen = images
        return images


@pytest.fixture
def watched():
    return Watched(dtype="uint8")


@pytest.fixture
def net(watched):
    inputs = layers.Input([None, None, 3], dtype="uint8")
    mean = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(watched(inputs)))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(mean))


def config_of(**changes):
    return TrainConfig(epochs=1, global_batch_size=4, schedule=ConstantConfig(peak=0.1), **changes)


def augmented_model(net, test_size=0, **changes):
    crops = {"crop_size": 16} if "policy" in changes else {}
    return AugmentedModel(net, config_of(**(crops | changes)), test_size)


def images():
    return tf.constant(np.random.default_rng(1).integers(0, 256, (4, 24, 24, 3), np.uint8))


def draws():
    chance = tf.random.stateless_uniform([4, augmentation.DRAWS], [1, 2])
    return tf.concat([chance, tf.fill([4, 1], 0.5), tf.zeros([4, mixing.DRAWS - 1])], axis=1)


def test_answers_as_the_net_does(net):
    model = augmented_model(net, policy=POLICY, mixup=1.0)
    assert np.array_equal(model.predict(images(), verbose=0), net.predict(images(), verbose=0))


def test_trains_on_crops(net, watched):
    augmented_model(net, policy=POLICY)((images(), draws()), training=True)
    expected = augmentation.augment(images(), draws()[:, : augmentation.DRAWS], POLICY, 16)
    assert watched.seen.shape == (4, 16, 16, 3)
    assert np.array_equal(watched.seen, expected)


def test_trains_on_the_images_themselves_without_a_policy(net, watched):
    augmented_model(net)((images(), draws()), training=True)
    assert np.array_equal(watched.seen, images())


def test_mixes_after_cropping(net, watched):
    augmented_model(net, policy=POLICY, mixup=1.0)((images(), draws()), training=True)
    cropped = augmentation.augment(images(), draws()[:, : augmentation.DRAWS], POLICY, 16)
    found = watched.seen.numpy().astype(float)
    expected = (cropped.numpy().astype(float) + cropped.numpy()[[1, 0, 3, 2]]) / 2
    assert np.abs(found - expected).max() <= 0.5


def test_next_phase_does_otherwise(net, watched):
    model = augmented_model(net, policy=POLICY, mixup=1.0)
    model.set_config(config_of(policy=POLICY))
    model((images(), draws()), training=True)
    expected = augmentation.augment(images(), draws()[:, : augmentation.DRAWS], POLICY)
    assert np.array_equal(watched.seen, expected)


def test_draws_stay_exact_whatever_the_net_computes_in(watched):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = layers.Input([None, None, 3], dtype="uint8")
        mean = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(watched(inputs)))
        net = keras.Model(inputs, layers.Dense(3, activation="softmax", dtype="float32")(mean))
        augmented_model(net, policy=POLICY)((images(), draws()), training=True)
    finally:
        keras.config.set_dtype_policy("float32")
    expected = augmentation.augment(images(), draws()[:, : augmentation.DRAWS], POLICY, 16)
    assert np.array_equal(watched.seen, expected)


@pytest.mark.parametrize("size", [8, 16, 17, 24, 32])
def test_net_sees_whole_images_resized_as_crops_are(net, watched, size):
    augmented_model(net, test_size=size)(images(), training=False)
    seen = watched.seen.numpy().astype(float)
    # A crop of everything: neither mirrored nor moved.
    everything = AugmentPolicy(
        flip=False, saturation=(1.0, 1.0), brightness=0.0, contrast=0.0, crop_area=1.0
    )
    augmented_model(net, policy=everything, crop_size=size)((images(), draws()), training=True)
    # A half is rounded to the even number by the one, up by the other.
    difference = np.abs(watched.seen.numpy().astype(float) - seen)
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.95
    expected = tf.image.resize(images(), [size, size], antialias=True)
    assert np.abs(seen - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", [8, 17, 32])
def test_finished_model_resizes_as_the_one_that_was_validated(net, watched, size):
    augmented_model(net, test_size=size)(images(), training=False)
    validated = watched.seen.numpy()
    resize_first(net, size, 24)(images())
    assert np.array_equal(watched.seen, validated)


@pytest.mark.parametrize("kind", ["float32", "mixed_float16"])
def test_ghost_batches_by_themselves_learn_as_in_one_step(kind):
    """The same as one step over the whole batch whose BatchNorm sees two groups."""
    keras.utils.set_random_seed(0)
    inputs = layers.Input([24, 24, 3], dtype="uint8")
    x = layers.Conv2D(4, 3, strides=2)(layers.Rescaling(1 / 255)(inputs))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    first = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    targets = tf.one_hot([0, 1, 2, 1], 3)
    seen = []
    for groups, ghosts in ((2, 1), (1, 2)):
        net = set_batch_norm(first, groups, 1, split=False)
        model = GhostBatchModel(net, config_of(mixup=1.0), ghosts=ghosts)
        optimizer = keras.optimizers.SGD(1.0)
        if kind == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, "categorical_crossentropy", weighted_metrics=["accuracy"])
        data = tf.data.Dataset.from_tensors(((images(), draws()), targets)).repeat(3)
        history = model.fit(data, shuffle=False, verbose=0).history
        seen.append([*net.get_weights(), *history["loss"], *history["accuracy"]])
    for one, other in zip(*seen, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(first.get_weights()[0] - seen[0][0]).max() > 0.01


def test_answer_that_is_surely_wrong_is_learnt_from():
    """A probability too small for a float has a slope all the same: that of its logit."""
    inputs = layers.Input([24, 24, 3], dtype="uint8")
    mean = layers.GlobalAveragePooling2D()(layers.Rescaling(0.0)(inputs))
    net = keras.Model(inputs, layers.Dense(3, "softmax")(mean))
    net.layers[-1].bias.assign([60.0, 0.0, 0.0])
    model = augmented_model(net)
    model.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy")
    data = tf.data.Dataset.from_tensors(((images(), draws()), tf.one_hot([1] * 4, 3)))
    history = model.fit(data, shuffle=False, verbose=0).history
    assert history["loss"][0] == pytest.approx(60.0)
    np.testing.assert_allclose(net.layers[-1].bias.numpy(), [59.0, 1.0, 0.0], atol=1e-5)


def test_has_the_weights_of_the_net(net, tmp_path):
    model = augmented_model(net)
    assert [id(one) for one in model.weights] == [id(one) for one in net.weights]
    model.save_weights(tmp_path / "all.weights.h5")
    kernel = net.weights[0].numpy()
    net.weights[0].assign(kernel + 1)
    model.load_weights(tmp_path / "all.weights.h5")
    assert np.array_equal(net.weights[0].numpy(), kernel)
