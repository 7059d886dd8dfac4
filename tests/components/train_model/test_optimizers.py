import keras
import numpy as np
import pytest
from keras import ops

from components.common.config import build
from components.train_model.config import OptimizerConfig
from components.train_model.optimizers import make_optimizer

KERNEL = np.array([[3.0, 0.0], [0.0, 4.0]])
ONES = np.ones(2)
GRADIENT = np.array([[0.0, 6.0], [8.0, 0.0]])


def variables():
    return [
        keras.Variable(KERNEL, name="kernel"),
        keras.Variable(np.array([1.0, 2.0]), name="bias"),
    ]


def step(config, gradients=(GRADIENT, ONES), rate=0.1, times=1, **options):
    optimizer = make_optimizer(build(OptimizerConfig, config), rate, **options)
    weights = variables()
    optimizer.build(weights)
    for _ in range(times):
        optimizer.apply([ops.convert_to_tensor(one, "float32") for one in gradients], weights)
    return [np.array(one) for one in weights], optimizer


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"name": "adam"}, "Adam"),
        ({"name": "adamw", "weight_decay": 0.1}, "AdamW"),
        ({"name": "sgd"}, "SGD"),
        ({"name": "lamb", "weight_decay": 0.1}, "Lamb"),
        ({"name": "lars"}, "Lars"),
    ],
)
def test_name_chooses_the_optimizer(config, kind):
    assert type(step(config)[1]).__name__ == kind


def test_lars_steps_by_a_part_of_the_length_of_the_kernel():
    (kernel, bias), _ = step({"name": "lars", "trust": 0.01, "weight_decay": 0.0, "momentum": 0.0})
    # The kernel is 5 long and the gradient 10: 0.1 * 0.01 * 5 / 10 * gradient.
    np.testing.assert_allclose(kernel, KERNEL - 0.0005 * GRADIENT, rtol=1e-6)
    np.testing.assert_allclose(bias, [0.9, 1.9], rtol=1e-6)


def test_lars_does_not_care_how_long_the_gradient_is():
    config = {"name": "lars", "weight_decay": 0.0}
    short, _ = step(config, (GRADIENT, np.zeros(2)))
    long, _ = step(config, (1000 * GRADIENT, np.zeros(2)))
    np.testing.assert_allclose(short[0], long[0], rtol=1e-6)


def test_lars_decays_kernels_within_the_scaled_gradient():
    config = {"name": "lars", "trust": 0.01, "weight_decay": 0.5, "momentum": 0.0}
    (kernel, bias), _ = step(config, (np.zeros((2, 2)), np.zeros(2)))
    # The decay alone is 2.5 long: 0.1 * 0.01 * 5 / 2.5 of 0.5 * kernel.
    np.testing.assert_allclose(kernel, KERNEL * (1 - 0.002 * 0.5), rtol=1e-6)
    np.testing.assert_allclose(bias, [1.0, 2.0])


def test_lars_keeps_its_momentum():
    config = {"name": "lars", "trust": 0.01, "weight_decay": 0.0, "momentum": 0.5}
    one, _ = step(config)
    two, _ = step(config, times=2)
    # The bias is not scaled: 0.1, then 0.1 + 0.5 * 0.1.
    np.testing.assert_allclose(one[1], [0.9, 1.9], rtol=1e-6)
    np.testing.assert_allclose(two[1], [0.75, 1.75], rtol=1e-6)


def test_lars_moves_a_kernel_of_zeros():
    optimizer = make_optimizer(build(OptimizerConfig, {"name": "lars"}), 0.1)
    kernel = keras.Variable(np.zeros((2, 2)), name="kernel")
    optimizer.build([kernel])
    optimizer.apply([ops.ones((2, 2))], [kernel])
    np.testing.assert_allclose(kernel, np.full((2, 2), -0.1), rtol=1e-6)


def test_lars_can_be_made_again():
    _, optimizer = step({"name": "lars", "trust": 0.02, "momentum": 0.8, "weight_decay": 0.3})
    again = type(optimizer).from_config(optimizer.get_config())
    assert (again.trust, again.momentum, again.decay) == (0.02, 0.8, 0.3)


@pytest.mark.parametrize("name", ["adamw", "lamb", "lars"])
def test_biases_are_not_decayed(name):
    config = {"name": name, "weight_decay": 0.5}
    zeros = (np.zeros((2, 2)), np.zeros(2))
    (kernel, bias), _ = step(config, zeros)
    assert np.linalg.norm(kernel) < 5.0
    np.testing.assert_allclose(bias, [1.0, 2.0])


def test_gradients_are_clipped_together():
    config = {"name": "sgd", "momentum": 0.0, "clip_norm": 1.0}
    (kernel, _), _ = step(config, (GRADIENT, np.zeros(2)))
    np.testing.assert_allclose(kernel, KERNEL - 0.1 * GRADIENT / 10, rtol=1e-6)


def test_moving_average_follows_the_weights():
    _, optimizer = step({"name": "sgd", "momentum": 0.0}, times=3, ema=0.5)
    assert optimizer.use_ema
    assert optimizer.ema_momentum == 0.5
