"""What two runs of the same recipe must have in common, read from the outputs of their steps."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

# How long an epoch took is in its history, and differs.
_TIMES = ("seconds", "images_per_second")


def run_figures(run: Path) -> dict[str, Any]:
    """The figures of a run that ended, from its folder."""
    steps = run / "steps"
    return {
        "records": shard_digests(steps / "ingest-examples" / "examples"),
        "augmented": shard_digests(steps / "augment-examples" / "augmented"),
        **training_figures(steps / "train-model" / "model"),
        "evaluation": evaluation_figures(steps / "evaluate-model" / "evaluation"),
        "verdict": verdict_figures(steps / "gate-model" / "verdict"),
        "exports": exports_figures(steps / "export-model" / "exports"),
    }


def shard_digests(dataset: Path) -> dict[str, str]:
    """SHA-256 of every file of a data set, by name."""
    return {
        str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.rglob("*"))
        if path.is_file()
    }


def training_figures(model: Path) -> dict[str, Any]:
    """History and weights of a model folder."""
    history = json.loads((model / "history.json").read_text())
    with zipfile.ZipFile(model / "model.keras") as archive:
        weights = hashlib.sha256(archive.read("model.weights.h5")).hexdigest()
    return {"history": _without(history, _TIMES), "weights": weights}


def take_means(figures: dict[str, Any]) -> list[float]:
    """Takes mean loss and accuracy of the epochs out of figures of a training.

    The mean over an epoch that was killed in its middle is one of two means, and where a sum of
    float32 is cut shows in the seventh digit.
    """
    history = figures["history"]
    epochs = [*history["history"], history["kept"]]
    return [epoch.pop(name) for epoch in epochs for name in ("loss", "accuracy")]


def evaluation_figures(path: Path) -> dict[str, Any]:
    """An evaluation; the digest of the Keras file is left out, for that holds the time of day."""
    return dict(_without(json.loads(path.read_text()), ("model_digest",)))


def verdict_figures(path: Path) -> dict[str, Any]:
    """A verdict, without the digests of the files that it was made from."""
    return dict(_without(json.loads(path.read_text()), ("model_digest", "evaluation_digest")))


def exports_figures(folder: Path) -> list[dict[str, Any]]:
    """What was found out about each format; not of the files, which may hold the time of day."""
    checks = json.loads((folder / "exports.json").read_text())
    return [_without(check, ("size", "sha256")) for check in checks]


def _without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, names) for key, item in value.items() if key not in names}
    if isinstance(value, list):
        return [_without(item, names) for item in value]
    return value
