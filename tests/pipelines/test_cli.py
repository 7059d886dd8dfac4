import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipelines.cli import GROUPS, STEPS, flowers


def run(*arguments, **options):
    command = [sys.executable, "-m", "pipelines", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from pipelines.cli import flowers\n"
        "try: flowers(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'kfp', 'google', 'matplotlib', 'numpy', 'PIL'}\n"
        # Every start of Python makes these two, empty, where Google's client is installed.
        "empty = {'google', 'google.cloud'}\n"
        "found = {name for name in sys.modules if name.split('.')[0] in heavy} - empty\n"
        "sys.exit(str(found) if found else 0)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


def test_help_names_the_commands():
    output = CliRunner().invoke(flowers, ["--help"]).output
    listed = output.partition("Commands:\n")[2].splitlines()
    # A line that goes on has more in front of it.
    names = [line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "]
    assert names == sorted([*GROUPS, "run", "step", "compile"])


@pytest.mark.parametrize("name", STEPS)
def test_step_is_the_same_as_its_module(name):
    module = subprocess.run(
        [sys.executable, "-m", STEPS[name], "--help"], capture_output=True, text=True, check=True
    ).stdout
    step = run("step", name, "--help").stdout
    assert module.splitlines()[1:] == step.splitlines()[1:]
    assert module.splitlines()[0].startswith("Usage: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--images", "no such folder"], ["no such folder", "does not exist", "expected"]),
        (["run", "--recipe", "nothing"], ["--recipe nothing", "squeezenet"]),
        (["run", "--set", "train.epochs=0"], ["train.epochs", "1 to 100000", "0"]),
        (
            ["run", "--recipe", "mobilenet_v2", "--set", "model.weights=w.h5"],
            ["model.weights", "a model folder", "w.h5, which is not there"],
        ),
        (["run", "--images", ".", "--output", "x"], [".", "one folder per class"]),
        (
            ["run", "--manifest", "m.csv", "--group-column", "author"],
            ["--manifest m.csv", "cannot be read"],
        ),
        (["run", "--manifest", "m.csv"], ["--manifest", "--group-column"]),
        (["run", "--images", ""], ["--images", "received nothing"]),
        (["run", "--imagez", "x"], ["--imagez"]),
        (["compile", "--images", "x", "--output", "c.txt"], ["c.txt", ".yaml"]),
        (["compile", "--images", "x", "--output", "/proc/c.yaml"], ["/proc/c.yaml", "written"]),
        (["fly"], ["fly"]),
        (["step", "fly"], ["fly"]),
        (["step", "ingest", "--output", "x"], ["--images"]),
        (["data", "ingest", "--images", "x", "--output", "y", "--scratch", "z"], ["--scratch"]),
        (
            [
                *("step", "train", "--examples", "e", "--augmented", "a", "--output", "o"),
                *("--recipe", "quick", "--set", "trian.epochs=9"),
            ],
            ["'trian'", "train"],
        ),
        (
            ["step", "gate", "--model", "m", "--evaluation", "none.json", "--output", "v"],
            ["none.json"],
        ),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(arguments, words, tmp_path):
    finished = run(*arguments, cwd=tmp_path)
    assert finished.returncode == 2
    assert len(finished.stderr.splitlines()) == 1
    assert all(word in finished.stderr for word in words)
    assert not list(tmp_path.iterdir())


def test_images_that_are_a_file(tmp_path):
    (tmp_path / "photo.jpg").touch()
    finished = run("run", "--images", "photo.jpg", cwd=tmp_path)
    assert finished.returncode == 2
    assert "is not a folder" in finished.stderr


def test_output_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    finished = run("run", "--output", "file/runs", cwd=tmp_path)
    assert finished.returncode == 2
    assert "--output file/runs" in finished.stderr


@pytest.mark.parametrize(
    "arguments", [["run"], ["step", "augment", "--examples", "none", "--output", "x"]]
)
def test_machine_without_tensorflow(tmp_path, arguments):
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from pipelines.cli import main; sys.argv[0] = 'flowers'; main()"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert finished.returncode == 2
    assert "pip install --editable '.[local]'" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
