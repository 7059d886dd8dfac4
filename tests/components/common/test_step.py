"""Tests of how a step ends: exit code, one line, or a traceback where the fault is ours."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.common.errors import (
    ConfigError,
    DataError,
    FlowersError,
    GateClosedError,
    UserError,
)
from components.common.step import Failure, parse_failure, parse_took, run_step

ROOT = Path(__file__).parents[3]
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
IMPORTS = "from components.common.step import import_tensorflow_quietly, run_step"


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ours = ("TF_CPP_MIN_LOG_LEVEL", ONEDNN)
    inherited = {key: value for key, value in os.environ.items() if key not in ours}
    return subprocess.run(
        [sys.executable, "-c", f"{IMPORTS}\n{script}"],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [(FlowersError, 1), (UserError, 2), (DataError, 2), (ConfigError, 2), (GateClosedError, 3)],
)
def test_known_error_is_one_line_and_its_code(
    error: type[FlowersError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, run_step("gate-model"):
        raise error("expected this,\n  received that")
    assert end.value.code == code
    captured = capsys.readouterr()
    assert captured.err == f"gate-model: exit {code}: expected this, received that\n"
    assert captured.out == ""


def test_known_error_ends_a_process_without_a_traceback() -> None:
    done = run(
        "from components.common.errors import DataError\n"
        "with run_step('ingest-examples'):\n"
        "    raise DataError('no photos')\n"
    )
    assert (done.returncode, done.stderr) == (2, "ingest-examples: exit 2: no photos\n")


def test_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, run_step("train-model"):
        Path("/dev/full").write_text("more than nothing")
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "train-model: exit 2: no space left on the disk: free some and start again"


def test_other_error_of_the_system_is_not_taken_for_a_full_disk() -> None:
    with pytest.raises(FileNotFoundError), run_step("train-model"):
        Path("/none").read_text()


def test_unknown_error_keeps_its_traceback() -> None:
    done = run("with run_step('gate-model'):\n    1 / 0\n")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_step_that_ends_well_says_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    with run_step("gate-model"):
        pass
    step, _, text = capsys.readouterr().out.strip().partition(" ")
    assert step == "[gate-model]"
    assert parse_took(text) is not None


def test_step_alone_imports_no_tensorflow() -> None:
    done = run("import sys\nwith run_step('gate-model'):\n    print('tensorflow' in sys.modules)\n")
    assert done.stdout.splitlines()[0] == "False"


def test_import_of_tensorflow_prints_nothing() -> None:
    done = run(
        "import sys\n"
        "with run_step('train-model'):\n"
        "    import_tensorflow_quietly()\n"
        "    print('tensorflow' in sys.modules)\n"
        "    import tensorflow\n"
        "    tensorflow.zeros([2]) + 1.0\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "True"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere it is built in or absent")
@pytest.mark.parametrize(("asked", "kept"), [({}, True), ({ONEDNN: "0"}, False)])
def test_tensorflow_keeps_memory_that_it_takes_again_and_again(
    asked: dict[str, str], kept: bool
) -> None:
    done = run(
        "import_tensorflow_quietly()\n"
        "import resource, tensorflow as tf\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "tf.ones([2**24])\n"
        "before = faults()\n"
        "for _ in range(20): tf.ones([2**24])\n"
        "print(faults() - before)\n",
        **asked,
    )
    # 20 times 64 MiB are 327,680 pages.
    assert (int(done.stdout) < 100_000) == kept


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere it is built in or absent")
@pytest.mark.parametrize(("asked", "taken"), [({}, True), ({ONEDNN: "0"}, False)])
def test_convolutions_are_those_of_onednn(asked: dict[str, str], taken: bool) -> None:
    done = run(
        "import_tensorflow_quietly()\n"
        "import tensorflow.compat.v1 as tf\n"
        "with tf.Graph().as_default(), tf.Session() as session:\n"
        "    images = tf.placeholder(tf.float32, [1, 4, 4, 1])\n"
        "    ran = tf.RunMetadata()\n"
        "    session.run(\n"
        "        tf.nn.conv2d(images, tf.ones([3, 3, 1, 1]), 1, 'SAME'),\n"
        "        {images: [[[[0.0]] * 4] * 4]},\n"
        "        tf.RunOptions(output_partition_graphs=True),\n"
        "        ran,\n"
        "    )\n"
        "print({node.op for graph in ran.partition_graphs for node in graph.node})\n",
        **asked,
    )
    assert "Conv2D" in done.stdout, done.stderr
    assert ("_MklNativeConv2D" in done.stdout) == taken


def test_import_of_tensorflow_prints_its_notes_where_asked(tmp_path: Path) -> None:
    fake_tensorflow(tmp_path, "")
    done = run("import_tensorflow_quietly()\n", PYTHONPATH=str(tmp_path), TF_CPP_MIN_LOG_LEVEL="0")
    assert done.stderr == "start-up note\n"


def test_what_is_printed_behind_the_import_is_seen(tmp_path: Path) -> None:
    fake_tensorflow(tmp_path, "")
    done = run(
        "import os\nimport_tensorflow_quietly()\nos.write(2, b'still here\\n')\n",
        PYTHONPATH=str(tmp_path),
    )
    assert done.stderr == "still here\n"


def test_import_that_fails_shows_why(tmp_path: Path) -> None:
    fake_tensorflow(tmp_path, "raise ImportError('broken build')")
    done = run("import_tensorflow_quietly()\n", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("start-up note\n")
    assert done.stderr.endswith("ImportError: broken build\n")


def fake_tensorflow(folder: Path, end: str) -> None:
    """A library that writes to file descriptor 2 when it is imported, as the real one does."""
    (folder / "tensorflow.py").write_text(f"import os\nos.write(2, b'start-up note\\n')\n{end}\n")


@given(
    st.builds(
        Failure,
        st.from_regex(r"[a-z]+(-[a-z]+)*", fullmatch=True),
        st.integers(1, 255),
        st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
        .map(lambda text: " ".join(text.split()))
        .filter(bool),
    )
)
def test_failure_is_read_as_it_was_written(failure: Failure) -> None:
    line = f"{failure.step}: exit {failure.exit_code}: {failure.message}\n"
    assert parse_failure(line) == failure


@pytest.mark.parametrize(
    "line", ["", "gate-model: no", "gate-model: exit x: no", "exit 2: no", "a b: exit 2: no"]
)
def test_other_text_is_no_failure(line: str) -> None:
    assert parse_failure(line) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("took 12.5 s", 12.5), ("took 0.0 s", 0.0), ("took long", None), ("", None)],
)
def test_time_taken_is_read(text: str, seconds: float | None) -> None:
    assert parse_took(text) == seconds
