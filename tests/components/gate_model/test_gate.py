"""Tests of the gate: what is below the threshold, or in doubt, never passes."""

import dataclasses
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.common.config import to_json
from components.common.errors import ConfigError, DataError, GateClosedError
from components.common.evaluation import Evaluation
from components.common.model_files import METADATA_FILE, MODEL_FILE, ModelMetadata
from components.common.verdict import Verdict
from components.gate_model.config import GateConfig
from components.gate_model.gate import chain_objection, decide, gate, refuse
from tests.builders import CLASS_NAMES, evaluation_of, make_evaluation

DIGEST = hashlib.sha256(b"weights").hexdigest()
THRESHOLDS = st.floats(0.0, 1.0, exclude_min=True)
# Whatever a file or a flag may hold.
ANY_NUMBER = st.sampled_from([math.nan, math.inf, -math.inf]) | st.floats()


@st.composite
def evaluations(draw: st.DrawFn) -> Evaluation:
    """Consistent evaluations of two to five classes, each class with an example."""
    classes = draw(st.integers(2, 5))
    row = st.lists(st.integers(0, 50), min_size=classes, max_size=classes).filter(any)
    confusion = draw(st.lists(row, min_size=classes, max_size=classes))
    names = [f"class {index}" for index in range(classes)]
    return evaluation_of(confusion, names, loss=draw(st.floats(0.0, 10.0)))


def two_classes(correct: int, examples: int, **changes: Any) -> Evaluation:
    """An evaluation of an exact share."""
    half = examples // 2
    confusion = ((half, 0), (examples - correct, correct - half))
    return evaluation_of(confusion, ("a", "b"), **changes)


@given(evaluations(), THRESHOLDS)
def test_gate_opens_where_the_threshold_is_reached_and_nowhere_else(
    evaluation: Evaluation, threshold: float
) -> None:
    verdict = decide(evaluation, threshold)
    assert verdict.blessed == (evaluation.correct / evaluation.examples >= threshold)


@given(evaluations())
def test_gate_opens_exactly_at_the_threshold(evaluation: Evaluation) -> None:
    if evaluation.correct:
        assert decide(evaluation, evaluation.accuracy).blessed


@given(evaluations())
def test_gate_stays_closed_just_below_the_threshold(evaluation: Evaluation) -> None:
    threshold = math.nextafter(evaluation.accuracy, 2.0)
    assert not decide(evaluation, threshold).blessed


@given(
    evaluations(),
    st.none() | ANY_NUMBER.filter(lambda threshold: not 0.0 < threshold <= 1.0),
)
def test_gate_without_a_sound_threshold_stays_closed(
    evaluation: Evaluation, threshold: float | None
) -> None:
    assert not decide(evaluation, threshold).blessed


@given(evaluations(), ANY_NUMBER, THRESHOLDS)
def test_accuracy_that_does_not_fit_the_counts_is_refused(
    evaluation: Evaluation, accuracy: float, threshold: float
) -> None:
    share = evaluation.correct / evaluation.examples
    if not math.isclose(accuracy, share, rel_tol=1e-6, abs_tol=1e-6):
        assert not decide(dataclasses.replace(evaluation, accuracy=accuracy), threshold).blessed


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "examples": st.integers(),
    "correct": st.integers(),
    "accuracy": ANY_NUMBER,
    "accuracy_low": ANY_NUMBER,
    "accuracy_high": ANY_NUMBER,
    "loss": ANY_NUMBER,
    "class_names": st.lists(st.text(max_size=2), max_size=3).map(tuple),
    "model_class_names": st.lists(st.text(max_size=2), max_size=3).map(tuple),
    "confusion": st.lists(st.lists(st.integers(-5, 20), max_size=3).map(tuple), max_size=3).map(
        tuple
    ),
    "train_overlap": st.integers(),
}


CHANGES = st.one_of(
    *(st.fixed_dictionaries({name: values}) for name, values in FIELDS.items()),
    st.fixed_dictionaries({}, optional=FIELDS),
)


@given(CHANGES, st.none() | ANY_NUMBER | THRESHOLDS)
@settings(max_examples=300)
def test_gate_always_decides_and_gives_a_reason(
    changes: dict[str, Any], threshold: float | None
) -> None:
    # An evaluation is a file: whatever is in it, the answer is a verdict.
    verdict = decide(make_evaluation(**changes), threshold)
    assert verdict.reason
    to_json(dataclasses.asdict(verdict))


