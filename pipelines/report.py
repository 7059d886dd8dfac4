"""The page of a run: the verdict first, then what each step has to show."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from components.common import html

_PAGES = (
    ("evaluate-model", "report"),
    ("train-model", "report"),
    ("augment-examples", "report"),
    ("ingest-examples", "report"),
)


def write_report(folder: Path, run: dict[str, Any]) -> None:
    """Writes `report.html` into the folder of a run.

    Args:
        folder: The folder; pages of steps that did not run are left out.
        run: Content of `run.json`.
    """
    sections = [html.Section("Verdict", _verdict(run)), html.Section("Steps", _steps(run))]
    page = html.page(f"Run {folder.name}", sections, _step_pages(folder))
    html.write_html(folder / "report.html", page)


def _step_pages(folder: Path) -> Markup:
    pages = (folder / "steps" / task / output for task, output in _PAGES)
    parts = (html.sections_of(page.read_text(encoding="utf-8")) for page in pages if page.is_file())
    return Markup().join(parts)


def _verdict(run: dict[str, Any]) -> Markup:
    verdict = run["verdict"]
    blessed = run["exit_code"] == 0
    if blessed:
        line = f"Gate open: {verdict['reason']}."
    elif run["state"] == "champion stays":
        line = f"Exported and not deployed: {run['failure']}."
    elif verdict and not verdict["blessed"]:
        line = f"Gate closed: {verdict['reason']}."
    else:
        line = f"No model: {run['failure']}."
    shade = "good" if blessed else "bad"
    return (
        Markup('<p class="verdict {}">{}</p>').format(shade, line)
        + html.figures(
            {
                "Recipe": run["recipe"],
                "Started": run["started_at"].replace("T", " ")[:16],
                "Took": f"{run['seconds']:.0f} s",
                "Data": run["inputs"].get("data_fingerprint", "none")[:12],
            }
        )
        + Markup("<p>Made by <code>{}</code></p>").format(run["command"])
    )


def _steps(run: dict[str, Any]) -> Markup:
    rows = [
        (name, task["state"], task.get("seconds", "-"), task.get("work_seconds", "-"))
        for name, task in run["tasks"].items()
    ]
    columns = ["Step", "State", "Time, s", "Work, s"]
    return html.table(columns, rows, "Steps of the run")
