"""A step that is killed leaves its output whole or not at all, and can be run again."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from components.common.config import to_json
from tests.builders import TINY_MODEL, TINY_TRAIN, make_evaluation, make_photos

STEPS = ("ingest", "augment", "train", "evaluate", "gate", "export")
# Shares of the time that an undisturbed run of the step takes.
MOMENTS = (0.5, 0.85, 0.97)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Inputs for every step, made by the steps before it."""
    folder = tmp_path_factory.mktemp("kill")
    make_photos(folder / "photos")
    return folder


def command(step, folder, output):
    examples = folder / "ingest" / "examples"
    model = folder / "train" / "model"
    evaluation = folder / "evaluate" / "evaluation.json"
    arguments = {
        "ingest": ["--images", folder / "photos", "--image-size=32"],
        "augment": ["--examples", examples],
        "train": [
            *("--examples", examples, "--augmented", folder / "augment" / "augmented"),
            *("--model-config", json.dumps(TINY_MODEL), "--train-config", json.dumps(TINY_TRAIN)),
        ],
        "evaluate": ["--examples", examples, "--model", model],
        "gate": ["--evaluation", evaluation, "--threshold=0.01"],
        "export": ["--examples", examples, "--model", model, "--evaluation", evaluation],
    }
    return [sys.executable, "-m", "pipelines", "step", step, *arguments[step], "--output", output]


def files(path):
    """Names of all files below a path; the bytes may differ between two trainings."""
    if path.is_file():
        return {"itself"}
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("step", STEPS)
def test_killed_step_leaves_all_or_nothing(step, workspace):
    whole = workspace / step
    began = time.monotonic()
    subprocess.run(command(step, workspace, whole), check=True, capture_output=True)
    duration = time.monotonic() - began
    output = workspace / f"{step}-killed" / "output"
    for moment in MOMENTS:
        process = subprocess.Popen(
            command(step, workspace, output),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(moment * duration)
        # The whole session: worker processes die as they do when a container is killed.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if output.exists():
            assert files(output) == files(whole)
            break
    if not output.exists():
        subprocess.run(command(step, workspace, output), check=True, capture_output=True)
    assert files(output) == files(whole)
    assert [path.name for path in output.parent.iterdir()] == ["output"]


def test_evaluation_that_is_refused_leaves_a_whole_verdict(tmp_path):
    evaluation = tmp_path / "evaluation.json"
    evaluation.write_text(to_json(dataclasses.asdict(make_evaluation())))
    run = command("gate", tmp_path, tmp_path / "verdict.json")
    run[run.index("--evaluation") + 1] = evaluation
    run[run.index("--threshold=0.01")] = "--threshold=1"
    assert subprocess.run(run, check=False, capture_output=True).returncode == 3
    assert json.loads((tmp_path / "verdict.json").read_text())["blessed"] is False
