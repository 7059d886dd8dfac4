import keras
import numpy as np
import pytest
import tensorflow as tf

from components.common.grad_cam import find_feature_map, make_explain
from components.train_model.architectures import ModelConfig
from components.train_model.models import build_model
from components.train_model.models.blocks import average_over_flip, resize_first
from pipelines.recipe import load_recipe

RECIPES = ["quick", "squeezenet_lab", "convnet", "inception", "separable", "mobilenet_v2"]


def net_of(recipe, side=32) -> keras.Model:
    config: ModelConfig = load_recipe(recipe).model
    return build_model(config, side, 3)


def spotlight():
    """A net that finds light: its only feature is brightness, and it speaks for class 1."""
    inputs = keras.Input([16, 16, 3], dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(1, 2, strides=2, name="light")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    net = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    net.get_layer("light").set_weights([np.full([2, 2, 3, 1], 1 / 12), np.zeros(1)])
    net.layers[-1].set_weights([np.array([[-40.0, 40.0]]), np.zeros(2)])
    return net


def test_finds_the_light():
    images = np.zeros([1, 16, 16, 3], np.uint8)
    images[0, 4:8, 10:14] = 255
    explain = make_explain(spotlight())
    assert explain is not None
    probabilities, heat = explain(tf.constant(images))
    expected = np.zeros([8, 8])
    expected[2:4, 5:7] = 1.0
    assert int(np.argmax(probabilities)) == 1
    np.testing.assert_allclose(heat[0], expected, atol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_architecture_with_convolutions(recipe):
    net = net_of(recipe)
    for one in (net, resize_first(average_over_flip(net), 32, 48)):
        explain, side = make_explain(one), one.input_shape[1]
        assert explain is not None
        images = tf.constant(
            np.random.default_rng(0).integers(0, 256, [2, side, side, 3], np.uint8)
        )
        probabilities, heat = explain(images)
        np.testing.assert_allclose(probabilities, one(images, training=False), atol=1e-6)
        assert heat.shape[0] == 2
        assert np.isfinite(heat).all()
        assert 0 <= heat.numpy().min() <= heat.numpy().max() <= 1


def test_asking_leaves_the_net_as_it_was():
    net = spotlight()
    images = tf.zeros([1, 16, 16, 3], tf.uint8)
    layer = find_feature_map(net)
    assert layer is not None
    explain = make_explain(net)
    assert explain is not None
    first = explain(images)[0]
    assert layer.call.__name__ == "call"
    np.testing.assert_array_equal(first, explain(images)[0])


def test_net_without_convolutions_has_no_feature_map():
    net = net_of("dense")
    assert find_feature_map(net) is None
    assert make_explain(net) is None
