"""Trains a model from a recipe and keeps the weights that did best on the validation split."""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
from keras import ops

from components.common.config import to_json
from components.common.dataset import Dataset, load_dataset
from components.common.errors import DataError, FlowersError
from components.common.models import ModelMetadata, save_model
from components.common.outputs import staged
from components.common.progress import Progress, progress, say
from components.train_model.config import ModelConfig, OptimizerConfig, TrainConfig
from components.train_model.history import Epoch, TrainResult
from components.train_model.input_pipeline import damage_is_data_error, eval_batches, train_batches
from components.train_model.models import build_model
from components.train_model.report import write_report
from components.train_model.schedules import Schedule

STEP = "train-model"
HISTORY_FILE = "history.json"
_EVAL_BATCH = 64


def train(
    examples: Path,
    augmented: Path,
    model_config: ModelConfig,
    train_config: TrainConfig,
    model: Path,
    metrics: Path,
    report: Path,
) -> TrainResult:
    """Trains a model and writes it with its history, its figures and its curves.

    Args:
        examples: Data set with the validation split.
        augmented: Data set with the train split, made from that of `examples`.
        model_config: Architecture.
        train_config: How to train.
        model: Folder to make: `model.keras`, `model.json` and `history.json`.
        metrics: JSON file to make.
        report: HTML page to make.

    Raises:
        DataError: A data set is damaged, the two do not belong together, or they hold less than
            one batch.
        FlowersError: The loss is no longer a number.
    """
    source, training = load_dataset(examples), load_dataset(augmented)
    _check(source, training, train_config)
    with staged(report, metrics, model) as (staged_report, staged_metrics, folder):
        folder.mkdir()
        result = _train(source, training, model_config, train_config, folder)
        staged_metrics.write_text(to_json(result.metrics()), encoding="utf-8")
        write_report(result, staged_report)
    say(
        STEP,
        f"kept epoch {result.best.epoch} of {train_config.epochs}: validation accuracy "
        f"{result.best.val_accuracy:.1%}, {result.parameters:,} weights",
    )
    return result


def _train(
    examples: Dataset,
    augmented: Dataset,
    model_config: ModelConfig,
    train_config: TrainConfig,
    output: Path,
) -> TrainResult:
    keras.utils.set_random_seed(train_config.seed)
    classes = len(examples.class_names)
    steps_per_epoch = augmented.counts["train"] // train_config.global_batch_size
    model = build_model(model_config, examples.image_size, classes)
    _compile(model, train_config, classes, steps_per_epoch)
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        weights = Path(scratch, "best.weights.h5")
        history = _fit(model, examples, augmented, train_config, steps_per_epoch, weights)
        model.load_weights(weights)
    best = max(history, key=lambda epoch: epoch.val_accuracy)
    result = TrainResult(tuple(history), best, model.count_params(), steps_per_epoch)
    _save(model, model_config, examples, output)
    content = to_json(dataclasses.asdict(result))
    (output / HISTORY_FILE).write_text(content, encoding="utf-8")
    return result


def _check(examples: Dataset, augmented: Dataset, config: TrainConfig) -> None:
    for name in ("class_names", "image_size"):
        expected, received = getattr(examples, name), getattr(augmented, name)
        if expected != received:
            raise DataError(
                f"{name} of the augmented examples: expected {expected} as the examples have, "
                f"received {received}; augment these examples"
            )
    count = augmented.counts.get("train", 0)
    if count < config.global_batch_size:
        raise DataError(
            f"train.global_batch_size: expected at most the {count} examples of the train split, "
            f"received {config.global_batch_size}"
        )


def _compile(model: keras.Model, config: TrainConfig, classes: int, steps_per_epoch: int) -> None:
    schedule = Schedule(config.schedule, config.epochs * steps_per_epoch)
    model.compile(
        optimizer=_optimizer(config.optimizer, schedule),
        loss=_smoothed_loss(classes, config.label_smoothing),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        # Slower on CPUs, refused under a distribution strategy; the JAX backend compiles anyway.
        jit_compile=keras.backend.backend() == "jax",
    )


