import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
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
        ({"name": "muon"}, "Muon"),
    ],
)
def test_name_chooses_the_optimizer(config, kind):
    assert type(step(config)[1]).__name__ == kind


@pytest.mark.parametrize(
    ("config", "keras_own"),
    [
        ({"name": "adam"}, keras.optimizers.Adam),
        ({"name": "adamw", "weight_decay": 0.1}, keras.optimizers.AdamW),
    ],
)
def test_adam_steps_as_that_of_keras(config, keras_own):
    received, _ = step(config, times=5)
    decay = {name: number for name, number in config.items() if name == "weight_decay"}
    optimizer, expected = keras_own(0.1, **decay), variables()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(expected)
    for _ in range(5):
        optimizer.apply([ops.convert_to_tensor(x, "float32") for x in (GRADIENT, ONES)], expected)
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_step_of_adam_is_one_operation():
    optimizer = make_optimizer(build(OptimizerConfig, {"name": "adamw"}), 0.1)
    weights = variables()
    optimizer.build(weights)
    traced = tf.function(lambda *gradients: optimizer.apply(gradients, weights))
    traced = traced.get_concrete_function(tf.TensorSpec([2, 2]), tf.TensorSpec([2]))
    types = [operation.type for operation in traced.graph.get_operations()]
    assert types.count("ResourceApplyAdam") == 2
    assert "Sqrt" not in types


def test_sgd_decays_kernels_apart_from_the_gradient():
    config = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.5}
    (kernel, bias), _ = step(config, (np.zeros((2, 2)), np.zeros(2)), times=2)
    # 0.1 * 0.5 of the kernel, twice; the momentum has none of it.
    np.testing.assert_allclose(kernel, KERNEL * 0.95**2, rtol=1e-6)
    np.testing.assert_allclose(bias, [1.0, 2.0])


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


@pytest.mark.parametrize(
    ("gradient", "moved"),
    [
        # Against half of the decay: 0.1 * 0.01 * 5 / (1.25 + 2.5) of what is left of it.
        (-0.25 * KERNEL, 0.25 * 0.005 / 3.75 * KERNEL),
        # All of it, and the kernel stays where it is.
        (-0.5 * KERNEL, 0.0 * KERNEL),
    ],
)
def test_lars_measures_gradient_and_decay_apart(gradient, moved):
    config = {"name": "lars", "trust": 0.01, "weight_decay": 0.5, "momentum": 0.0}
    (kernel, _), _ = step(config, (gradient, np.zeros(2)))
    np.testing.assert_allclose(KERNEL - kernel, moved, rtol=1e-3, atol=1e-7)


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


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def muon_steps(shape, gradient, name="conv", rate=0.1, times=1, **config):
    """How far a kernel of zeros steps."""
    optimizer = make_optimizer(build(OptimizerConfig, {"name": "muon"} | config), rate)
    kernel = keras.Variable(np.zeros(shape), name=name)
    optimizer.build([kernel])
    for _ in range(times):
        optimizer.apply([ops.convert_to_tensor(gradient, "float32")], [kernel])
    return np.array(kernel)


def test_muon_makes_the_step_of_a_convolution_orthogonal():
    gradient = normal(3, 3, 4, 8)
    step = muon_steps(gradient.shape, gradient).reshape(36, 8)
    # All directions of the gradient's 8 are gone about equally far: rate times 0.2 * sqrt(36).
    lengths = np.linalg.svd(step, compute_uv=False)
    assert lengths == pytest.approx(np.full(8, 0.1 * 0.2 * 6), rel=0.35)
    u, values, v = np.linalg.svd(gradient.reshape(36, 8), full_matrices=False)
    assert values[0] / values[-1] > 1.5
    alike = -np.sum((u @ v) * step) / np.linalg.norm(u @ v) / np.linalg.norm(step)
    assert alike > 0.97


def test_muon_does_not_care_how_long_the_gradient_is():
    gradient = normal(1, 1, 6, 4)
    short, long = (muon_steps(gradient.shape, scale * gradient) for scale in (1.0, 1000.0))
    np.testing.assert_allclose(short, long, atol=1e-6)


