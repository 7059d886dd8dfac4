"""Whole runs under kfp.local, on miniature photos, each step in a process of its own."""

import contextlib
import fcntl
import functools
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from components.common.progress import Event
from pipelines.console import BarConsole
from tests.builders import make_photos
from tests.planted import PLANTED, SECRET

TINY = [
    "--set=ingest.image_size=32",
    "--set=model.stem_filters=8",
    "--set=model.stages=[[[4, 16]], [[8, 32]]]",
    "--set=train.epochs=2",
    "--set=train.global_batch_size=16",
]
STEPS = [
    "ingest-examples",
    "augment-examples",
    "train-model",
    "evaluate-model",
    "gate-model",
    "report-run",
]


def start(*arguments, **options):
    command = [sys.executable, "-m", "pipelines", "run", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


class Finished:
    """What a run printed and left behind."""

    def __init__(self, process, output):
        self.stdout, self.stderr = process.communicate(timeout=240)
        self.exit_code = process.returncode
        (self.folder,) = output.iterdir()
        self.run = json.loads((self.folder / "run.json").read_text())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos") / "with 'odd' name, 花")


@pytest.fixture(scope="module")
def open_run(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("open") / "runs"
    threshold = "--set=gate.threshold=0.01"
    arguments = ("--images", photos, "--output", output, *TINY, threshold)
    return Finished(start(*arguments, env={**os.environ, **PLANTED}), output)


@pytest.fixture(scope="module")
def closed_run(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("closed") / "runs"
    # A learning rate of nothing: the model stays as bad as it began.
    hopeless = ["--set=train.schedule.peak=1e-8", "--set=gate.threshold=0.99"]
    registry = ["--registry", output.parent / "registry"]
    arguments = ["--images", photos, "--output", output, *TINY, *hopeless, *registry]
    return Finished(start(*arguments), output)


@pytest.fixture(scope="module")
def deployed(photos, tmp_path_factory):
    """A run that deploys to a registry of its own."""
    folder = tmp_path_factory.mktemp("deployed")
    arguments = ["--images", photos, "--output", folder / "runs", *TINY]
    arguments += ["--set=gate.threshold=0.01", "--registry", folder / "registry"]
    arguments += ["--model-name", "meadow", "--accelerator", '{"kind": "cpu", "replicas": 2}']
    arguments += ["--checkpoint-steps", "1"]
    return folder / "registry" / "meadow", Finished(start(*arguments), folder / "runs")


class TestRegistry:
    def test_first_model_serves(self, deployed):
        registry, run = deployed
        assert run.exit_code == 0, run.stderr
        assert run.run["deployment"]["version"] == "1"
        assert "version 1 serves: the first version" in run.stdout
        history = run.folder / "steps" / "train-model" / "model" / "history.json"
        assert json.loads(history.read_text())["devices"].startswith("2 ")
        assert run.run["parameters"]["checkpoint_steps"] == 1
        assert (registry / "serving" / "saved_model" / "saved_model.pb").is_file()
        labels = json.loads((registry / "serving" / "version.json").read_text())["labels"]
        assert labels["run"] == run.folder.name
        assert labels["data"] == run.run["inputs"]["data_fingerprint"]

    def test_closed_gate_does_not_reach_the_registry(self, closed_run):
        assert closed_run.exit_code == 3
        assert not (closed_run.folder.parents[1] / "registry").exists()


class TestGateOpen:
    def test_exit_code_is_0(self, open_run):
        assert open_run.exit_code == 0, open_run.stderr

    def test_nothing_on_standard_error(self, open_run):
        assert not open_run.stderr

    def test_model_is_exported(self, open_run):
        saved_model = open_run.folder / open_run.run["outputs"]["saved_model"]
        assert (saved_model / "saved_model.pb").is_file()
        assert f"model   {saved_model}" in open_run.stdout

    def test_last_line_says_why(self, open_run):
        last = open_run.stdout.splitlines()[-1]
        assert last == f"gate open: {open_run.run['verdict']['reason']}"

    def test_run_json_tells_the_state(self, open_run):
        assert open_run.run["state"] == "succeeded"
        assert open_run.run["exit_code"] == 0
        assert open_run.run["failure"] is None
        assert open_run.run["verdict"]["blessed"] is True

    def test_run_json_has_every_task(self, open_run):
        tasks = open_run.run["tasks"]
        assert list(tasks) == [*STEPS, "export-model"]
        assert {task["state"] for task in tasks.values()} == {"succeeded"}
        assert all(0 <= task["work_seconds"] <= task["seconds"] for task in tasks.values())

    def test_run_json_names_the_data(self, open_run):
        dataset = open_run.folder / "steps" / "ingest-examples" / "examples" / "dataset.json"
        fingerprint = json.loads(dataset.read_text())["fingerprint"]
        assert open_run.run["inputs"]["data_fingerprint"] == fingerprint

    def test_run_json_has_parameters_and_versions(self, open_run, photos):
        assert open_run.run["parameters"]["images"] == str(photos)
        assert open_run.run["parameters"]["train_config"]["epochs"] == 2
        assert {"flowers", "kfp", "keras", "python"} <= open_run.run["versions"].keys()

    def test_report_shows_verdict_and_every_page(self, open_run):
        page = (open_run.folder / "report.html").read_text()
        assert open_run.run["verdict"]["reason"].replace("'", "&#39;") in page
        for title in ("Verdict", "Confusion matrix", "Learning rate", "Rejected photos"):
            assert f">{title}</h2>" in page
        for part in ("Reproduce", "Calibration", "Exports", "Model card"):
            assert f">{part}</h2>" in page
        assert open_run.run["command"].split()[0] in page

    def test_report_needs_nothing_from_outside(self, open_run):
        page = (open_run.folder / "report.html").read_text()
        assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
        assert "@import" not in page
        assert "url(http" not in page

    def test_pipe_gets_plain_lines(self, open_run):
        assert "\x1b" not in open_run.stdout
        assert "\r" not in open_run.stdout
        for step in STEPS:
            assert f"[{step}] started" in open_run.stdout

    def test_nothing_of_the_environment_is_written_down(self, open_run):
        """Neither run.json, log, report nor any output has a secret that the processes had."""
        files = [path for path in open_run.folder.rglob("*") if path.is_file()]
        assert {"run.json", "run.log", "report.html"} <= {path.name for path in files}
        assert not [path for path in files if SECRET.encode() in path.read_bytes()]
        assert SECRET not in open_run.stdout + open_run.stderr

    def test_log_keeps_what_the_screen_leaves_out(self, open_run):
        log = (open_run.folder / "run.log").read_text()
        assert "KFP Executor" in log
        assert "KFP Executor" not in open_run.stdout


class TestGateClosed:
    def test_exit_code_is_3(self, closed_run):
        assert closed_run.exit_code == 3

    def test_nothing_is_exported(self, closed_run):
        assert not list(closed_run.folder.rglob("saved_model*"))
        assert "export-model" not in closed_run.run["tasks"]
        assert "saved_model" not in closed_run.run["outputs"]

    def test_last_line_is_the_reason(self, closed_run):
        reason = closed_run.run["verdict"]["reason"]
        assert "below the threshold of 99.00 %" in reason
        assert closed_run.stderr.splitlines() == [f"flowers run: gate closed: {reason}"]

    def test_run_json_tells_the_state(self, closed_run):
        assert closed_run.run["state"] == "gate closed"
        assert closed_run.run["exit_code"] == 3
        assert closed_run.run["verdict"]["blessed"] is False

    def test_report_says_no_first(self, closed_run):
        page = (closed_run.folder / "report.html").read_text()
        assert page.index("Gate closed: ") < page.index(">Steps</h2>")

    def test_page_for_the_console_says_no_too(self, closed_run):
        page = (closed_run.folder / "steps" / "report-run" / "report").read_text()
        assert "Gate closed: " in page
        assert ">Confusion matrix</h2>" in page


@pytest.fixture(scope="module")
def mistaken_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistake")
    photos = make_photos(folder / "photos", class_names=("circles", "squares"))
    for number in range(9):
        (photos / "circles" / f"text-{number}.jpg").write_text("no picture")
    return Finished(start("--images", photos, "--output", folder / "runs"), folder / "runs")


class TestMistakeInTheData:
    def test_exit_code_is_2(self, mistaken_run):
        assert mistaken_run.exit_code == 2

    def test_one_line_says_what_to_do(self, mistaken_run):
        (line,) = mistaken_run.stderr.splitlines()
        assert line.startswith("flowers run: ")
        assert "9 of 69 photos cannot be used" in line

    def test_run_json_tells_the_state(self, mistaken_run):
        assert mistaken_run.run["state"] == "failed"
        assert mistaken_run.run["tasks"] == {
            "ingest-examples": mistaken_run.run["tasks"]["ingest-examples"]
        }
        assert mistaken_run.run["tasks"]["ingest-examples"]["state"] == "failed"
        assert "9 of 69 photos cannot be used" in mistaken_run.run["failure"]

    def test_no_output_looks_finished(self, mistaken_run):
        assert not (mistaken_run.folder / "steps" / "ingest-examples" / "examples").exists()


def test_broken_run_does_not_write_its_environment_down(photos, tmp_path):
    """A traceback names lines and not values, and so does the log of it."""
    text = (
        "from components.ingest_examples import splits\n"
        "import os\n"
        "def broken(*_, secret=os.environ['PASSWORD']): raise ZeroDivisionError\n"
        "splits.near_duplicates = broken\n"
    )
    (tmp_path / "sitecustomize.py").write_text(text)
    environment = {**os.environ, **PLANTED, "PYTHONPATH": str(tmp_path)}
    output = tmp_path / "runs"
    run = Finished(start("--images", photos, "--output", output, *TINY, env=environment), output)
    assert run.exit_code == 1
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert "Traceback" in (run.folder / "run.log").read_text()
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def resume(*arguments):
    finished = subprocess.run(
        [sys.executable, "-m", "pipelines", "run", "--resume", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    return line


def run_of_other_code(run, folder, training, weights):
    """A copy of a run that was killed, whose code is no longer here."""
    shutil.copytree(run.folder, folder, symlinks=True)
    content = json.loads((folder / "run.json").read_text())
    content |= {"state": "running"}
    content["versions"]["code"] = "0" * 64
    content["tasks"]["train-model"]["state"] = training
    content["parameters"]["model_config"]["weights"] = weights
    content["parameters"]["checkpoint"] = str(folder / ".kfp" / "checkpoint")
    (folder / "run.json").write_text(json.dumps(content))
    return folder


class TestResume:
    """How a run that was killed ends, is in tests/test_kill.py."""

    def test_run_that_ended(self, open_run):
        line = resume(open_run.folder)
        assert "expected a run that was killed, interrupted or failed" in line
        assert line.endswith("received one that ended: succeeded")

    def test_no_such_run(self, tmp_path):
        assert "neither in" in resume("none", "--output", tmp_path)

    def test_flag_that_the_run_has_already(self, open_run):
        line = resume(open_run.folder, "--set", "train.epochs=9")
        assert line == "flowers: --set: a run that goes on has it from its beginning"

    OF_OTHER_CODE = "expected the code and packages that began it, code 000"

    def test_run_of_other_code(self, open_run, tmp_path):
        folder = run_of_other_code(open_run, tmp_path / "run", "succeeded", weights="none")
        assert self.OF_OTHER_CODE in resume(folder)

    @pytest.mark.parametrize(
        ("training", "moved", "said"),
        [
            ("succeeded", False, OF_OTHER_CODE),
            ("failed", False, "w.h5, which is not there"),
            # Nothing of it is known as done there.
            ("succeeded", True, "w.h5, which is not there"),
        ],
    )
    def test_first_weights_are_asked_for_until_training_is_done(
        self, open_run, tmp_path, training, moved, said
    ):
        weights = str(tmp_path / "w.h5")
        folder = run_of_other_code(open_run, tmp_path / "run", training, weights)
        if moved:
            folder = folder.rename(tmp_path / "moved")
        assert said in resume(folder)

    def test_run_that_still_runs(self, open_run):
        with (open_run.folder / "run.log").open("a") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            assert "it still runs" in resume(open_run.folder)


def test_fault_of_ours_is_exit_code_1(photos, tmp_path):
    """A library that breaks inside a step: no traceback on the screen, all of it in the log."""
    (tmp_path / "sitecustomize.py").write_text(
        "from components.ingest_examples import splits\n"
        "def broken(*_): raise ZeroDivisionError('broken library')\n"
        "splits.near_duplicates = broken\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    output = tmp_path / "runs"
    run = Finished(start("--images", photos, "--output", output, *TINY, env=environment), output)
    assert run.exit_code == 1
    (line,) = run.stderr.splitlines()
    assert "step ingest-examples failed, which is a fault of the software" in line
    assert "ZeroDivisionError: broken library" in (run.folder / "run.log").read_text()


def wait_for(condition, seconds=120):
    """Waits for a condition, which here always comes; the limit only ends a broken test."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError, KeyError):
            if condition():
                return
        time.sleep(0.05)
    raise TimeoutError


def run_json(output):
    (folder,) = output.iterdir()
    return json.loads((folder / "run.json").read_text())


def children(pid):
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in lists for child in path.read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_run_says_so_and_leaves_no_process(photos, tmp_path, number):
    output = tmp_path / "runs"
    # These tests themselves may run under nohup.
    heeds = functools.partial(signal.signal, number, signal.SIG_DFL)
    process = start("--images", photos, "--output", output, *TINY, preexec_fn=heeds)
    wait_for(lambda: run_json(output)["tasks"]["ingest-examples"]["state"] == "running")
    wait_for(lambda: children(process.pid))
    descendants = children(process.pid)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines() == ["flowers run: interrupted"]
    run = run_json(output)
    assert run["state"] == "interrupted"
    assert run["tasks"]["ingest-examples"]["state"] == "interrupted"
    # They were sent the signal before the run ended, and may take a moment to end themselves.
    wait_for(lambda: not any(alive(pid) for pid in descendants))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_run_json_is_there_while_the_run_goes_on(photos, tmp_path):
    output = tmp_path / "runs"
    process = start("--images", photos, "--output", output, *TINY)
    try:
        wait_for(lambda: run_json(output)["state"] == "running")
        assert run_json(output)["pid"] == process.pid
        assert run_json(output)["parameters"]["images"] == str(photos)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_last_line_is_the_reason_where_both_streams_are_one(photos, tmp_path):
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    (photos_of_text := tmp_path / "photos" / "a").mkdir(parents=True)
    (photos_of_text / "text.jpg").write_text("no picture")
    shutil.copytree(photos_of_text, tmp_path / "photos" / "b")
    command = [sys.executable, "-m", "pipelines", "run", "--images", tmp_path / "photos"]
    finished = subprocess.run(
        [*command, "--output", tmp_path / "runs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        check=False,
    )
    assert finished.returncode == 2
    lines = finished.stdout.splitlines()
    assert lines[-2].startswith("report  ")
    assert lines[-1].startswith("flowers run: 2 of 2 photos cannot be used")


def test_bar_keeps_its_place_beside_a_long_note():
    stream = io.StringIO()
    console = BarConsole(stream)
    console.rich.live.console = Console(file=stream, width=80, force_terminal=True)
    note = "loss 1.059, accuracy 55.6%, validation 58.3%, 587 images/s"
    with console.rich:
        console.started("train-model")
        console.progress(Event("train-model", 1, 10, "epochs", note))
    shown = stream.getvalue()
    assert "1/10" in shown
    assert "━━━━" in shown


def test_terminal_gets_bars(tmp_path):
    """Photos of which a split has none, so that the run ends early."""
    photos = make_photos(tmp_path / "photos", per_class=2)
    leader, follower = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "run",
        "--images",
        photos,
        "--output",
        tmp_path / "runs",
    ]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        shown = b""
        # On Linux the end of a terminal is an error, not an empty read.
        with contextlib.suppress(OSError):
            while piece := os.read(leader, 4096):
                shown += piece
    os.close(leader)
    assert process.returncode == 2
    assert b"\x1b[" in shown
    assert "━".encode() in shown
