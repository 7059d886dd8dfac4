import keras
import numpy as np
import pytest

from components.common import augmentation
from components.common.config import build
from components.common.dataset import load_dataset
from components.common.errors import DataError
from components.train_model.architectures import ModelConfig
from components.train_model.config import CheckpointConfig, TrainConfig
from components.train_model.input_pipeline import read_examples
from components.train_model.models import build_model
from components.train_model.train import train
from components.train_model.whitening import whiten_stem, whitening_filters
from tests.builders import TINY_MODEL, TINY_TRAIN, make_dataset


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    counts = {"train": 24, "validation": 8, "test": 8}
    return make_dataset(tmp_path_factory.mktemp("data") / "examples", counts=counts)


def smooth_images(count=60, side=36):
    """Neighbouring pixels and the three colours have much in common, as on photos."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(count, side + 6, side + 6, 3)) + rng.normal(size=(count, 1, 1, 1))
    rows = np.lib.stride_tricks.sliding_window_view(noise, 7, axis=1).mean(-1)
    both = np.lib.stride_tricks.sliding_window_view(rows, 7, axis=2).mean(-1)
    both += 0.5 * both[..., ::-1]
    return np.clip(127 + 60 * both + rng.normal(0, 4, both.shape), 0, 255).astype(np.uint8)


def answers(images, filters):
    pixels = keras.ops.convert_to_tensor(images / 127.5, "float32")
    maps = keras.ops.convert_to_numpy(keras.ops.conv(pixels, filters, padding="valid"))
    return maps.reshape(-1, filters.shape[-1]).astype(np.float64)


def test_filters_answer_alike_and_apart_from_one_another():
    images = smooth_images()
    filters = whitening_filters(images, 3, 12)
    assert filters.shape == (3, 3, 3, 12)
    assert filters.dtype == np.float32
    covariance = np.cov(answers(images, filters[..., :6]), rowvar=False)
    # The variance of the weaker ones is not far above that of noise.
    assert 0.7 < np.diag(covariance).min() < np.diag(covariance).max() < 1.02
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=0.01)


def test_second_half_is_the_first_with_other_signs():
    filters = whitening_filters(smooth_images(), 3, 12)
    np.testing.assert_array_equal(filters[..., 6:], -filters[..., :6])


def test_weak_directions_are_not_made_louder():
    rng = np.random.default_rng(0)
    # One value on each image, and a trace of noise.
    flat = rng.integers(0, 255, (50, 1, 1, 1)) + rng.integers(0, 2, (50, 8, 8, 3))
    deviations = answers(flat, whitening_filters(flat.astype(np.uint8), 2, 12)).std(axis=0)
    assert deviations[0] == pytest.approx(1, abs=0.05)
    assert deviations[1:6].max() < 0.15


def expected_filters(examples, config):
    dataset = load_dataset(examples)
    images = np.stack([image for image, _ in read_examples(dataset, "train")])
    if config.policy is not None:
        rng = np.random.default_rng(config.seed)
        columns = (augmentation.DRAWS - 1, 1)
        draws = np.hstack([rng.random((24, width), np.float32) for width in columns])
        augmented = augmentation.augment(images, draws, config.policy, config.crop_size)
        images = keras.ops.convert_to_numpy(augmented)
    return whitening_filters(images, 3, 8)


@pytest.mark.parametrize(
    "changes", [{}, {"policy": {"crop_area": 0.5, "hue": 0.1}, "crop_size": 24}]
)
def test_stem_is_whitened_by_what_training_sees(examples, changes):
    config = build(TrainConfig, TINY_TRAIN | changes)
    net = build_model(build(ModelConfig, TINY_MODEL), None, 3)
    whiten_stem(net, load_dataset(examples), config)
    np.testing.assert_array_equal(
        net.get_layer("conv1").kernel.numpy(), expected_filters(examples, config)
    )


def test_damaged_examples_are_said(tmp_path):
    dataset = load_dataset(make_dataset(tmp_path / "examples"))
    shard = dataset.shards("train")[0]
    shard.write_bytes(shard.read_bytes()[:-20])
    net = build_model(build(ModelConfig, TINY_MODEL), None, 3)
    with pytest.raises(DataError, match="damaged examples"):
        whiten_stem(net, dataset, build(TrainConfig, TINY_TRAIN))


@pytest.mark.parametrize("init", ["he_normal", "whitening"])
def test_training_begins_with_what_the_recipe_says(examples, tmp_path, init):
    still = {"epochs": 1, "keep": "last", "schedule": {"name": "constant", "peak": 1e-8}}
    config = build(TrainConfig, TINY_TRAIN | still)
    train(
        examples,
        examples,
        build(ModelConfig, TINY_MODEL | {"stem_init": init}),
        config,
        tmp_path / "model",
        tmp_path / "metrics",
        tmp_path / "report",
        CheckpointConfig(),
    )
    model = keras.models.load_model(tmp_path / "model" / "model.keras")
    kernel = model.get_layer("conv1").kernel.numpy()
    whitened = np.allclose(kernel, expected_filters(examples, config), rtol=1e-4, atol=1e-5)
    assert whitened == (init == "whitening")


def test_weights_that_are_given_are_not_whitened():
    config = build(ModelConfig, TINY_MODEL | {"stem_init": "whitening", "weights": "gs://b/model"})
    assert not config.whitens_stem()
