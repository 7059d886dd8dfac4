"""`flowers runs`: what was tried, and what came of it."""

from pathlib import Path
from typing import Any

import click

from components.common.cli import PATH

OUTPUT = click.option(
    "--output", type=PATH, default=Path("runs"), show_default=True, help="Folder of the runs."
)


@click.command()
@click.argument("names", nargs=-1, metavar="[RUN]...")
@OUTPUT
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def runs(names: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Lists the runs of a folder, or compares those that are named.

    A RUN is its name or its folder. Two or more are set side by side, with the parameters in which
    they differ.
    """
    from components.common.config import to_json
    from pipelines.runs import differences, find_run, list_runs

    found = [find_run(output, name) for name in names] or list_runs(output)
    changed = differences(found) if len(names) > 1 else []
    if as_json:
        shown: dict[str, Any] = {"runs": [run.summary() for run in found]}
        if len(names) > 1:
            shown["differences"] = dict(changed)
        click.echo(to_json(shown), nl=False)
        return
    _print_table([run.summary() for run in found])
    if len(names) > 1:
        _print_differences([run.folder.name for run in found], changed)


def _print_table(summaries: list[dict[str, Any]]) -> None:
    columns = ("run", "state", "recipe", "accuracy", "95 % interval", "ECE", "data", "took")
    _print(columns, [_row(one) for one in summaries])


def _row(summary: dict[str, Any]) -> list[str]:
    from components.common.evaluation import percent

    accuracy, error = summary["accuracy"], summary["calibration_error"]
    ends = [summary["accuracy_low"], summary["accuracy_high"]]
    return [
        summary["run"],
        summary["state"],
        Path(summary["recipe"]).stem,
        "-" if accuracy is None else percent(accuracy),
        "-" if accuracy is None else " to ".join(map(percent, ends)),
        "-" if error is None else f"{error:.3f}",
        summary["data"] or "-",
        f"{summary['seconds']:.0f} s",
    ]


def _print_differences(names: list[str], changed: list[tuple[str, list[str]]]) -> None:
    click.echo()
    if not changed:
        click.echo("the parameters are the same")
        return
    _print(["parameter", *names], [[name, *values] for name, values in changed])


def _print(columns: Any, rows: list[list[str]]) -> None:
    """A table on a terminal, and lines that `cut` understands in a pipe."""
    import sys

    if not sys.stdout.isatty():
        widths = [max(len(row[i]) for row in [list(columns), *rows]) for i in range(len(columns))]
        for row in [list(columns), *rows]:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
