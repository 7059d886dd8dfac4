"""How long the commands for Vertex AI take, each in a process of its own, against a local server.

Run it with `python -m benchmarks.vertex`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fakes.vertex import serve_vertex

_REPEATS = 5
_DIGEST = "sha256:" + "a" * 64


def _prepare(folder: Path, host: str) -> None:
    (folder / "vertex.yaml").write_text(
        "{project: my-project, region: europe-west4, pipeline_root: 'gs://bucket/root'}"
    )
    images = {name: f"{host}/repo/{name}@{_DIGEST}" for name in ("cpu", "deploy")}
    (folder / "lock.json").write_text(json.dumps({"commit": "a" * 40, "images": images}))


def _seconds(arguments: list[str], folder: Path, environment: dict[str, str]) -> float:
    began = time.monotonic()
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
    )
    return time.monotonic() - began


def main() -> None:
    """Prints the median of a few runs of each command."""
    place = ["--images", "gs://bucket/photos", "--config", "vertex.yaml"]
    commands = {
        "schedule --help": ["schedule", "--help"],
        "compile --target vertex": [
            *("compile", "--target", "vertex", *place, "--output", "pipeline.yaml")
        ],
        "submit": ["submit", *place, "--image-lock", "lock.json"],
    }
    with tempfile.TemporaryDirectory() as name, serve_vertex() as (fake, address):
        folder = Path(name)
        _prepare(folder, address.removeprefix("http://"))
        fake.images |= {f"repo/{image}@{_DIGEST}" for image in ("cpu", "deploy")}
        environment = {
            **os.environ,
            "FLOWERS_VERTEX_ENDPOINT": address,
            "STORAGE_EMULATOR_HOST": address,
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        for title, arguments in commands.items():
            taken = [_seconds(arguments, folder, environment) for _ in range(_REPEATS)]
            print(f"{title:<24} {statistics.median(taken):5.2f} s  (most {max(taken):.2f} s)")
        print(f"runs that the server has: {len(fake.jobs)}")


if __name__ == "__main__":
    main()
