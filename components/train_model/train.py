"""Trains a model from a recipe and writes what a later step, a reader or a second try needs."""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras

from components.common import storage
from components.common.config import to_json
from components.common.dataset import Dataset, load_dataset
from components.common.errors import ConfigError, DataError
from components.common.lineage import check_records
from components.common.model_files import HISTORY_FILE, ModelMetadata
from components.common.models import save_model
from components.common.outputs import staged
from components.common.progress import progress, say, silence
from components.train_model.accelerators import Accelerator, AcceleratorConfig, open_accelerator
from components.train_model.agreement import check_agreement
from components.train_model.architectures import ModelConfig
from components.train_model.augmented_model import AugmentedModel
from components.train_model.building import average_statistics, build_net, wrap_for_training
from components.train_model.checkpoint_files import (
    LOGS_FOLDER,
    pack_checkpoint,
    unpack_checkpoint,
)
from components.train_model.checkpoints import Checkpoint, alone_in
from components.train_model.config import CheckpointConfig, TrainConfig
from components.train_model.fitting import EventLogs, Follower, fit
from components.train_model.history import TrainResult
from components.train_model.input_pipeline import damage_is_data_error
from components.train_model.models import build_model
from components.train_model.models.blocks import average_over_flip, resize_first
from components.train_model.plan import Plan
from components.train_model.precision import choose_precision
from components.train_model.report import write_report
from components.train_model.transfer import mirrored
from components.train_model.weights import load_first_weights
from components.train_model.whitening import whiten_stem

STEP = "train-model"
# How TensorBoard knows its files.
_EVENTS = "events.out.tfevents."


def train(
    examples: Path,
    augmented: Path,
    model_config: ModelConfig,
    train_config: TrainConfig,
    model: Path,
    metrics: Path,
    report: Path,
    checkpoint: CheckpointConfig | None = None,
    accelerator: Accelerator | None = None,
) -> TrainResult:
    """Trains a model and writes it with its history, its figures and its curves.

    Of several hosts that train it together, host 0 writes.

    Args:
        examples: Data set with the validation split.
        augmented: Data set with the train split, made from that of `examples`.
        model_config: Architecture.
        train_config: How to train.
        model: Folder to make: `model.keras`, `model.json`, `history.json` and `tensorboard/`.
        metrics: JSON file to make.
        report: HTML page to make.
        checkpoint: Where training is saved on its way.
        accelerator: What it runs on; None for the best that is here.

    Raises:
        DataError: A data set, a file of weights or a checkpoint is damaged, the two data sets do
            not belong together, or they hold less than one batch.
        ConfigError: Weights or a checkpoint are of another model or training, or the batch cannot
            be split among the devices.
        FlowersError: The loss is no longer a number.
        RetryError: The machine is being taken away; the checkpoint has all that was done.
    """
    if accelerator is None:
        with open_accelerator(AcceleratorConfig()) as opened:
            return train(
                examples, augmented, model_config, train_config, model, metrics, report,
                checkpoint, opened,
            )  # fmt: skip
    source, training = load_dataset(examples), load_dataset(augmented)
    _check(source, training, model_config, train_config, accelerator)
    saving = checkpoint or CheckpointConfig()
    if not accelerator.hosts.is_first:
        return _train(source, training, model_config, train_config, None, saving, accelerator)
    # Evaluation looks at the examples; what was learned from, nobody else does.
    check_records(training)
    with staged(report, metrics, model) as (staged_report, staged_metrics, folder):
        folder.mkdir()
        result = _train(source, training, model_config, train_config, folder, saving, accelerator)
        staged_metrics.write_text(to_json(result.metrics()), encoding="utf-8")
        write_report(result, staged_report)
    say(
        STEP,
        f"kept epoch {result.kept.epoch} of {len(result.history)}: validation accuracy "
        f"{result.validation.accuracy:.1%}, {result.parameters:,} weights",
    )
    return result


