"""Builds the images of the steps with Docker's client, and records what was built."""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from components.common.config import choose
from components.common.errors import ConfigError, FlowersError
from components.images import IMAGES
from pipelines.code import CODE_LABEL, code_digest
from pipelines.image_lock import ImageLock, load_image_lock, save_image_lock

DOCKERFILE = Path("containers/Dockerfile")
# On a base image that was made in place of the real one, and on all that is built on it.
STAND_IN_LABEL = "stand-in"
# What an image is made of, and so what must be committed for its commit to be true.
_SOURCES = ("components", "pipelines", "containers", ".dockerignore")
_REGISTRY = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9][\w.-]*)+")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_TAG_LENGTH = 12
# Up to 20.10, after which came 23, the client itself could have BuildKit build.
_FIRST_CLIENT_WITHOUT_BUILDKIT = 23


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """What to build and where to put it.

    Attributes:
        targets: Targets of the Dockerfile.
        registry: Repository to push to, e.g. `europe-west4-docker.pkg.dev/my-project/flowers`.
        push: Whether to push.
        commit: Commit of the code; empty: ask git.
        base: Base image; empty: that of the Dockerfile.
        cache_from_registry: Whether to take unchanged layers from the last image pushed.
        docker: Docker's client.
    """

    targets: tuple[str, ...]
    registry: str = ""
    push: bool = False
    commit: str = ""
    base: str = ""
    cache_from_registry: bool = False
    docker: str = "docker"

    def __post_init__(self) -> None:
        for target in self.targets:
            choose("images build", target, IMAGES)
        if self.registry and not _REGISTRY.fullmatch(self.registry):
            raise ConfigError(
                f"--registry: expected HOST/PROJECT/REPOSITORY, received {self.registry!r}"
            )
        if self.commit and not _COMMIT.fullmatch(self.commit):
            raise ConfigError(
                f"--commit: expected 7 to 40 hexadecimal digits, received {self.commit!r}"
            )
        for flag, wanted in (
            ("--push", self.push),
            ("--cache-from-registry", self.cache_from_registry),
        ):
            if wanted and not self.registry:
                raise ConfigError(f"{flag}: goes with --registry HOST/PROJECT/REPOSITORY")


def build_images(config: BuildConfig, checkout: Path, lock_path: Path) -> ImageLock:
    """Builds the images, pushes them where asked, and writes the lock file.

    Args:
        config: What to build.
        checkout: Root of the repository.
        lock_path: File to write; images of the same commit that are in it stay.

    Returns:
        What stands in the lock file.

    Raises:
        ConfigError: The folder, the client, the engine or the registry is not as needed.
        FlowersError: The build failed; Docker has said why.
    """
    if not (checkout / DOCKERFILE).is_file():
        raise ConfigError(f"{DOCKERFILE} is not here: run this in a checkout of the repository")
    here = _commit_of(checkout)
    commit = config.commit or here
    if not commit:
        raise ConfigError("--commit: this is no git checkout, so name the commit")
    if config.push and here:
        _check_committed(here, commit)
    docker = _Docker(config.docker, checkout)
    docker.check()
    images = {target: _build(docker, config, target, commit) for target in config.targets}
    lock = ImageLock(commit, _images_of(lock_path, commit) | images)
    save_image_lock(lock, lock_path)
    return lock


def _build(docker: "_Docker", config: BuildConfig, target: str, commit: str) -> str:
    """Builds one image, and pushes it where asked; returns its reference for the lock file."""
    name = IMAGES[target]
    bare = name.partition(":")[0]
    tag = commit[:_TAG_LENGTH] + ("-changed" if commit.endswith("-changed") else "")
    remote = f"{config.registry}/{bare}" if config.registry else ""
    tags = [name, f"{bare}:{tag}"]
    if remote:
        tags += [f"{remote}:{tag}", f"{remote}:latest"]
    docker.build(
        *("--file", str(DOCKERFILE), "--target", target),
        *("--build-arg", f"COMMIT={commit}"),
        *("--label", f"{CODE_LABEL}={code_digest(docker.checkout)}"),
        # Later builds elsewhere may take layers from the image that is pushed.
        *("--build-arg", "BUILDKIT_INLINE_CACHE=1"),
        *(("--build-arg", f"BASE={config.base}") if config.base else ()),
        *(("--cache-from", f"{remote}:latest") if config.cache_from_registry else ()),
        *(part for one in tags for part in ("--tag", one)),
    )
    if not config.push:
        return str(docker.inspect(name)["Id"])
    labels = docker.inspect(name)["Config"]["Labels"] or {}
    if STAND_IN_LABEL in labels:
        raise ConfigError(
            f"--push: image {name} is built on a stand-in for {labels[STAND_IN_LABEL]}, and is "
            "for this machine alone: build it where the real base image can be pulled"
        )
    docker.push(f"{remote}:{tag}")
    docker.push(f"{remote}:latest")
    digests: list[str] = docker.inspect(name)["RepoDigests"]
    return next(digest for digest in digests if digest.startswith(f"{remote}@"))


