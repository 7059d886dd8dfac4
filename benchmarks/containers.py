"""Measures the CPU image: builds, sizes, and what containers cost beside subprocesses.

    python -m benchmarks.containers --docker /usr/bin/docker

Builds the image twice, cold and after a change of the code, and runs the pipeline twice, in
containers and in subprocesses. Nothing here passes or fails: machines differ.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.image_lock import ImageLock, save_image_lock

if TYPE_CHECKING:
    import docker

_REPOSITORY = Path(__file__).parents[1]
_TAG = "flowers-benchmark:latest"
_RUN = (
    "run",
    "--images=synthetic://flowers?per_class=100",
    "--set=train.epochs=4",
    # So few epochs are for the time they take, not for what they teach.
    "--set=gate.threshold=0.2",
)
_ROOT = "tensorflow-cpu"
# Runs in the image: bytes of each installed distribution, and which of them TensorFlow needs.
_MEASURE = r"""
import json, pathlib, re
from importlib.metadata import distributions

def key(name):
    return re.sub(r"[-_.]+", "-", name).lower()

sizes, needs = {}, {}
for one in distributions():
    name = key(one.metadata["Name"])
    files = {path.locate().resolve() for path in one.files or ()}
    sizes[name] = sum(path.stat().st_size for path in files if path.is_file())
    requires = [text for text in one.requires or () if "extra ==" not in text]
    needs[name] = {key(re.match(r"[\w.-]+", text)[0]) for text in requires}
code = sum(path.stat().st_size for path in pathlib.Path("/app").rglob("*") if path.is_file())
print(json.dumps({"sizes": sizes, "needs": {k: sorted(v) for k, v in needs.items()}, "code": code}))
"""


def measure(engine: "docker.DockerClient", image: str) -> dict[str, int]:
    """Bytes of TensorFlow with all that it needs, and of what we put beside it.

    Args:
        engine: Client of the engine.
        image: Name or id of an image.
    """
    command = ["python", "-c", _MEASURE]
    found = json.loads(engine.containers.run(image, command, remove=True, network_mode="none"))
    sizes: dict[str, int] = found["sizes"]
    needed, waiting = set(), [_ROOT]
    while waiting:
        name = waiting.pop()
        if name in sizes and name not in needed:
            needed.add(name)
            waiting += found["needs"][name]
    theirs = sum(sizes[name] for name in needed)
    return {
        "TensorFlow and what it needs": theirs,
        "ours": sum(sizes.values()) - theirs + int(found["code"]),
    }


def _seconds(command: Sequence[str], folder: Path) -> float:
    began = time.perf_counter()
    # An older engine has to be asked for BuildKit, which knows the mounts of the Dockerfile.
    environment = os.environ | {"DOCKER_BUILDKIT": "1"}
    # Docker shows its progress there; the figures alone go to standard output.
    subprocess.run(command, check=True, cwd=folder, stdout=sys.stderr, env=environment)  # noqa: S603
    return time.perf_counter() - began


def _show(name: str, value: str) -> None:
    click.echo(f"{name:<44} {value}")


def _build(program: str, folder: Path) -> float:
    command = [program, "build", "--file", "containers/Dockerfile", "--target", "cpu"]
    return _seconds([*command, "--tag", _TAG, "."], folder)


def _copy(folder: Path) -> Path:
    """A copy of what the image is built from, in which the code may be changed."""
    checkout = folder / "checkout"
    for name in ("components", "pipelines", "containers"):
        shutil.copytree(_REPOSITORY / name, checkout / name)
    shutil.copy(_REPOSITORY / ".dockerignore", checkout)
    return checkout


def _show_builds(program: str, folder: Path) -> None:
    checkout = _copy(folder)
    _show("build, from nothing but the base image", f"{_build(program, checkout):.1f} s")
    with (checkout / "components" / "train_model" / "train.py").open("a") as file:
        file.write("# changed\n")
    _show("build after a change of the code", f"{_build(program, checkout):.1f} s")


def _show_sizes() -> str:
    import docker

    engine = docker.from_env()
    image = engine.images.get(_TAG)
    _show("image", f"{image.attrs['Size'] / 1e6:,.0f} MB")
    for name, size in measure(engine, _TAG).items():
        _show(f"  {name}", f"{size / 1e6:,.0f} MB")
    engine.close()
    return str(image.id)


def _show_runs(image: str, folder: Path) -> None:
    lock = folder / "lock.json"
    save_image_lock(ImageLock("0" * 40, {"cpu": image}), lock)
    walls = {}
    for runner, *flags in (("subprocess",), ("docker", f"--image-lock={lock}")):
        command = [sys.executable, "-m", "pipelines", *_RUN, f"--runner={runner}", *flags]
        walls[runner] = _seconds([*command, f"--output={folder / runner}"], _REPOSITORY)
        _show(f"flowers run --runner {runner}", f"{walls[runner]:.1f} s")
    _show("  ratio", f"{walls['docker'] / walls['subprocess']:.2f}")


@click.command()
@click.option("--docker", "program", default="docker", envvar="DOCKER", help="Docker's client.")
@click.confirmation_option(
    prompt="This empties the build cache of the engine. Go on?", help="Do not ask."
)
def main(program: str) -> None:
    """Builds the image, measures it, and runs the pipeline in it."""
    _seconds([program, "builder", "prune", "--all", "--force"], _REPOSITORY)
    with tempfile.TemporaryDirectory() as folder:
        _show_builds(program, Path(folder))
        image = _show_sizes()
        _show_runs(image, Path(folder))


if __name__ == "__main__":
    main()