@given(CHANGES, THRESHOLDS)
def test_gate_never_opens_below_the_share_of_the_confusion_matrix(
    changes: dict[str, Any], threshold: float
) -> None:
    evaluation = make_evaluation(**(changes | {"accuracy_low": 0.0, "accuracy_high": 1.0}))
    if decide(evaluation, threshold).blessed:
        confusion = evaluation.confusion
        counted = sum(map(sum, confusion))
        correct = sum(row[index] for index, row in enumerate(confusion))
        assert correct / counted >= threshold - 1e-9


@pytest.mark.parametrize("accuracy", [0.9, 0.8999999999999999])
def test_sound_evaluation_at_ninety_percent(accuracy: float) -> None:
    assert decide(make_evaluation(), accuracy).blessed


NAN, INFINITE = math.nan, math.inf


@pytest.mark.parametrize(
    ("threshold", "reason"),
    [
        (None, "no threshold is set: expected a number above 0 and at most 1"),
        (0.0, "the threshold is 0.0: expected a number above 0 and at most 1"),
        (-0.1, "the threshold is -0.1: expected a number above 0 and at most 1"),
        (1.1, "the threshold is 1.1: expected a number above 0 and at most 1"),
        (80.0, "the threshold is 80.0: expected a number above 0 and at most 1"),
        (NAN, "the threshold is nan: expected a number above 0 and at most 1"),
        (INFINITE, "the threshold is inf: expected a number above 0 and at most 1"),
        (-INFINITE, "the threshold is -inf: expected a number above 0 and at most 1"),
    ],
)
def test_threshold_that_is_none_is_refused(threshold: float | None, reason: str) -> None:
    verdict = decide(make_evaluation(), threshold)
    assert (verdict.blessed, verdict.reason) == (False, reason)


MATRIX = "the confusion matrix has another number of classes than the test split"
SUMS = "the confusion matrix does not add up to the examples and correct ones counted"
NUMBERS = "the evaluation has no finite number for {}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"examples": 0}, "the evaluation counts no examples"),
        ({"examples": -1}, "the evaluation counts no examples"),
        ({"accuracy": NAN}, NUMBERS.format("accuracy")),
        ({"accuracy": INFINITE}, NUMBERS.format("accuracy")),
        ({"loss": NAN}, NUMBERS.format("loss")),
        ({"loss": INFINITE}, NUMBERS.format("loss")),
        (
            {"model_data_fingerprint": "e" * 64},
            "the model was trained on another data set (eeeeeeeeeeee) than it was tested on "
            "(dddddddddddd), and may have seen the test images",
        ),
        (
            {"model_class_names": ("circles", "squares", "dots")},
            "the classes do not match: the test split has ['circles', 'squares', 'stripes'], "
            "the model ['circles', 'squares', 'dots']",
        ),
        (
            {"model_class_names": CLASS_NAMES[::-1]},
            "the classes do not match: the test split has ['circles', 'squares', 'stripes'], "
            "the model ['stripes', 'squares', 'circles']",
        ),
        (
            {"model_class_names": CLASS_NAMES[:2]},
            "the classes do not match: the test split has ['circles', 'squares', 'stripes'], "
            "the model ['circles', 'squares']",
        ),
        ({"train_overlap": 1}, "1 test images are in the train split too"),
        ({"confusion": ()}, MATRIX),
        ({"confusion": ((25, 0), (0, 25))}, MATRIX),
        ({"confusion": ((15, 1, 1), (1, 15, 1), (0, 16))}, MATRIX),
        (
            {"confusion": ((15, 1, 1), (1, 15, 1), (-1, 2, 15))},
            "the confusion matrix has negative counts",
        ),
        ({"confusion": ((16, 0, 1), (1, 15, 1), (0, 1, 15))}, SUMS),
        ({"confusion": ((15, 1, 1), (1, 15, 1), (0, 2, 15))}, SUMS),
        ({"correct": 46}, SUMS),
        ({"examples": 51}, SUMS),
        ({"accuracy": 0.95}, "the accuracy is not the share of correct examples"),
        ({"accuracy": 0.85}, "the accuracy is not the share of correct examples"),
        (
            {"confusion": ((23, 1, 1), (2, 22, 1), (0, 0, 0))},
            "the test split has no example of stripes",
        ),
    ],
)
def test_evaluation_in_doubt_is_refused(changes: dict[str, Any], reason: str) -> None:
    verdict = decide(make_evaluation(**changes), 0.5)
    assert (verdict.blessed, verdict.reason) == (False, reason)


