"""The runs of a folder: found, listed, compared."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.common.config import read_mapping
from components.common.errors import ConfigError, UserError
from components.common.evaluation import Evaluation, load_evaluation

RUN_FILE = "run.json"
# Differ between any two runs, and say nothing of what was tried.
_INCIDENTAL = {"run_name", "checkpoint", "command"}


@dataclasses.dataclass(frozen=True)
class PastRun:
    """A run on this machine.

    Attributes:
        folder: Its folder.
        content: Content of `run.json`.
        evaluation: How its model did; None where it came to none.
    """

    folder: Path
    content: Mapping[str, Any]
    evaluation: Evaluation | None

    def summary(self) -> dict[str, Any]:
        """What a list shows of it, as plain data."""
        scores = self.evaluation
        inputs = self.content.get("inputs", {})
        return {
            "run": self.folder.name,
            "state": self.content["state"],
            "recipe": self.content["recipe"],
            "accuracy": scores.accuracy if scores else None,
            "accuracy_low": scores.accuracy_low if scores else None,
            "accuracy_high": scores.accuracy_high if scores else None,
            "calibration_error": scores.calibration_error if scores else None,
            "test_examples": scores.examples if scores else None,
            "data": inputs.get("data_fingerprint", "")[:12] or None,
            "seconds": self.content["seconds"],
        }


def load_run(folder: Path) -> PastRun:
    """Reads a run.

    Raises:
        ConfigError: The folder holds no run, or a damaged one.
    """
    content = read_mapping(str(folder / RUN_FILE))
    missing = {"state", "recipe", "seconds", "tasks", "command", "parameters"} - content.keys()
    if missing:
        raise ConfigError(f"{folder / RUN_FILE}: not the file of a run, it lacks {min(missing)}")
    try:
        scores = load_evaluation(folder / "steps" / "evaluate-model" / "evaluation")
    except UserError:
        # It ended before the evaluation; a list shows it all the same.
        scores = None
    return PastRun(folder, content, scores)


def list_runs(output: Path) -> list[PastRun]:
    """The runs of a folder, the newest first; folders that hold none are passed over.

    Raises:
        ConfigError: There is no run.
    """
    runs = [load_run(file.parent) for file in output.glob(f"*/{RUN_FILE}")]
    if not runs:
        raise ConfigError(f"{output}: holds no run; make one with flowers run, or name --output")
    return sorted(runs, key=lambda run: str(run.content.get("started_at", "")), reverse=True)


def find_run(output: Path, name: str | None) -> PastRun:
    """The run of that name, in `output` or by its path; without a name the newest.

    Raises:
        ConfigError: There is none.
    """
    if name is None:
        return list_runs(output)[0]
    for folder in (output / name, Path(name)):
        if (folder / RUN_FILE).is_file():
            return load_run(folder)
    raise ConfigError(f"run {name}: neither in {output} nor a folder of a run; see flowers runs")


def differences(runs: Sequence[PastRun]) -> list[tuple[str, list[str]]]:
    """Parameters in which runs differ: the name, and the value in each run."""
    flat = [dict(_flatten(run.content["parameters"])) for run in runs]
    names = sorted({name for one in flat for name in one})
    rows = [(name, [one.get(name, "-") for one in flat]) for name in names]
    return [
        (name, values) for name, values in rows if len(set(values)) > 1 and name not in _INCIDENTAL
    ]


def _flatten(parameters: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str]]:
    for key, value in parameters.items():
        name = f"{where}.{key}" if where else key
        if isinstance(value, Mapping):
            yield from _flatten(value, name)
        else:
            yield name, json.dumps(value, ensure_ascii=False)
