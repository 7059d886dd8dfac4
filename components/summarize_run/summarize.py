"""Writes down what became of a run: state, tasks, error."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from components.common import html
from components.common.config import to_json
from components.common.errors import ConfigError
from components.common.outputs import staged
from components.common.progress import say
from components.common.step import is_step
from components.common.vertex import Vertex

STEP = "summarize-run"
_JOB = re.compile(r"projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/pipelineJobs/.+")


@dataclasses.dataclass(frozen=True)
class TaskEnd:
    """A task of the run.

    Attributes:
        name: The task.
        state: As Vertex AI names it, e.g. `SUCCEEDED`.
        seconds: From start to end; None when it did not start or did not end.
        error: What Vertex AI says of a failure.
    """

    name: str
    state: str
    seconds: float | None
    error: str


@dataclasses.dataclass(frozen=True)
class Summary:
    """A run.

    Attributes:
        job: Its resource name.
        state: `SUCCEEDED`, `FAILED` or `CANCELLED`.
        error: Of the task that ended it.
        tasks: Those that were started or skipped.
    """

    job: str
    state: str
    error: str
    tasks: tuple[TaskEnd, ...]


def task_ends(job: Any) -> tuple[TaskEnd, ...]:
    """The tasks of a `PipelineJob`, without the graphs they stand in."""
    return tuple(
        TaskEnd(
            task.task_name,
            task.state.name,
            (task.end_time - task.start_time).total_seconds()
            if task.start_time and task.end_time
            else None,
            task.error.message,
        )
        for task in job.job_detail.task_details
        if is_step(task.task_name)
    )


def summarize(job: str, state: str, error: str, summary: Path, report: Path) -> Summary:
    """Asks Vertex AI about the run that this is the end of, and writes two files.

    Args:
        job: Resource name of the pipeline job.
        state: How the run ended, as KFP tells its exit task.
        error: Message of the failure; empty for none.
        summary: JSON file to make.
        report: HTML page to make.

    Raises:
        ConfigError: `job` is no name of a pipeline job.
    """
    found = _JOB.fullmatch(job)
    if not found:
        raise ConfigError(
            f"--job: expected projects/P/locations/R/pipelineJobs/ID, received {job!r}"
        )
    vertex = Vertex(found["project"], found["region"])
    details = vertex.read(vertex.client("PipelineServiceClient").get_pipeline_job, {"name": job})
    result = Summary(job, state, error, task_ends(details))
    with staged(report, summary) as (staged_report, staged_summary):
        html.write_page(staged_report, "Run on Vertex AI", _sections(result))
        staged_summary.write_text(to_json(dataclasses.asdict(result)), encoding="utf-8")
    say(STEP, f"{state}: {error}" if error else state)
    return result


def _sections(result: Summary) -> list[html.Section]:
    rows = [
        (task.name, task.state, "-" if task.seconds is None else f"{task.seconds:.0f}", task.error)
        for task in result.tasks
    ]
    columns = ["Task", "State", "Time, s", "Error"]
    return [
        html.Section(result.state, html.paragraph(result.error or result.job)),
        html.Section("Tasks", html.table(columns, rows, "Tasks of the run")),
    ]
