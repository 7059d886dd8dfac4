"""Exports a model as a SavedModel and in other formats, checks each, and writes its card."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from components.common import image_ops
from components.common.config import to_json
from components.common.dataset import Dataset, load_dataset
from components.common.errors import DataError, FlowersError
from components.common.evaluation import Evaluation, load_evaluation
from components.common.examples import parse_features
from components.common.extras import require_onnx
from components.common.grad_cam import make_explain
from components.common.lineage import saved_model_digest
from components.common.model_files import ModelMetadata, load_metadata, model_digest
from components.common.models import load_model
from components.common.outputs import staged
from components.common.progress import progress, say
from components.common.tfrecords import read_shard
from components.common.verdict import Verdict, require_blessing
from components.export_model.card import make_card, to_markdown
from components.export_model.checks import FormatCheck, Tally, answers
from components.export_model.config import STEP, ExportConfig, Origin
from components.export_model.formats import (
    Written,
    copy_keras,
    write_litert,
    write_onnx,
)
from components.export_model.photos import find_rights
from components.export_model.report import write_report

# TensorFlow keeps this folder beside a SavedModel and gives it no meaning of its own.
EXTRA = "assets.extra"
METADATA_FILE = Path(EXTRA, "flowers.json")
CARD_FILES = ("model_card.json", "model_card.md")
_BATCH = 64


class Outputs(NamedTuple):
    """What an export makes.

    Attributes:
        saved_model: Folder; see `export` for its signatures.
        exports: Folder of the other formats, the model card and `exports.json`.
        report: HTML page.
    """

    saved_model: Path
    exports: Path
    report: Path


def export(
    examples: Path,
    model: Path,
    evaluation: Path,
    verdict: Path,
    outputs: Outputs,
    config: ExportConfig | None = None,
    origin: Origin | None = None,
) -> list[FormatCheck]:
    """Writes the SavedModel once it is shown to say what the evaluated model says.

    Signatures of the SavedModel:
        `serving_default`: `image_bytes` `tf.string` [batch], JPEG or another format TensorFlow
            decodes, any size, to `probabilities` `float32` [batch, classes], `class_names`
            `tf.string` [batch, classes], and `label` `tf.string` [batch], the most probable class.
        `classify`: `images` `uint8` [batch, side, side, 3] to `probabilities`, for a server that
            decodes by itself.
        `explain`: `images` to `probabilities` and `heat_map` `float32` [batch, height, width], 0 to
            1 (Grad-CAM); absent where the net has no feature map.

    Args:
        examples: Data set with the test split that was evaluated on.
        model: Model folder of `train_model`.
        evaluation: JSON file of `evaluate_model` for this model and this data set.
        verdict: JSON file of `gate_model` for this evaluation.
        outputs: What to make.
        config: Which formats, and what the card says.
        origin: Where the model comes from, for the card.

    Returns:
        What was found out about each format.

    Raises:
        ConfigError: A format needs a package that is absent.
        DataError: The evaluation is of another model or data set, the verdict of another
            evaluation, an input is damaged, or the model does not have so many right.
        GateClosedError: The gate is closed.
        FlowersError: The exported model disagrees with the evaluated one on a test image.
    """
    config, origin = config or ExportConfig(), origin or Origin()
    if config.onnx:
        require_onnx()
    dataset = load_dataset(examples)
    scores = load_evaluation(evaluation)
    decision = require_blessing(verdict, evaluation)
    _check_origin(dataset, model, scores)
    net, metadata = load_model(model), load_metadata(model)
    rights = find_rights(origin.images, origin.manifest, config.licence)
    with staged(outputs.report, outputs.exports, outputs.saved_model) as (report, folder, saved):
        folder.mkdir(exist_ok=True)
        _write(net, metadata, saved)
        files = [copy_keras(model, folder), *_write_others(net, dataset, folder, config)]
        checks = _compare(net, saved, files, dataset)
        _check_counts(checks[0], scores)
        card = make_card(metadata, dataset, scores, checks, rights, config, origin, model)
        _write_card(card, rights.licence_text, [folder, saved / EXTRA])
        _write_metadata(metadata, scores, decision, saved)
        listed = to_json([dataclasses.asdict(check) for check in checks])
        (folder / "exports.json").write_text(listed, encoding="utf-8")
        write_report(checks, to_markdown(card), report)
    say(STEP, f"exported; top-1 is the same as evaluated on all {checks[0].examples} test images")
    for check in checks:
        if check.flagged:
            lost = -100 * check.accuracy_difference
            say(STEP, f"{check.name} loses {lost:.1f} points of accuracy: do not ship {check.file}")
    return checks


def _check_origin(dataset: Dataset, model: Path, scores: Evaluation) -> None:
    """Only what was evaluated may leave."""
    pairs = {
        "model": (scores.model_digest, model_digest(model)),
        "data set": (scores.data_fingerprint, dataset.fingerprint),
    }
    for name, (expected, received) in pairs.items():
        if expected != received:
            raise DataError(
                f"the evaluation is of another {name}: expected digest {expected[:12]}, received "
                f"{received[:12]}; evaluate this {name} first"
            )


def _check_counts(check: FormatCheck, scores: Evaluation) -> None:
    """What the evaluation says must be what is counted here."""
    counted = (round(check.accuracy * check.examples), check.examples)
    if counted != (scores.correct, scores.examples):
        raise DataError(
            f"the evaluation says that {scores.correct} of {scores.examples} test images are "
            f"right, and {counted[0]} of {counted[1]} are: it was changed, so evaluate the model "
            "anew"
        )


def _write(net: keras.Model, metadata: ModelMetadata, folder: Path) -> None:
    names = tf.constant(metadata.class_names)
    side = metadata.image_size
    images_spec = tf.TensorSpec([None, side, side, 3], tf.uint8, name="images")

    def serve(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(
            lambda encoded: _preprocess(encoded, side, metadata.resize),
            image_bytes,
            fn_output_signature=tf.TensorSpec([side, side, 3], tf.uint8),
        )
        probabilities = net(images, training=False)
        return {
            "probabilities": probabilities,
            "class_names": tf.tile(names[tf.newaxis], [tf.shape(probabilities)[0], 1]),
            "label": tf.gather(names, tf.argmax(probabilities, axis=1)),
        }

    archive = keras.export.ExportArchive()
    archive.track(net)
    archive.add_endpoint(
        "serving_default", serve, [tf.TensorSpec([None], tf.string, name="image_bytes")]
    )
    archive.add_endpoint(
        "classify", lambda images: {"probabilities": net(images, training=False)}, [images_spec]
    )
    explain = make_explain(net)
    if explain:
        keys = ("probabilities", "heat_map")
        archive.add_endpoint(
            "explain", lambda images: dict(zip(keys, explain(images), strict=True)), [images_spec]
        )
    archive.write_out(str(folder), verbose=False)
    (folder / EXTRA).mkdir()


def _preprocess(encoded: tf.Tensor, image_size: int, resize: str) -> tf.Tensor:
    """One photo as it is sent -> `uint8` [image_size, image_size, 3], as ingestion does it.

    Colour profiles, which TensorFlow does not read, are left out.
    """
    return image_ops.to_square(image_ops.decode_image(encoded), image_size, resize)


def _write_others(
    net: keras.Model, dataset: Dataset, folder: Path, config: ExportConfig
) -> Iterator[Written]:
    if config.litert:
        yield from write_litert(net, folder, _train_photos(dataset, config.calibration_photos))
    if config.onnx:
        yield write_onnx(net, folder)


def _train_photos(dataset: Dataset, count: int) -> list[np.ndarray]:
    """Photos from all over the train split, `uint8` [side, side, 3]."""
    step = max(1, dataset.counts["train"] // count)
    payloads = itertools.islice(_payloads(dataset, "train"), 0, step * count, step)
    return [image_ops.decode_jpeg(parse_features(payload)[0]).numpy() for payload in payloads]


def _payloads(dataset: Dataset, split: str) -> Iterator[bytes]:
    for shard in dataset.shards(split):
        yield from read_shard(shard)


def _write_metadata(
    metadata: ModelMetadata, scores: Evaluation, decision: Verdict, saved_model: Path
) -> None:
    content: dict[str, Any] = {
        "class_names": metadata.class_names,
        "image_size": metadata.image_size,
        "resize": metadata.resize,
        "architecture": metadata.architecture,
        "parameters": metadata.parameters,
        "data_fingerprint": metadata.data_fingerprint,
        "model_digest": scores.model_digest,
        "accuracy": scores.accuracy,
        "accuracy_interval": [scores.accuracy_low, scores.accuracy_high],
        "test_examples": scores.examples,
        "evaluation_digest": decision.evaluation_digest,
        "threshold": decision.threshold,
        "files_digest": saved_model_digest(saved_model),
    }
    path = saved_model / METADATA_FILE
    path.write_text(to_json(content), encoding="utf-8")


def _write_card(card: dict[str, Any], licence_text: str, folders: Sequence[Path]) -> None:
    texts = dict(zip(CARD_FILES, (to_json(card), to_markdown(card)), strict=True))
    if licence_text:
        texts["PHOTOS_LICENSE.txt"] = licence_text
    for folder in folders:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")


def _not_asked(_images: np.ndarray) -> np.ndarray:
    raise AssertionError("the SavedModel is asked about JPEG bytes")


def _compare(
    net: keras.Model, saved_model: Path, files: Sequence[Written], dataset: Dataset
) -> list[FormatCheck]:
    """Asks the evaluated model and every export about every test image.

    Raises:
        FlowersError: The SavedModel gives another most probable class for one of them.
    """
    serve = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    first = Tally(Written("SavedModel", saved_model, _not_asked, file="saved_model"))
    tallies = [Tally(one) for one in files]
    payloads = _payloads(dataset, "test")
    different: list[int] = []
    done = 0
    with progress(STEP, "examples", dataset.counts["test"]) as shown:
        while batch := list(itertools.islice(payloads, _BATCH)):
            parsed = [parse_features(payload) for payload in batch]
            jpegs, labels = tf.stack([jpeg for jpeg, _ in parsed]), np.array([y for _, y in parsed])
            images = np.stack([image_ops.decode_jpeg(jpeg).numpy() for jpeg in jpegs])
            expected = net.predict_on_batch(images)
            received = serve(image_bytes=jpegs)["probabilities"].numpy()
            first.add(expected, received, labels)
            disagree = answers(expected) != answers(received)
            different += [done + int(index) for index in np.flatnonzero(disagree)]
            for tally in tallies:
                tally.add(expected, tally.written.predict(images), labels)
            done += len(batch)
            shown.advance(len(batch))
    if different:
        raise FlowersError(
            f"the exported model disagrees with the evaluated one on {len(different)} of "
            f"{done} test images, the first is number {different[0]}; nothing is exported"
        )
    return [tally.check() for tally in [first, *tallies]]