@pytest.mark.parametrize("name", ["accuracy_low", "accuracy_high"])
@pytest.mark.parametrize("value", [NAN, INFINITE])
def test_interval_that_is_not_a_number_is_refused(name: str, value: float) -> None:
    assert not decide(make_evaluation(**{name: value}), 0.5).blessed


def test_reason_of_an_open_gate_names_the_numbers() -> None:
    assert decide(make_evaluation(), 0.8) == Verdict(
        blessed=True,
        reason=(
            "test accuracy 90.00 % is at or above the threshold of 80.00 % (45 of 50 correct, "
            "95 % interval 78.63 % to 95.65 %)"
        ),
        threshold=0.8,
        accuracy=0.9,
    )


def test_reason_of_a_closed_gate_names_the_numbers() -> None:
    assert decide(make_evaluation(), 0.95) == Verdict(
        blessed=False,
        reason=(
            "test accuracy 90.00 % is below the threshold of 95.00 % (45 of 50 correct, "
            "95 % interval 78.63 % to 95.65 %)"
        ),
        threshold=0.95,
        accuracy=0.9,
    )


def test_accuracy_just_below_the_threshold_is_not_shown_as_the_threshold() -> None:
    verdict = decide(two_classes(19_999, 25_000), 0.8)
    assert not verdict.blessed
    assert verdict.reason.startswith("test accuracy 79.99 % is below the threshold of 80.00 %")


@pytest.mark.parametrize("percent", range(1, 101))
def test_whole_percent_is_shown_as_it_is(percent: int) -> None:
    # In floating point 0.29 * 100 is 28.999999999999996.
    reason = decide(make_evaluation(), percent / 100).reason
    assert f"the threshold of {percent}.00 % " in reason


@pytest.mark.parametrize(
    ("changes", "threshold", "expected"),
    [
        ({"accuracy": NAN}, 0.8, (0.8, None)),
        ({"accuracy": INFINITE}, 0.8, (0.8, None)),
        ({}, None, (None, 0.9)),
        ({}, NAN, (None, 0.9)),
    ],
)
def test_verdict_holds_no_number_that_json_lacks(
    changes: dict[str, Any], threshold: float | None, expected: tuple[float | None, float | None]
) -> None:
    verdict = decide(make_evaluation(**changes), threshold)
    assert (verdict.threshold, verdict.accuracy) == expected


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.01, NAN, INFINITE])
def test_recipe_with_a_wrong_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(
        ConfigError, match="threshold: expected a number above 0 and at most 1, received"
    ):
        GateConfig(threshold)


