"""Tests of command lines made from configuration."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import pytest

from components.common.cli import config_options, flag, run_cli, take_config
from components.common.config import Range, check
from components.common.errors import DataError, GateClosedError


@dataclasses.dataclass(frozen=True)
class Inner:
    """Values with an inner structure.

    Attributes:
        rate: A rate.
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        check("rate", self.rate, Range(0.0, 1.0))


@dataclasses.dataclass(frozen=True)
class Options:
    """One field of each kind.

    Attributes:
        image_size: Side of the images, in
            pixels.
        rate: A rate.
        name: A name.
        fast: Whether to hurry.
        note: Anything.
        inner: Values with an inner structure.
    """

    image_size: int
    rate: float = 0.25
    name: str = "one"
    fast: bool = False
    note: str = ""
    inner: Inner = dataclasses.field(default_factory=Inner)

    def __post_init__(self) -> None:
        check("image_size", self.image_size, Range(16, 1024))


@click.command("make-things")
@config_options(Options)
@click.option("--error", default="")
def command(error: str, **arguments: Any) -> None:
    """Makes things."""
    if error == "data":
        raise DataError("expected photos,\n  found none")
    if error == "gate":
        raise GateClosedError("gate closed")
    if error == "abort":
        raise click.Abort
    if error == "fault":
        raise ZeroDivisionError("division by zero")
    if error == "disk":
        Path("/dev/full").write_text("more than it takes")
    print(json.dumps(dataclasses.asdict(take_config(Options, arguments))))
    assert not arguments


class Outcome:
    """How a command ended and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        with pytest.raises(SystemExit) as end:
            run_cli(command, arguments)
        self.code = end.value.code
        self.out, self.err = capsys.readouterr()


DEFAULTS = {
    "image_size": 64,
    "rate": 0.25,
    "name": "one",
    "fast": False,
    "note": "",
    "inner": {"rate": 0.5},
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {}),
        (("--rate", "1"), {"rate": 1.0}),
        (("--name", "two words"), {"name": "two words"}),
        (("--name", ""), {"name": ""}),
        (("--fast", "true"), {"fast": True}),
        (("--fast=no",), {"fast": False}),
        (("--note", "-x"), {"note": "-x"}),
        (("--inner", '{"rate": 0.75}'), {"inner": {"rate": 0.75}}),
        (("--inner", "{}"), {"inner": {"rate": 0.5}}),
    ],
)
def test_flags_become_the_configuration(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: dict[str, Any]
) -> None:
    outcome = Outcome(capsys, "--image-size", "64", *arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out) == DEFAULTS | expected


def test_inner_structure_is_read_from_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "inner.yaml").write_text("rate: 0.75\n")
    outcome = Outcome(capsys, "--image-size", "64", "--inner", str(tmp_path / "inner.yaml"))
    assert json.loads(outcome.out)["inner"] == {"rate": 0.75}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "make-things: Missing option '--image-size'. See make-things --help."),
        (
            ("--image-size", "x"),
            "make-things: Invalid value for '--image-size': 'x' is not a valid integer. "
            "See make-things --help.",
        ),
        (("--image-size", "3"), "make-things: image_size: expected 16 to 1024, received 3"),
        (
            ("--image-size", "64", "--inner", '{"rate": 2}'),
            "make-things: inner.rate: expected 0 to 1, received 2",
        ),
        (
            ("--image-size", "64", "--inner", "absent.yaml"),
            "make-things: absent.yaml: cannot be read (No such file or directory); "
            "expected a YAML or JSON file",
        ),
        (
            ("--image-size", "64", "--fast", "perhaps"),
            "make-things: Invalid value for '--fast': 'perhaps' is not a valid boolean. ",
        ),
        (("--image-siz", "64"), "make-things: No such option '--image-siz'."),
        (("--image-size", "64", "more"), "make-things: Got unexpected extra argument"),
        (("--image-size", "64", "--error", "data"), "make-things: expected photos, found none"),
    ],
)
def test_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    outcome = Outcome(capsys, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(message)
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("gate", 3, "make-things: gate closed\n"),
        ("abort", 130, "make-things: interrupted\n"),
        ("disk", 2, "make-things: no space left on the disk: free some and start again\n"),
    ],
)
def test_end_of_another_kind_has_its_code(
    capsys: pytest.CaptureFixture[str], error: str, code: int, line: str
) -> None:
    outcome = Outcome(capsys, "--image-size", "64", "--error", error)
    assert (outcome.code, outcome.err) == (code, line)


def test_fault_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_cli(command, ["--image-size", "64", "--error", "fault"])


@pytest.mark.parametrize(
    "text",
    [
        "Makes things.",
        "--image-size INTEGER",
        "Side of the images, in pixels.",
        "[required]",
        "--rate FLOAT",
        "A rate. [0.25]",
        "--fast BOOLEAN",
        "Whether to hurry. [False]",
        "--inner FILE|JSON",
    ],
)
def test_help_says(capsys: pytest.CaptureFixture[str], text: str) -> None:
    outcome = Outcome(capsys, "--help")
    assert outcome.code == 0
    assert text in " ".join(outcome.out.split())


def test_help_lists_flags_in_the_order_of_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    text = Outcome(capsys, "--help").out
    flags = [flag(field.name) for field in dataclasses.fields(Options)]
    assert sorted(flags, key=text.index) == flags


def test_empty_default_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = (line for line in Outcome(capsys, "--help").out.splitlines() if "--note" in line)
    assert line.endswith("Anything.")


@pytest.mark.parametrize(("name", "expected"), [("image_size", "--image-size"), ("seed", "--seed")])
def test_flag_has_dashes(name: str, expected: str) -> None:
    assert flag(name) == expected
