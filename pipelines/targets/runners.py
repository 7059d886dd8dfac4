"""What differs between the ways to run a task on this machine."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from components.common.step import require_tensorflow
from components.ingest_examples.config import PhotosConfig


class Runner(Protocol):
    """How tasks are run; everything else of a run is the same for all."""

    @property
    def name(self) -> str:
        """The word for `--runner`."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages of this machine whose versions matter."""

    def check(self, photos: PhotosConfig) -> dict[str, str]:
        """Finds at once what would stop the first task.

        Returns:
            Ids of the images that the tasks will run in, by name; none without containers.

        Raises:
            ConfigError: Tasks cannot be run here so.
        """

    def open(
        self, photos: PhotosConfig, folder: Path, images: dict[str, str]
    ) -> contextlib.AbstractContextManager[Any]:
        """Gives KFP's runner while the graph runs.

        Args:
            photos: Where the photos are, in full.
            folder: Folder of the run.
            images: What `check` returned.
        """


class SubprocessRunner:
    """Each task in a process of its own, with the packages of this one."""

    name = "subprocess"
    packages = ("keras", "kfp", "numpy", "pillow", "tensorflow-cpu", "tensorflow")

    def check(self, photos: PhotosConfig) -> dict[str, str]:
        """TensorFlow is all that it takes.

        Raises:
            ConfigError: It is not installed.
        """
        require_tensorflow()
        return {}

    @contextlib.contextmanager
    def open(
        self,
        photos: PhotosConfig,
        folder: Path,
        images: dict[str, str],
    ) -> Iterator[Any]:
        """KFP's own runner of subprocesses."""
        from kfp import local

        with warnings.catch_warnings():
            # The image is not looked at here, and KFP warns of one without "python" in its name.
            warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"kfp\.local")
            yield local.SubprocessRunner(use_venv=False)
