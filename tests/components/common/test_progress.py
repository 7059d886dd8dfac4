"""Tests of what a step tells, in a pipe and on a terminal."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.common.progress import (
    Event,
    format_line,
    parse_line,
    parse_message,
    progress,
    say,
)

ROOT = Path(__file__).parents[3]
COUNTING = """
from components.common.progress import progress
with progress("train-model", "epochs", 3) as shown:
    for _ in range(3):
        shown.advance(note="loss 0.5")
"""
WORDS = st.from_regex(r"[a-z]+(-[a-z]+)*", fullmatch=True)
# One line, as a note is; what prints it and what reads it may trim its end.
NOTES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])).map(str.strip)
EVENTS = st.builds(Event, WORDS, st.integers(0), st.integers(0), WORDS, NOTES)


def on_a_terminal(script: str) -> str:
    """What a script writes to a terminal."""
    ours, its = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
        stdout=its,
        stderr=its,
    ) as process:
        os.close(its)
        parts = []
        # Linux ends the reading of a terminal that nobody writes to with an error.
        try:
            while part := os.read(ours, 65_536):
                parts.append(part)
        except OSError:
            pass
        finally:
            os.close(ours)
        assert process.wait() == 0
    return b"".join(parts).decode()


@given(EVENTS)
def test_line_is_read_as_it_was_written(event: Event) -> None:
    assert parse_line(format_line(event)) == event


@given(EVENTS)
def test_line_is_read_with_its_line_end(event: Event) -> None:
    assert parse_line(format_line(event) + "\r\n") == event


def test_line_has_the_documented_form() -> None:
    event = Event("train-model", 3, 18, "epochs", "loss 0.92")
    assert format_line(event) == "[train-model] 3/18 epochs, loss 0.92"


def test_line_without_a_note_ends_with_the_unit() -> None:
    assert format_line(Event("train-model", 3, 18, "epochs", "")) == "[train-model] 3/18 epochs"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "3/18 epochs",
        "[train-model] kept epoch 17",
        "[train-model] 3/18",
        "[train-model] 3 of 18 epochs",
        "[train model] 3/18 epochs",
        "before [train-model] 3/18 epochs",
        "[train-model] 3/18 epochs and more",
        "[train-model] -3/18 epochs",
    ],
)
def test_other_text_is_no_progress(line: str) -> None:
    assert parse_line(line) is None


@given(WORDS, NOTES.filter(bool))
def test_message_is_read_as_it_was_written(step: str, text: str) -> None:
    assert parse_message(f"[{step}] {text}\n") == (step, text)


@pytest.mark.parametrize("line", ["", "text", "[train-model]", "x [train-model] text"])
def test_other_text_is_no_message(line: str) -> None:
    assert parse_message(line) is None


def test_say_prints_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    say("train-model", "kept epoch 17")
    assert capsys.readouterr().out == "[train-model] kept epoch 17\n"


def test_name_that_is_not_utf8_is_told_to_a_strict_pipe() -> None:
    script = "from components.common.progress import progress, say\n"
    script += r"say('ingest-examples', 'caf\udce9.jpg, żółw')" + "\n"
    script += "with progress('ingest-examples', 'photos', 1) as shown:\n"
    script += r"    shown.advance(note='caf\udce9.jpg')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().splitlines() == [
        r"[ingest-examples] caf\udce9.jpg, żółw",
        r"[ingest-examples] 1/1 photos, caf\udce9.jpg",
    ]


def test_pipe_gets_plain_lines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNTING], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "[train-model] 1/3 epochs, loss 0.5"
    assert lines[-1] == "[train-model] 3/3 epochs, loss 0.5"
    assert all(map(parse_line, lines))


def test_lines_between_first_and_last_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("ingest-examples", "photos", 50_000) as shown:
        for _ in range(50_000):
            shown.advance()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[ingest-examples] 1/50000 photos"
    assert lines[-1] == "[ingest-examples] 50000/50000 photos"
    assert len(lines) < 1_000


def test_advance_counts_several_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("evaluate-model", "examples", 70) as shown:
        shown.advance(64)
        shown.advance(6)
    assert capsys.readouterr().out.splitlines() == [
        "[evaluate-model] 64/70 examples",
        "[evaluate-model] 70/70 examples",
    ]


def test_terminal_gets_a_bar() -> None:
    output = on_a_terminal(COUNTING)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert "━" in text
    assert re.search(r"train-model .*3/3 epochs .*loss 0.5", text)
    assert "[train-model]" not in text