def _images_of(lock_path: Path, commit: str) -> dict[str, str]:
    """What an earlier build of the same commit recorded."""
    # A lock file that is damaged or absent is what this command mends.
    with contextlib.suppress(ConfigError):
        lock = load_image_lock(lock_path)
        if lock.commit == commit and not commit.endswith("-changed"):
            return lock.images
    return {}


def _check_committed(here: str, commit: str) -> None:
    """Refuses to push other code than that of the commit which the images are named after."""
    if here.endswith("-changed"):
        raise ConfigError(
            "--push: the working tree differs from its commit, which the image would be named "
            "after: commit first"
        )
    if not here.startswith(commit):
        raise ConfigError(f"--commit: expected {here}, which is checked out, received {commit}")


def _commit_of(checkout: Path) -> str:
    """What is checked out; a build service has the files without it, and then this is empty."""

    def git(*arguments: str) -> str:
        return subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=checkout,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", *_SOURCES)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}-changed" if changed else commit


class _Docker:
    """Docker's client; it knows the user's credentials, and builds with BuildKit."""

    def __init__(self, program: str, checkout: Path) -> None:
        self.program = program
        self.checkout = checkout

    def check(self) -> None:
        """Refuses to go on without a client that can build, or without an engine behind it."""
        try:
            finished = self._run("version", "--format", "{{.Client.Version}}", capture_output=True)
        except OSError as error:
            raise ConfigError(
                f"--docker {self.program}: cannot be run ({error.strerror}): install Docker Engine"
            ) from error
        if "permission denied" in finished.stderr.lower():
            raise ConfigError(
                "no permission to use the container engine: sudo usermod -aG docker $USER, then "
                "log in again"
            )
        if finished.returncode:
            raise ConfigError("no container engine answers: sudo systemctl start docker")
        client = finished.stdout.strip()
        major = re.match(r"\d+", client)
        needs_plugin = major and int(major[0]) >= _FIRST_CLIENT_WITHOUT_BUILDKIT
        if needs_plugin and not self._has_buildx():
            raise ConfigError(
                f"--docker {self.program}: version {client} builds with a plug-in, which is "
                "missing: sudo apt-get install docker-buildx-plugin"
            )

    def _has_buildx(self) -> bool:
        return self._run("buildx", "version", capture_output=True).returncode == 0

    def build(self, *arguments: str) -> None:
        """Builds an image of the checkout; what Docker prints is for the user."""
        if self._run("build", *arguments, ".").returncode:
            raise FlowersError("docker build failed; what it printed says why")

    def push(self, tag: str) -> None:
        """Pushes a tag."""
        if self._run("push", "--quiet", tag).returncode:
            host = tag.partition("/")[0]
            raise ConfigError(
                f"docker push {tag} failed: gcloud auth configure-docker {host}, and see whether "
                "the repository exists"
            )

    def inspect(self, image: str) -> dict[str, Any]:
        """All that the engine knows of an image."""
        finished = self._run("image", "inspect", image, capture_output=True)
        (found,) = json.loads(finished.stdout)
        assert isinstance(found, dict)
        return found

    def _run(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # noqa: S603
            [self.program, *arguments],
            cwd=self.checkout,
            env={**os.environ, "DOCKER_BUILDKIT": "1"},
            text=True,
            check=False,
            **options,
        )
