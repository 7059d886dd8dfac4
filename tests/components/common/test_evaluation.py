"""Tests of what an evaluation says and of its confidence interval."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.common.config import is_required, to_json
from components.common.errors import DataError
from components.common.evaluation import load_evaluation, wilson_interval
from tests.builders import make_evaluation


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    examples = draw(st.integers(1, 1_000_000))
    return draw(st.integers(0, examples)), examples


# Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3,
# and common textbook values for ten trials.
@pytest.mark.parametrize(
    ("correct", "examples", "expected"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (0, 10, (0.0, 0.2775)),
        (5, 10, (0.2366, 0.7634)),
        (10, 10, (0.7225, 1.0)),
    ],
)
def test_interval_is_the_published_one(
    correct: int, examples: int, expected: tuple[float, float]
) -> None:
    assert wilson_interval(correct, examples) == pytest.approx(expected, abs=5e-5)


@given(counts())
def test_interval_lies_within_bounds_and_around_the_share(pair: tuple[int, int]) -> None:
    correct, examples = pair
    low, high = wilson_interval(correct, examples)
    assert 0.0 <= low <= correct / examples <= high <= 1.0
    assert low < high


@pytest.mark.parametrize("examples", range(1, 200))
def test_interval_of_all_or_none_ends_there(examples: int) -> None:
    assert wilson_interval(examples, examples)[1] == 1.0
    assert wilson_interval(0, examples)[0] == 0.0


@given(counts())
def test_interval_of_the_mistakes_mirrors_it(pair: tuple[int, int]) -> None:
    correct, examples = pair
    low, high = wilson_interval(correct, examples)
    assert wilson_interval(examples - correct, examples) == pytest.approx(
        (1 - high, 1 - low), abs=1e-9
    )


@given(counts())
def test_more_examples_of_the_same_share_narrow_it(pair: tuple[int, int]) -> None:
    correct, examples = pair
    low, high = wilson_interval(correct, examples)
    fewer, more = high - low, wilson_interval(4 * correct, 4 * examples)
    assert more[1] - more[0] < fewer


@pytest.mark.parametrize(
    "changes", [{}, {"classes": ()}, {"train_overlap": 3}, {"class_names": ("żółw", "b", "c")}]
)
def test_evaluation_is_read_as_it_was_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    evaluation = make_evaluation(**changes)
    path = tmp_path / "evaluation.json"
    path.write_text(to_json(dataclasses.asdict(evaluation)), encoding="utf-8")
    assert load_evaluation(path) == evaluation


def test_class_that_was_never_taken_has_no_precision(tmp_path: Path) -> None:
    content = dataclasses.asdict(make_evaluation())
    content["classes"][0]["precision"] = None
    path = tmp_path / "evaluation.json"
    path.write_text(to_json(content), encoding="utf-8")
    assert load_evaluation(path).classes[0].precision is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": "0.9"}, "accuracy: expected a number, received '0.9'"),
        ({"accuracy": None}, "accuracy: expected a number, received None"),
        ({"examples": 50.5}, "examples: expected a whole number, received 50.5"),
        ({"confusion": [[1, 0.5]]}, r"confusion\[0\]\[1\]: expected a whole number, received 0.5"),
        ({"class_names": "abc"}, "class_names: expected a list, received 'abc'"),
        ({"f1": 0.9}, "f1: unknown key"),
        ({"classes": [{"name": "a"}]}, r"classes\[0\]\.examples: missing"),
    ],
)
def test_wrong_evaluation_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(dataclasses.asdict(make_evaluation()) | changes), encoding="utf-8")
    with pytest.raises(DataError, match=f"expected evaluate_model's JSON file .*{message}"):
        load_evaluation(path)


# Calibration came later: files of earlier runs, which a list of runs reads, lack it.
REQUIRED = [one.name for one in dataclasses.fields(make_evaluation()) if is_required(one)]


@pytest.mark.parametrize("key", REQUIRED)
def test_evaluation_without_a_key_is_refused(tmp_path: Path, key: str) -> None:
    content = dataclasses.asdict(make_evaluation())
    del content[key]
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=f"{key}: missing, and has no default"):
        load_evaluation(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "accuracy"])
def test_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="expected evaluate_model's JSON file"):
        load_evaluation(path)


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected evaluate_model's JSON file .*cannot be read"):
        load_evaluation(tmp_path / "absent.json")
