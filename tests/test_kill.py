"""SIGKILL at random moments: outputs are whole or absent, and the figures end the same.

`make kills KILLS=200` kills 200 times; each step has its share, and the whole run has two.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.common.dataset import fingerprint, load_dataset
from components.common.files import file_digest
from tests.figures import run_figures, shard_digests, take_means, training_figures
from tests.step_commands import SMALL_RUN, STEPS, make_workspace, step_command

pytestmark = pytest.mark.kills

# The share of the whole run comes first, for it takes longest.
TARGETS = ("run", "run", *STEPS)


@pytest.fixture(scope="session")
def kills(request):
    """How many times to kill, over all targets."""
    return request.config.getoption("--kills")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """Outputs of every step that nobody disturbed, and how long each took, in seconds."""
    folder = make_workspace(tmp_path_factory.mktemp("undisturbed"))
    seconds = {}
    for step in STEPS:
        began = time.monotonic()
        subprocess.run(step_command(step, folder, folder / step), check=True, capture_output=True)
        seconds[step] = time.monotonic() - began
    return folder, seconds


def share(kills, number):
    """Kills of one target: as many as of any other, give or take one."""
    return len(range(number, kills, len(TARGETS)))


class Killer:
    """Starts a command again and again, and kills it at moments that a seed gives."""

    def __init__(self, seed, seconds):
        self.random = random.Random(seed)
        self.seconds = seconds
        self.killed = 0

    def kill(self, command):
        """Whether the command was killed; False if it ended by itself, and well.

        Every other time the whole session dies, as it does in a container that is killed; else the
        process alone, whose children have to notice.
        """
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        moment = self.random.uniform(0.02, 1.0) * self.seconds
        try:
            printed, _ = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            members = session(process.pid)
            (os.kill if self.killed % 2 else os.killpg)(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            wait_until_gone(members)
            self.killed += 1
            return True
        assert process.returncode == 0, printed.decode()
        return False


def session(number):
    """Processes of a session (Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # Behind the name of the program, which may hold spaces: state, parent, group, session.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == number and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def wait_until_gone(processes, seconds=30):
    """Nothing goes on that would write beside the next try."""
    end = time.monotonic() + seconds
    while alive := [one for one in processes if is_alive(one)]:
        assert time.monotonic() < end, f"processes {alive} outlive the run"
        time.sleep(0.02)


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def names(path):
    """Names of all files of an output; each try of a training adds events of TensorBoard."""
    if path.is_file():
        return {"itself"}
    files = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
    return {str(file) for file in files if "tensorboard" not in file.parts}


def check_whole(output, whole):
    """Holds an output against that of an undisturbed run: every file, readable to its end."""
    assert names(output) == names(whole), output
    for path in output.rglob("*.json"):
        json.loads(path.read_text())
    for path in output.rglob("dataset.json"):
        check_dataset(path.parent)
    for path in output.rglob("model.json"):
        keras_file = path.with_name("model.keras")
        assert json.loads(path.read_text())["digest"] == file_digest(keras_file)


def check_dataset(folder):
    import hashlib

    from components.common.tfrecords import read_shard

    dataset = load_dataset(folder)
    assert dataset.fingerprint == fingerprint(
        (split, hashlib.sha256(payload).digest())
        for split in dataset.counts
        for shard in dataset.shards(split)
        for payload in read_shard(shard)
    )


@pytest.mark.parametrize("step", STEPS)
def test_step_that_is_killed(step, workspace, kills, tmp_path):
    whole, seconds = workspace
    wanted = share(kills, TARGETS.index(step))
    killer = Killer(f"{step} 0", seconds[step])
    rounds = 0
    while killer.killed < wanted or not rounds:
        output = tmp_path / f"{rounds}" / "output"
        command = step_command(step, whole, output)
        while killer.killed < wanted and killer.kill(command):
            if output.exists():
                check_whole(output, whole / step)
                break
        if not output.exists():
            subprocess.run(command, check=True, capture_output=True)
        rounds += 1
        check_whole(output, whole / step)
        check_same(step, output, whole / step)
        left = {path.name for path in output.parent.iterdir()}
        assert left <= {"output", "checkpoint", "registry"}
    print(f"{step}: {killer.killed} kills, {rounds} ended well")


def check_same(step, output, whole):
    """The figures of the undisturbed step."""
    if step in ("ingest", "augment"):
        assert shard_digests(output) == shard_digests(whole)
    if step == "train":
        figures, expected = (training_figures(one / "model") for one in (output, whole))
        assert take_means(figures) == pytest.approx(take_means(expected), rel=1e-6)
        assert figures == expected
    if step in ("evaluate", "gate", "deploy"):
        name = "evaluation.json" if step == "evaluate" else ""
        assert json.loads((output / name).read_text()) == json.loads((whole / name).read_text())
    if step == "deploy":
        registry = output.parent / "registry" / "flowers"
        assert [path.name for path in (registry / "versions").iterdir()] == ["1"]
        assert (registry / "serving").resolve().name == "1"


@pytest.fixture(scope="session")
def undisturbed_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_workspace(folder)
    began = time.monotonic()
    run = flowers_run("--images", folder / "photos", "--output", folder / "runs", *SMALL_RUN)
    subprocess.run(run, check=True, capture_output=True)
    (whole,) = (folder / "runs").iterdir()
    return folder / "photos", whole, time.monotonic() - began


def flowers_run(*arguments):
    return [sys.executable, "-m", "pipelines", "run", *map(str, arguments)]


@pytest.mark.parametrize("half", [0, 1])
def test_run_that_is_killed_goes_on_to_the_same_figures(half, undisturbed_run, kills, tmp_path):
    photos, whole, seconds = undisturbed_run
    wanted = share(kills, half)
    # Short enough that one run is killed several times before it ends.
    killer = Killer(f"run {half}", seconds / 2)
    rounds = 0
    while killer.killed < wanted or not rounds:
        output = tmp_path / f"{rounds}"
        command = flowers_run("--images", photos, "--output", output, *SMALL_RUN)
        while killer.killed < wanted and killer.kill(command):
            run = next(output.glob("*/run.json"), None)
            if run is not None:
                command = flowers_run("--resume", run.parent.name, "--output", output)
                check_run(run.parent, whole)
                if ended_well(output):
                    break
        if not ended_well(output):
            subprocess.run(command, check=True, capture_output=True)
        rounds += 1
        (folder,) = ended_well(output)
        assert run_figures(folder) == run_figures(whole)
        assert (folder / "report.html").is_file()
    print(f"run: {killer.killed} kills, {rounds} ended well")


def ended_well(output):
    """The runs of a folder that succeeded; one that was killed at once has no file."""
    states = {
        file.parent: json.loads(file.read_text())["state"] for file in output.glob("*/run.json")
    }
    return [run for run, state in states.items() if state == "succeeded"]


def check_run(run, whole):
    """Whatever stands under the name of an output is one; the checkpoint can be gone on from."""
    for task in run.glob(".kfp/flowers-*/*"):
        for output in task.iterdir():
            former = whole / "steps" / task.name / output.name
            if not output.name.startswith(".") and output.name != "executor_output.json":
                check_whole(output, former)
    for link in (run / "steps").glob("*"):
        assert link.resolve().is_dir()
    state = run / ".kfp" / "checkpoint" / "state.json"
    if state.is_file():
        named = json.loads(state.read_text())
        for saved in filter(None, (named["weights"], named["kept_weights"])):
            assert file_digest(state.with_name(saved["file"])) == saved["digest"]
