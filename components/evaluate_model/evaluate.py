"""Scores a model on the test split, every example counted once."""

import dataclasses
import hashlib
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from components.common import image_ops
from components.common.config import to_json
from components.common.dataset import Dataset, load_dataset
from components.common.errors import DataError, FlowersError
from components.common.evaluation import ClassScore, Evaluation, percent, wilson_interval
from components.common.examples import parse_features
from components.common.models import ModelMetadata, load_metadata, load_model, model_digest
from components.common.outputs import staged
from components.common.progress import progress, say
from components.common.tfrecords import read_shard
from components.evaluate_model.report import write_report

STEP = "evaluate-model"
_BATCH = 64


class Scored(NamedTuple):
    """A test example with what the model said.

    Attributes:
        jpeg: The stored image.
        label: The true class, as an index.
        probabilities: `float32` [classes].
    """

    jpeg: bytes
    label: int
    probabilities: np.ndarray


def evaluate(examples: Path, model: Path, evaluation: Path, report: Path) -> Evaluation:
    """Scores a model and writes the figures and a page about them.

    Args:
        examples: Data set with the test and the train split.
        model: Model folder of `train_model`.
        evaluation: JSON file to make.
        report: HTML page to make.

    Returns:
        The evaluation.

    Raises:
        DataError: An input is damaged, or the model knows other classes or another image size.
        FlowersError: The model gives no finite probabilities.
    """
    dataset = load_dataset(examples)
    metadata = load_metadata(model)
    _check(dataset, metadata)
    with staged(report, evaluation) as (staged_report, staged_evaluation):
        scored = _score(dataset, load_model(model))
        result = dataclasses.replace(
            _count(scored, dataset.class_names),
            model_class_names=metadata.class_names,
            train_overlap=_train_overlap(dataset, scored),
            data_fingerprint=dataset.fingerprint,
            model_data_fingerprint=metadata.data_fingerprint,
            model_digest=model_digest(model),
        )
        staged_evaluation.write_text(to_json(dataclasses.asdict(result)), encoding="utf-8")
        mistakes = _worst_mistakes(scored)
        write_report(result, mistakes, staged_report)
    say(
        STEP,
        f"test accuracy {percent(result.accuracy)} ({result.correct} of {result.examples}, 95 % "
        f"interval {percent(result.accuracy_low)} to {percent(result.accuracy_high)})",
    )
    return result


def _check(dataset: Dataset, metadata: ModelMetadata) -> None:
    for name in ("class_names", "image_size"):
        expected, received = getattr(metadata, name), getattr(dataset, name)
        if expected != received:
            raise DataError(
                f"{name} of the examples: expected {expected} as the model was trained on, "
                f"received {received}; evaluate on the data set of the training"
            )


def _score(dataset: Dataset, model: keras.Model) -> list[Scored]:
    """Runs the model over the test split; the last, smaller batch is filled up and cut off.

    Filling keeps one static shape, so the graph is traced once.
    """
    payloads = [payload for shard in dataset.shards("test") for payload in read_shard(shard)]
    scored: list[Scored] = []
    with progress(STEP, "examples", len(payloads)) as shown:
        for start in range(0, len(payloads), _BATCH):
            parsed = [parse_features(payload) for payload in payloads[start : start + _BATCH]]
            images = tf.stack([image_ops.decode_jpeg(jpeg) for jpeg, _ in parsed])
            missing = _BATCH - len(parsed)
            images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
            probabilities = model.predict_on_batch(images)[: len(parsed)]
            if not np.isfinite(probabilities).all():
                raise FlowersError(
                    "the model gives probabilities that are not finite: expected numbers from 0 "
                    "to 1; train it anew with a lower train.schedule.peak"
                )
            scored += [
                Scored(jpeg.numpy(), int(label), row)
                for (jpeg, label), row in zip(parsed, probabilities, strict=True)
            ]
            shown.advance(len(parsed))
    return scored


def _count(scored: list[Scored], class_names: tuple[str, ...]) -> Evaluation:
    """Turns scored examples into figures; where the data come from is filled in by the caller."""
    if not scored:
        raise DataError("test split: expected at least one example, found none")
    classes = len(class_names)
    confusion = np.zeros((classes, classes), np.int64)
    for example in scored:
        confusion[example.label, int(np.argmax(example.probabilities))] += 1
    correct = int(np.trace(confusion))
    low, high = wilson_interval(correct, len(scored))
    return Evaluation(
        examples=len(scored),
        correct=correct,
        accuracy=correct / len(scored),
        accuracy_low=low,
        accuracy_high=high,
        loss=_loss(scored),
        class_names=class_names,
        model_class_names=(),
        classes=tuple(_class_score(confusion, i, name) for i, name in enumerate(class_names)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        train_overlap=0,
        data_fingerprint="",
        model_data_fingerprint="",
        model_digest="",
    )


def _loss(scored: list[Scored]) -> float:
    """Mean cross-entropy, bounded as in Keras so that a certain mistake stays a number."""
    likelihoods = np.array([example.probabilities[example.label] for example in scored])
    return float(-np.log(np.maximum(likelihoods, keras.config.epsilon())).mean())


def _class_score(confusion: np.ndarray, index: int, name: str) -> ClassScore:
    hits = int(confusion[index, index])
    actual, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
    return ClassScore(
        name=name,
        examples=actual,
        precision=hits / predicted if predicted else None,
        recall=hits / actual if actual else None,
    )


def _train_overlap(dataset: Dataset, scored: list[Scored]) -> int:
    """Counts the test images that are in the train split too, byte for byte."""
    train = {
        hashlib.sha256(parse_features(payload)[0].numpy()).digest()
        for shard in dataset.shards("train")
        for payload in read_shard(shard)
    }
    return sum(hashlib.sha256(example.jpeg).digest() in train for example in scored)


def _worst_mistakes(scored: list[Scored], count: int = 24) -> list[Scored]:
    """The mistakes that the model was most sure of."""
    wrong = [one for one in scored if int(np.argmax(one.probabilities)) != one.label]
    return sorted(wrong, key=lambda one: -float(one.probabilities.max()))[:count]
