from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from components.common.config import build
from components.common.errors import ConfigError
from components.train_model.architectures import ModelConfig
from components.train_model.models import blocks, build_model
from components.train_model.precision import computing_in
from pipelines.recipe import load_recipe
from tests.multiplications import multiplications

SMALL: dict[str, dict[str, Any]] = {
    "dense": {"units": [4]},
    "convnet": {"stages": [[[4, 3], [6, 1]], [[8, 3]]]},
    "separable": {"stem_filters": 4, "stages": [[8], [8]]},
    "inception": {"stem_filters": 4, "stages": [[[2, 2, 3, 2, 3, 4]]]},
    "squeezenet_lab": {},
    "squeezenet": {"stem_filters": 8, "stem_stride": 2, "stages": [[[4, 8]]]},
    "mobilenet_v2": {"alpha": 0.35},
}
ANY_SIZE = sorted(set(SMALL) - {"dense"})


def net(name, image_size=32, classes=3, **changes):
    return build_model(
        build(ModelConfig, {"name": name} | SMALL[name] | changes), image_size, classes
    )


def images(count=2, size=32):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["convnet", "separable", "squeezenet_lab", "mobilenet_v2"])
def test_smallest_size_is_the_smallest(name):
    smallest = build(ModelConfig, {"name": name} | SMALL[name]).smallest_size()
    assert net(name, smallest).output_shape == (None, 3)
    with pytest.raises(ValueError, match=r"zero|at least"):
        net(name, smallest - 1)


@pytest.mark.parametrize("name", SMALL)
def test_takes_bytes_and_gives_probabilities(name):
    model = net(name)
    assert model.input.dtype == "uint8"
    assert model.input_shape == (None, 32, 32, 3)
    probabilities = model.predict_on_batch(images())
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(2), rtol=1e-5)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", SMALL)
def test_softmax_is_float32_whatever_the_rest_computes_in(name, precision):
    with computing_in(precision):
        model = net(name)
    assert model.output.dtype == model.get_layer("softmax").compute_dtype == "float32"
    others = {layer.compute_dtype for layer in model.layers if layer.weights} - {"float32"}
    assert others == {precision.removeprefix("mixed_")}


@pytest.mark.parametrize("name", ANY_SIZE)
def test_same_weights_fit_any_size(name):
    free = net(name, image_size=None)
    fixed = net(name, image_size=48)
    fixed.set_weights(free.get_weights())
    shown = images(size=48)
    np.testing.assert_allclose(
        free.predict_on_batch(shown), fixed.predict_on_batch(shown), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", SMALL)
def test_head_is_named(name):
    model = net(name, dropout=0.5)
    assert [layer.name for layer in model.layers[-2:]] == list(blocks.HEAD)


@pytest.mark.parametrize("name", SMALL)
def test_frozen_net_learns_with_its_head_only(name):
    model = net(name)
    blocks.choose_learning_layers(model, head_only=True)
    assert [weight.path for weight in model.trainable_weights] == ["softmax/kernel", "softmax/bias"]
    blocks.choose_learning_layers(model, head_only=False)
    assert len(model.trainable_weights) > 2


def test_fine_tuning_begins_at_the_named_layer():
    model = net("mobilenet_v2")
    blocks.choose_learning_layers(model, head_only=False, fine_tune_at="block_16_depthwise")
    learning = [weight.path for weight in model.trainable_weights]
    assert learning[0] == "block_16_depthwise/kernel"
    assert learning[-2:] == ["softmax/kernel", "softmax/bias"]
    assert not any("block_15" in path or "block_16_expand" in path for path in learning)
    frozen = model.get_layer("mobilenet_v2").get_layer("block_15_expand_BN")
    before = frozen.moving_mean.numpy()
    model(images(), training=True)
    np.testing.assert_array_equal(frozen.moving_mean.numpy(), before)
    blocks.choose_learning_layers(model, head_only=True, fine_tune_at="block_16_depthwise")
    assert len(model.trainable_weights) == 2
    blocks.choose_learning_layers(model, head_only=False)
    assert model.trainable_weights[0].path == "Conv1/kernel"


def test_fine_tuning_at_no_layer_is_refused():
    said = r"train\.fine_tune_at: .* such as block_6_expand, received block_6_expanded"
    with pytest.raises(ConfigError, match=said):
        blocks.choose_learning_layers(net("mobilenet_v2"), False, "block_6_expanded")


def test_lab_squeezenet_has_the_weights_of_the_lab():
    assert net("squeezenet_lab", 192, 5).count_params() == 120_613


def test_lab_squeezenet_normalises_behind_the_activation():
    model = net("squeezenet_lab")
    squeeze = model.get_layer("fire2_squeeze1x1")
    assert squeeze.use_bias
    assert squeeze.activation is keras.activations.relu
    assert model.get_layer("fire2_squeeze1x1_bn").input is squeeze.output
    assert model.get_layer("fire2_squeeze1x1_bn").momentum == 0.9


def kernel(size, inputs, filters):
    """A convolution without bias and its BatchNorm."""
    return size**2 * inputs * filters + 4 * filters


def fire(inputs, squeeze, expand):
    """A fire module with squeeze-and-excitation by an eighth, and a bypass of any shape."""
    expands = squeeze * expand // 2 + 9 * squeeze * expand // 2 + 4 * expand
    excitation = 2 * expand * (expand // 8) + expand // 8 + expand
    bypass = kernel(1, inputs, expand) if inputs != expand else 0
    return kernel(1, inputs, squeeze) + expands + excitation + bypass


def inception(inputs, one, reduce3, three, reduce5, five, projection):
    """Four branches side by side."""
    narrow = kernel(1, inputs, one) + kernel(1, inputs, projection)
    return (
        narrow
        + kernel(1, inputs, reduce3)
        + kernel(3, reduce3, three)
        + kernel(1, inputs, reduce5)
        + kernel(5, reduce5, five)
    )


def separable(inputs, filters):
    """A 3x3 kernel for each channel, a 1x1 convolution, and BatchNorm."""
    return 9 * inputs + kernel(1, inputs, filters)


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        (
            "squeezenet",
            kernel(3, 3, 32)
            + fire(32, 32, 64)
            + fire(64, 32, 64)
            + fire(64, 64, 128)
            + fire(128, 64, 128)
            + fire(128, 128, 256)
            + fire(256, 128, 256)
            + 5 * 257,
        ),
        (
            "inception",
            kernel(3, 3, 32)
            + inception(32, 32, 48, 64, 8, 16, 16)
            + inception(128, 64, 64, 96, 16, 48, 32)
            + inception(240, 96, 48, 104, 8, 24, 32)
            + 5 * 257,
        ),
        (
            "separable",
            kernel(3, 3, 32)
            + separable(32, 64)
            + separable(64, 128)
            + separable(128, 256)
            + separable(256, 256)
            + separable(256, 384)
            + 5 * 385,
        ),
        # 192 * 192 * 3 * 500 + 500, 500 * 50 + 50, 50 * 5 + 5
        ("dense", 55_296_500 + 25_050 + 255),
        # 3x3 kernels 3-16-30-60-90-110-130, a 1x1 to 40, biases, and the head
        ("convnet", 448 + 4_350 + 16_260 + 48_690 + 89_210 + 128_830 + 5_240 + 205),
        ("squeezenet_lab", 120_613),
        # As keras.io lists them without top, and 5 * (features + 1) for the head.
        ("mobilenet_v2", 2_257_984 + 5 * 1281),
        ("xception", 20_861_480 + 5 * 2049),
    ],
)
def test_parameters_of_the_recipes(recipe, parameters):
    config = load_recipe(recipe)
    model = build_model(config.model, config.ingest.image_size, 5)
    assert model.count_params() == parameters


