"""Target files: all that differs between one place to run and the next."""

import dataclasses
import re
from pathlib import Path
from typing import Any, TypeVar

from components.common.config import build, read_mapping
from components.common.errors import ConfigError
from components.train_model.accelerators import AcceleratorConfig

T = TypeVar("T")
# How long to wait before a task is tried again, on every backend.
BACKOFF: dict[str, Any] = {
    "backoff_duration": "30s",
    "backoff_factor": 2.0,
    "backoff_max_duration": "600s",
}
BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/.*)?")
TRAIN_TASK = "train-model"
# Its name where it runs on several hosts.
HOSTS_TASK = "train-model-on-hosts"
# Tasks that run as plain tasks; `train` has a section of its own.
PLAIN_TASKS = (
    "ingest-examples",
    "augment-examples",
    "evaluate-model",
    "gate-model",
    "report-run",
    "export-model",
    "deploy-model",
)


def load_target(cls: type[T], path: Path | None, flags: dict[str, str | None]) -> T:
    """Reads a target file; flags of the command line go first.

    Args:
        cls: What it becomes.
        path: YAML file; None for none.
        flags: Field -> value; None where the flag was not given.

    Raises:
        ConfigError: The file cannot be read, or a key is missing, unknown or wrong.
    """
    content = read_mapping(str(path)) if path else {}
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return build(cls, content | given)
    except ConfigError as error:
        where = f"--config {path}" if path else "target"
        hint = "; give the flag or --config FILE" if "missing" in str(error) else ""
        raise ConfigError(f"{where}: {error}{hint}") from error


def accelerator_of(named: str) -> dict[str, Any]:
    """What `train_model` trains on, for an accelerator as a target file names it."""
    kind = "tpu" if named == "TPU" else "gpu" if named else "auto"
    return dataclasses.asdict(AcceleratorConfig(kind))
