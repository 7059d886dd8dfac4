"""Measures recipes: accuracy over seeds, time, and throughput against bare Keras and the lab's way.

    python -m benchmarks.recipes accuracy --photos DIR --recipe squeezenet
    python -m benchmarks.recipes throughput --photos DIR --recipe squeezenet
    python -m benchmarks.recipes input --photos DIR
    python -m benchmarks.recipes epoch --photos DIR --recipe squeezenet_lab
    python -m benchmarks.recipes onednn --photos DIR --recipe mobilenet_v2

DIR is a folder of class folders; --manifest and --group-column keep groups in one split. Figures to
compare are taken side by side in one run. Nothing here passes or fails: machines differ.
"""

import dataclasses
import functools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from components.common.step import import_tensorflow_quietly
from components.ingest_examples.config import PhotosConfig
from components.train_model.config import FROZEN, TrainConfig
from pipelines.recipe import Recipe, load_recipe

_BATCH = 64
# A buffer that was full before is no throughput.
_SECONDS = 3.0


@click.group()
def main() -> None:
    """Measures recipes."""


def _photos_options(command: Any) -> Any:
    """Gives a command the photos, and what of the recipe is changed, as `assignments`."""

    @functools.wraps(command)
    def with_photos(photos: str, manifest: str, group_column: str, **rest: Any) -> None:
        command(PhotosConfig(str(Path(photos).resolve()), manifest, group_column), **rest)

    for option in (
        click.option("--set", "assignments", multiple=True, help="As for flowers run."),
        click.option("--group-column", default="", help="Column that names the groups."),
        click.option("--manifest", default="", help="Goes with --group-column."),
        click.option("--photos", required=True, help="A folder of class folders."),
    ):
        with_photos = option(with_photos)
    return with_photos


def _recipe_option(command: Any) -> Any:
    return click.option("--recipe", required=True, help="As for flowers run.")(command)


def _show(name: str, value: str) -> None:
    print(f"{name:<44} {value}", flush=True)


