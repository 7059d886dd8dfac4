"""Tests of outputs that appear whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.common.errors import ConfigError
from components.common.outputs import remove, staged, write_text

ROOT = Path(__file__).parents[3]

# Writes one file of a folder, says so, and waits for its end.
UNFINISHED = """
import sys, time
from pathlib import Path
from components.common.outputs import staged

with staged(Path(sys.argv[1]), Path(sys.argv[2])) as (file, folder):
    file.write_text("half")
    folder.mkdir()
    (folder / "part").write_text("half")
    print("written", flush=True)
    time.sleep(600)
"""


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kill_while_writing(file: Path, folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", UNFINISHED, str(file), str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_targets_appear_when_the_block_ends(tmp_path: Path) -> None:
    with staged(tmp_path / "report.html", tmp_path / "folder") as (file, folder):
        file.write_text("page")
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "part").write_text("data")
    assert names_in(tmp_path) == ["folder", "report.html"]
    assert (tmp_path / "report.html").read_text() == "page"
    assert (tmp_path / "folder" / "deep" / "part").read_text() == "data"


def test_nothing_is_at_the_target_before_the_block_ends(tmp_path: Path) -> None:
    with staged(tmp_path / "folder") as (folder,):
        folder.mkdir()
        assert not (tmp_path / "folder").exists()


def test_temporary_path_is_on_the_same_file_system(tmp_path: Path) -> None:
    with staged(tmp_path / "folder") as (folder,):
        folder.mkdir()
        assert folder.parent == tmp_path


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_when_the_block_raises(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with staged(tmp_path / "file", tmp_path / "folder") as (file, folder):
            file.write_text("half")
            folder.mkdir()
            raise error

    with pytest.raises(error):
        fail()
    assert names_in(tmp_path) == []


def test_killed_process_leaves_no_target(tmp_path: Path) -> None:
    kill_while_writing(tmp_path / "file", tmp_path / "folder")
    assert not (tmp_path / "file").exists()
    assert not (tmp_path / "folder").exists()


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    kill_while_writing(tmp_path / "file", tmp_path / "folder")
    assert len(names_in(tmp_path)) == 2
    with staged(tmp_path / "file", tmp_path / "folder") as (file, folder):
        file.write_text("whole")
        folder.mkdir()
    assert names_in(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "whole"


@pytest.mark.parametrize("other", ["out.html", "output", "out1"])
def test_leftovers_of_another_target_stay(tmp_path: Path, other: str) -> None:
    # It may be at work: only who makes the same target may remove them.
    (tmp_path / f".{other}.partial-01234567").mkdir()
    with staged(tmp_path / "out") as (folder,):
        folder.mkdir()
    assert names_in(tmp_path) == [f".{other}.partial-01234567", "out"]


def test_partial_output_of_a_running_process_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / f".out.partial-{os.getppid()}-01234567"
    ours = tmp_path / f".out.partial-{os.getpid()}-01234567"
    for folder in (other, ours):
        folder.mkdir()
    with staged(tmp_path / "out") as (folder,):
        folder.mkdir()
    assert names_in(tmp_path) == [other.name, "out"]


@pytest.mark.parametrize(("name", "other"), [("out[1]", "out1"), ("o*t", "oout"), ("o?t", "out")])
def test_name_of_a_target_is_no_pattern(tmp_path: Path, name: str, other: str) -> None:
    (tmp_path / f".{other}.partial-01234567").mkdir()
    (tmp_path / f".{name}.partial-01234567").mkdir()
    with staged(tmp_path / name) as (folder,):
        folder.mkdir()
    assert names_in(tmp_path) == sorted([f".{other}.partial-01234567", name])


def test_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with staged(tmp_path / "folder") as (folder,):
        folder.mkdir()
        (folder / "part").touch()
    assert names_in(tmp_path / "folder") == ["part"]


def test_empty_folder_is_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "verdict").mkdir()
    with staged(tmp_path / "verdict") as (file,):
        file.write_text("{}")
    assert (tmp_path / "verdict").read_text() == "{}"


def test_folder_one_stands_in_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with staged(Path()) as (folder,):
        folder.mkdir()
        (folder / "part").touch()
    assert names_in(tmp_path / "here") == ["part"]


def test_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    with pytest.raises(ConfigError, match="already exists: expected a new or an empty folder"):
        staged(tmp_path / "folder").__enter__()
    assert names_in(tmp_path / "folder") == ["mine"]


def test_file_that_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="already exists: expected a new or an empty folder"):
        staged(tmp_path / "file").__enter__()
    assert (tmp_path / "file").read_text() == "mine"


def test_second_target_that_exists_leaves_no_first(tmp_path: Path) -> None:
    (tmp_path / "second").write_text("mine")
    with pytest.raises(ConfigError, match="second already exists"):
        staged(tmp_path / "first", tmp_path / "second").__enter__()
    assert names_in(tmp_path) == ["second"]


def test_parents_are_made(tmp_path: Path) -> None:
    with staged(tmp_path / "a" / "b" / "file") as (file,):
        file.touch()
    assert (tmp_path / "a" / "b" / "file").is_file()


def test_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be made .*: name a folder that can be written"):
        staged(tmp_path / "file" / "out").__enter__()


def test_folder_that_cannot_be_written_is_refused() -> None:
    # Nobody, not even root, can make a file there.
    with pytest.raises(ConfigError, match="name a folder that can be written"):
        staged(Path("/proc/verdict.json")).__enter__()


class TestMountedBucket:
    """Where files can be renamed and folders cannot, as gcsfuse has it."""

    @pytest.fixture(autouse=True, params=[errno.EMFILE, errno.ENOSYS])
    def renames(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        done: list[str] = []
        rename = Path.rename

        def rename_file(path: Path, target: Path) -> Path:
            if path.is_dir():
                raise OSError(request.param, os.strerror(request.param), str(path))
            done.append(target.name)
            if target.name == self.fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", rename_file)
        return done

    fails = ""

    @staticmethod
    def write(place: Path) -> None:
        with staged(place / "report", place / "out") as (report, folder):
            report.write_text("page")
            (folder / "train" / "empty").mkdir(parents=True)
            (folder / "dataset.json").write_text("{}")
            (folder / "train" / "shard").write_text("photos")

    def test_folder_is_put_in_place_by_its_files(self, tmp_path: Path, renames: list[str]) -> None:
        self.write(tmp_path)
        assert names_in(tmp_path) == ["out", "report"]
        assert names_in(tmp_path / "out") == ["dataset.json", "train"]
        assert names_in(tmp_path / "out" / "train") == ["empty", "shard"]
        assert (tmp_path / "out" / "train" / "shard").read_text() == "photos"
        # What says which files there are comes last.
        assert renames == ["report", "shard", "dataset.json"]

    @pytest.mark.parametrize("fails", ["shard", "dataset.json"])
    def test_fault_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
    ) -> None:
        monkeypatch.setattr(type(self), "fails", fails)
        with pytest.raises(OSError, match="Input/output error"):
            self.write(tmp_path)
        assert names_in(tmp_path) == []

    def test_whole_folder_is_still_refused(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        with pytest.raises(ConfigError, match="report already exists"):
            self.write(tmp_path)

    def test_folder_that_another_one_made_meanwhile_stays(self, tmp_path: Path) -> None:
        def write_late() -> None:
            with staged(tmp_path / "out") as (folder,):
                folder.mkdir()
                (folder / "mine").touch()
                (tmp_path / "out").mkdir()
                (tmp_path / "out" / "theirs").touch()

        with pytest.raises(FileExistsError):
            write_late()
        assert names_in(tmp_path / "out") == ["theirs"]
        assert names_in(tmp_path) == ["out"]


# Puts the first of two outputs in place, says so, and waits for its end.
HALF_PLACED = """
import sys, time
from pathlib import Path
from components.common.outputs import staged

