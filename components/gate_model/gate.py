"""The gate: may this model be exported? In doubt, no."""

import dataclasses
import math
from pathlib import Path
from typing import NoReturn

from components.common.config import to_json
from components.common.errors import GateClosedError
from components.common.evaluation import Evaluation, load_evaluation, percent
from components.common.files import file_digest
from components.common.model_files import ModelMetadata, load_metadata, model_digest
from components.common.outputs import staged
from components.common.progress import say
from components.common.verdict import Verdict, load_verdict
from components.gate_model.config import EXPECTED, is_threshold

STEP = "gate-model"


def decide(evaluation: Evaluation, threshold: float | None) -> Verdict:
    """Decides whether a model may be exported.

    Fails closed: whatever is missing, is not a number or does not fit together refuses.

    Args:
        evaluation: How the model did on the test split.
        threshold: Smallest top-1 accuracy, above 0 and at most 1; None when nobody set it.

    Returns:
        The verdict with its reason.
    """
    objection = _threshold_objection(threshold) or _evaluation_objection(evaluation)
    accuracy = evaluation.accuracy if math.isfinite(evaluation.accuracy) else None
    usable = threshold if threshold is not None and math.isfinite(threshold) else None
    if objection or usable is None:
        return Verdict(False, objection, usable, accuracy)
    blessed = evaluation.accuracy >= usable
    # Rounded up, as the accuracy is rounded down: 79.996 % is never shown as 80 % passed.
    asked = f"{math.ceil(usable * 1e4 - 1e-6) / 100:.2f} %"
    reason = (
        f"test accuracy {percent(evaluation.accuracy)} is "
        f"{'at or above' if blessed else 'below'} the threshold of {asked} "
        f"({evaluation.correct} of {evaluation.examples} correct, 95 % interval "
        f"{percent(evaluation.accuracy_low)} to {percent(evaluation.accuracy_high)})"
    )
    return Verdict(blessed, reason, usable, accuracy)


def _threshold_objection(threshold: float | None) -> str:
    if threshold is None:
        return f"no threshold is set: {EXPECTED}"
    if not is_threshold(threshold):
        return f"the threshold is {threshold}: {EXPECTED}"
    return ""


def _evaluation_objection(evaluation: Evaluation) -> str:
    """Why an evaluation cannot be relied on, or nothing."""
    if evaluation.examples < 1:
        return "the evaluation counts no examples"
    figures = ("accuracy", "accuracy_low", "accuracy_high", "loss")
    infinite = [name for name in figures if not math.isfinite(getattr(evaluation, name))]
    if infinite:
        return f"the evaluation has no finite number for {', '.join(infinite)}"
    if evaluation.class_names != evaluation.model_class_names:
        return (
            f"the classes do not match: the test split has {list(evaluation.class_names)}, "
            f"the model {list(evaluation.model_class_names)}"
        )
    if evaluation.data_fingerprint != evaluation.model_data_fingerprint:
        return (
            "the model was trained on another data set "
            f"({evaluation.model_data_fingerprint[:12] or 'unknown'}) than it was tested on "
            f"({evaluation.data_fingerprint[:12] or 'unknown'}), and may have seen the test images"
        )
    if evaluation.train_overlap:
        return f"{evaluation.train_overlap} test images are in the train split too"
    return _inconsistency(evaluation)


def _inconsistency(evaluation: Evaluation) -> str:
    """Whether the figures contradict each other, as they do in a file that was edited."""
    classes = len(evaluation.class_names)
    confusion = evaluation.confusion
    if len(confusion) != classes or any(len(row) != classes for row in confusion):
        return "the confusion matrix has another number of classes than the test split"
    if any(count < 0 for row in confusion for count in row):
        return "the confusion matrix has negative counts"
    counted = sum(map(sum, confusion))
    correct = sum(confusion[index][index] for index in range(classes))
    if (counted, correct) != (evaluation.examples, evaluation.correct):
        return "the confusion matrix does not add up to the examples and correct ones counted"
    if not math.isclose(evaluation.accuracy, correct / counted, abs_tol=1e-9):
        return "the accuracy is not the share of correct examples"
    empty = [
        name for name, row in zip(evaluation.class_names, confusion, strict=True) if not sum(row)
    ]
    if empty:
        return f"the test split has no example of {', '.join(empty)}"
    return ""


def chain_objection(evaluation: Evaluation, model: ModelMetadata) -> str:
    """Why an evaluation is not of a model, or nothing.

    Args:
        evaluation: How a model did.
        model: What describes the model that asks to pass.
    """
    pairs = {
        "model": (evaluation.model_digest, model.digest),
        "training": (evaluation.model_data_fingerprint, model.data_fingerprint),
    }
    for name, (expected, received) in pairs.items():
        if expected != received:
            return (
                f"the evaluation is of another {name} ({expected[:12] or 'unknown'}) than the "
                f"model that is to pass ({received[:12] or 'unknown'})"
            )
    if evaluation.model_class_names != model.class_names:
        return (
            f"the evaluation is of a model with the classes {list(evaluation.model_class_names)}, "
            f"the one that is to pass has {list(model.class_names)}"
        )
    return ""


def gate(model: Path, evaluation: Path, threshold: float | None, verdict: Path) -> Verdict:
    """Decides on a model by its evaluation and writes the verdict.

    Args:
        model: Model folder of `train_model`.
        evaluation: JSON file of `evaluate_model`.
        threshold: Smallest top-1 accuracy; None when nobody set it.
        verdict: JSON file to make.

    Raises:
        DataError: The model or the evaluation is absent or damaged.
    """
    scores = load_evaluation(evaluation)
    digest = model_digest(model)
    decision = decide(scores, threshold)
    objection = chain_objection(scores, load_metadata(model))
    if objection:
        decision = dataclasses.replace(decision, blessed=False, reason=objection)
    decision = dataclasses.replace(
        decision, model_digest=digest, evaluation_digest=file_digest(evaluation)
    )
    with staged(verdict) as (staged_verdict,):
        staged_verdict.write_text(to_json(dataclasses.asdict(decision)), encoding="utf-8")
    say(STEP, f"gate {'open' if decision.blessed else 'closed'}: {decision.reason}")
    return decision


def refuse(verdict: Path) -> NoReturn:
    """Ends a run whose gate is closed.

    Args:
        verdict: JSON file of `gate`.

    Raises:
        GateClosedError: Always, with the reason of the verdict.
    """
    raise GateClosedError(f"gate closed: {load_verdict(verdict).reason}")
