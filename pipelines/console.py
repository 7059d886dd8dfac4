"""What the user sees of a run: bars on a terminal, plain lines in a pipe."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol, TextIO

from components.common.progress import Event, format_line

_SECONDS_BETWEEN_LINES = 10.0


class Console(Protocol):
    """Told by the runner as things happen."""

    def started(self, task: str) -> None:
        """A task began."""

    def progress(self, event: Event) -> None:
        """A task came further."""

    def message(self, task: str, text: str) -> None:
        """A task says something."""

    def finished(self, task: str, succeeded: bool, seconds: float) -> None:
        """A task ended."""


class LineConsole:
    """Plain lines; of a task's progress only some."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._printed_at = 0.0

    def started(self, task: str) -> None:
        """Says that a task began."""
        self._printed_at = time.monotonic()
        self._print(f"[{task}] started")

    def progress(self, event: Event) -> None:
        """Prints the last line of progress, and one every ten seconds before it."""
        now = time.monotonic()
        if event.done >= event.total or now - self._printed_at >= _SECONDS_BETWEEN_LINES:
            self._printed_at = now
            self._print(format_line(event))

    def message(self, task: str, text: str) -> None:
        """Prints what a task says."""
        self._print(f"[{task}] {text}")

    def finished(self, task: str, succeeded: bool, seconds: float) -> None:
        """Says how a task ended."""
        self._print(f"[{task}] {'done' if succeeded else 'failed'} after {seconds:.1f} s")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class BarConsole:
    """A bar per task on a terminal; messages scroll above the bars."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )
        from rich.table import Column

        self.rich = Progress(
            TextColumn("{task.description:<17}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            # Last, and cut where the terminal ends: the bar and the count keep their places.
            TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True)),
            console=RichConsole(file=stream),
            expand=True,
        )
        self._bars: dict[str, object] = {}

    def started(self, task: str) -> None:
        """Adds a bar that moves to and fro until the first count."""
        self._bars[task] = self.rich.add_task(task, total=None, note="")

    def progress(self, event: Event) -> None:
        """Moves the bar of a task."""
        note = f"{event.unit}, {event.note}" if event.note else event.unit
        self._update(event.step, completed=event.done, total=event.total, note=note)

    def message(self, task: str, text: str) -> None:
        """Prints above the bars."""
        self.rich.print(f"[{task}] {text}", markup=False, highlight=False)

    def finished(self, task: str, succeeded: bool, seconds: float) -> None:
        """Fills the bar, or leaves it where the task failed."""
        bar = next(one for one in self.rich.tasks if one.id == self._bars[task])
        total = bar.total or 1
        completed = total if succeeded else bar.completed
        note = "done" if succeeded else "failed"
        self._update(task, total=total, completed=completed, note=note)
        self.rich.stop_task(bar.id)

    def _update(self, task: str, **changes: object) -> None:
        if task in self._bars:
            self.rich.update(self._bars[task], **changes)  # type: ignore[arg-type]


@contextlib.contextmanager
def open_console() -> Iterator[Console]:
    """The console that fits standard output as it is when the run begins."""
    if not sys.stdout.isatty():
        yield LineConsole(sys.stdout)
        return
    bars = BarConsole(sys.stdout)
    with bars.rich:
        yield bars
