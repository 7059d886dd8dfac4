"""Many runs in a row in one process, and eight at once in one folder: nothing is left over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import make_photos
from tests.figures import run_figures
from tests.step_commands import SMALL_RUN
from tests.test_kill import is_alive, session

pytestmark = pytest.mark.endurance

AT_ONCE = 8
# What a process that has warmed up may still gain over all further runs, in bytes.
GROWTH = 24e6
# Runs after which imports, pools and caches are there.
WARM_UP = 3
IN_ONE_PROCESS = """
import gc, json, os, sys
from pipelines.cli import flowers

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

for _ in range(int(sys.argv[1])):
    code = flowers.main(["run", *sys.argv[2:]], standalone_mode=False)
    gc.collect()
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    facts = {
        "code": code, "memory": resident(), "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")), "children": len(children),
    }
    print("facts", json.dumps(facts), flush=True)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos") / "photos")


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A folder for temporary files that belongs to this test alone."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def shared_memory():
    return set(Path("/dev/shm").iterdir())


def check_alone(folder, photos):
    """All that a run names of its outputs is its own."""
    content = json.loads((folder / "run.json").read_text())
    assert content["parameters"]["run_name"] == folder.name
    assert content["parameters"]["images"] == str(photos)
    for path in folder.rglob("*"):
        assert path.resolve().is_relative_to(folder.resolve())
    for path in (folder / ".kfp").rglob("executor_output.json"):
        for artifacts in json.loads(path.read_text()).get("artifacts", {}).values():
            for artifact in artifacts["artifacts"]:
                assert Path(artifact["uri"]).is_relative_to(folder.resolve())


def test_runs_in_a_row_leave_nothing_over(photos, tmp_path, scratch, request):
    count = request.config.getoption("--runs")
    before = shared_memory()
    arguments = ["--images", photos, "--output", tmp_path / "runs", *SMALL_RUN]
    process = subprocess.Popen(
        [sys.executable, "-c", IN_ONE_PROCESS, str(count), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    printed, _ = process.communicate()
    lines = [line.removeprefix("facts ") for line in printed.splitlines() if line[:6] == "facts "]
    facts = [json.loads(line) for line in lines]
    assert process.returncode == 0, printed[-2000:]
    assert [one["code"] for one in facts] == [0] * count
    warm, last = facts[min(WARM_UP, count) - 1], facts[-1]
    print(f"{count} runs: {warm} after {WARM_UP}, {last} at the end")
    assert last["memory"] - warm["memory"] < GROWTH
    assert (last["files"], last["threads"]) == (warm["files"], warm["threads"])
    assert {one["children"] for one in facts} == {0}
    assert not session(process.pid)
    assert not list(scratch.iterdir())
    assert shared_memory() <= before
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == count
    for run in runs:
        check_alone(run, photos)
    assert all(run_figures(run) == run_figures(runs[0]) for run in runs[1:])


def test_runs_at_once_keep_to_themselves(photos, tmp_path, scratch):
    command = [sys.executable, "-m", "pipelines", "run", "--images", photos]
    command += ["--output", tmp_path / "runs", *SMALL_RUN]
    with (tmp_path / "printed").open("w") as printed:
        processes = [
            subprocess.Popen(command, stdout=printed, stderr=printed, start_new_session=True)
            for _ in range(AT_ONCE)
        ]
        codes = [process.wait() for process in processes]
    assert codes == [0] * AT_ONCE, (tmp_path / "printed").read_text()[-2000:]
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == AT_ONCE
    for run in runs:
        check_alone(run, photos)
    first, *others = (run_figures(run) for run in runs)
    assert all(other == first for other in others)
    assert not [one for process in processes for one in session(process.pid) if is_alive(one)]
    assert not list(scratch.iterdir())
    assert os.path.lexists(runs[0] / "steps" / "export-model")
