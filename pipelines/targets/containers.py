"""Runs each task in a container of its own, under KFP's DockerRunner.

KFP's handler starts a container that the engine removes by itself, and takes one that is gone
before its exit code was read for a success. Here the container stays until its state has been read,
and an engine or an image that does not give the exit code of a container is refused before the run.
"""

import codecs
import contextlib
import dataclasses
import importlib.util
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.common.errors import ConfigError, FlowersError
from components.common.extras import how_to_install
from components.images import IMAGES
from pipelines.code import CODE_LABEL, code_digest
from pipelines.image_lock import ImageLock
from pipelines.targets.runners import Inputs

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

# Says which containers are of runs, for `docker ps --filter label=...`.
RUN_LABEL = "flowers.run"
_IMAGE = IMAGES["cpu"]
_PROBE_EXIT_CODE = 7
# The only folder of a container that can be written to, beside that of the run.
_SCRATCH = "/tmp"  # noqa: S108
# Where an image has its own files: a folder mounted there would hide them.
_OCCUPIED = ("/app", "/bin", "/dev", "/etc", "/lib", "/opt/flowers", "/proc", "/sys", "/usr")


@dataclasses.dataclass(frozen=True)
class ContainerRunner:
    """How to run tasks in containers.

    Attributes:
        memory: Limit of each container, e.g. `4g`; empty for none.
        lock: Images to take; without it they are taken by name.
    """

    memory: str = ""
    lock: ImageLock | None = None

    name = "docker"
    packages = ("docker", "kfp")

    def __post_init__(self) -> None:
        if self.memory:
            _require_docker_package()
            _parse_memory(self.memory)

    def check(self, inputs: Inputs) -> dict[str, str]:
        """Finds at once what would stop the first container.

        Returns:
            Ids of the images, by the names that the components have.

        Raises:
            ConfigError: There is no engine, no image, or one whose word cannot be trusted.
        """
        _require_docker_package()
        for path in inputs.paths:
            _refuse_hiding(path)
        with _engine() as client:
            image_id = self._find_image(client)
            _refuse_untrusted(client, image_id)
        return {_IMAGE: image_id}

    @contextlib.contextmanager
    def open(self, inputs: Inputs, folder: Path, images: dict[str, str]) -> Iterator[Any]:
        """Gives KFP's runner, and takes the start of containers over from it meanwhile.

        Args:
            inputs: What the tasks need.
            folder: Folder of the run.
            images: What `check` returned.
        """
        import docker
        from kfp import local
        from kfp.local import docker_task_handler

        client = docker.from_env()
        try:
            _remove_left_over(client, folder)
            options = _options(client, inputs, folder, self.memory)
        finally:
            client.close()
        original = docker_task_handler.run_docker_container
        docker_task_handler.run_docker_container = _Launcher(images, self.memory, inputs.networked)
        try:
            yield local.DockerRunner(**options)
        finally:
            docker_task_handler.run_docker_container = original

    def _find_image(self, client: "docker.DockerClient") -> str:
        import docker

        reference = self._reference()
        try:
            image = client.images.get(reference)
        except docker.errors.ImageNotFound as error:
            mend = f"docker pull {reference}" if "@" in reference else "flowers images build"
            raise ConfigError(f"image {reference} is not on this machine: {mend}") from error
        if image.attrs["Config"].get("Entrypoint"):
            raise ConfigError(
                f"image {reference} has an ENTRYPOINT, which would take the command of a step as "
                "its arguments: build an image without one, flowers images build"
            )
        built_from = image.labels.get(CODE_LABEL)
        if not self.lock and built_from and built_from != code_digest():
            raise ConfigError(
                f"image {reference} was built from other code than this: flowers images build, or "
                "name the images that you want with --image-lock"
            )
        return str(image.id)

    def _reference(self) -> str:
        if not self.lock:
            return _IMAGE
        if "cpu" not in self.lock.images:
            raise ConfigError("image cpu is not in the lock file: flowers images build cpu")
        return self.lock.images["cpu"]


class _Launcher:
    """Stands in for KFP's `run_docker_container`, and has its arguments."""

    def __init__(
        self, images: dict[str, str], memory: str, networked: frozenset[str] = frozenset()
    ) -> None:
        self._images = images
        self._memory = memory
        self._networked = networked

    def __call__(
        self,
        client: "docker.DockerClient",
        image: str,
        command: Sequence[str],
        volumes: dict[str, Any],
        **options: Any,
    ) -> int:
        """Runs a container to its end and returns its exit code."""
        component = command[command.index("--function_to_execute") + 1]
        step = component.replace("_", "-")
        if component not in self._networked:
            options["network_mode"] = "none"
        try:
            end = run_container(client, self._images[image], command, volumes=volumes, **options)
        # The line is read by whoever listens to the run, as those of the steps are.
        except FlowersError as error:
            print(f"{step}: exit {error.exit_code}: step {step}: {error}")
            return error.exit_code
        if end.reason(self._memory):
            print(f"{step}: exit {end.blame}: step {step} {end.reason(self._memory)}")
        return end.exit_code


