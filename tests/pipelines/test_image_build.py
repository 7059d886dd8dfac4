"""What of building images can be tested without an engine."""

import os
import subprocess
import sys

import pytest


def build(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "pipelines", "images", "build", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers" / "Dockerfile").write_text("FROM scratch AS cpu\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["npu"], ["'npu'", "cpu, gpu"]),
        (["--push"], ["--push", "--registry HOST/PROJECT/REPOSITORY"]),
        (["--cache-from-registry"], ["--cache-from-registry", "--registry"]),
        (["--registry=https://host/project"], ["--registry", "'https://host/project'"]),
        (["--registry=host"], ["--registry", "'host'"]),
        (["--commit=main"], ["--commit", "'main'"]),
        ([], ["no git checkout", "--commit"]),
        (["--commit=1234567", "--docker=none"], ["--docker none", "install Docker Engine"]),
        (["--commit=1234567", "--docker=false"], ["no container engine answers"]),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(checkout, arguments, words):
    finished = build(*arguments, cwd=checkout)
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("flowers: ")
    assert all(word in line for word in words)
    assert [path.name for path in checkout.iterdir()] == ["containers"]


@pytest.mark.parametrize(
    ("change", "commit", "reason"),
    [("RUN true\n", "", "commit first"), ("", "1234567", "which is checked out, received 1234567")],
)
def test_other_code_than_that_of_the_commit_is_not_pushed(checkout, change, commit, reason):
    def git(*arguments):
        person = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
        # That of the machine may sign commits, or have hooks.
        own = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        command = ["git", *person, *arguments]
        return subprocess.run(
            command, cwd=checkout, capture_output=True, text=True, check=True, env=own
        ).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    with (checkout / "containers" / "Dockerfile").open("a") as file:
        file.write(change)
    named = f"--commit={commit or git('rev-parse', 'HEAD')}"
    finished = build(named, "--push", "--registry=127.0.0.1:1/project/flowers", cwd=checkout)
    assert finished.returncode == 2
    assert finished.stderr.endswith(f"{reason}\n")


def test_outside_a_checkout(tmp_path):
    finished = build(cwd=tmp_path)
    assert finished.returncode == 2
    assert "run this in a checkout" in finished.stderr


def test_client_that_may_not_use_the_engine(checkout):
    docker = checkout / "containers" / "docker"
    docker.write_text(
        "#!/bin/sh\necho 'Got permission denied while trying to connect' >&2\nexit 1\n"
    )
    docker.chmod(0o755)
    finished = build("--commit=1234567", f"--docker={docker}", cwd=checkout)
    assert finished.returncode == 2
    assert "sudo usermod -aG docker $USER" in finished.stderr


@pytest.mark.parametrize(("version", "builds"), [("20.10.24", True), ("28.2.2", False)])
def test_newer_client_needs_a_plugin(checkout, version, builds):
    docker = checkout / "containers" / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$1" = version ] && echo {version}\n')
    docker.chmod(0o755)
    finished = build("--commit=1234567", f"--docker={docker}", cwd=checkout)
    assert ("docker-buildx-plugin" in finished.stderr) is not builds
    assert ("docker build failed" in finished.stderr) is builds
    assert finished.returncode == (1 if builds else 2)
