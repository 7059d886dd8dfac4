"""The whole pipeline with `--runner docker`, beside the same one in subprocesses."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from components.common.files import file_digest
from components.common.progress import parse_line
from pipelines.targets.containers import RUN_LABEL, _Launcher
from tests.containers.conftest import SMALL

pytestmark = pytest.mark.docker

STEPS = [
    "ingest-examples",
    "augment-examples",
    "train-model",
    "evaluate-model",
    "gate-model",
    "report-run",
]


class Finished:
    """What a run printed and left behind."""

    def __init__(self, process, output):
        self.stdout, self.stderr = process.communicate(timeout=280)
        self.exit_code = process.returncode
        (self.folder,) = output.iterdir()
        self.run = json.loads((self.folder / "run.json").read_text())

    def read(self, *parts):
        return (self.folder / "steps").joinpath(*parts)


@pytest.fixture
def run_docker(flowers, lock, photos):
    """Starts a run in containers, on the image of these tests."""

    def start(output, *arguments, **options):
        return flowers(
            *("run", "--runner", "docker", "--image-lock", lock, "--images", photos),
            *("--output", output, *arguments),
            **options,
        )

    return start


@pytest.fixture(scope="module")
def output(workspace, caller):
    folder = workspace / "open"
    folder.mkdir()
    return caller.own(folder)


@pytest.fixture(scope="module")
def finished():
    """Runs that several tests look at, made by the first of them."""
    return {}


@pytest.fixture
def in_containers(finished, run_docker, output):
    if "containers" not in finished:
        finished["containers"] = Finished(run_docker(output / "runs", *SMALL), output / "runs")
    return finished["containers"]


@pytest.fixture
def in_subprocesses(finished, photos, tmp_path_factory):
    if "subprocesses" not in finished:
        folder = tmp_path_factory.mktemp("subprocesses") / "runs"
        command = [sys.executable, "-m", "pipelines", "run", "--images", photos]
        process = subprocess.Popen(
            [*command, "--output", folder, *SMALL],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        finished["subprocesses"] = Finished(process, folder)
    return finished["subprocesses"]


def test_run_ends_well(in_containers):
    assert in_containers.exit_code == 0, in_containers.stderr
    assert not in_containers.stderr
    assert list(in_containers.run["tasks"]) == [*STEPS, "export-model"]


def test_run_json_names_the_image(in_containers, image):
    assert in_containers.run["runner"] == "docker"
    assert list(in_containers.run["images"].values()) == [image]
    assert "tensorflow-cpu" not in in_containers.run["versions"]


def test_outputs_are_the_callers(in_containers, caller):
    files = [in_containers.folder, *in_containers.folder.rglob("*")]
    assert len(files) > 30
    assert {file.lstat().st_uid for file in files} == {caller.uid}


def test_screen_is_that_of_subprocesses(in_containers, in_subprocesses):
    def is_passing(line):
        """How often a step tells how far it has come depends on how long it takes."""
        event = parse_line(line)
        return event is not None and event.done < event.total

    def shape(text):
        lines = [line for line in text.splitlines() if line.startswith("[")]
        return [line.split()[:2] for line in lines if not is_passing(line)]

    assert len(shape(in_containers.stdout)) > 3 * len(STEPS)

    assert shape(in_containers.stdout) == shape(in_subprocesses.stdout)


def test_figures_are_those_of_subprocesses(in_containers, in_subprocesses):
    one, other = (
        json.loads(run.read("evaluate-model", "evaluation").read_text())
        for run in (in_containers, in_subprocesses)
    )
    # Of the Keras file, which has the time of its making in it.
    assert one.pop("model_digest") != other.pop("model_digest")
    assert one == other
    verdicts = []
    for run in (in_containers, in_subprocesses):
        evaluation = run.read("evaluate-model", "evaluation")
        verdict = dict(run.run["verdict"])
        assert verdict.pop("evaluation_digest") == file_digest(evaluation)
        assert verdict.pop("model_digest") == json.loads(evaluation.read_text())["model_digest"]
        verdicts.append(verdict)
    assert verdicts[0] == verdicts[1]


def test_exported_predictions_are_those_of_subprocesses(in_containers, in_subprocesses, photos):
    import tensorflow as tf

    images = tf.constant([path.read_bytes() for path in sorted(photos.rglob("*.jpg"))[::7]])
    one, other = (
        tf.saved_model.load(str(run.read("export-model", "saved_model"))).signatures[
            "serving_default"
        ](image_bytes=images)["probabilities"]
        for run in (in_containers, in_subprocesses)
    )
    assert len(images) > 10
    np.testing.assert_array_equal(one, other)


def test_no_container_is_left(in_containers, engine):
    filters = {"label": f"{RUN_LABEL}={in_containers.folder}"}
    assert not engine.containers.list(all=True, filters=filters)


def test_closed_gate_is_exit_code_3(run_docker, workspace, caller):
    (workspace / "closed").mkdir()
    output = caller.own(workspace / "closed") / "runs"
    hopeless = ["--set=train.schedule.peak=1e-8", "--set=gate.threshold=0.99"]
    run = Finished(run_docker(output, *SMALL, *hopeless), output)
    assert run.exit_code == 3
    assert run.stderr.startswith("flowers run: gate closed: ")
    assert not list(run.folder.rglob("saved_model*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_says_so_and_leaves_no_container(run_docker, engine, workspace, caller, number):
    (workspace / number.name).mkdir()
    output = caller.own(workspace / number.name)
    process = run_docker(output / "runs", *SMALL)
    container = wait_for_container(engine, output)
    process.send_signal(number)
    run = Finished(process, output / "runs")
    assert run.exit_code == 130
    assert run.stderr.splitlines() == ["flowers run: interrupted"]
    assert run.run["state"] == "interrupted"
    assert container.id not in [one.id for one in engine.containers.list(all=True)]


def wait_for_container(engine, output, seconds=60):
    """The container of a run whose folder is below `output`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for container in engine.containers.list(filters={"label": RUN_LABEL}, ignore_removed=True):
            if container.labels[RUN_LABEL].startswith(str(output)):
                return container
        time.sleep(0.05)
    raise TimeoutError


@pytest.mark.parametrize(
    ("component", "interfaces"), [("train_model", {"lo"}), ("deploy_model", {"lo", "eth0"})]
)
def test_network_is_on_where_it_is_needed(engine, image, capsys, component, interfaces):
    launch = _Launcher({"name": image}, "", frozenset({"deploy_model"}))
    # As KFP's commands end; the shell makes nothing of the last two words.
    command = ["sh", "-c", "ls /sys/class/net", "--function_to_execute", component]
    assert launch(engine, "name", command, {}) == 0
    assert set(capsys.readouterr().out.split()) == interfaces
