"""Steps that fail, run out of memory or are killed; engines and images that are not as needed."""

import dataclasses
import io
import json
import re
import time
from typing import Any

import pytest

from components.images import CPU
from pipelines.code import CODE_LABEL
from pipelines.image_lock import ImageLock, load_image_lock, save_image_lock
from pipelines.targets.containers import RUN_LABEL, ContainerRunner
from pipelines.targets.runners import Inputs
from tests.fakes.engine import engine_proxy, misreport_exit_codes

pytestmark = pytest.mark.docker

TRIES = 20
# Python and KFP fit in, TensorFlow does not.
LITTLE_MEMORY = "100m"


@dataclasses.dataclass(frozen=True)
class Finished:
    """How a run ended."""

    exit_code: int
    lines: list[str]
    run: dict[str, Any]


@pytest.fixture
def run(flowers, lock, workspace, caller, request):
    """Runs the pipeline on the image of these tests to its end."""
    output = workspace / request.node.name.translate({ord(sign): "-" for sign in "[]/: "})
    output.mkdir()
    caller.own(output)

    def run_to_its_end(*arguments, meanwhile=lambda output: None, **options):
        process = flowers(
            *("run", "--runner", "docker", "--image-lock", lock, "--output", output / "runs"),
            *arguments,
            **options,
        )
        meanwhile(output)
        _, stderr = process.communicate(timeout=120)
        (folder,) = (output / "runs").iterdir()
        content = json.loads((folder / "run.json").read_text())
        return Finished(process.returncode, stderr.splitlines(), content)

    return run_to_its_end


@pytest.fixture
def refused(flowers, lock, workspace):
    """Runs the pipeline where it cannot start, and returns the one line that says why."""

    def run(*arguments, image_lock=lock, **options):
        process = flowers(
            *("run", "--runner", "docker", "--output", workspace / "refused"),
            *(("--image-lock", image_lock) if image_lock else ()),
            *arguments,
            **options,
        )
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 2, stderr
        assert not (workspace / "refused").exists()
        (line,) = stderr.splitlines()
        return line

    return run


@pytest.fixture(scope="module")
def damaged(workspace):
    folder = workspace / "damaged"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "text.jpg").write_text("no picture")
    return folder


@pytest.mark.parametrize("number", range(TRIES))
def test_step_that_fails(run, damaged, number):
    finished = run("--images", damaged)
    assert finished.exit_code == finished.run["exit_code"] == 2, number
    (line,) = finished.lines
    assert line.startswith("flowers run: 2 of 2 photos cannot be used")
    assert finished.run["tasks"]["ingest-examples"]["state"] == "failed"


@pytest.mark.parametrize("number", range(TRIES))
def test_step_that_runs_out_of_memory(run, number):
    finished = run("--memory", LITTLE_MEMORY)
    assert finished.exit_code == finished.run["exit_code"] == 2, number
    (line,) = finished.lines
    found = re.match(
        rf"flowers run: step ([\w-]+) needed more memory than the {LITTLE_MEMORY}", line
    )
    assert found, line
    # Which step it is depends on how much the first one happens to need.
    assert finished.run["tasks"][found[1]]["state"] == "failed"


@pytest.mark.parametrize("number", range(TRIES))
def test_step_that_is_killed(run, engine, number):
    def kill(output):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for container in engine.containers.list(
                filters={"label": RUN_LABEL}, ignore_removed=True
            ):
                if container.labels[RUN_LABEL].startswith(str(output)):
                    container.kill()
                    return
            time.sleep(0.02)
        raise TimeoutError

    finished = run(meanwhile=kill)
    assert finished.exit_code == finished.run["exit_code"] == 1, number
    (line,) = finished.lines
    assert line.startswith("flowers run: step ingest-examples was killed by SIGKILL")
    assert finished.run["tasks"]["ingest-examples"]["state"] == "failed"


def test_engine_that_hides_exit_codes_is_refused(refused):
    with engine_proxy(misreport_exit_codes) as host:
        line = refused(environment={"DOCKER_HOST": host})
    assert "exit code 0 for a container that ended with 7" in line
    assert "--runner subprocess" in line


def test_engine_behind_a_proxy_that_changes_nothing_is_trusted(run, damaged):
    with engine_proxy() as host:
        finished = run("--images", damaged, environment={"DOCKER_HOST": host})
    assert finished.lines[0].startswith("flowers run: 2 of 2 photos cannot be used")


def test_engine_without_space(refused):
    with engine_proxy(refuse="write /var/lib/docker: no space left on device") as host:
        line = refused(environment={"DOCKER_HOST": host})
    assert line.endswith("has no space left: docker system prune")


def test_engine_that_refuses_a_step(run):
    """The probe has a container, and no other gets one."""
    with engine_proxy(refuse="no such thing", granted=1) as host:
        finished = run(environment={"DOCKER_HOST": host})
    assert finished.exit_code == 1
    assert "step ingest-examples" in finished.lines[0]
    assert "no such thing" in finished.lines[0]


def test_no_permission(refused, caller):
    if not caller.groups:
        pytest.skip("only root can become somebody who may not use the engine")
    line = refused(may_use_engine=False)
    assert "no permission to use the container engine" in line
    assert "sudo usermod -aG docker $USER" in line


def test_image_with_an_entry_point(refused, engine, image, workspace):
    lock = workspace / "entrypoint.json"
    save_image_lock(ImageLock("0" * 40, {"cpu": derive(engine, image, "ENTRYPOINT true")}), lock)
    line = refused(image_lock=lock)
    assert "has an ENTRYPOINT" in line
    assert "flowers images build" in line


def test_image_that_is_not_here(refused, workspace):
    lock = workspace / "absent.json"
    reference = f"localhost:1/nothing@sha256:{'0' * 64}"
    save_image_lock(ImageLock("0" * 40, {"cpu": reference}), lock)
    assert refused(image_lock=lock).endswith(f"docker pull {reference}")


def test_image_of_other_code(refused, engine, image):
    other = engine.images.get(derive(engine, image, f"LABEL {CODE_LABEL}={'0' * 64}"))
    before = engine.images.get(CPU)
    other.tag(CPU)
    try:
        line = refused(image_lock=None)
    finally:
        before.tag(CPU)
    assert "built from other code" in line
    assert "flowers images build" in line


def derive(engine, image, instruction):
    """Id of an image that has one instruction more."""
    dockerfile = io.BytesIO(f"FROM {image}\n{instruction}\n".encode())
    built, _ = engine.images.build(fileobj=dockerfile)
    return built.id


@pytest.mark.parametrize(
    ("folder", "hidden"), [("/", "/app"), ("/usr", "/usr"), ("/etc", "/etc"), ("/tmp", "/tmp")]
)
def test_photos_that_would_hide_the_image(refused, folder, hidden):
    assert f"would hide {hidden}" in refused("--images", folder)


def test_lock_of_these_tests_is_of_this_code(engine, lock):
    from pipelines.code import code_digest

    image = engine.images.get(load_image_lock(lock).images["cpu"])
    assert image.labels[CODE_LABEL] == code_digest()


def test_container_that_a_killed_run_left_is_removed_before_it_goes_on(engine, image, tmp_path):
    left, other = (
        engine.containers.run(image, ["sleep", "600"], detach=True, labels={RUN_LABEL: str(folder)})
        for folder in (tmp_path / "run", tmp_path / "run-2")
    )
    try:
        with ContainerRunner().open(Inputs(), tmp_path / "run", {}):
            running = {one.id for one in engine.containers.list(filters={"label": RUN_LABEL})}
        assert other.id in running
        assert left.id not in running
    finally:
        other.remove(force=True)
