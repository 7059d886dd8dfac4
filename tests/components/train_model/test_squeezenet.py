import keras
import numpy as np
import pytest
from keras import layers

from components.common.config import build
from components.train_model.architectures import ModelConfig
from components.train_model.models import build_model
from components.train_model.models.squeezenet import fire_module, squeeze_and_excitation

MODEL = {
    "name": "squeezenet",
    "stem_filters": 8,
    "stem_stride": 2,
    "stages": [[[4, 8], [4, 8]], [[6, 16]]],
}


def net(**changes):
    return build_model(build(ModelConfig, MODEL | changes), image_size=32, classes=3)


def test_fire_module_has_the_weights_of_the_paper():
    inputs = layers.Input([8, 8, 10])
    model = keras.Model(inputs, fire_module(4, 12)(inputs))
    convolutions = 10 * 4 + 4 * 6 + 4 * 6 * 9
    normalisations = 4 * (4 + 12)
    assert model.count_params() == convolutions + normalisations


def test_fire_module_concatenates_both_expansions():
    inputs = layers.Input([8, 8, 10])
    model = keras.Model(inputs, fire_module(4, 12, "fire2")(inputs))
    assert model.output_shape == (None, 8, 8, 12)
    assert model.get_layer("fire2_expand1x1").kernel_size == (1, 1)
    assert model.get_layer("fire2_expand3x3").kernel_size == (3, 3)
    assert model.get_layer("fire2_squeeze1x1").filters == 4


def test_squeeze_and_excitation_weighs_each_channel_by_all_of_them():
    inputs = layers.Input([5, 3, 6])
    model = keras.Model(inputs, squeeze_and_excitation(inputs, 3, "se"))
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(6, 2)), rng.normal(size=(2, 6))
    biases = rng.normal(size=2), rng.normal(size=6)
    model.set_weights([kernels[0], biases[0], kernels[1], biases[1]])
    x = rng.normal(size=(2, 5, 3, 6)).astype(np.float32)
    narrow = np.maximum(x.mean((1, 2)) @ kernels[0] + biases[0], 0)
    weights = 1 / (1 + np.exp(-(narrow @ kernels[1] + biases[1])))
    np.testing.assert_allclose(
        model.predict_on_batch(x), x * weights[:, None, None], rtol=1e-4, atol=1e-6
    )


def test_squeeze_and_excitation_is_in_every_fire_module_in_front_of_the_bypass():
    model = net(bypass=True, se_reduction=4)
    fires = [layer.name[:5] for layer in model.layers if layer.name.endswith("_concat")]
    assert [f"{fire}_se" for fire in fires] == [
        layer.name for layer in model.layers if layer.name.endswith("_se")
    ]
    assert model.get_layer("fire2_bypass").input[1] is model.get_layer("fire2_se").output
    assert model.get_layer("fire2_se_reduce").units == 8 // 4
    assert not [layer.name for layer in net().layers if "_se" in layer.name]


def test_bypass_adds_the_input_where_shapes_are_equal():
    inputs = layers.Input([4, 4, 12])
    model = keras.Model(inputs, fire_module(4, 12, bypass=True)(inputs))
    model.get_layer("fire_expand1x1").set_weights([np.zeros((1, 1, 4, 6))])
    model.get_layer("fire_expand3x3").set_weights([np.zeros((3, 3, 4, 6))])
    image = np.arange(4 * 4 * 12, dtype=np.float32).reshape(1, 4, 4, 12)
    np.testing.assert_array_equal(model.predict_on_batch(image), image)


def test_bypass_leaves_other_shapes_alone():
    names = [layer.name for layer in net(bypass=True).layers]
    # The stem has 8 channels and so has each module of the first stage; the second has 16.
    assert [name for name in names if name.endswith("bypass")] == ["fire2_bypass", "fire3_bypass"]


