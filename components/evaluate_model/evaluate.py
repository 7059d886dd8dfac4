"""Scores a model on the test split, every example counted once."""

import dataclasses
import hashlib
import heapq
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from components.common import image_ops
from components.common.config import to_json
from components.common.dataset import Dataset, load_dataset
from components.common.errors import DataError, FlowersError
from components.common.evaluation import ClassScore, Evaluation, percent, wilson_interval
from components.common.examples import parse_features
from components.common.grad_cam import make_explain
from components.common.lineage import check_records
from components.common.model_files import ModelMetadata, load_metadata, model_digest
from components.common.models import load_model
from components.common.outputs import staged
from components.common.progress import progress, say
from components.common.tfrecords import read_shard
from components.evaluate_model.calibration import calibration_bins, calibration_error
from components.evaluate_model.report import Mistake, write_report

STEP = "evaluate-model"
_BATCH = 64
# Shown in the gallery of the worst, and explained.
_MISTAKES = 24
_EXPLAINED = 8


@dataclasses.dataclass
class Scores:
    """What is kept of every scored example, and the worst mistakes whole.

    Attributes:
        labels: True classes, as indices.
        predicted: Most probable classes, as indices.
        confidences: Their probabilities.
        likelihoods: Probabilities of the true classes.
        digests: SHA-256 of the images.
        worst: The mistakes that the model was most sure of, as a heap with the smallest in front.
    """

    labels: list[int] = dataclasses.field(default_factory=list)
    predicted: list[int] = dataclasses.field(default_factory=list)
    confidences: list[float] = dataclasses.field(default_factory=list)
    likelihoods: list[float] = dataclasses.field(default_factory=list)
    digests: list[bytes] = dataclasses.field(default_factory=list)
    worst: list[tuple[float, int, Mistake]] = dataclasses.field(default_factory=list)

    def add(self, jpeg: bytes, label: int, probabilities: np.ndarray) -> None:
        """Takes an example in."""
        best = int(np.argmax(probabilities))
        confidence = float(probabilities[best])
        self.labels.append(label)
        self.predicted.append(best)
        self.confidences.append(confidence)
        self.likelihoods.append(float(probabilities[label]))
        self.digests.append(hashlib.sha256(jpeg).digest())
        if best != label:
            # The number breaks ties, so that the order of the test split decides.
            entry = (confidence, -len(self.labels), Mistake(jpeg, label, probabilities))
            push = heapq.heappush if len(self.worst) < _MISTAKES else heapq.heappushpop
            push(self.worst, entry)

    def worst_mistakes(self) -> list[Mistake]:
        """The mistakes that the model was most sure of, the surest first."""
        return [mistake for _, _, mistake in sorted(self.worst, reverse=True)]


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
        DataError: An input is damaged, or the model knows other classes or other squares.
        FlowersError: The model gives no finite probabilities.
    """
    dataset = load_dataset(examples)
    metadata = load_metadata(model)
    _check(dataset, metadata)
    check_records(dataset)
    with staged(report, evaluation) as (staged_report, staged_evaluation):
        net = load_model(model)
        scores = _score(dataset, net)
        result = dataclasses.replace(
            count_scores(scores, dataset.class_names),
            model_class_names=metadata.class_names,
            train_overlap=_train_overlap(dataset, scores.digests),
            data_fingerprint=dataset.fingerprint,
            model_data_fingerprint=metadata.data_fingerprint,
            model_digest=model_digest(model),
        )
        staged_evaluation.write_text(to_json(dataclasses.asdict(result)), encoding="utf-8")
        mistakes = _explain(net, scores.worst_mistakes())
        write_report(result, mistakes, staged_report)
    say(
        STEP,
        f"test accuracy {percent(result.accuracy)} ({result.correct} of {result.examples}, 95 % "
        f"interval {percent(result.accuracy_low)} to {percent(result.accuracy_high)})",
    )
    return result


def _check(dataset: Dataset, metadata: ModelMetadata) -> None:
    for name in ("class_names", "image_size", "resize"):
        expected, received = getattr(metadata, name), getattr(dataset, name)
        if expected != received:
            raise DataError(
                f"{name} of the examples: expected {expected} as the model was trained on, "
                f"received {received}; evaluate on the data set of the training"
            )


def _score(dataset: Dataset, model: keras.Model) -> Scores:
    """Runs the model over the test split; the last, smaller batch is filled up and cut off.

    Filling keeps one static shape, so the graph is traced once.
    """
    total = dataset.counts["test"]
    scores = Scores()
    with progress(STEP, "examples", total) as shown:
        for batch in _batches(_test_payloads(dataset)):
            parsed = [parse_features(payload) for payload in batch]
            images = tf.stack([image_ops.decode_jpeg(jpeg) for jpeg, _ in parsed])
            missing = _BATCH - len(parsed)
            images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
            probabilities = model.predict_on_batch(images)[: len(parsed)]
            if not np.isfinite(probabilities).all():
                raise FlowersError(
                    "the model gives probabilities that are not finite: expected numbers from 0 "
                    "to 1; train it anew with a lower train.schedule.peak"
                )
            for (jpeg, label), row in zip(parsed, probabilities, strict=True):
                scores.add(jpeg.numpy(), int(label), row)
            shown.advance(len(parsed))
    return scores


def _test_payloads(dataset: Dataset) -> Iterator[bytes]:
    for shard in dataset.shards("test"):
        yield from read_shard(shard)


def _batches(payloads: Iterable[bytes]) -> Iterator[list[bytes]]:
    iterator = iter(payloads)
    while batch := list(itertools.islice(iterator, _BATCH)):
        yield batch


def _explain(net: keras.Model, mistakes: list[Mistake]) -> list[Mistake]:
    """Adds heat maps to the first few, where the net has what it takes."""
    explain = make_explain(net)
    first, rest = mistakes[:_EXPLAINED], mistakes[_EXPLAINED:]
    if explain is None or not first:
        return mistakes
    images = tf.stack([image_ops.decode_jpeg(mistake.jpeg) for mistake in first])
    _, heat = explain(images)
    explained = [
        mistake._replace(heat=one) for mistake, one in zip(first, heat.numpy(), strict=True)
    ]
    return explained + rest


def count_scores(scores: Scores, class_names: tuple[str, ...]) -> Evaluation:
    """Turns scored examples into figures; where the data come from is filled in by the caller."""
    examples = len(scores.labels)
    if not examples:
        raise DataError("test split: expected at least one example, found none")
    confusion = np.zeros((len(class_names), len(class_names)), np.int64)
    np.add.at(confusion, (scores.labels, scores.predicted), 1)
    correct = int(np.trace(confusion))
    low, high = wilson_interval(correct, examples)
    hits = np.array(scores.labels) == np.array(scores.predicted)
    bins = calibration_bins(np.array(scores.confidences), hits)
    return Evaluation(
        examples=examples,
        correct=correct,
        accuracy=correct / examples,
        accuracy_low=low,
        accuracy_high=high,
        loss=_loss(np.array(scores.likelihoods)),
        class_names=class_names,
        model_class_names=(),
        classes=tuple(_class_score(confusion, i, name) for i, name in enumerate(class_names)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        train_overlap=0,
        data_fingerprint="",
        model_data_fingerprint="",
        model_digest="",
        calibration=bins,
        calibration_error=calibration_error(bins),
    )


def _loss(likelihoods: np.ndarray) -> float:
    """Mean cross-entropy, bounded as in Keras so that a certain mistake stays a number."""
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


def _train_overlap(dataset: Dataset, digests: list[bytes]) -> int:
    """Counts the test images that are in the train split too, byte for byte."""
    train = {
        hashlib.sha256(parse_features(payload)[0].numpy()).digest()
        for shard in dataset.shards("train")
        for payload in read_shard(shard)
    }
    return sum(digest in train for digest in digests)