def _optimizer(config: OptimizerConfig, schedule: Schedule) -> keras.optimizers.Optimizer:
    if config.name == "adam":
        return keras.optimizers.Adam(schedule)
    if config.name == "sgd":
        return keras.optimizers.SGD(schedule, momentum=config.momentum)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _smoothed_loss(classes: int, smoothing: float) -> Any:
    """Cross-entropy on integer labels with label smoothing, which Keras has for one-hot only."""

    def loss(labels: Any, probabilities: Any) -> Any:
        targets = ops.one_hot(ops.reshape(labels, [-1]), classes)
        targets = targets * (1.0 - smoothing) + smoothing / classes
        return keras.losses.categorical_crossentropy(targets, probabilities)

    return loss


def _fit(
    model: keras.Model,
    examples: Dataset,
    augmented: Dataset,
    config: TrainConfig,
    steps_per_epoch: int,
    weights: Path,
) -> list[Epoch]:
    """Fits the model and leaves the best weights in the file `weights`."""
    with (
        progress(STEP, "epochs", config.epochs) as shown,
        damage_is_data_error(examples, augmented),
    ):
        recorder = _Recorder(steps_per_epoch * config.global_batch_size, shown)
        model.fit(
            train_batches(augmented, config.global_batch_size, config.policy, config.seed),
            steps_per_epoch=steps_per_epoch,
            epochs=config.epochs,
            validation_data=eval_batches(examples, "validation", _EVAL_BATCH),
            callbacks=[
                recorder,
                keras.callbacks.TerminateOnNaN(),
                keras.callbacks.ModelCheckpoint(
                    str(weights),
                    monitor="val_accuracy",
                    mode="max",
                    save_best_only=True,
                    save_weights_only=True,
                ),
            ],
            shuffle=False,
            verbose=0,
        )
    if len(recorder.history) < config.epochs:
        raise FlowersError(
            f"the loss became NaN in epoch {len(recorder.history) + 1}: expected a number; lower "
            f"train.schedule.peak, now {config.schedule.peak:g}"
        )
    return recorder.history


class _Recorder(keras.callbacks.Callback):
    """Keeps the history and shows the progress."""

    def __init__(self, images_per_epoch: int, shown: Progress) -> None:
        super().__init__()
        self.history: list[Epoch] = []
        self._images = images_per_epoch
        self._shown = shown

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._began = time.perf_counter()

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        figures = logs or {}
        if not all(map(_is_finite, figures.values())):
            return
        entry = Epoch(
            epoch=epoch + 1,
            loss=float(figures["loss"]),
            accuracy=float(figures["accuracy"]),
            val_loss=float(figures["val_loss"]),
            val_accuracy=float(figures["val_accuracy"]),
            learning_rate=float(ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            seconds=time.perf_counter() - self._began,
            images_per_second=self._images / (self._trained - self._began),
        )
        self.history.append(entry)
        self._shown.advance(
            note=f"loss {entry.loss:.3f}, accuracy {entry.accuracy:.1%}, "
            f"validation {entry.val_accuracy:.1%}, {entry.images_per_second:.0f} images/s"
        )


def _is_finite(value: float) -> bool:
    return bool(abs(float(value)) < float("inf"))


def _save(model: keras.Model, config: ModelConfig, examples: Dataset, output: Path) -> None:
    """Saves the net without its optimizer: later steps only predict."""
    bare = build_model(config, examples.image_size, len(examples.class_names))
    bare.set_weights(model.get_weights())
    metadata = ModelMetadata(
        class_names=examples.class_names,
        image_size=examples.image_size,
        data_fingerprint=examples.fingerprint,
        architecture=config.name,
        parameters=model.count_params(),
    )
    save_model(bare, metadata, output)
