"""Each step by plain `docker run`: not as root, nothing written but to its output, no network."""

import json
import os
import re
import subprocess
import sys

import pytest

from benchmarks.containers import measure
from pipelines.cli import STEPS

pytestmark = pytest.mark.docker

DOCKER = os.environ.get("DOCKER", "docker")
# In bytes.
MAX_SIZE = 1.9e9
MAX_SIZE_OF_OURS = 100e6
LOCKED_DOWN = ["--read-only", "--tmpfs", "/tmp", "--network", "none"]
ARGUMENTS = {
    "ingest": ["--images=/photos", "--image-size=48"],
    "augment": ["--examples=/outputs/ingest/examples"],
    "train": [
        *("--examples=/outputs/ingest/examples", "--augmented=/outputs/augment/augmented"),
        *("--recipe=quick", "--set=train.epochs=2"),
    ],
    "evaluate": ["--examples=/outputs/ingest/examples", "--model=/outputs/train/model"],
    "gate": [
        *("--model=/outputs/train/model", "--evaluation=/outputs/evaluate/evaluation.json"),
        "--threshold=0.05",
    ],
    "report": [
        *("--verdict=/outputs/gate", "--evaluation=/outputs/evaluate/evaluation.json"),
        *("--evaluation-page=/outputs/evaluate/report.html", "--run-name=r"),
        *("--training-page=/outputs/train/report.html", "--data-page=/outputs/ingest/report.html"),
        "--augmentation-page=/outputs/augment/report.html",
    ],
    "export": [
        *("--examples=/outputs/ingest/examples", "--model=/outputs/train/model"),
        *("--evaluation=/outputs/evaluate/evaluation.json", "--verdict=/outputs/gate"),
    ],
}
OUTPUTS = {
    "ingest": "examples/dataset.json",
    "augment": "augmented/dataset.json",
    "train": "model/model.keras",
    "evaluate": "evaluation.json",
    "gate": "",
    "report": "",
    "export": "saved_model/saved_model.pb",
}


def docker_run(image, *arguments):
    command = [DOCKER, "run", "--rm", *arguments[:-1], image, *arguments[-1]]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(image, photos, workspace, caller):
    """All steps, one after the other; the outputs are in a folder each."""
    (workspace / "work").mkdir()
    work = caller.own(workspace / "work")
    mounts = ["--volume", f"{photos}:/photos:ro", "--volume", f"{work}:/outputs"]
    user = ["--user", f"{caller.uid}:{caller.gid}"]
    return work, {
        step: docker_run(
            image,
            *(*LOCKED_DOWN, *user, *mounts),
            ["python", "-m", package, *ARGUMENTS[step], f"--output=/outputs/{step}"],
        )
        for step, package in STEPS.items()
        if step in ARGUMENTS
    }


def test_every_step_that_needs_no_cloud_is_here():
    assert set(STEPS) - {"deploy", "summarize"} == set(ARGUMENTS)


@pytest.mark.parametrize("step", ARGUMENTS)
def test_step_writes_its_output(finished, caller, step):
    work, runs = finished
    assert runs[step].returncode == 0, runs[step].stderr
    output = work / step / OUTPUTS[step] if OUTPUTS[step] else work / step
    assert output.is_file()
    assert (output.stat().st_uid, output.stat().st_gid) == (caller.uid, caller.gid)


@pytest.mark.parametrize("step", ARGUMENTS)
def test_step_prints_nothing_on_standard_error(finished, step):
    assert finished[1][step].stderr == ""


def test_every_example_is_counted(finished, photos):
    work, _ = finished
    counts = json.loads((work / "ingest" / "examples" / "dataset.json").read_text())["counts"]
    ledger = (work / "ingest" / "examples" / "photos.csv").read_text().splitlines()
    assert len(ledger) - 1 == sum(1 for path in photos.rglob("*") if path.is_file())
    assert (
        json.loads((work / "evaluate" / "evaluation.json").read_text())["examples"]
        == (counts["test"])
    )


@pytest.mark.parametrize("step", STEPS)
def test_help_is_that_of_flowers_step(image, step):
    inside = docker_run(image, *LOCKED_DOWN, ["python", "-m", STEPS[step], "--help"])
    outside = subprocess.run(
        [sys.executable, "-m", "pipelines", "step", step, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert inside.returncode == 0, inside.stderr
    assert inside.stdout.splitlines()[1:] == outside.stdout.splitlines()[1:]


def test_mistake_is_one_line_and_exit_code_2(image):
    command = ["python", "-m", STEPS["ingest"], "--images=/none", "--output=/tmp/output"]
    run = docker_run(image, *LOCKED_DOWN, command)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("ingest-examples: exit 2: ")
    assert "/none" in line


def test_image_alone_shows_the_steps(image):
    run = docker_run(image, *LOCKED_DOWN, [])
    assert run.returncode == 0, run.stderr
    assert all(step in run.stdout for step in STEPS)


def test_image_is_as_the_backends_want_it(engine, image):
    attributes = engine.images.get(image).attrs
    config = attributes["Config"]
    # KFP's command would become arguments of an entry point.
    assert not config["Entrypoint"]
    # Kubernetes takes only a number as a proof of not being root.
    assert config["User"] == "10001:10001"
    assert "Healthcheck" not in config
    assert config["Labels"]["org.opencontainers.image.title"] == "flowers-cpu"
    assert re.fullmatch(
        r"[0-9a-f]{40}(-changed)?", config["Labels"]["org.opencontainers.image.revision"]
    )
    assert attributes["Size"] <= MAX_SIZE


def test_image_holds_little_beside_tensorflow(engine, image):
    sizes = measure(engine, image)
    assert sizes["TensorFlow and what it needs"] > 1e9
    assert sizes["ours"] <= MAX_SIZE_OF_OURS
