"""The model card: what a model is, how good it is, and what it is not for.

Source: Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from components.common.config import read_mapping
from components.common.dataset import Dataset
from components.common.errors import UserError
from components.common.evaluation import Evaluation, class_intervals, percent
from components.common.model_files import ModelMetadata
from components.common.resizing import STRETCH
from components.export_model.checks import FormatCheck
from components.export_model.config import ExportConfig, Origin
from components.export_model.photos import PhotoRights

_AUTHORS_NAMED = 20
# Below this number of test photos an interval is so wide that it says little.
_FEW = 30
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("components.export_model"),
    # Markdown: what is quoted is escaped by a filter of its own.
    autoescape=False,  # noqa: S701
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def make_card(
    metadata: ModelMetadata,
    dataset: Dataset,
    scores: Evaluation,
    checks: Sequence[FormatCheck],
    rights: PhotoRights,
    config: ExportConfig,
    origin: Origin,
    model: Path,
) -> dict[str, Any]:
    """The card as plain data.

    Args:
        metadata: What the model is.
        dataset: What it was trained and tested on.
        scores: How it did.
        checks: The formats it leaves in.
        rights: Of the photos.
        config: What the user says about it.
        origin: Where it comes from.
        model: Model folder, whose history tells which epoch was kept.
    """
    names = list(metadata.class_names)
    where = "" if metadata.resize == STRETCH else "the middle of "
    return {
        "name": f"{metadata.architecture}, {len(names)} classes",
        "model": {
            "architecture": metadata.architecture,
            "parameters": metadata.parameters,
            "image_size": metadata.image_size,
            "resize": metadata.resize,
            "class_names": names,
            "sha256": metadata.digest,
        },
        "intended_use": config.intended_use or _intended_use(names, where),
        "not_for": _not_for(names, where),
        "data": {
            "photos": origin.images,
            "fingerprint": dataset.fingerprint,
            "counts": dataset.counts,
            "licence": rights.licence,
            "photographers": len(rights.authors),
            "credits": rights.authors,
        },
        "recipe": {"model": origin.model_config, "train": origin.train_config},
        "training": _training(model),
        "metrics": {
            "split": "test",
            "examples": scores.examples,
            "accuracy": scores.accuracy,
            "accuracy_interval": [scores.accuracy_low, scores.accuracy_high],
            "loss": scores.loss,
            "calibration_error": scores.calibration_error,
            "classes": _classes(scores),
        },
        "limits": _limits(scores, checks),
        "formats": [_format(check) for check in checks],
    }


def to_markdown(card: dict[str, Any]) -> str:
    """The card for people."""
    _TEMPLATES.filters |= {"percent": percent, "plain": _plain}
    template = _TEMPLATES.get_template("model_card.md.jinja")
    credits_ = list(card["data"]["credits"].items())
    named, others = credits_[:_AUTHORS_NAMED], credits_[_AUTHORS_NAMED:]
    return template.render(card=card, named=named, others=len(others))


def _plain(text: object) -> str:
    """Text that Markdown leaves as it is."""
    marks = "\\`*_{}[]<>#|"
    return "".join(f"\\{one}" if one in marks else one for one in " ".join(str(text).split()))


def _intended_use(names: list[str], where: str) -> str:
    return (
        f"Tells photos of {', '.join(names[:-1])} and {names[-1]} from each other, one subject in "
        f"{where}each photo, taken under conditions like those of the training photos."
        if len(names) <= 20
        else f"Tells photos of {len(names)} classes from each other."
    )


def _not_for(names: list[str], where: str) -> list[str]:
    return [
        f"Photos of anything else: the answer is always one of the {len(names)} classes, and a "
        "high probability does not say that it is one of them.",
        "Decisions about health or safety, such as whether a plant may be eaten.",
        f"Photos with several subjects: one answer is given for {where}the photo.",
    ]


def _training(model: Path) -> dict[str, Any]:
    """Figures of the epoch kept, as far as the training wrote them down."""
    try:
        history = read_mapping(str(model / "history.json"))
    except UserError:
        return {}
    return {
        "epochs": len(history.get("history", [])),
        "kept": history.get("kept", {}),
        "precision": history.get("precision", ""),
        "first_weights": history.get("weights", ""),
    }


def _classes(scores: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "examples": one.examples,
            "precision": one.precision,
            "precision_interval": ends.precision,
            "recall": one.recall,
            "recall_interval": ends.recall,
        }
        for one, ends in zip(scores.classes, class_intervals(scores), strict=True)
    ]


def _limits(scores: Evaluation, checks: Sequence[FormatCheck]) -> list[str]:
    limits = [*_weak_classes(scores), *_confusions(scores)]
    few = [one.name for one in scores.classes if one.examples < _FEW]
    if few:
        limits.append(f"Fewer than {_FEW} test photos, so little is known: {', '.join(few)}.")
    limits += [
        f"{check.name} loses {-100 * check.accuracy_difference:.1f} points of accuracy."
        for check in checks
        if check.flagged
    ]
    return limits


def _weak_classes(scores: Evaluation) -> list[str]:
    intervals = class_intervals(scores)
    return [
        f"{one.name} is recognised less often than the mean: recall {percent(one.recall)}, "
        f"at most {percent(ends.recall[1])} within its 95 % interval."
        for one, ends in zip(scores.classes, intervals, strict=True)
        if one.recall is not None and ends.recall and ends.recall[1] < scores.accuracy
    ]


def _confusions(scores: Evaluation, most: int = 3) -> list[str]:
    names = scores.class_names
    pairs = sorted(
        (
            (-count, names[i], names[j], sum(row))
            for i, row in enumerate(scores.confusion)
            for j, count in enumerate(row)
            if i != j and count
        ),
    )
    return [
        f"{true} is taken for {taken} in {-count} of {total} test photos."
        for count, true, taken, total in pairs[:most]
    ]


def _format(check: FormatCheck) -> dict[str, Any]:
    return {
        "name": check.name,
        "file": check.file,
        "bytes": check.size,
        "sha256": check.sha256,
        "accuracy": check.accuracy,
        "accuracy_difference": check.accuracy_difference,
        "flagged": check.flagged,
    }
