"""What differs between the ways to run a task on this machine."""

import contextlib
import dataclasses
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from components.common import storage
from components.common.errors import ConfigError
from components.common.extras import require_onnx
from components.common.import_files import folder_of, is_import_file
from components.common.processes import RUN_PROCESS
from components.common.step import require_tensorflow
from components.export_model.config import ExportConfig
from components.ingest_examples.config import PhotosConfig
from components.train_model.architectures import IMAGENET, NO_WEIGHTS, ModelConfig


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What tasks need that lies outside of the folder of their run.

    Attributes:
        paths: Files and folders of this machine, in full; none lies within another.
        networked: Components that need the network.
        onnx: Whether the packages of the extra `onnx` are needed.
    """

    paths: tuple[Path, ...] = ()
    networked: frozenset[str] = frozenset({"deploy_model"})
    onnx: bool = False


def find_inputs(
    photos: PhotosConfig, model: ModelConfig, export: ExportConfig | None = None
) -> Inputs:
    """Finds what the tasks of a run need.

    Args:
        photos: Where the photos are, in full.
        model: Its weights are named in full, see `find_weights`.
        export: In which formats the model leaves; None for those that need no more packages.
    """
    paths = [photos.manifest_path(), find_weights(model)]
    if "://" not in photos.images:
        # Rows of an import file may name photos beside it.
        paths.append(Path(folder_of(photos.images)))
    if photos.previous and "://" not in photos.previous:
        paths.append(Path(photos.previous))
    found = sorted({path.resolve() for path in paths if path})
    networked = {"deploy_model"}
    if model.weights == IMAGENET or storage.is_remote(model.weights):
        networked.add("train_model")
    remote = any(map(storage.is_remote, (photos.images, photos.manifest, photos.previous)))
    # Or photos in buckets.
    if remote or is_import_file(photos.images):
        networked.add("ingest_examples")
    return Inputs(
        tuple(path for path in found if not any(folder in path.parents for folder in found)),
        frozenset(networked),
        export is not None and export.onnx,
    )


def find_weights(model: ModelConfig) -> Path | None:
    """Where the first weights lie on this machine, in full; None where they do not.

    Raises:
        ConfigError: There is nothing there.
    """
    if model.weights in (NO_WEIGHTS, IMAGENET) or storage.is_remote(model.weights):
        return None
    path = Path(model.weights).resolve()
    if not path.exists():
        raise ConfigError(
            f"model.weights: expected {NO_WEIGHTS}, {IMAGENET}, a file, a model folder or a gs:// "
            f"URI, received {model.weights}, which is not there"
        )
    return path


class Runner(Protocol):
    """How tasks are run; everything else of a run is the same for all."""

    @property
    def name(self) -> str:
        """The word for `--runner`."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages of this machine whose versions matter."""

    def check(self, inputs: Inputs) -> dict[str, str]:
        """Finds at once what would stop the first task.

        Args:
            inputs: What the tasks need.

        Returns:
            Ids of the images that the tasks will run in, by name; none without containers.

        Raises:
            ConfigError: Tasks cannot be run here so.
        """

    def open(
        self, inputs: Inputs, folder: Path, images: dict[str, str]
    ) -> contextlib.AbstractContextManager[Any]:
        """Gives KFP's runner while the graph runs.

        Args:
            inputs: What the tasks need.
            folder: Folder of the run.
            images: What `check` returned.
        """


@contextlib.contextmanager
def _replaced(module: Any, name: str, function: Any) -> Iterator[None]:
    """Puts another function in the place of one of a module meanwhile."""
    original = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, original)


def _told(run: Callable[..., int]) -> Callable[..., int]:
    """KFP's function that runs a task, which then says if a signal ended it: the task cannot."""

    def run_told(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        code = run(full_command=full_command, env_vars=env_vars)
        # The shell that KFP puts before the task gives 128 and the number.
        number = -code if code < 0 else code - 128
        if number in set(signal.Signals):
            component = full_command[full_command.index("--function_to_execute") + 1]
            step = component.replace("_", "-")
            why = ", most often for lack of memory" if number == signal.SIGKILL else ""
            print(
                f"{step}: exit 1: step {step} was killed by {signal.Signals(number).name}{why}; "
                "go on with flowers run --resume"
            )
        return code

    return run_told


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Changes what processes that start meanwhile find in their environment."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class SubprocessRunner:
    """Each task in a process of its own, with the packages of this one."""

    name = "subprocess"
    packages = ("keras", "kfp", "numpy", "pillow", "tensorflow-cpu", "tensorflow")

    def check(self, inputs: Inputs) -> dict[str, str]:
        """TensorFlow is all that it takes, and what writes ONNX where that is asked for.

        Raises:
            ConfigError: It is not installed.
        """
        require_tensorflow()
        if inputs.onnx:
            require_onnx()
        return {}

    @contextlib.contextmanager
    def open(
        self,
        inputs: Inputs,
        folder: Path,
        images: dict[str, str],
    ) -> Iterator[Any]:
        """KFP's own runner of subprocesses, which end with this one."""
        from kfp import local
        from kfp.local import subprocess_task_handler as handler

        with (
            _replaced(handler, "run_local_subprocess", _told(handler.run_local_subprocess)),
            # KFP leaves a folder there for every task.
            tempfile.TemporaryDirectory() as scratch,
            _environment({RUN_PROCESS: str(os.getpid()), "TMPDIR": scratch}),
            warnings.catch_warnings(),
        ):
            # The image is not looked at here, and KFP warns of one without "python" in its name.
            warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"kfp\.local")
            yield local.SubprocessRunner(use_venv=False)