def _check(
    examples: Dataset,
    augmented: Dataset,
    model_config: ModelConfig,
    config: TrainConfig,
    accelerator: Accelerator,
) -> None:
    """Finds before anything is built what would end the training."""
    for name in ("class_names", "image_size", "resize"):
        expected, received = getattr(examples, name), getattr(augmented, name)
        if expected != received:
            raise DataError(
                f"{name} of the augmented examples: expected {expected} as the examples have, "
                f"received {received}; augment these examples"
            )
    made_from = augmented.source_fingerprint or augmented.fingerprint
    if made_from != examples.fingerprint:
        raise DataError(
            f"augmented examples: expected some made from the examples ({examples.fingerprint[:12]}"
            f"), received some made from {made_from[:12]}; augment these examples"
        )
    count = augmented.counts.get("train", 0)
    batch = config.batch_size(accelerator.replicas)
    if count < batch:
        raise DataError(
            f"{config.batch_key}: expected batches of at most the {count} examples of the train "
            f"split, received one that makes {batch}"
        )
    check_agreement(model_config, config, examples.image_size)


def _train(
    examples: Dataset,
    augmented: Dataset,
    model_config: ModelConfig,
    config: TrainConfig,
    output: Path | None,
    saving: CheckpointConfig,
    accelerator: Accelerator,
) -> TrainResult:
    """Trains, and writes the model into a folder that exists, if one is given."""
    precision = choose_precision(
        config.precision, accelerator.kind, model_config.bfloat16_pays_on_cpu()
    )
    replicas = accelerator.replicas
    plan = Plan(config, augmented.counts["train"] // config.batch_size(replicas), replicas)
    course = _digest(examples, augmented, model_config, config, precision, accelerator)
    with (
        tempfile.TemporaryDirectory() as scratch,
        _checkpoint_folder(saving, Path(scratch), accelerator) as folder,
    ):
        checkpoint = _open_checkpoint(folder, saving, course, accelerator)
        with accelerator.building():
            model = _build(
                examples,
                augmented,
                model_config,
                plan,
                precision,
                accelerator,
                goes_on=checkpoint.state is not None,
            )
        with accelerator.training():
            _fit(model, plan, examples, augmented, checkpoint, saving, accelerator)
        assert checkpoint.kept is not None
        result = TrainResult(
            history=checkpoint.history,
            kept=checkpoint.kept,
            parameters=model.net.count_params(),
            steps_per_epoch=plan.steps_per_epoch,
            learning_rates=plan.learning_rates(),
            precision=precision,
            weights=model_config.weights,
            batch_size=plan.batch_size,
            devices=accelerator.describe(),
        )
        if output is not None:
            _save(checkpoint, model_config, examples, augmented, output)
            _copy_logs(checkpoint.folder / LOGS_FOLDER, output / LOGS_FOLDER)
            content = to_json(dataclasses.asdict(result))
            (output / HISTORY_FILE).write_text(content, encoding="utf-8")
    return result


@contextlib.contextmanager
def _checkpoint_folder(
    saving: CheckpointConfig, scratch: Path, accelerator: Accelerator
) -> Iterator[Path]:
    """The folder of this machine for a checkpoint; host 0 alone has one that lasts."""
    if not saving.place or not accelerator.hosts.is_first:
        yield scratch
    elif storage.is_remote(saving.place):
        with mirrored(scratch, saving.place):
            yield scratch
    else:
        with alone_in(Path(saving.place), saving.place):
            yield Path(saving.place)


def _open_checkpoint(
    folder: Path, saving: CheckpointConfig, course: str, accelerator: Accelerator
) -> Checkpoint:
    """The checkpoint to go on from; what host 0 has of it is sent to the others."""
    hosts, link = accelerator.hosts, accelerator.link
    if link is None:
        return Checkpoint(folder, saving.place, course)
    for index, other in enumerate(link.gather(course)):
        if other != course:
            raise ConfigError(
                f"host {hosts.index}: expected the examples and the recipe of every other host, "
                f"received others than host {index}"
            )
    if hosts.is_first:
        checkpoint = Checkpoint(folder, saving.place, course)
        for part in pack_checkpoint(checkpoint.folder, checkpoint.name):
            link.from_first(part)
        return checkpoint
    unpack_checkpoint(link.from_first(), link.from_first(), folder)
    return Checkpoint(folder, saving.place, course, writes=False)


def _build(
    examples: Dataset,
    augmented: Dataset,
    model_config: ModelConfig,
    plan: Plan,
    precision: str,
    accelerator: Accelerator,
    *,
    goes_on: bool,
) -> AugmentedModel:
    """A model, for the devices in whose scope this is called.

    It has its first weights, unless it goes on from a checkpoint, which has all of them.
    """
    config = plan.config
    keras.utils.set_random_seed(config.seed)
    size = examples.image_size
    net = build_net(model_config, config, size, len(examples.class_names), precision)
    if not goes_on:
        load_first_weights(net, model_config, examples.class_names, size)
        if model_config.whitens_stem():
            whiten_stem(net, augmented, config)
    if config.ema:
        average_statistics(net, config.ema, config.total_epochs * plan.steps_per_epoch)
    return wrap_for_training(
        net, model_config, config, accelerator.replicas, split=accelerator.is_split
    )


def _digest(
    examples: Dataset,
    augmented: Dataset,
    model_config: ModelConfig,
    config: TrainConfig,
    precision: str,
    accelerator: Accelerator,
) -> str:
    """Digest of everything that decides the course of a training."""
    course = dataclasses.asdict(config)
    del course["steps_per_execution"]
    content = [
        examples.fingerprint,
        augmented.fingerprint,
        dataclasses.asdict(model_config),
        course,
        precision,
        [accelerator.runtime, accelerator.replicas, accelerator.hosts.count],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _fit(
    model: AugmentedModel,
    plan: Plan,
    examples: Dataset,
    augmented: Dataset,
    checkpoint: Checkpoint,
    saving: CheckpointConfig,
    accelerator: Accelerator,
) -> None:
    position = checkpoint.position
    tells = accelerator.hosts.is_first
    if checkpoint.state and tells:
        say(STEP, f"goes on from {checkpoint.name}, after epoch {position.epoch}")
    logs = EventLogs(checkpoint.folder / LOGS_FOLDER)
    with (
        progress(STEP, "epochs", plan.config.total_epochs) if tells else silence() as shown,
        damage_is_data_error(examples, augmented),
    ):
        shown.advance(position.epoch)
        lasts = bool(saving.place)
        follower = Follower(plan, checkpoint, shown, logs, accelerator, saving.steps, lasts)
        fit(model, plan, augmented, examples, checkpoint, follower)
    logs.close()


def _copy_logs(source: Path, target: Path) -> None:
    """Copies event files under names without time and process, which say nothing of the run."""
    # Other files may lie there: those of a file manager, say.
    for folder in filter(Path.is_dir, source.iterdir()):
        (target / folder.name).mkdir(parents=True)
        for number, file in enumerate(sorted(folder.glob(f"{_EVENTS}*"))):
            shutil.copyfile(file, target / folder.name / f"{_EVENTS}{number:05d}")


def _save(
    checkpoint: Checkpoint,
    config: ModelConfig,
    examples: Dataset,
    augmented: Dataset,
    output: Path,
) -> None:
    """Saves the net in float32, for one size and without optimizer: later steps only predict."""
    size = config.net_size(examples.image_size)
    bare = build_model(config, size, len(examples.class_names))
    checkpoint.restore_kept(bare)
    parameters = bare.count_params()
    if config.test_time_flip:
        bare = average_over_flip(bare)
    # Outermost, so that it resizes an image once.
    if size != examples.image_size:
        bare = resize_first(bare, size, examples.image_size)
    metadata = ModelMetadata(
        class_names=examples.class_names,
        image_size=examples.image_size,
        data_fingerprint=examples.fingerprint,
        architecture=config.name,
        parameters=parameters,
        augmented_fingerprint=augmented.fingerprint,
        resize=examples.resize,
        wiring=config.wiring(),
    )
    save_model(bare, metadata, output)
