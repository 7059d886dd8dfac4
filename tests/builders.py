"""Miniature photos, data sets, models and evaluations, as real as those of a run."""

import colorsys
import dataclasses
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from components.common.evaluation import ClassScore, Evaluation, wilson_interval
from components.common.resizing import CROP

CLASS_NAMES = ("circles", "squares", "stripes")
Stages = Sequence[Sequence[Sequence[int]]]

TINY_MODEL: dict[str, Any] = {
    "name": "squeezenet",
    "stem_filters": 8,
    "stem_stride": 2,
    "stages": [[[4, 8]], [[4, 16]]],
}
TINY_TRAIN: dict[str, Any] = {
    "epochs": 2,
    "global_batch_size": 8,
    "schedule": {"name": "one_cycle", "peak": 0.01},
}


def draw_photo(label: int, number: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Draws one photo: shape and colour tell the class, the backdrop tells photos apart.

    Args:
        label: Index of the class.
        number: Index of the photo in its class.
        size: Width and height, in pixels.
    """
    rng = np.random.default_rng([label, number])
    # Coarse noise is what a perceptual hash sees, so no two photos look alike.
    blotches = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(blotches).resize(size, Image.Resampling.BICUBIC)
    hue = (label / 3 + rng.uniform(-0.05, 0.05)) % 1
    colour = tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.9, 0.9))
    _draw_shape(ImageDraw.Draw(image), label % 3, colour, rng, size)
    return image


def _draw_shape(
    draw: ImageDraw.ImageDraw,
    shape: int,
    colour: tuple[int, ...],
    rng: np.random.Generator,
    size: tuple[int, int],
) -> None:
    width, height = size
    radius = min(size) * rng.uniform(0.2, 0.3)
    x, y = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.4, 0.6)
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == 0:
        draw.ellipse(box, fill=colour)
    elif shape == 1:
        draw.rectangle(box, fill=colour)
    else:
        for step in (-1.0, -0.25, 0.5):
            top = y + step * radius
            draw.rectangle((x - radius, top, x + radius, top + radius / 3), fill=colour)


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Encodes an image, `kind` as Pillow calls it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_photos(
    root: Path,
    per_class: int = 30,
    class_names: Sequence[str] = CLASS_NAMES,
    size: tuple[int, int] = (64, 48),
) -> Path:
    """Makes a folder with a folder of JPEG files per class and returns it."""
    for label, name in enumerate(class_names):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            photo = encode(draw_photo(label, number, size), quality=90)
            (root / name / f"{number:03d}.jpg").write_bytes(photo)
    return root


def make_jpegs(count: int, image_size: int, first: int = 0, classes: int = 3) -> list[bytes]:
    """Square JPEG images whose labels are 0, 1, 2, 0, 1, 2, ..."""
    return [
        encode(draw_photo(index % classes, index, (image_size, image_size)), quality=95)
        for index in range(first, first + count)
    ]


def make_dataset(
    path: Path,
    class_names: Sequence[str] = CLASS_NAMES,
    image_size: int = 32,
    counts: Mapping[str, int] | None = None,
    train_shards: int = 2,
    resize: str = CROP,
) -> Path:
    """Makes a data set folder as `ingest_examples` does and returns it.

    Args:
        path: Folder to make.
        class_names: Every class, in label order.
        image_size: Side of the images, in pixels.
        counts: Examples per split; no image is in two of them.
        train_shards: Shards of the train split; the others have one.
        resize: How photos became squares, as `dataset.json` says.
    """
    from components.common.dataset import Dataset, save_dataset

    counts = dict(counts or {"train": 24, "validation": 9, "test": 9})
    names = tuple(class_names)
    digests: list[str] = []
    first = 0
    for split, count in counts.items():
        payloads = list(_payloads(count, names, image_size, first))
        digests += [f"{split} {hashlib.sha256(payload).hexdigest()}" for payload in payloads]
        write_split(path / split, payloads, train_shards if split == "train" else 1)
        first += count
    fingerprint = hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
    dataset = Dataset(path, names, image_size, counts, fingerprint, resize=resize)
    save_dataset(dataset, path)
    return path


def _payloads(
    count: int, class_names: tuple[str, ...], image_size: int, first: int
) -> Iterator[bytes]:
    from components.common.examples import encode_example

    classes = len(class_names)
    for index, jpeg in enumerate(make_jpegs(count, image_size, first, classes), start=first):
        yield encode_example(jpeg, index % classes, class_names, image_size)


def write_split(folder: Path, payloads: Sequence[bytes], shards: int) -> None:
    """Writes a split, divided into parts that follow each other."""
    from components.common.tfrecords import shard_name, write_shard

    folder.mkdir(parents=True)
    size = math.ceil(len(payloads) / shards)
    for index in range(shards):
        part = payloads[index * size : (index + 1) * size]
        write_shard(folder / shard_name(folder.name, index, shards, len(part)), part)


def make_model(
    path: Path, dataset_path: Path, stages: Stages | None = None, test_size: int = 0
) -> Path:
    """Makes the folder of an untrained model for a data set and returns it.

    Args:
        path: Folder to make.
        dataset_path: Data set that gives class names and image size.
        stages: Fire modules, in place of those of `TINY_MODEL`.
        test_size: Side to which it resizes images that are not of it; 0 for that of the data set.
    """
    import keras

    from components.common.config import build
    from components.common.dataset import load_dataset
    from components.common.model_files import ModelMetadata
    from components.common.models import save_model
    from components.train_model.architectures import ModelConfig
    from components.train_model.models import build_model
    from components.train_model.models.blocks import resize_first

    dataset = load_dataset(dataset_path)
    config = build(ModelConfig, TINY_MODEL | ({"stages": stages} if stages else {}))
    keras.utils.set_random_seed(0)
    size = test_size or dataset.image_size
    model = build_model(config, size, len(dataset.class_names))
    if size != dataset.image_size:
        model = resize_first(model, size, dataset.image_size)
    metadata = ModelMetadata(
        class_names=dataset.class_names,
        image_size=dataset.image_size,
        data_fingerprint=dataset.fingerprint,
        architecture=config.name,
        parameters=model.count_params(),
        resize=dataset.resize,
    )
    path.mkdir(parents=True)
    save_model(model, metadata, path)
    return path


def bless(evaluation: Path, verdict: Path) -> Path:
    """Makes the verdict of an open gate for an evaluation file and returns it."""
    from components.common.config import to_json
    from components.common.files import file_digest
    from components.common.verdict import Verdict

    decision = Verdict(True, "of a test", 0.5, 0.5, evaluation_digest=file_digest(evaluation))
    verdict.write_text(to_json(dataclasses.asdict(decision)), encoding="utf-8")
    return verdict


def make_export(folder: Path, **config: Any) -> Path:
    """Makes a data set, an untrained model and its export in a folder; returns the SavedModel.

    Args:
        folder: One that exists.
        config: Keys of `ExportConfig`.
    """
    from components.evaluate_model.evaluate import evaluate
    from components.export_model.config import ExportConfig
    from components.export_model.export import Outputs, export

    examples = make_dataset(folder / "examples")
    model = make_model(folder / "model", examples)
    evaluation = folder / "evaluation.json"
    evaluate(examples, model, evaluation, folder / "evaluation.html")
    outputs = Outputs(folder / "saved_model", folder / "exports", folder / "export.html")
    verdict = bless(evaluation, folder / "verdict.json")
    export(examples, model, evaluation, verdict, outputs, ExportConfig(**config))
    return outputs.saved_model


def make_evaluation(**changes: Any) -> Evaluation:
    """An evaluation of three classes, 45 of 50 examples correct, some fields replaced."""
    confusion = ((15, 1, 1), (1, 15, 1), (0, 1, 15))
    return dataclasses.replace(evaluation_of(confusion, CLASS_NAMES), **changes)


def evaluation_of(
    confusion: Sequence[Sequence[int]], class_names: Sequence[str], **changes: Any
) -> Evaluation:
    """The evaluation that a confusion matrix gives, which holds one example or more."""
    examples = sum(map(sum, confusion))
    correct = sum(row[index] for index, row in enumerate(confusion))
    low, high = wilson_interval(correct, examples)
    columns = [sum(column) for column in zip(*confusion, strict=True)]
    scores = (
        ClassScore(
            name=name,
            examples=sum(row),
            precision=row[index] / columns[index] if columns[index] else None,
            recall=row[index] / sum(row) if sum(row) else None,
        )
        for index, (name, row) in enumerate(zip(class_names, confusion, strict=True))
    )
    evaluation = Evaluation(
        examples=examples,
        correct=correct,
        accuracy=correct / examples,
        accuracy_low=low,
        accuracy_high=high,
        loss=0.5,
        class_names=tuple(class_names),
        model_class_names=tuple(class_names),
        classes=tuple(scores),
        confusion=tuple(map(tuple, confusion)),
        train_overlap=0,
        data_fingerprint="d" * 64,
        model_data_fingerprint="d" * 64,
        model_digest="e" * 64,
    )
    return dataclasses.replace(evaluation, **changes)