def test_separable_convolution_costs_what_the_theory_says():
    inputs = layers.Input([10, 10, 8])
    plain = keras.Model(inputs, layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs))
    separable = keras.Model(
        inputs, layers.SeparableConv2D(16, 3, padding="same", use_bias=False)(inputs)
    )
    assert multiplications(plain) == 100 * 9 * 8 * 16
    assert multiplications(separable) == 100 * (9 * 8 + 8 * 16)
    assert plain.count_params() == 9 * 8 * 16
    assert separable.count_params() == 9 * 8 + 8 * 16
    # The ratio of the paper: 1 / filters + 1 / kernel ** 2.
    ratio = multiplications(separable) / multiplications(plain)
    np.testing.assert_allclose(ratio, 1 / 16 + 1 / 9)


def test_separable_net_counts_stem_stack_and_head():
    # 32 px, stem of stride 2 on 16 x 16; 8 filters there; 8 filters on 8 x 8; head.
    expected = 256 * 27 * 4 + 256 * (9 * 4 + 4 * 8) + 64 * (9 * 8 + 8 * 8) + 8 * 3
    assert multiplications(net("separable")) == expected


def test_multiplications_look_into_a_backbone():
    # MobileNetV2 is published with 300 million at 224 pixels and a head of 1000 classes.
    model = build_model(build(ModelConfig, {"name": "mobilenet_v2"}), 224, 1000)
    assert 295e6 < multiplications(model) < 305e6


@pytest.mark.parametrize(
    ("name", "size", "black", "white"),
    [
        ("squeezenet_lab", 32, 0.0, 1.0),
        ("mobilenet_v2", 32, -1.0, 1.0),
        ("xception", 71, -1.0, 1.0),
    ],
)
def test_scaling_is_that_of_the_reference(name, size, black, white):
    model = build_model(build(ModelConfig, {"name": name} | SMALL.get(name, {})), size, 3)
    inner = keras.Model(model.input, model.get_layer("scale").output)
    for value, scaled in ((0, black), (255, white)):
        np.testing.assert_allclose(
            inner.predict_on_batch(np.full((1, size, size, 3), value, np.uint8)), scaled
        )


def test_inception_module_concatenates_four_branches():
    model = net("inception")
    assert model.get_layer("inception1a_concat").output.shape[-1] == 2 + 3 + 3 + 4


def test_backbone_normalises_with_the_momentum_of_the_recipe():
    backbone = net("mobilenet_v2", batch_norm_momentum=0.7).get_layer("mobilenet_v2")
    momenta = {
        layer.momentum for layer in backbone.layers if isinstance(layer, layers.BatchNormalization)
    }
    assert momenta == {0.7}


def test_flip_averages_both_answers(tmp_path):
    model = net("convnet")
    both = blocks.average_over_flip(model)
    shown = images(4)
    expected = (model.predict_on_batch(shown) + model.predict_on_batch(shown[:, :, ::-1])) / 2
    np.testing.assert_allclose(both.predict_on_batch(shown), expected, rtol=1e-5)
    both.save(tmp_path / "both.keras")
    loaded = keras.models.load_model(tmp_path / "both.keras", safe_mode=True)
    np.testing.assert_allclose(loaded.predict_on_batch(shown), expected, rtol=1e-5)