def test_muon_keeps_its_momentum():
    first, second = normal(2, 3, 3, 4, 8)
    optimizer = make_optimizer(build(OptimizerConfig, {"name": "muon", "momentum": 0.5}), 0.1)
    kernel = keras.Variable(np.zeros(first.shape), name="conv")
    optimizer.build([kernel])
    for gradient in (first, second):
        optimizer.apply([ops.convert_to_tensor(gradient, "float32")], [kernel])
    # Each looks ahead by half of the momentum, which is the gradient and half of the one before.
    steps = muon_steps(first.shape, first + 0.5 * first, momentum=0.0)
    steps += muon_steps(first.shape, second + 0.5 * (second + 0.5 * first), momentum=0.0)
    np.testing.assert_allclose(kernel, steps, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "name"),
    [((4,), "conv1_bn_beta"), ((4, 5), "softmax"), ((3, 3, 4, 1), "depthwise")],
)
def test_muon_leaves_what_is_no_matrix_and_the_head_to_adamw(shape, name):
    gradient = normal(*shape)
    by_adamw = make_optimizer(build(OptimizerConfig, {"name": "adamw"}), 0.2)
    expected = keras.Variable(np.zeros(shape), name=name)
    by_adamw.build([expected])
    for _ in range(3):
        by_adamw.apply([ops.convert_to_tensor(gradient, "float32")], [expected])
    stepped = muon_steps(shape, gradient, name, rate=0.1, times=3, adam_ratio=2.0, momentum=0.3)
    np.testing.assert_allclose(stepped, expected, rtol=1e-5)


def test_muon_can_be_made_again():
    config = {"name": "muon", "momentum": 0.8, "weight_decay": 0.3, "adam_ratio": 3.0}
    _, optimizer = step(config)
    again = type(optimizer).from_config(optimizer.get_config())
    assert (again.momentum, again.weight_decay, again.adam_lr_ratio) == (0.8, 0.3, 3.0)
    assert again.adam_weight_decay == 0.3
    assert again.exclude_layers == ["dropout", "softmax"]


def test_lamb_moves_a_bias_that_begins_at_zero_as_adam_does():
    kernel = keras.Variable(KERNEL, name="kernel")
    bias = keras.Variable(np.zeros(2), name="bias")
    optimizer = make_optimizer(build(OptimizerConfig, {"name": "lamb", "weight_decay": 0.0}), 0.1)
    optimizer.build([kernel, bias])
    for _ in range(10):
        optimizer.apply(
            [ops.convert_to_tensor(x, "float32") for x in (GRADIENT, ONES)], [kernel, bias]
        )
    # Adam's steps along a gradient that stays are as long as the rate.
    np.testing.assert_allclose(np.array(bias), [-1.0, -1.0], rtol=1e-3)


def test_lamb_steps_by_a_part_of_the_length_of_the_kernel():
    (kernel, _), _ = step({"name": "lamb", "weight_decay": 0.0})
    # The kernel is 5 long, and the first step of Adam as long in each number.
    direction = np.sign(GRADIENT)
    expected = KERNEL - 0.1 * 5.0 * direction / np.linalg.norm(direction)
    np.testing.assert_allclose(kernel, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "lamb", "lars", "muon"])
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
    averages = optimizer._model_variables_moving_average
    for first, gradient, received in zip(
        (KERNEL, np.array([1.0, 2.0])), (GRADIENT, ONES), averages, strict=True
    ):
        courses = [first - 0.1 * times * gradient for times in (1, 2, 3)]
        # The average begins with what the first step made.
        expected = 0.25 * courses[0] + 0.25 * courses[1] + 0.5 * courses[2]
        np.testing.assert_allclose(received, expected, rtol=1e-5)


def test_infinite_gradient_of_any_replica_changes_no_weight():
    """In a process of its own, for TensorFlow divides a CPU once."""
    result = subprocess.run(
        [sys.executable, "-c", _OVERFLOW], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == {
        # An infinite gradient on no replica, on the first, on the second.
        "weights": [[-0.2, -0.2], [0.0, 0.0], [0.0, 0.0]],
        "scales": [32768.0, 16384.0, 16384.0],
    }


_OVERFLOW = """
import json
import keras, numpy as np, tensorflow as tf
from components.common.config import build
from components.train_model.config import OptimizerConfig
from components.train_model.optimizers import LossScaling, make_optimizer

cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
weights, scales = [], []
for broken in (None, 0, 1):
    with strategy.scope():
        weight = keras.Variable(np.zeros(2), name="kernel")
        config = build(OptimizerConfig, {"name": "sgd", "momentum": 0.0})
        optimizer = LossScaling(make_optimizer(config, 0.1))
        optimizer.build([weight])

    @tf.function
    def step():
        def one():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            infinite = -1 if broken is None else broken
            gradient = tf.where(index == infinite, np.inf, optimizer.scale_loss(1.0))
            optimizer.apply([tf.fill([2], tf.cast(gradient, tf.float32))], [weight])
        strategy.run(one)

    step()
    weights.append([round(float(one), 6) for one in weight.value.numpy()])
    scales.append(float(optimizer.dynamic_scale.value.numpy()))
print(json.dumps({"weights": weights, "scales": scales}))
"""
