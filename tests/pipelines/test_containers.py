"""What of running in containers can be tested without an engine."""

import os
import subprocess
import sys

import pytest

from components.common.errors import ConfigError
from pipelines.code import code_digest
from pipelines.targets.containers import ContainerRunner, End, _user
from pipelines.targets.runners import Inputs


@pytest.mark.parametrize(
    ("end", "memory", "words"),
    [
        (End(0, False), "", ""),
        # Something in the container was killed, and the step got along without it.
        (End(0, True), "", ""),
        (End(2, False), "", ""),
        (End(137, True), "1g", "the 1g of --memory"),
        (End(1, True), "", "what the engine has"),
        (End(139, False), "", "SIGSEGV"),
        (End(255, False), "", "signal 127"),
    ],
)
def test_reason_of_an_end(end, memory, words):
    assert words in end.reason(memory)
    assert bool(end.reason(memory)) == bool(words)


def run(*arguments, environment=None):
    return subprocess.run(
        [sys.executable, "-m", "pipelines", "run", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--memory=4g"], ["--memory", "--runner docker"]),
        (["--image-lock=lock.json"], ["--image-lock", "--runner docker"]),
        (["--runner=docker", "--memory=much"], ["--memory", "4g", "'much'"]),
        (["--runner=docker", "--image-lock=none.json"], ["none.json", "flowers images build"]),
        (["--runner=podman"], ["--runner", "podman"]),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(arguments, words):
    finished = run(*arguments)
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert all(word in line for word in words)


@pytest.mark.parametrize("host", ["unix:///none/docker.sock", "tcp://127.0.0.1:1"])
def test_no_engine(host, tmp_path):
    environment = {**os.environ, "DOCKER_HOST": host}
    finished = run("--runner=docker", f"--output={tmp_path / 'runs'}", environment=environment)
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert f"no container engine answers at {host}: sudo systemctl start docker" in line
    assert not list(tmp_path.iterdir())


def test_docker_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(ConfigError, match=r"pip install --editable '\.\[docker\]'"):
        ContainerRunner().check(Inputs())


def test_engine_without_root_calls_the_caller_root(monkeypatch):
    monkeypatch.setattr("os.getuid", lambda: 1000)
    monkeypatch.setattr("os.getgid", lambda: 100)
    assert _user(["name=seccomp,profile=default"]) == "1000:100"
    assert _user(["name=seccomp,profile=default", "name=rootless"]) == "0:0"


def test_code_digest_sees_code_and_nothing_else(tmp_path):
    (tmp_path / "components").mkdir()
    (tmp_path / "pipelines").mkdir()
    module = tmp_path / "components" / "module.py"
    module.write_text("a = 1\n")
    before = code_digest(tmp_path)
    (tmp_path / "components" / "README.md").write_text("text")
    (tmp_path / "other.py").write_text("b = 2\n")
    assert code_digest(tmp_path) == before
    module.write_text("a = 2\n")
    assert code_digest(tmp_path) != before
    module.write_text("a = 1\n")
    module.rename(tmp_path / "pipelines" / "module.py")
    assert code_digest(tmp_path) != before
