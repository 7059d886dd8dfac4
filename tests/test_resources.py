"""A machine that lacks something: one line names step and resource, and no output is left.

Slow, since each step starts anew for each resource: run by `make kills`.
"""

import contextlib
import json
import os
import subprocess
import sys

import pytest

from components.common.resources import lacking_resource
from tests.builders import TINY_MODEL, make_photos
from tests.figures import run_figures, training_figures
from tests.step_commands import SMALL_RUN, STEPS, make_workspace, step_command

# Steps that need TensorFlow, and with it more address space than this, in KiB.
HEAVY = ("augment", "train", "evaluate", "export", "deploy")
LITTLE_MEMORY = 600_000
NAMES = {
    "ingest": "ingest-examples",
    "augment": "augment-examples",
    "train": "train-model",
    "evaluate": "evaluate-model",
    "gate": "gate-model",
    "report": "report-run",
    "export": "export-model",
    "deploy": "deploy-model",
}
# Blocks of 512 bytes a file may have; less than the smallest whole output of any step.
SMALL_FILE = {"gate": 0}


class TestWords:
    """Which errors are about the machine."""

    @pytest.mark.parametrize(
        ("error", "word"),
        [
            (OSError(28, "No space left on device", "a/b"), "no space left on the disk for a/b"),
            (OSError(122, "Disk quota exceeded"), "no space left on the disk"),
            (OSError(27, "File too large"), "larger than this machine allows"),
            (OSError(30, "Read-only file system"), "cannot be written"),
            (OSError(5, "Input/output error"), "the disk fails"),
            (OSError(24, "Too many open files"), "too many open files"),
            (OSError(12, "Cannot allocate memory"), "not enough memory"),
            (MemoryError(), "not enough memory (MemoryError)"),
            (ConnectionResetError(104, "reset by peer"), "the network fails"),
            (OSError("HDF5: errno = 28, error message = 'No space left on device'"), "no space"),
            (RuntimeError("OOM when allocating tensor"), "not enough memory"),
            (
                RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"),
                "not enough mem",
            ),
            (RuntimeError("Out of memory while trying to allocate 9 bytes"), "not enough memory"),
            (RuntimeError("Ran out of memory in memory space hbm"), "train.batch_per_replica"),
            (ImportError("lib.so: failed to map segment from shared object"), "not enough memory"),
        ],
    )
    def test_lack_is_named(self, error, word):
        assert word in lacking_resource(error)

    @pytest.mark.parametrize(
        "error",
        [
            *(ValueError("x"), KeyError("no"), BrokenPipeError(32, "Broken pipe"), OSError()),
            RuntimeError("RESOURCE_EXHAUSTED: Quota exceeded for requests per minute"),
        ],
    )
    def test_fault_of_ours_stays_one(self, error):
        assert lacking_resource(error) == ""

    def test_cause_counts(self):
        error = RuntimeError("could not save")
        error.__cause__ = OSError(28, "No space left on device")
        assert "no space left" in lacking_resource(error)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = make_workspace(tmp_path_factory.mktemp("resources"))
    for step in STEPS:
        subprocess.run(step_command(step, folder, folder / step), check=True, capture_output=True)
    return folder


def limited(limit, command, **options):
    """Runs a command under a limit of the shell."""
    line = ["sh", "-c", f'{limit}; exec "$@"', "sh", *command]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)


def check_refused(step, finished, output, words):
    """Exit code 2, one line with step and resource, and nothing under the name of the output."""
    assert finished.returncode == 2, finished.stderr[-2000:]
    last = finished.stderr.splitlines()[-1]
    assert last.startswith(f"{NAMES[step]}: exit 2: "), finished.stderr[-2000:]
    assert any(word in last for word in words), last
    assert "Traceback" not in finished.stderr
    assert not output.exists()


@pytest.mark.kills
@pytest.mark.parametrize("step", [step for step in STEPS if step != "train"])
def test_files_may_not_grow(step, workspace, tmp_path):
    """What a full disk and a quota look like where nobody may mount one."""
    output = tmp_path / "out" / "output"
    blocks = SMALL_FILE.get(step, 2)
    command = step_command(step, workspace, output, work=tmp_path)
    finished = limited(f"ulimit -f {blocks}", command)
    check_refused(step, finished, output, ("larger than this machine allows", "cannot be made"))
    left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
    assert left == []


@pytest.mark.kills
def test_checkpoint_may_not_grow(workspace, tmp_path):
    """HDF5 would crash; the room is looked for before it is asked to write."""
    output = tmp_path / "out" / "output"
    command = step_command("train", workspace, output, work=tmp_path)
    finished = limited("ulimit -f 2", command)
    check_refused("train", finished, output, ("larger than this machine allows",))
    assert not list((tmp_path / "checkpoint").glob("*.h5"))
    subprocess.run(command, check=True, capture_output=True)
    figures = [training_figures(one / "model") for one in (output, workspace / "train")]
    assert figures[0] == figures[1]


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system in memory; only root may."""
    mounted = []

    def mount(options):
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def fill(path):
    """Writes until nothing more can be written; what some steps write is small."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@pytest.mark.kills