def test_complex_bypass_adds_the_input_in_every_fire_module():
    model = net(complex_bypass=True)
    added = [layer.name for layer in model.layers if layer.name.endswith("_bypass")]
    assert added == ["fire2_bypass", "fire3_bypass", "fire4_bypass"]
    assert model.get_layer("fire4_bypass1x1").kernel.shape == (1, 1, 8, 16)
    assert model.get_layer("fire4_bypass").input[0] is model.get_layer("fire4_bypass1x1_bn").output
    assert [layer.name for layer in model.layers if layer.name.endswith("_bypass1x1")] == [
        "fire4_bypass1x1"
    ]


@pytest.mark.parametrize(
    ("reduction", "branch"), [(0, 3.0), (4, 1.5)], ids=["plain", "squeeze_and_excitation"]
)
def test_drop_path_leaves_some_images_in_training_with_the_bypass_alone(reduction, branch):
    keras.utils.set_random_seed(0)
    inputs = layers.Input([4, 4, 12])
    module = fire_module(4, 12, bypass=True, se_reduction=reduction, drop_path=0.25)
    model = keras.Model(inputs, module(inputs))
    # The branch is the same everywhere, whatever it sees.
    model.get_layer("fire_bn").set_weights([np.full(12, x, np.float32) for x in (0, 3, 0, 1)])
    if reduction:
        expand = model.get_layer("fire_se_expand")
        expand.set_weights([np.zeros_like(one) for one in expand.get_weights()])
        # To leave out the weights is to leave out all that they weigh.
        assert model.get_layer("fire_drop_path").output.shape == (None, 1, 1, 12)
    images = np.ones((400, 4, 4, 12), np.float32)
    np.testing.assert_allclose(model.predict_on_batch(images), np.full_like(images, 1 + branch))
    trained = keras.ops.convert_to_numpy(model(images, training=True))
    np.testing.assert_array_equal(trained, np.broadcast_to(trained[:, :1, :1, :1], trained.shape))
    # What is left of it makes up for what is dropped; 0.09 is four standard deviations.
    assert np.unique(trained.round(4)).tolist() == [1.0, 1.0 + branch / 0.75]
    assert np.mean(trained == 1.0) == pytest.approx(0.25, abs=0.09)


def test_drop_path_is_in_every_fire_module_that_has_a_bypass():
    def dropped(**changes):
        return [x.name for x in net(drop_path=0.1, **changes).layers if "drop_path" in x.name]

    assert dropped(bypass=True) == ["fire2_drop_path", "fire3_drop_path"]
    assert dropped(complex_bypass=True) == [f"fire{number}_drop_path" for number in (2, 3, 4)]


def test_batch_normalisation_momentum_is_that_of_the_lab():
    normalisations = [one for one in net().layers if isinstance(one, layers.BatchNormalization)]
    assert len(normalisations) == 1 + 3 * 2
    assert {one.momentum for one in normalisations} == {0.9}


def test_stages_halve_the_resolution():
    model = net()
    assert model.get_layer("conv1").output.shape[1:3] == (16, 16)
    assert model.get_layer("fire3_concat").output.shape[1:3] == (16, 16)
    assert model.get_layer("fire4_concat").output.shape[1:3] == (8, 8)


def test_stem_pool_halves_once_more():
    assert net(stem_pool=True).get_layer("fire4_concat").output.shape[1:3] == (4, 4)


def test_depth_is_data():
    deeper = net(stages=[[[4, 8]] * 3, [[6, 16]] * 2])
    assert sum(layer.name.endswith("concat") for layer in deeper.layers) == 5


def test_takes_bytes_and_gives_probabilities():
    model = net()
    assert model.input.dtype == "uint8"
    assert model.input_shape == (None, 32, 32, 3)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    probabilities = model.predict_on_batch(images)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), np.ones(5), rtol=1e-5)


@pytest.mark.parametrize(("value", "scaled"), [(0, -1.0), (255, 1.0)])
def test_scaling_is_inside(value, scaled):
    model = net()
    inner = keras.Model(model.input, model.get_layer("scale").output)
    image = np.full((1, 32, 32, 3), value, np.uint8)
    np.testing.assert_allclose(inner.predict_on_batch(image), scaled)