def _show_machine() -> None:
    from components.train_model.precision import cpu_flags

    # Those that matter: with and without them the same net differs in speed up to eight times.
    flags = " ".join(sorted(cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}))
    python = sys.version.split()[0]
    _show("machine", f"{os.cpu_count()} cores, {platform.machine()} {flags}, Python {python}")
    _show("command", " ".join(["python -m benchmarks.recipes", *sys.argv[1:]]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the progress of a step out of the figures; it goes to standard error."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = stdout


def _prepare(folder: Path, recipe: Recipe, photos: PhotosConfig) -> tuple[Path, Path]:
    """Ingests and augments as the pipeline does; returns both data sets."""
    from components.augment_examples.augment import augment
    from components.ingest_examples.ingest import ingest

    examples, augmented = folder / "examples", folder / "augmented"
    with _quiet():
        ingest(photos, recipe.ingest, examples, folder / "ingest.html")
        augment(examples, recipe.augment, augmented, folder / "augment.html")
    return examples, augmented


def _train(paths: tuple[Path, Path], recipe: Recipe, output: Path) -> dict[str, Any]:
    """Trains as the pipeline does, in a process of its own; returns what `history.json` has."""
    examples, augmented = paths
    command = [sys.executable, "-m", "components.train_model", f"--output={output}"]
    command += [f"--examples={examples}", f"--augmented={augmented}"]
    for name, section in (("model", recipe.model), ("train", recipe.train)):
        command.append(f"--{name}-config={json.dumps(dataclasses.asdict(section))}")
    subprocess.run(command, stdout=sys.stderr, check=True)  # noqa: S603
    history: dict[str, Any] = json.loads((output / "model" / "history.json").read_text())
    return history


def _train_and_score(paths: tuple[Path, Path], recipe: Recipe, run: Path) -> tuple[float, float]:
    """Trains once and shows what came of it; returns test accuracy, and seconds of training."""
    from components.evaluate_model.evaluate import evaluate

    result = _train(paths, recipe, run)
    with _quiet():
        scored = evaluate(paths[0], run / "model", run / "evaluation.json", run / "evaluation.html")
    seconds = sum(epoch["seconds"] for epoch in result["history"])
    _show(
        f"seed {recipe.train.seed}",
        f"{scored.accuracy:.2%} ({scored.correct} of {scored.examples}), kept epoch "
        f"{result['kept']['epoch']} of {len(result['history'])}, {seconds:.0f} s of "
        f"training, {result['parameters']:,} weights, {result['precision']}",
    )
    return scored.accuracy, seconds


def _splits(
    _ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Salts, each with its seed where it has one of its own."""
    splits = []
    for value in values:
        salt, colon, seed = value.partition(":")
        if not salt or (colon and not seed.isdecimal()):
            raise click.BadParameter(f"expected SALT or SALT:SEED, received {value!r}")
        splits.append((salt, seed))
    return tuple(splits)


@main.command()
@_recipe_option
@_photos_options
@click.option("--seeds", default=3, show_default=True, help="Trainings, each from another seed.")
@click.option(
    "--split-salt",
    "splits",
    multiple=True,
    metavar="SALT[:SEED]",
    callback=_splits,
    help="Divides the photos, in place of the recipe's; each that is given gets all the seeds, "
    "or the one behind it.",
)
def accuracy(
    photos: PhotosConfig,
    recipe: str,
    assignments: tuple[str, ...],
    seeds: int,
    splits: tuple[tuple[str, str], ...],
) -> None:
    """Test accuracy and training time of a recipe: mean and spread over seeds and splits."""
    import_tensorflow_quietly()
    from components.common.dataset import load_dataset

    loaded = load_recipe(recipe, assignments)
    _show_machine()
    runs = []
    for salt, seed_of_its_own in splits or ((loaded.ingest.split_salt, ""),):
        ingest = dataclasses.replace(loaded.ingest, split_salt=salt)
        divided = dataclasses.replace(loaded, ingest=ingest)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            paths = _prepare(folder, divided, photos)
            counts = load_dataset(paths[0]).counts
            shown = ", ".join(f"{count} {name}" for name, count in counts.items())
            _show(f"examples, split by {salt}", shown)
            for seed in [int(seed_of_its_own)] if seed_of_its_own else range(seeds):
                train = dataclasses.replace(loaded.train, seed=seed)
                seeded = dataclasses.replace(divided, train=train)
                runs.append(_train_and_score(paths, seeded, folder / str(seed)))
    accuracies, times = zip(*runs, strict=True)
    _show(
        "test accuracy",
        f"mean {statistics.mean(accuracies):.2%}, from {min(accuracies):.2%} to "
        f"{max(accuracies):.2%}",
    )
    _show("training", f"mean {statistics.mean(times):.0f} s, at most {max(times):.0f} s")


@main.command()
@_recipe_option
@_photos_options
@click.option("--epochs", default=4, show_default=True, help="Epochs of each way and round.")
@click.option("--rounds", default=3, show_default=True, help="Each way is timed so many times.")
def throughput(
    photos: PhotosConfig,
    recipe: str,
    assignments: tuple[str, ...],
    epochs: int,
    rounds: int,
) -> None:
    """Our training against bare `keras.Model.fit` of the same net on images decoded in memory."""
    import_tensorflow_quietly()
    from components.common.dataset import load_dataset

    whole = (f"train.epochs={epochs}", "train.progressive_resizing=null", "train.refine=null")
    loaded = load_recipe(recipe, (*assignments, *whole))
    train = loaded.train
    part_of_it = train.head or train.fine_tune_at or train.batch_norm == FROZEN
    if part_of_it or train.optimizer.name == "lars":
        raise click.UsageError(
            "--recipe: expected one whose layers all learn, with an optimizer that Keras has, so "
            f"that the bare training does the same, received {recipe}"
        )
    _show_machine()
    with tempfile.TemporaryDirectory() as scratch:
        paths = _prepare(Path(scratch), loaded, photos)
        examples, augmented = (load_dataset(path) for path in paths)
        ours, bare = [], []
        for number in range(rounds):
            ours.append(_our_speed(paths, loaded, Path(scratch, str(number))))
            bare.append(_bare_speed(examples, augmented, loaded))
            _show(f"round {number + 1}", f"{ours[-1]:.0f} and {bare[-1]:.0f} images/s")
    _show("train_model, median", f"{statistics.median(ours):.0f} images/s")
    _show("bare keras.Model.fit, median", f"{statistics.median(bare):.0f} images/s")
    _show("ratio", f"{statistics.median(ours) / statistics.median(bare):.2f}")


def _our_speed(paths: tuple[Path, Path], recipe: Recipe, folder: Path) -> float:
    history = _train(paths, recipe, folder)["history"]
    median: float = statistics.median(one["images_per_second"] for one in _later(history))
    return median


def _bare_speed(examples: Any, augmented: Any, recipe: Recipe) -> float:
    import keras
    import numpy as np
    import tensorflow as tf

    from components.train_model.accelerators import CPU
    from components.train_model.input_pipeline import read_examples
    from components.train_model.models import build_model
    from components.train_model.precision import choose_precision, computing_in

    size, batch = recipe.train.train_size(examples.image_size), recipe.train.batch_size(replicas=1)
    pairs = list(read_examples(augmented, "train"))
    images = tf.image.resize(np.stack([image for image, _ in pairs]), [size, size])
    images = tf.cast(images, tf.uint8).numpy()
    targets = np.eye(len(examples.class_names), dtype=np.float32)[[int(x) for _, x in pairs]]
    named, pays = recipe.train.precision, recipe.model.bfloat16_pays_on_cpu()
    with computing_in(choose_precision(named, CPU, pays)):
        model = build_model(recipe.model, size, len(examples.class_names))
    optimizer = keras.optimizers.get(recipe.train.optimizer.name)
    optimizer.learning_rate = recipe.train.schedule.peak / 10
    model.compile(
        optimizer,
        "categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    steps = len(images) // batch
    times: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            times.append(time.perf_counter())

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            times[-1] = time.perf_counter() - times[-1]

    data = tf.data.Dataset.from_tensor_slices((images, targets)).shuffle(len(images)).repeat()
    data = data.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    model.fit(
        data,
        steps_per_epoch=steps,
        epochs=recipe.train.epochs,
        callbacks=[Clock()],
        verbose=0,
    )
    return statistics.median(steps * batch / seconds for seconds in times[1:])


@main.command("input")
@_photos_options
@click.option("--image-size", default=192, show_default=True, help="Side of the stored images.")
@click.option("--rounds", default=3, show_default=True, help="Each way is timed so many times.")
def input_(
    photos: PhotosConfig,
    assignments: tuple[str, ...],
    image_size: int,
    rounds: int,
) -> None:
    """Our input pipeline against the lab's on the same shards; flip and saturation in both."""
    import_tensorflow_quietly()
    from components.common.dataset import load_dataset

    flip_and_saturation = (
        "{flip: true, saturation: [0, 2], brightness: 0, contrast: 0, crop_area: 1}"
    )
    changes = (
        f"ingest.image_size={image_size}",
        f"train.policy={flip_and_saturation}",
        "train.crop_size=0",
        "model.test_size=0",
    )
    loaded = load_recipe("squeezenet", (*changes, *assignments))
    _show_machine()
    with tempfile.TemporaryDirectory() as scratch:
        _, augmented = _prepare(Path(scratch), loaded, photos)
        dataset = load_dataset(augmented)
        ways: dict[str, Callable[[], Any]] = {
            "ours, before the model augments": lambda: _our_batches(dataset, loaded),
            "ours, and what the model does to them": lambda: _augmented_batches(dataset, loaded),
            "the lab's: decode, float, every epoch": lambda: _lab_batches(dataset),
            "decoding alone": lambda: _decoded_batches(dataset),
        }
        speeds = {
            name: [_read(way(), dataset) for _ in range(rounds)] for name, way in ways.items()
        }
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    for name, speed in medians.items():
        _show(name, f"{speed:,.0f} images/s")
    ours, augmented_too, labs, _ = medians.values()
    _show("ratio to the lab's", f"{ours / labs:.1f}, and {augmented_too / labs:.1f} augmented")


def _read(batches: Any, dataset: Any) -> float:
    """Images per second, after an epoch that fills the cache and the buffers."""
    iterator = iter(batches)
    for _ in range(dataset.counts["train"] // _BATCH):
        next(iterator)
    images, seconds, began = 0, 0.0, time.perf_counter()
    while seconds < _SECONDS:
        next(iterator)
        images, seconds = images + _BATCH, time.perf_counter() - began
    return images / seconds


def _our_batches(dataset: Any, recipe: Recipe) -> Any:
    from components.train_model.input_pipeline import train_batches

    return train_batches(
        dataset,
        dataclasses.replace(recipe.train, global_batch_size=_BATCH, batch_per_replica=0),
    )


def _augmented_batches(dataset: Any, recipe: Recipe) -> Any:
    import tensorflow as tf

    from components.common import augmentation

    policy = recipe.train.policy
    assert policy is not None
    augment = tf.function(lambda images, draws: augmentation.augment(images, draws, policy))
    for (images, draws), targets in _our_batches(dataset, recipe):
        yield augment(images, draws[:, : augmentation.DRAWS]), targets


def _lab_batches(dataset: Any) -> Any:
    """The notebook's pipeline: read, decode and scale in every epoch, then flip and saturate."""
    import tensorflow as tf

    def parse(record: Any) -> Any:
        features = {
            "image": tf.io.FixedLenFeature([], tf.string),
            "class": tf.io.FixedLenFeature([], tf.int64),
        }
        example = tf.io.parse_single_example(record, features)
        image = tf.cast(tf.image.decode_jpeg(example["image"], channels=3), tf.float32) / 255.0
        image = tf.reshape(image, [dataset.image_size, dataset.image_size, 3])
        return image, tf.one_hot(example["class"], len(dataset.class_names))

    def augment(image: Any, target: Any) -> Any:
        image = tf.image.random_flip_left_right(image)
        return tf.image.random_saturation(image, 0, 2), target

    options = tf.data.Options()
    options.deterministic = False
    paths = [str(path) for path in dataset.shards("train")]
    records = tf.data.TFRecordDataset(paths, num_parallel_reads=16).with_options(options)
    examples = records.map(parse, num_parallel_calls=16).map(augment, num_parallel_calls=16)
    return examples.repeat().shuffle(2048).batch(_BATCH).prefetch(tf.data.AUTOTUNE)


def _decoded_batches(dataset: Any) -> Any:
    import tensorflow as tf

    from components.common.examples import parse_example

    paths = [str(path) for path in dataset.shards("train")]
    examples = tf.data.TFRecordDataset(paths).map(
        lambda record: parse_example(record, dataset.image_size),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return examples.repeat().batch(_BATCH).prefetch(tf.data.AUTOTUNE)


@main.command()
@_recipe_option
@_photos_options
@click.option(
    "--epochs", default=2, show_default=True, help="Epochs to measure of each phase, at most."
)
def epoch(
    photos: PhotosConfig,
    recipe: str,
    assignments: tuple[str, ...],
    epochs: int,
) -> None:
    """What an epoch of a recipe takes, and from that its whole training."""
    import_tensorflow_quietly()
    whole = load_recipe(recipe, assignments)
    _show_machine()
    with tempfile.TemporaryDirectory() as scratch:
        paths = _prepare(Path(scratch), whole, photos)
        train = _shorten(whole.train, epochs)
        result = _train(paths, dataclasses.replace(whole, train=train), Path(scratch, "trained"))
    history = result["history"]
    speed = statistics.median(one["images_per_second"] for one in _later(history))
    _show("epochs measured", ", ".join(f"{one['seconds']:.1f} s" for one in history))
    _show("throughput", f"{speed:.1f} images/s, {result['precision']}")
    seconds, done = 0.0, 0
    for measured, all_of_them in zip(_phases(train), _phases(whole.train), strict=True):
        of_phase = [one["seconds"] for one in history[done : done + measured]]
        seconds += of_phase[0] + (all_of_them - 1) * statistics.median(_later(of_phase))
        done += measured
    _show(f"all {whole.train.total_epochs} epochs, extrapolated", f"{seconds:.0f} s")


def _later(epochs: list[Any]) -> list[Any]:
    """Without the first epoch, which makes the graph and decodes; that one where it is alone."""
    return epochs[1:] or epochs


def _phases(train: TrainConfig) -> list[int]:
    """Epochs of each phase."""
    phases = (train.head, *train.after_head().values())
    return [phase.epochs for phase in phases if phase]


def _shorten(train: TrainConfig, epochs: int) -> TrainConfig:
    """The same training with at most so many epochs in each of its phases."""
    head, resizing, refine = train.head, train.progressive_resizing, train.refine
    # Smaller crops at first make two phases of the epochs of `train`.
    phases = 2 if resizing and resizing.epochs_of(train.epochs) else 1
    return dataclasses.replace(
        train,
        epochs=min(phases * epochs, train.epochs),
        progressive_resizing=resizing and dataclasses.replace(resizing, share=(phases - 1) / 2),
        head=head and dataclasses.replace(head, epochs=min(epochs, head.epochs)),
        refine=refine and dataclasses.replace(refine, epochs=min(epochs, refine.epochs)),
        # Among so few, one epoch in ten that takes longer cannot be told from any other.
        validation_freq=1,
    )


@main.command()
@_recipe_option
@_photos_options
@click.option("--rounds", default=3, show_default=True, help="Each way is timed so many times.")
def onednn(
    photos: PhotosConfig,
    recipe: str,
    assignments: tuple[str, ...],
    rounds: int,
) -> None:
    """CPU time of an epoch of each phase with and without oneDNN, start of the process included."""
    _show_machine()
    ways = {"with oneDNN": "1", "without": "0"}
    command = [sys.executable, "-m", "benchmarks.recipes", "epoch", "--epochs", "1"]
    command += ["--photos", photos.images, "--recipe", recipe]
    command += ["--manifest", photos.manifest, "--group-column", photos.group_column]
    command += [f"--set={assignment}" for assignment in assignments]
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, use in ways.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(  # noqa: S603
                command,
                env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": use},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
            spent[way].append(user + system)
            _show(way, f"{user:.0f} s of computing, {system:.0f} s of the system")
    used, without = (statistics.median(found) for found in spent.values())
    _show("ratio", f"{used / without:.2f}")


if __name__ == "__main__":
    main()
