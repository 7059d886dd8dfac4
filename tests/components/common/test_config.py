"""Tests of reading configuration strictly and saying clearly what is wrong with it."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.common.config import (
    Range,
    build,
    check,
    choose,
    override,
    read_mapping,
    to_json,
)
from components.common.errors import ConfigError, UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    """Values with a range."""

    rate: float = 0.5
    name: str = "one"

    def __post_init__(self) -> None:
        check("rate", self.rate, Range(0.0, 1.0))
        choose("name", self.name, ("one", "two"))


@dataclasses.dataclass(frozen=True)
class Outer:
    """A field of each kind."""

    count: int
    flag: bool = False
    pair: tuple[float, int] = (0.0, 0)
    rows: tuple[tuple[int, ...], ...] = ()
    inner: Inner = dataclasses.field(default_factory=Inner)
    maybe: Inner | None = None
    many: tuple[Inner, ...] = ()
    plain: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check("count", self.count, Range(1))


def test_every_kind_of_field_is_read() -> None:
    content = {
        "count": 3,
        "flag": True,
        "pair": [1, 2],
        "rows": [[1], [2, 3]],
        "inner": {"rate": 1, "name": "two"},
        "maybe": {},
        "many": [{"rate": 0.25}],
        "plain": {"a": [1]},
    }
    assert build(Outer, content) == Outer(
        3,
        True,
        (1.0, 2),
        ((1,), (2, 3)),
        Inner(1.0, "two"),
        Inner(),
        (Inner(0.25),),
        {"a": [1]},
    )


def test_key_left_out_has_its_default() -> None:
    assert build(Outer, {"count": 1}) == Outer(1)


def test_null_is_none_where_a_field_may_be() -> None:
    assert build(Outer, {"count": 1, "maybe": None}).maybe is None


def test_whole_number_becomes_a_float_where_one_is_expected() -> None:
    assert type(build(Inner, {"rate": 1}).rate) is float


@given(st.integers(1, 2**53))
def test_float_that_is_whole_becomes_an_int(number: int) -> None:
    # KFP hands every number of a struct over as a float.
    count = build(Outer, {"count": float(number)}).count
    assert (count, type(count)) == (number, int)


def test_floats_within_nested_tuples_become_ints() -> None:
    rows = build(Outer, {"count": 1.0, "rows": [[16.0], [2.0, 3.0]]}).rows
    assert [[type(number) for number in row] for row in rows] == [[int], [int, int]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"count": 1, "epoch": 2}, "epoch: unknown key; expected one of count, flag, pair"),
        ({}, "count: missing, and has no default"),
        ({"count": "3"}, "count: expected a whole number, received '3'"),
        ({"count": 1.5}, "count: expected a whole number, received 1.5"),
        ({"count": True}, "count: expected a whole number, received True"),
        ({"count": None}, "count: expected a whole number, received None"),
        ({"count": math.nan}, "count: expected a whole number, received nan"),
        ({"count": math.inf}, "count: expected a whole number, received inf"),
        ({"count": 0}, "count: expected at least 1, received 0"),
        ({"count": 1, "flag": 1}, "flag: expected true or false, received 1"),
        ({"count": 1, "flag": "yes"}, "flag: expected true or false, received 'yes'"),
        ({"count": 1, "pair": [1]}, "pair: expected 2 values, received 1"),
        ({"count": 1, "pair": [1, 2, 3]}, "pair: expected 2 values, received 3"),
        ({"count": 1, "pair": "12"}, "pair: expected a list, received '12'"),
        ({"count": 1, "pair": [1, "2"]}, "pair[1]: expected a whole number, received '2'"),
        ({"count": 1, "rows": [[1], 2]}, "rows[1]: expected a list, received 2"),
        (
            {"count": 1, "rows": [[1], [2, 0.5]]},
            "rows[1][1]: expected a whole number, received 0.5",
        ),
        ({"count": 1, "inner": {"rat": 1}}, "inner.rat: unknown key; expected one of rate, name"),
        ({"count": 1, "inner": {"rate": "x"}}, "inner.rate: expected a number, received 'x'"),
        ({"count": 1, "inner": {"rate": True}}, "inner.rate: expected a number, received True"),
        ({"count": 1, "inner": {"rate": 1.5}}, "inner.rate: expected 0 to 1, received 1.5"),
        ({"count": 1, "inner": {"rate": math.nan}}, "inner.rate: expected 0 to 1, received nan"),
        (
            {"count": 1, "inner": {"name": "three"}},
            "inner.name: expected one of one, two, received 'three'",
        ),
        (
            {"count": 1, "inner": None},
            "inner: expected keys with values, such as {rate: ...}, received None",
        ),
        (
            {"count": 1, "inner": [1]},
            "inner: expected keys with values, such as {rate: ...}, received [1]",
        ),
        ({"count": 1, "maybe": {"rate": 2}}, "maybe.rate: expected 0 to 1, received 2"),
        ({"count": 1, "many": [{}, {"rate": 2}]}, "many[1].rate: expected 0 to 1, received 2"),
        ({"count": 1, 2: 3}, "2: unknown key; expected one of count, flag, pair"),
    ],
)
def test_wrong_content_is_refused(content: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(Outer, content)
    assert str(error.value).startswith(message)


def test_message_starts_with_the_key_around() -> None:
    with pytest.raises(ConfigError, match=r"^train\.inner\.rate: expected 0 to 1, received 2$"):
        build(Outer, {"count": 1, "inner": {"rate": 2}}, where="train")


def test_range_of_the_outer_class_has_the_key_around() -> None:
    with pytest.raises(ConfigError, match=r"^train\.count: expected at least 1, received 0$"):
        build(Outer, {"count": 0}, where="train")


def test_missing_key_has_the_key_around() -> None:
    with pytest.raises(ConfigError, match=r"^train\.count: missing, and has no default$"):
        build(Outer, {}, where="train")


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_anything_but_a_mapping_is_refused(content: Any) -> None:
    with pytest.raises(ConfigError, match=r"^configuration: expected keys with values"):
        build(Outer, content)


@pytest.mark.parametrize("content", [{"count": 10**400}, {"count": 1, "pair": [10**400, 1]}])
def test_number_too_large_for_a_float_is_refused(content: dict[str, Any]) -> None:
    @dataclasses.dataclass(frozen=True)
    class Bounded:
        count: int
        pair: tuple[float, int] = (0.0, 0)

        def __post_init__(self) -> None:
            check("count", self.count, Range(1, 100))

    with pytest.raises(ConfigError, match=r"^(count|pair)"):
        build(Bounded, content)


@given(st.floats(), st.floats(), st.floats())
def test_check_passes_what_lies_within(low: float, high: float, value: float) -> None:
    try:
        check("key", value, Range(low, high))
        passed = True
    except ConfigError:
        passed = False
    assert passed == (value >= low and value <= high and math.isfinite(value))


def test_file_of_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("# header\ntrain:\n  epochs: 3\n  name: żółw\n", encoding="utf-8")
    assert read_mapping(str(path)) == {"train": {"epochs": 3, "name": "żółw"}}


def test_file_of_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"train": {"epochs": 3}}', encoding="utf-8")
    assert read_mapping(str(path)) == {"train": {"epochs": 3}}


@pytest.mark.parametrize("text", ['{"epochs": 3}', ' {"epochs": 3}', "\n{epochs: 3}"])
def test_text_is_read(text: str) -> None:
    assert read_mapping(text) == {"epochs": 3}


def test_file_of_yaml_in_braces_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("{epochs: 3}\n", encoding="utf-8")
    assert read_mapping(str(path)) == {"epochs": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected keys with values, received None"),
        (b"- 1\n- 2\n", r"expected keys with values, received \[1, 2\]"),
        (b"just text", "expected keys with values, received 'just text'"),
        (b"a: [1\n", "not valid YAML or JSON: while parsing"),
        (b'{"a": ', "not valid YAML or JSON"),
        (b"a: \xff\xfe\n", "not valid YAML or JSON: 'utf-8' codec"),
        (b"a: !!python/object:os.system {}\n", "not valid YAML or JSON: could not determine"),
    ],
)
def test_wrong_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        read_mapping(str(path))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["2024-01-31", "2020-13-45", "2001-12-14t21:59:43.10-05:00"])
def test_date_is_text(text: str) -> None:
    assert read_mapping(f"{{made: {text}}}") == {"made": text}


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-3", 0.001), ("1E5", 100_000.0), ("-2.5e+1", -25.0), ("1.e2", 100.0), ("0.5", 0.5)],
)
def test_number_with_an_exponent_is_a_number(text: str, number: float) -> None:
    assert read_mapping(f"{{rate: {text}}}") == {"rate": number}


@pytest.mark.parametrize("text", ["e5", "1e", "x1e5", "1e5x"])
def test_word_that_looks_like_an_exponent_is_text(text: str) -> None:
    assert read_mapping(f"{{name: {text}}}") == {"name": text}


@pytest.mark.parametrize("name", ["absent.yaml", ".", "x" * 300])
def test_unreadable_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(.+\); expected a YAML or JSON file"):
        read_mapping(str(tmp_path / name))


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="not valid YAML or JSON"):
        read_mapping('{"a":' * 100_000)


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        ([], {"train": {"epochs": 1, "rate": 0.1}}),
        (["train.epochs=5"], {"train": {"epochs": 5, "rate": 0.1}}),
        (["train.rate=1e-3"], {"train": {"epochs": 1, "rate": 0.001}}),
        (["train.rate=2020-13-45"], {"train": {"epochs": 1, "rate": "2020-13-45"}}),
        (["train.rate=[1, 2]"], {"train": {"epochs": 1, "rate": [1, 2]}}),
        (["train.rate=null"], {"train": {"epochs": 1, "rate": None}}),
        (["train.rate="], {"train": {"epochs": 1, "rate": None}}),
        (["train.name=a=b"], {"train": {"epochs": 1, "rate": 0.1, "name": "a=b"}}),
        (["model.name=x"], {"train": {"epochs": 1, "rate": 0.1}, "model": {"name": "x"}}),
        (["train.epochs=5", "train.epochs=6"], {"train": {"epochs": 6, "rate": 0.1}}),
        (["train={epochs: 2}"], {"train": {"epochs": 2}}),
    ],
)
def test_assignments_are_applied(assignments: list[str], expected: dict[str, Any]) -> None:
    assert override({"train": {"epochs": 1, "rate": 0.1}}, assignments) == expected


def test_override_leaves_its_argument_alone() -> None:
    content = {"train": {"epochs": 1}}
    override(content, ["train.epochs=5"])
    assert content == {"train": {"epochs": 1}}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.epochs", "--set train.epochs: expected KEY=VALUE, for example train.epochs=5"),
        ("=5", "--set =5: expected KEY=VALUE, for example train.epochs=5"),
        ("train.epochs.x=5", "--set train.epochs.x=5: epochs is a value and holds no keys"),
        ("train.epochs=[1", "--set train.epochs=[1: '[1' is not a YAML value"),
    ],
)
def test_wrong_assignment_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        override({"train": {"epochs": 1}}, [assignment])
    assert str(error.value).startswith(message)


def test_date_in_a_recipe_does_not_break_an_assignment(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("count: 1\nmade: 2024-01-31\n")
    with pytest.raises(UserError, match="made"):
        build(Outer, override(read_mapping(str(path)), ["count=2"]))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_json_is_read_as_it_was_written(content: dict[str, Any]) -> None:
    text = to_json(content)
    assert read_mapping(text) == content
    assert json.loads(text) == content


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"accuracy": math.nan})
