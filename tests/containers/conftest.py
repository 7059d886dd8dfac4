"""The engine, the image under test, and a caller who is not root.

FLOWERS_PHOTOS names a folder of class folders to take photos from; without it they are drawn.
"""

import dataclasses
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import docker
import pytest

from tests.builders import make_photos
from tests.fakes.engine import ENGINE_SOCKET

PHOTOS_PER_CLASS = 40
# Small enough for tests, and large enough that the gate is about something.
SMALL = [
    "--set=ingest.image_size=48",
    "--set=model.test_size=0",
    # Every class needs a photo in every split, and so few photos leave none at a twentieth.
    "--set=ingest.validation_fraction=0.15",
    "--set=train.epochs=3",
    "--set=train.global_batch_size=16",
    "--set=gate.threshold=0.05",
]


@dataclasses.dataclass(frozen=True)
class Caller:
    """Somebody who is not root and may use the engine."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    def prefix(self, may_use_engine=True):
        """Makes a command the caller's; nobody but root can be another."""
        if os.getuid() != 0:
            return []
        groups = ",".join(map(str, self.groups)) if may_use_engine else ""
        return [
            *("setpriv", f"--reuid={self.uid}", f"--regid={self.gid}"),
            f"--groups={groups}" if groups else "--clear-groups",
            # For Python itself, which may be in a folder of root's.
            *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
        ]

    def own(self, path):
        """Gives a folder to the caller."""
        os.chown(path, self.uid, self.gid)
        return path


@pytest.fixture(scope="session")
def engine():
    """A client of the engine; where none answers, the tests are skipped and say so."""
    client, why = _client()
    if client is None:
        # A client that found no engine leaves its socket open, which no test is to blame for.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        pytest.skip(f"no container engine answers: {why}")
    yield client
    client.close()


def _client():
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        return None, str(error)
    return client, ""


@pytest.fixture(scope="session")
def caller():
    if os.getuid() != 0:
        return Caller(os.getuid(), os.getgid(), ())
    return Caller(12345, 12345, (Path(ENGINE_SOCKET).stat().st_gid,))


@pytest.fixture(scope="session")
def workspace(caller):
    """A folder that everybody can reach, which those of pytest are not, and the caller owns."""
    with tempfile.TemporaryDirectory(prefix="flowers-containers-") as folder:
        Path(folder).chmod(0o755)
        yield caller.own(Path(folder))


@pytest.fixture(scope="session")
def lock(engine, workspace, repository):
    """The lock file of the image, built from this code."""
    path = workspace / "images.lock.json"
    command = [sys.executable, "-m", "pipelines", "images", "build", "--image-lock", path]
    subprocess.run(command, check=True, cwd=repository)
    return path


@pytest.fixture(scope="session")
def image(lock):
    """Id of the image, which stays when another one takes its name."""
    from pipelines.image_lock import load_image_lock

    return load_image_lock(lock).images["cpu"]


@pytest.fixture(scope="session")
def photos(workspace):
    folder = workspace / "photos"
    source = os.environ.get("FLOWERS_PHOTOS")
    if not source:
        return make_photos(folder, PHOTOS_PER_CLASS)
    for name in sorted(path.name for path in Path(source).iterdir() if path.is_dir()):
        (folder / name).mkdir(parents=True)
        for photo in sorted(Path(source, name).glob("*.jpg"))[:PHOTOS_PER_CLASS]:
            shutil.copy(photo, folder / name)
    return folder


@pytest.fixture
def flowers(caller, workspace, repository):
    """Runs the `flowers` command as the caller, on a machine that has no TensorFlow."""
    code = (
        "import sys; sys.modules.update(tensorflow=None, keras=None)\n"
        "sys.argv[0] = 'flowers'; from pipelines.cli import main; main()"
    )

    def start(*arguments, environment=(), may_use_engine=True):
        return subprocess.Popen(
            [*caller.prefix(may_use_engine), sys.executable, "-c", code, *arguments],
            cwd=repository,
            env={**os.environ, "HOME": str(workspace), **dict(environment)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