def make_model_files(folder: Path, **changes: Any) -> Path:
    """A model folder as the gate sees it: a file, its digest, and what it was trained on."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / MODEL_FILE).write_bytes(b"weights")
    metadata = ModelMetadata(CLASS_NAMES, 32, "d" * 64, "squeezenet", 7, DIGEST)
    metadata = dataclasses.replace(metadata, **changes)
    (model / METADATA_FILE).write_text(to_json(dataclasses.asdict(metadata)))
    return model


def write(folder: Path, evaluation: Evaluation) -> Path:
    path = folder / "evaluation.json"
    ours = dataclasses.replace(evaluation, model_digest=DIGEST)
    path.write_text(json.dumps(dataclasses.asdict(ours)), encoding="utf-8")
    return path


def inputs(folder: Path) -> tuple[Path, Path]:
    """A model and its evaluation."""
    return make_model_files(folder), write(folder, make_evaluation())


@pytest.mark.parametrize(("threshold", "blessed"), [(0.8, True), (0.95, False)])
def test_verdict_is_written_either_way(tmp_path: Path, threshold: float, blessed: bool) -> None:
    verdict = gate(*inputs(tmp_path), threshold, tmp_path / "verdict.json")
    assert verdict.blessed is blessed
    content = json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))
    assert content == dataclasses.asdict(verdict)


def test_file_with_nan_is_refused_with_a_verdict(tmp_path: Path) -> None:
    path = write(tmp_path, make_evaluation(accuracy=NAN, loss=NAN))
    gate(make_model_files(tmp_path), path, 0.8, tmp_path / "verdict.json")
    content = json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))
    assert (content["blessed"], content["accuracy"]) == (False, None)


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"accuracy": 1.0}'])
def test_damaged_evaluation_leaves_no_verdict(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match="expected evaluate_model's JSON file"):
        gate(make_model_files(tmp_path), path, 0.8, tmp_path / "verdict.json")
    assert not (tmp_path / "verdict.json").exists()


def test_old_verdict_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text("old")
    with pytest.raises(ConfigError, match="already exists"):
        gate(*inputs(tmp_path), 0.8, tmp_path / "verdict.json")
    assert (tmp_path / "verdict.json").read_text() == "old"


@pytest.mark.parametrize("threshold", [0.8, 0.95])
def test_refusal_gives_the_reason_of_the_verdict(tmp_path: Path, threshold: float) -> None:
    verdict = gate(*inputs(tmp_path), threshold, tmp_path / "verdict.json")
    with pytest.raises(GateClosedError) as error:
        refuse(tmp_path / "verdict.json")
    assert str(error.value) == f"gate closed: {verdict.reason}"


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "components.gate_model", *map(str, arguments)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_exits_with_0_when_the_gate_opens(tmp_path: Path) -> None:
    (model, path), verdict = inputs(tmp_path), tmp_path / "verdict.json"
    flags = ("--model", model, "--evaluation", path, "--threshold", "0.9")
    done = command(*flags, "--output", verdict)
    assert (done.returncode, done.stderr) == (0, "")
    assert "[gate-model] gate open: test accuracy 90.00 %" in done.stdout
    assert json.loads(verdict.read_text(encoding="utf-8"))["blessed"] is True


@pytest.mark.parametrize(
    ("threshold", "reason"),
    [
        (["--threshold", "0.91"], "test accuracy 90.00 % is below the threshold of 91.00 %"),
        (["--threshold", "nan"], "the threshold is nan: expected"),
        ([], "no threshold is set: expected"),
        (["--recipe", "xception"], "test accuracy 90.00 % is below the threshold of 95.00 %"),
        (
            ["--recipe", "xception", "--threshold", "0.92"],
            "test accuracy 90.00 % is below the threshold of 92.00 %",
        ),
    ],
)
def test_command_exits_with_3_when_the_gate_is_closed(
    tmp_path: Path, threshold: list[str], reason: str
) -> None:
    (model, path), verdict = inputs(tmp_path), tmp_path / "verdict.json"
    done = command("--model", model, "--evaluation", path, *threshold, "--output", verdict)
    assert done.returncode == 3
    assert done.stderr.startswith(f"gate-model: exit 3: gate closed: {reason}")
    assert done.stderr.count("\n") == 1
    content = json.loads(verdict.read_text(encoding="utf-8"))
    assert content["blessed"] is False
    assert content["reason"].startswith(reason)


def test_command_exits_with_2_on_a_mistake(tmp_path: Path) -> None:
    verdict = tmp_path / "verdict.json"
    done = command(
        *("--model", make_model_files(tmp_path), "--evaluation", tmp_path / "absent.json"),
        *("--threshold", "0.8", "--output", verdict),
    )
    assert done.returncode == 2
    assert done.stderr.startswith("gate-model: exit 2: evaluation ")
    assert done.stderr.count("\n") == 1
    assert not verdict.exists()


def test_command_exits_with_2_on_a_wrong_flag(tmp_path: Path) -> None:
    done = command("--evaluation", "e.json", "--treshold", "0.8", "--output", tmp_path / "v.json")
    assert done.returncode == 2
    assert done.stderr.startswith("gate-model: No such option '--treshold'")
    assert done.stderr.count("\n") == 1


WORDS = st.sampled_from(["a" * 64, "b" * 64, ""])


@given(WORDS, WORDS, WORDS, WORDS, st.booleans())
def test_gate_opens_for_the_model_that_was_evaluated_and_for_no_other(
    evaluated: str, trained: str, digest: str, data: str, same_classes: bool
) -> None:
    evaluation = make_evaluation(model_digest=evaluated, model_data_fingerprint=trained)
    names = CLASS_NAMES if same_classes else CLASS_NAMES[::-1]
    model = ModelMetadata(names, 32, data, "squeezenet", 7, digest)
    fits = (evaluated, trained) == (digest, data) and same_classes
    assert (chain_objection(evaluation, model) == "") == fits


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data_fingerprint": "f" * 64}, "the evaluation is of another training (dddddddddddd)"),
        ({"class_names": ("a", "b")}, "the evaluation is of a model with the classes"),
    ],
)
def test_model_that_was_not_evaluated_is_refused(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = write(tmp_path, make_evaluation())
    verdict = gate(make_model_files(tmp_path, **changes), path, 0.01, tmp_path / "verdict.json")
    assert not verdict.blessed
    assert verdict.reason.startswith(reason)
