"""The page of a run on this machine, from its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.common.config import read_mapping
from components.common.errors import UserError
from components.common.evaluation import Evaluation, load_evaluation
from components.common.files import DATASET_FILE
from components.common.model_files import HISTORY_FILE
from components.report_run.report import RunFacts, StepCost, write_report

REPORT_FILE = "report.html"
_PAGES = (
    ("evaluate-model", "report"),
    ("export-model", "report"),
    ("train-model", "report"),
    ("augment-examples", "report"),
    ("ingest-examples", "report"),
)


def write_run_report(
    folder: Path, run: Mapping[str, Any], hourly_price: float | None = None
) -> Path:
    """Writes `report.html` into the folder of a run; steps that did not run have no part in it.

    Args:
        folder: The folder.
        run: Content of `run.json`.
        hourly_price: What the machine costs in an hour; None for the one in `run.json`.

    Returns:
        The file.
    """
    path = folder / REPORT_FILE
    price = run.get("hourly_price") if hourly_price is None else hourly_price
    pages = [folder / "steps" / task / output for task, output in _PAGES]
    write_report(_facts(folder, run, price), pages, path)
    return path


def _facts(folder: Path, run: Mapping[str, Any], price: float | None) -> RunFacts:
    verdict = run["verdict"]
    sentence, good = _sentence(run)
    total = sum(task.get("seconds", 0.0) for task in run["tasks"].values())
    figures = {
        "Recipe": run["recipe"],
        "Started": run["started_at"].replace("T", " ")[:16],
        "Took": f"{run['seconds']:.0f} s",
        "Data": run["inputs"].get("data_fingerprint", "none")[:12],
    }
    if price is not None:
        figures["Cost"] = f"{total / 3600 * price:.4f}"
    return RunFacts(
        title=f"Run {folder.name}",
        sentence=sentence,
        good=good,
        figures=figures,
        command=run["command"],
        threshold=verdict["threshold"] if verdict else None,
        evaluation=_evaluation(folder),
        deployment=run.get("deployment"),
        steps=_steps(folder, run, price),
        price_note=_price_note(price),
    )


def _price_note(price: float | None) -> str:
    if price is None:
        return "flowers report --hourly-price PRICE fills in what the steps cost."
    return f"Cost: the time of a step at {price:g} for an hour of the machine."


def _sentence(run: Mapping[str, Any]) -> tuple[str, bool]:
    verdict = run["verdict"]
    if run["exit_code"] == 0:
        return f"Gate open: {verdict['reason']}.", True
    if run["state"] == "champion stays":
        return f"Exported and not deployed: {run['failure']}.", False
    if verdict and not verdict["blessed"]:
        return f"Gate closed: {verdict['reason']}.", False
    return f"No model: {run['failure']}.", False


def _evaluation(folder: Path) -> Evaluation | None:
    try:
        return load_evaluation(folder / "steps" / "evaluate-model" / "evaluation")
    except UserError:
        return None


def _steps(folder: Path, run: Mapping[str, Any], price: float | None) -> list[StepCost]:
    things = _things(folder)
    return [
        StepCost(
            name=name,
            state=task["state"],
            seconds=task.get("seconds"),
            work_seconds=task.get("work_seconds"),
            things=things.get(name),
            price=None if price is None else task.get("seconds", 0.0) / 3600 * price,
        )
        for name, task in run["tasks"].items()
    ]


def _things(folder: Path) -> dict[str, tuple[int, str]]:
    """How many photos or examples each step worked on, as far as its outputs tell."""
    counts = _counts(folder / "steps" / "ingest-examples" / "examples")
    augmented = _counts(folder / "steps" / "augment-examples" / "augmented")
    epochs = len(_read(folder / "steps" / "train-model" / "model" / HISTORY_FILE, "history"))
    test = (counts.get("test", 0), "examples")
    return {
        "ingest-examples": (sum(counts.values()), "photos"),
        "augment-examples": (sum(augmented.values()), "examples"),
        "train-model": (epochs * augmented.get("train", 0), "examples"),
        "evaluate-model": test,
        "export-model": test,
        "deploy-model": test,
    }


def _counts(dataset: Path) -> dict[str, int]:
    return dict(_read(dataset / DATASET_FILE, "counts"))


def _read(path: Path, key: str) -> Any:
    """What a file of a step has under a key; nothing where the step has not come to write it."""
    try:
        return read_mapping(str(path))[key]
    except UserError:
        return ()
