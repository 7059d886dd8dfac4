"""Training on Keras's JAX backend, in a process of its own: the backend is fixed at import."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from components.common.dataset import load_dataset
from components.common.models import load_model
from components.train_model.input_pipeline import eval_batches
from tests.builders import make_dataset

TRAIN = """
import sys
from pathlib import Path

import keras
import numpy as np

from components.common import augmentation
from components.common.dataset import load_dataset
from components.common.models import load_model
from components.train_model.input_pipeline import eval_batches
from components.train_model.train import train
from pipelines.recipe import load_recipe

assert keras.backend.backend() == "jax"
sizes, augment = [], augmentation.augment
augmentation.augment = lambda *given: (sizes.append(given[-1]), augment(*given))[1]
examples, output, name, *changes = sys.argv[1:]
recipe, folder = load_recipe(name, changes), Path(output)
result = train(
    Path(examples), Path(examples), recipe.model, recipe.train,
    folder / "model", folder / "metrics.json", folder / "report.html",
)
assert len(result.history) == recipe.train.total_epochs
of_phases = [phase.crop_size for phase in recipe.train.after_head().values()]
assert set(sizes) == set(of_phases)
assert sizes[-1] == of_phases[-1]
images = np.concatenate([x for x, _ in eval_batches(load_dataset(Path(examples)), "test", 8)])
model = load_model(folder / "model")
np.save(folder / "answers.npy", model.predict(images, verbose=0))
"""
# Everything that a recipe can switch on: with a head that learns first, or without.
CHANGES = (
    "model.stages=[[[4, 8]], [[8, 16]]]", "model.dropout=0.1", "model.test_time_flip=true",
    "train.epochs=2", "train.global_batch_size=8", "train.precision=float32", "train.crop_size=24",
    "model.test_size=24",
    "train.mixup=0.2", "train.cutmix=1", "train.ema=0.9",
    "train.policy.rotation=20", "train.policy.hue=0.1",
)  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        ["train.head={epochs: 1, schedule: {name: constant, peak: 0.001}}"],
        ["model.drop_path=0.2"],
        [
            "train.refine={epochs: 1, schedule: {name: constant, peak: 0.001}, crop_size: 28}",
            "train.ema=0",
        ],
        ["train.progressive_resizing={crop_size: 20}", "train.validation_freq=2"],
    ],
    ids=["head_first", "dropped_paths", "refined", "resized"],
)
def test_model_trained_on_jax_answers_the_same_on_tensorflow(tmp_path, changes):
    counts = {"train": 24, "validation": 8, "test": 8}
    examples = make_dataset(tmp_path / "examples", counts=counts)
    subprocess.run(
        [sys.executable, "-c", TRAIN, examples, tmp_path, "squeezenet", *CHANGES, *changes],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        check=True,
        timeout=300,
    )
    images = np.concatenate([x for x, _ in eval_batches(load_dataset(examples), "test", 8)])
    model = load_model(tmp_path / "model")
    answers = model.predict(images, verbose=0)
    np.testing.assert_allclose(answers, np.load(tmp_path / "answers.npy"), atol=1e-5)


def test_what_comes_after_training_is_tensorflows_whatever_the_environment_says(
    dataset_folder, model_folder, tmp_path
):
    """With mistakes of an untrained model, whose explanations take gradients."""
    flags = (f"--examples={dataset_folder}", f"--model={model_folder}")
    subprocess.run(
        [sys.executable, "-m", "components.evaluate_model", *flags, f"--output={tmp_path / 'out'}"],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        check=True,
        timeout=300,
    )
    scored = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert scored["correct"] < scored["examples"] == 9
