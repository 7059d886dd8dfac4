"""Measures the main job: the whole pipeline on this machine, from photos to an exported model.

    python -m benchmarks.main_job                                    synthetic flowers
    python -m benchmarks.main_job --photos DIR --manifest MANIFEST.csv --group-column author

Prints the command, the machine and the figures. Nothing here passes or fails: machines differ.
"""

import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from components.common.files import DATASET_FILE, LEDGER_FILE

_TRIES = 7


def _timed(*arguments: str) -> tuple[float, int]:
    """Runs `flowers` with arguments; returns seconds and the exit code."""
    began = time.perf_counter()
    process = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pipelines", *arguments], check=False, stdout=sys.stderr
    )
    return time.perf_counter() - began, process.returncode


def _median(*arguments: str) -> float:
    return sorted(_timed(*arguments)[0] for _ in range(_TRIES))[_TRIES // 2]


def _show(name: str, value: str) -> None:
    print(f"{name:<44} {value}")


def _groups_in_two_splits(folder: Path) -> int:
    """Number of groups, photographers say, with written photos in more than one split."""
    splits: dict[str, set[str]] = {}
    ledger = folder / "steps" / "ingest-examples" / "examples" / LEDGER_FILE
    with ledger.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"]:
                splits.setdefault(row["group"], set()).add(row["split"])
    return sum(len(names) > 1 for names in splits.values())


def _report(wall: float, exit_code: int, folder: Path) -> None:
    run: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    work = sum(task.get("work_seconds", 0.0) for task in run["tasks"].values())
    metrics = folder / "steps" / "train-model" / "metrics"
    training = json.loads(metrics.read_text(encoding="utf-8"))["seconds"]
    counts = json.loads(
        (folder / "steps" / "ingest-examples" / "examples" / DATASET_FILE).read_text()
    )["counts"]
    _show("exit code", str(exit_code))
    _show("verdict", run["verdict"]["reason"])
    _show("examples", ", ".join(f"{count} {name}" for name, count in counts.items()))
    _show("groups in two splits", str(_groups_in_two_splits(folder)))
    _show("wall time", f"{wall:.1f} s")
    _show("of it outside the steps", f"{wall - work:.1f} s")
    _show("of it fitting the model", f"{training:.1f} s")
    for name, task in run["tasks"].items():
        _show(f"  {name}", f"{task['seconds']:.1f} s, {task.get('work_seconds', 0):.1f} s inside")


@click.command()
@click.option("--photos", help="A folder of class folders; synthetic flowers without it.")
@click.option("--manifest", help="Goes with --group-column.")
@click.option("--group-column", help="Column of the manifest that names the groups.")
@click.option("--recipe", help="As for flowers run.")
@click.option("--set", "assignments", multiple=True, help="As for flowers run.")
def main(
    photos: str | None,
    manifest: str | None,
    group_column: str | None,
    recipe: str | None,
    assignments: tuple[str, ...],
) -> None:
    """Runs the main job once and prints what it took."""
    given = {"images": photos, "manifest": manifest, "group-column": group_column}
    given["recipe"] = recipe
    flags = [f"--{name}={value}" for name, value in given.items() if value]
    flags += [f"--set={assignment}" for assignment in assignments]
    _show(
        "machine", f"{os.cpu_count()} cores, {platform.machine()}, Python {sys.version.split()[0]}"
    )
    _show("flowers --help, median", f"{_median('--help'):.2f} s")
    with tempfile.TemporaryDirectory() as output:
        compiled = str(Path(output, "flowers.yaml"))
        seconds = _median("compile", "--images=photos", f"--output={compiled}")
        _show("flowers compile, median", f"{seconds:.2f} s")
        _show("command", " ".join(["flowers run", *flags]))
        runs = Path(output, "runs")
        wall, exit_code = _timed("run", *flags, f"--output={runs}")
        (folder,) = runs.iterdir()
        _report(wall, exit_code, folder)


if __name__ == "__main__":
    main()