@pytest.mark.parametrize("step", STEPS)
def test_disk_is_full(step, workspace, tmp_path, small_disk):
    disk = small_disk("size=64k")
    filler = disk / "filler"
    if step in ("evaluate", "gate", "deploy"):
        fill(filler)
    output = disk / "output"
    finished = subprocess.run(
        step_command(step, workspace, output, work=tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    check_refused(step, finished, output, ("no space left", "No space left"))
    assert [one.name for one in disk.iterdir() if one != filler] == []


@pytest.mark.kills
def test_disk_under_checkpoint_is_full(workspace, tmp_path, small_disk):
    disk, output = small_disk("size=4m"), tmp_path / "output"
    command = step_command("train", workspace, output, work=disk)
    filler = disk / "filler"
    fill(filler)
    # Room for the logs and not for weights.
    os.truncate(filler, filler.stat().st_size - 8192)
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    check_refused("train", finished, output, ("no space left",))
    filler.unlink()
    subprocess.run(command, check=True, capture_output=True)
    figures = [training_figures(one / "model") for one in (output, workspace / "train")]
    assert figures[0] == figures[1]


@pytest.mark.kills
@pytest.mark.parametrize("step", STEPS)
def test_disk_is_read_only(step, workspace, tmp_path, small_disk):
    output = small_disk("ro") / "output"
    finished = subprocess.run(
        step_command(step, workspace, output, work=tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    check_refused(step, finished, output, ("Read-only file system", "cannot be written"))


@pytest.mark.kills
@pytest.mark.parametrize("step", HEAVY)
def test_memory_is_short(step, workspace, tmp_path):
    output = tmp_path / "output"
    command = step_command(step, workspace, output, work=tmp_path)
    finished = limited(f"ulimit -v {LITTLE_MEMORY}", command)
    check_refused(step, finished, output, ("not enough memory",))


def site(folder, text):
    """An environment in which every Python runs some lines before all else."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(text)
    return {**os.environ, "PYTHONPATH": str(folder)}


# As the system does it to a process that takes the last of the memory.
KILLED = """
import sys
if "train_model" in sys.argv:
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
"""
# A day forth or back at every look, in the run and in every step.
JUMPING_CLOCK = """
import itertools, time
real, jumps = time.time, itertools.cycle((0, 86400, -86400))
time.time = lambda: real() + next(jumps)
"""


def run(photos, output, environment):
    command = [sys.executable, "-m", "pipelines", "run", "--images", photos, "--output", output]
    return subprocess.run(
        [*command, *SMALL_RUN], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.kills
def test_task_that_the_system_kills_is_named(tmp_path):
    photos, output = make_photos(tmp_path / "photos"), tmp_path / "runs"
    finished = run(photos, output, site(tmp_path / "site", KILLED))
    assert finished.returncode == 1
    assert finished.stderr.splitlines() == [
        "flowers run: step train-model was killed by SIGKILL, most often for lack of memory; "
        "go on with flowers run --resume"
    ]
    (folder,) = output.iterdir()
    assert not (folder / "steps" / "train-model" / "model").exists()
    command = [sys.executable, "-m", "pipelines", "run", "--resume", folder.name]
    subprocess.run([*command, "--output", output], check=True, capture_output=True)
    assert json.loads((folder / "run.json").read_text())["state"] == "succeeded"


@pytest.mark.kills
def test_clock_that_jumps_changes_nothing(tmp_path):
    photos = make_photos(tmp_path / "photos")
    runs = []
    for name, text in (("plain", ""), ("jumping", JUMPING_CLOCK)):
        output = tmp_path / f"{name}-runs"
        finished = run(photos, output, site(tmp_path / name, text))
        assert finished.returncode == 0, finished.stderr
        (folder,) = output.iterdir()
        tasks = json.loads((folder / "run.json").read_text())["tasks"].values()
        assert all(0 <= task["seconds"] < 600 for task in tasks)
        runs.append(folder)
    assert run_figures(runs[0]) == run_figures(runs[1])


# Nobody waits three minutes here.
IMPATIENT = """
from components.common import gcs
gcs.PATIENT = gcs.Patience(connect=1.0, deadline=3.0)
"""
NEEDS_NETWORK = {
    "photos": ("ingest", "--images", "gs://bucket/photos"),
    "checkpoint": ("train", "--checkpoint", "gs://bucket/checkpoint"),
    "weights": (
        *("train", "--model-config"),
        json.dumps({**TINY_MODEL, "weights": "gs://bucket/some.weights.h5"}),
    ),
}


@pytest.mark.kills
@pytest.mark.parametrize("name", NEEDS_NETWORK)
def test_network_that_is_lost(name, workspace, tmp_path):
    """A bucket that nobody answers for; the steps that take local folders need no network."""
    step, option, place = NEEDS_NETWORK[name]
    output = tmp_path / "out" / "output"
    command = step_command(step, workspace, output, work=tmp_path)
    command[command.index(option) + 1] = place
    environment = site(tmp_path / "site", IMPATIENT)
    finished = subprocess.run(
        command,
        env={**environment, "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1, finished.stderr
    last = finished.stderr.splitlines()[-1]
    assert last.startswith(f"{NAMES[step]}: exit 1: gs://bucket/"), last
    assert "the service did not answer in time" in last
    assert "Traceback" not in finished.stderr
    left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
    assert left == []
