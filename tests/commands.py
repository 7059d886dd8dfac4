"""What tests of commands share: calling one, and a lock file of images."""

import json

import pytest

from components.common.cli import run_cli
from pipelines.cli import flowers

DIGEST = "sha256:" + "a" * 64


def run(capsys, *arguments):
    """Exit code and what was printed."""
    with pytest.raises(SystemExit) as exit_:
        run_cli(flowers, list(arguments))
    printed = capsys.readouterr()
    return exit_.value.code, printed.out, printed.err


def lock_images(folder, fake, pushed=("cpu", "gpu", "tpu", "deploy")):
    """A lock file of images in the registry of the fake of Vertex AI."""
    images = {
        name: f"{fake.host}/repo/flowers-{name}@{DIGEST}"
        for name in ("cpu", "gpu", "tpu", "deploy")
    }
    fake.images |= {f"repo/flowers-{name}@{DIGEST}" for name in pushed}
    (folder / "lock.json").write_text(json.dumps({"commit": "a" * 40, "images": images}))
