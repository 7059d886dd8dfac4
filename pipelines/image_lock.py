"""Images by digest: what `flowers images build` recorded, and how a compiled graph takes it.

KFP and Vertex AI key their caches on the image string, so a tag that moves would bring back results
of the code before. A lock file has one entry per image:

    {"commit": "1a2b3c...", "images": {"cpu": "HOST/PROJECT/REPOSITORY/NAME@sha256:..."}}

An image that was built and not pushed is known to this machine alone, and stands there as
`sha256:...`, its id.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from components.common.config import build, choose, read_mapping, to_json
from components.common.errors import ConfigError
from components.common.outputs import write_text
from components.images import IMAGES

LOCK_FILE = Path("containers/images.lock.json")
_COMMIT = re.compile(r"[0-9a-f]{7,40}(-changed)?")
_REFERENCE = re.compile(r"(?:[\w.:/-]+@)?sha256:[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class ImageLock:
    """The images that were built from one commit.

    Attributes:
        commit: The commit, 7 to 40 hexadecimal digits; `-changed` behind it when the working tree
            differed from it.
        images: By target of the Dockerfile, `NAME@sha256:DIGEST` of a pushed image, or
            `sha256:ID` of one that was not pushed.
    """

    commit: str
    images: dict[str, str]

    def __post_init__(self) -> None:
        if not _COMMIT.fullmatch(self.commit):
            raise ConfigError(
                f"commit: expected 7 to 40 hexadecimal digits, received {self.commit!r}"
            )
        for target, reference in self.images.items():
            choose("images", target, IMAGES)
            if not _REFERENCE.fullmatch(reference):
                raise ConfigError(
                    f"images.{target}: expected NAME@sha256:DIGEST or sha256:ID, "
                    f"received {reference!r}"
                )


def load_image_lock(path: Path) -> ImageLock:
    """Reads and checks a lock file.

    Raises:
        ConfigError: It is absent, or not what `flowers images build` writes.
    """
    if not path.is_file():
        raise ConfigError(f"--image-lock {path}: no such file; make it with flowers images build")
    try:
        return build(ImageLock, read_mapping(str(path)))
    except ConfigError as error:
        raise ConfigError(f"--image-lock {path}: {error}; flowers images build makes it") from error


def save_image_lock(lock: ImageLock, path: Path) -> None:
    """Writes a lock file, whole or not at all.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        write_text(path, to_json(dataclasses.asdict(lock)))
    except OSError as error:
        raise ConfigError(
            f"--image-lock {path}: cannot be written ({error.strerror}); name another file"
        ) from error


def pin_images(spec: Any, lock: ImageLock) -> Any:
    """Puts digests in place of image names, wherever they stand in a compiled pipeline.

    Args:
        spec: Plain data, such as a pipeline specification or the workers of a custom job; it is
            not changed.
        lock: The images to take.

    Returns:
        A copy of `spec` without a name of `components.images`.

    Raises:
        ConfigError: An image that `spec` uses is not in the lock, or was not pushed.
    """
    if isinstance(spec, dict):
        return {key: pin_images(value, lock) for key, value in spec.items()}
    if isinstance(spec, (list, tuple)):
        return [pin_images(value, lock) for value in spec]
    for target, name in IMAGES.items():
        if spec == name:
            return _pushed(target, lock)
    return spec


def _pushed(target: str, lock: ImageLock) -> str:
    push = f"flowers images build {target} --push --registry HOST/PROJECT/REPOSITORY"
    reference = lock.images.get(target)
    if reference is None:
        raise ConfigError(f"image {target} is not in the lock file; build it: {push}")
    if "@" not in reference:
        raise ConfigError(f"image {target} was built and not pushed, and is needed there: {push}")
    return reference