rename = Path.rename

def wait(path, target):
    if path.is_dir():
        print("placed", flush=True)
        time.sleep(600)
    return rename(path, target)

Path.rename = wait
with staged(Path(sys.argv[1]), Path(sys.argv[2])) as (file, folder):
    file.write_text("first")
    folder.mkdir()
"""


def test_what_a_kill_between_two_outputs_left_is_replaced(tmp_path: Path) -> None:
    report, folder = tmp_path / "report", tmp_path / "out"
    command = [sys.executable, "-c", HALF_PLACED, str(report), str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "placed\n"
        with pytest.raises(ConfigError, match="report already exists"):
            staged(report, folder).__enter__()
        process.send_signal(signal.SIGKILL)
    assert report.read_text() == "first"
    with staged(report, folder) as (new_report, new_folder):
        new_report.write_text("second")
        new_folder.mkdir()
    assert report.read_text() == "second"
    assert names_in(tmp_path) == ["out", "report"]


@pytest.mark.parametrize("old", [None, "old"])
def test_text_is_written(tmp_path: Path, old: str | None) -> None:
    path = tmp_path / "state.json"
    if old:
        path.write_text(old)
    write_text(path, "żółw\n")
    assert path.read_bytes() == "żółw\n".encode()
    assert names_in(tmp_path) == ["state.json"]


def test_text_that_cannot_be_encoded_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\udce9")
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["state.json"]


def test_remove_takes_a_whole_tree(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").touch()
    remove(tmp_path / "tree")
    assert names_in(tmp_path) == []


def test_remove_takes_a_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    remove(tmp_path / "link")
    assert names_in(tmp_path) == ["tree"]


def test_remove_of_nothing_is_fine(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    remove(tmp_path / "absent")
    assert names_in(tmp_path) == ["other"]