@dataclasses.dataclass(frozen=True)
class End:
    """How a container ended.

    Attributes:
        exit_code: Its exit code; 128 and the number of the signal when one ended it.
        out_of_memory: Whether a process in it was killed for want of memory.
    """

    exit_code: int
    out_of_memory: bool

    @property
    def blame(self) -> int:
        """Exit code of the run: memory is for the user to give."""
        return 2 if self.out_of_memory else 1

    def reason(self, memory: str) -> str:
        """Why, in words; empty where the step itself has said it, or ended well.

        Args:
            memory: Limit of the container, empty for none.
        """
        if self.exit_code and self.out_of_memory:
            limit = f"the {memory} of --memory" if memory else "what the engine has"
            return (
                f"needed more memory than {limit}, and was killed: give it more, or set a smaller "
                "train.global_batch_size"
            )
        if self.exit_code > 128:
            return f"was killed by {_signal_name(self.exit_code - 128)}: start the run again"
        return ""


def run_container(
    client: "docker.DockerClient", image: str, command: Sequence[str], **options: Any
) -> End:
    """Runs a container to its end, prints what it prints, and removes it.

    Args:
        client: Engine.
        image: Id or name.
        command: Program and arguments.
        options: Further arguments of `client.containers.create`.

    Raises:
        FlowersError: The engine could not start it, or stopped answering.
    """
    with _explained():
        container = client.containers.create(image, list(command), **options)
        try:
            container.start()
            _print(container.logs(stream=True, follow=True))
            return _end(container)
        finally:
            container.remove(force=True)


def _print(chunks: Iterable[bytes]) -> None:
    """Prints output that comes in pieces, which may end within a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chunk in chunks:
        print(decoder.decode(chunk), end="")


def _end(container: "Container") -> End:
    container.wait()
    container.reload()
    state = container.attrs["State"]
    if state["Status"] != "exited":
        raise FlowersError(f"the engine says of a container that ended: {state['Status']}")
    return End(state["ExitCode"], state["OOMKilled"])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _remove_left_over(client: "docker.DockerClient", folder: Path) -> None:
    """Ends what a run that was killed has left: containers go on without the one who made them."""
    left: dict[str, Any] = {"label": f"{RUN_LABEL}={folder.resolve()}"}
    for container in client.containers.list(all=True, filters=left, ignore_removed=True):
        container.remove(force=True)


def _options(
    client: "docker.DockerClient", inputs: Inputs, folder: Path, memory: str
) -> dict[str, Any]:
    """Arguments for every container of a run."""
    from docker.types import LogConfig, Mount

    limits = {"mem_limit": memory, "memswap_limit": memory} if memory else {}
    return {
        "user": _user(client.info()["SecurityOptions"]),
        "mounts": [
            Mount(str(path), str(path), type="bind", read_only=True) for path in inputs.paths
        ],
        "read_only": True,
        "tmpfs": {_SCRATCH: ""},
        "security_opt": ["no-new-privileges"],
        "labels": {RUN_LABEL: str(folder.resolve())},
        # Whatever the engine's default is: the output is read back from there.
        "log_config": LogConfig(type=LogConfig.types.JSON),
        # Reaps what the worker processes leave, and hands signals on.
        "init": True,
        **limits,
    }


def _user(security_options: Iterable[str]) -> str:
    """Who the outputs belong to: the caller, whom an engine without root calls root."""
    if "name=rootless" in security_options:
        return "0:0"
    return f"{os.getuid()}:{os.getgid()}"


def _refuse_hiding(path: Path) -> None:
    for occupied in (*_OCCUPIED, _SCRATCH):
        # What lies below /tmp hides nothing.
        if Path(occupied).is_relative_to(path):
            raise ConfigError(
                f"{path} would hide {occupied} of the containers: name a folder that lies elsewhere"
            )


def _refuse_untrusted(client: "docker.DockerClient", image: str) -> None:
    """Asks the engine for the exit code of a container that ends at once."""
    command = ["sh", "-c", f"exit {_PROBE_EXIT_CODE}"]
    end = run_container(client, image, command, network_mode="none", labels={RUN_LABEL: "probe"})
    if end.exit_code != _PROBE_EXIT_CODE:
        raise ConfigError(
            f"the engine gives exit code {end.exit_code} for a container that ended with "
            f"{_PROBE_EXIT_CODE}, so a failed step could pass for a success: use Docker Engine "
            "20.10 or newer, or --runner subprocess"
        )


def _require_docker_package() -> None:
    if importlib.util.find_spec("docker") is None:
        raise ConfigError(f"--runner docker needs a package: {how_to_install('docker')}")


def _parse_memory(memory: str) -> None:
    import docker
    from docker.utils import parse_bytes

    try:
        parse_bytes(memory)
    except docker.errors.DockerException as error:
        raise ConfigError(
            f"--memory: expected a size such as 512m or 4g, received {memory!r}"
        ) from error


@contextlib.contextmanager
def _engine() -> Iterator["docker.DockerClient"]:
    """The engine that DOCKER_HOST names, or the one of this machine.

    Raises:
        ConfigError: None answers.
    """
    import docker

    with _explained():
        client = docker.from_env()
    try:
        with _explained():
            client.ping()
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns an error of the engine into a line that says how to mend it."""
    import docker
    import requests

    try:
        yield
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise _explain(error) from error


def _explain(error: Exception) -> FlowersError:
    text = " ".join(str(error).split())
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if "PermissionError" in text:
        return ConfigError(
            f"no permission to use the container engine at {where}: sudo usermod -aG docker $USER, "
            "then log in again"
        )
    if "no space left on device" in text.lower():
        return ConfigError("the container engine has no space left: docker system prune")
    if "Error while fetching server API version" in text or "Connection" in text:
        return ConfigError(
            f"no container engine answers at {where}: sudo systemctl start docker, or use "
            "--runner subprocess"
        )
    return FlowersError(f"the container engine refused: {text}")
