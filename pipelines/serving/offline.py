"""Asking a model about many photos in one go."""

import concurrent.futures
import dataclasses
import itertools
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from components.common import gcs, storage
from components.common.errors import DataError
from components.common.processes import count_cores
from pipelines.serving.model import ServedModel
from pipelines.serving.photos import BadPhotoError, decode

STDIN = "-"
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"}
_BATCH = 32
_MAX_MEGAPIXELS = 128.0


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model says of one photo.

    Attributes:
        place: The photo, as it was found.
        probabilities: Class -> probability, the most probable first; empty for a bad photo.
        problem: What is wrong with the photo; empty for a good one.
    """

    place: str
    probabilities: dict[str, float]
    problem: str = ""

    @property
    def label(self) -> str:
        """The most probable class; empty for a bad photo."""
        return next(iter(self.probabilities), "")


def find_photos(places: Sequence[str]) -> Iterator[str]:
    """Every photo that places stand for: files, folders with all below them, `-`, and `gs://`.

    Raises:
        DataError: A place does not exist, or a folder holds no photo.
    """
    for place in places:
        if place == STDIN:
            yield place
            continue
        found = _in_bucket(place) if storage.is_remote(place) else _on_disk(Path(place))
        first = next(found, None)
        if first is None:
            raise DataError(f"{place}: expected a photo or a folder of photos, found none")
        yield from itertools.chain([first], found)


def _on_disk(path: Path) -> Iterator[str]:
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.suffix.lower() in _SUFFIXES)
        yield from (str(one) for one in files if one.is_file())
    elif path.exists():
        yield str(path)


def _in_bucket(place: str) -> Iterator[str]:
    bucket, name = gcs.split_place(place)
    folder = f"{name.rstrip('/')}/" if name else ""
    for blob in gcs.list_blobs(place):
        below = blob.name.startswith(folder) and Path(blob.name).suffix.lower() in _SUFFIXES
        if blob.name == name or below:
            yield f"{gcs.SCHEME}{bucket}/{blob.name}"


def ask(model: ServedModel, places: Iterable[str]) -> Iterator[Answer]:
    """Asks about photos, in batches; photos are read and decoded while the model works.

    Args:
        model: The model.
        places: What `find_photos` found.

    Yields:
        An answer for each, in their order.
    """
    with concurrent.futures.ThreadPoolExecutor(count_cores()) as pool:
        waiting: deque[tuple[str, concurrent.futures.Future[np.ndarray]]] = deque()
        remaining = iter(places)
        # Two batches ahead, so that a folder of any size takes the same memory.
        for place in itertools.islice(remaining, 2 * _BATCH):
            waiting.append((place, pool.submit(_read, place, model)))
        while waiting:
            batch = [waiting.popleft() for _ in range(min(_BATCH, len(waiting)))]
            for place in itertools.islice(remaining, len(batch)):
                waiting.append((place, pool.submit(_read, place, model)))
            yield from _answers(model, batch)


def _answers(
    model: ServedModel, batch: Sequence[tuple[str, "concurrent.futures.Future[np.ndarray]"]]
) -> Iterator[Answer]:
    problems = {place: str(one.exception()) for place, one in batch if _is_bad(one)}
    good = [(place, one.result()) for place, one in batch if place not in problems]
    shares = iter(model.predict(np.stack([image for _, image in good])) if good else ())
    for place, _ in batch:
        if place in problems:
            yield Answer(place, {}, problems[place])
            continue
        row = next(shares)
        order = np.argsort(-row, kind="stable")
        names = model.class_names
        yield Answer(place, {names[int(index)]: float(row[index]) for index in order})


def _is_bad(read: "concurrent.futures.Future[np.ndarray]") -> bool:
    error = read.exception()
    if error is not None and not isinstance(error, BadPhotoError):
        raise error
    return error is not None


def _read(place: str, model: ServedModel) -> np.ndarray:
    try:
        content = sys.stdin.buffer.read() if place == STDIN else storage.read(place)
    except OSError as error:
        raise BadPhotoError(f"unreadable: {error.strerror or error}") from error
    return decode(content, model.image_size, model.resize, _MAX_MEGAPIXELS)
