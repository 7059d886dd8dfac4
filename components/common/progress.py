"""What a step tells: progress and messages, for people and for pipes.

On a terminal a step shows a bar. In a pipe, which is also what a step under a runner has, it
prints lines of one fixed form, so that logs stay readable and a front end can draw the bar:

    [train-model] 3/18 epochs, loss 0.92
    [train-model] kept epoch 17

Whatever else a process prints comes from its libraries.
"""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

_LINE = re.compile(
    r"\[(?P<step>[\w-]+)\] (?P<done>\d+)/(?P<total>\d+) (?P<unit>[\w-]+)(?:, (?P<note>.*))?"
)
_MESSAGE = re.compile(r"\[(?P<step>[\w-]+)\] (?P<text>.+)")
_SECONDS_BETWEEN_LINES = 2.0


class Event(NamedTuple):
    """One progress line, taken apart."""

    step: str
    done: int
    total: int
    unit: str
    note: str


def parse_line(line: str) -> Event | None:
    """Reads a progress line; None for any other text."""
    found = _LINE.fullmatch(line.strip())
    if not found:
        return None
    return Event(
        found["step"], int(found["done"]), int(found["total"]), found["unit"], found["note"] or ""
    )


def format_line(event: Event) -> str:
    """The line that `parse_line` reads."""
    note = f", {event.note}" if event.note else ""
    return f"[{event.step}] {event.done}/{event.total} {event.unit}{note}"


def say(step: str, text: str) -> None:
    """Prints a message of a step."""
    _print(f"[{step}] {text}")


def _print(line: str) -> None:
    # File names are bytes: one that is not UTF-8 must not end the step that tells of it.
    print(line.encode("utf-8", "backslashreplace").decode(), flush=True)


def parse_message(line: str) -> tuple[str, str] | None:
    """Reads a line of `say` into step and text; None for any other text."""
    found = _MESSAGE.fullmatch(line.strip())
    return (found["step"], found["text"]) if found else None


class Progress(Protocol):
    """What a step tells about how far it has come."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Counts `count` more as done; `note` is shown behind the count."""


class _Lines:
    """Prints a line at the start, at the end, and every few seconds between."""

    def __init__(self, step: str, unit: str, total: int) -> None:
        self._event = Event(step, 0, total, unit, "")
        self._printed_at = float("-inf")

    def advance(self, count: int = 1, note: str = "") -> None:
        event = self._event
        self._event = event._replace(done=event.done + count, note=note)
        now = time.monotonic()
        finished = self._event.done >= self._event.total
        if finished or now - self._printed_at >= _SECONDS_BETWEEN_LINES:
            self._printed_at = now
            _print(format_line(self._event))


class _Bar:
    """Draws a bar on a terminal."""

    def __init__(self, step: str, unit: str, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        self.rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
            # Last, and cut where the terminal ends: the bar and the count keep their places.
            TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True)),
            expand=True,
        )
        self._task = self.rich.add_task(step, total=total, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        self.rich.update(self._task, advance=count, note=note)


@contextmanager
def progress(step: str, unit: str, total: int) -> Iterator[Progress]:
    """Shows the progress of a loop over `total` things called `unit`.

    Args:
        step: Name of the step, e.g. `train-model`.
        unit: What is counted, one word in the plural, e.g. `photos`.
        total: How many there are.

    Yields:
        An object whose `advance` is called as things get done.
    """
    if sys.stdout.isatty():
        bar = _Bar(step, unit, total)
        with bar.rich:
            yield bar
    else:
        yield _Lines(step, unit, total)


@contextmanager
def silence() -> Iterator[Progress]:
    """Shows nothing: of several processes that do the same, one tells of it."""

    class _Silence:
        def advance(self, count: int = 1, note: str = "") -> None:
            pass

    yield _Silence()
