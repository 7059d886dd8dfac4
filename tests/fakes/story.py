"""Models that are tables, for the story of many models told many times."""

import json
from collections.abc import Iterable
from pathlib import Path

from components.deploy_model.registry import Candidate, Prediction
from components.deploy_model.scoring import Photo
from tests.builders import CLASS_NAMES

PHOTOS = [Photo(f"photo {number}".encode(), CLASS_NAMES[number % 3]) for number in range(60)]


def make_candidate(folder: Path, name: str, correct: int) -> Candidate:
    """A model that has the first `correct` of the test photos right."""
    path = folder / "bucket" / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "table.json").write_text(json.dumps(correct))
    evaluation = {
        "correct": correct,
        "examples": len(PHOTOS),
        "accuracy": correct / len(PHOTOS),
        "accuracy_low": 0.1,
        "accuracy_high": 0.9,
        "loss": 0.5,
        "class_names": list(CLASS_NAMES),
        "confusion": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "data_fingerprint": "d" * 64,
    }
    labels = {"run": f"run-{name}", "data": "d" * 64, "accuracy": f"{correct / 60:.4f}"}
    # Two models differ in their digest as they differ in their name.
    return Candidate(path, (name * 64)[:64], labels, evaluation)


def predict(saved_model: Path, photos: Iterable[bytes]) -> list[Prediction]:
    """What such a model says of `PHOTOS`."""
    correct = json.loads((saved_model / "table.json").read_text())
    return [_answer(int(photo.split()[1]), correct) for photo in photos]


def _answer(number: int, correct: int) -> Prediction:
    best = number % 3 if number < correct else (number + 1) % 3
    shares = {name: 0.8 if index == best else 0.1 for index, name in enumerate(CLASS_NAMES)}
    return Prediction(CLASS_NAMES[best], shares)


def serve_table(folder: Path):
    """A predictor of the fake server for models below `folder`."""

    def answer(uri: str, photo: bytes):
        (one,) = predict(folder / uri.removeprefix("gs://"), [photo])
        return {
            "label": one.label,
            "class_names": list(one.probabilities),
            "probabilities": list(one.probabilities.values()),
        }

    return answer
