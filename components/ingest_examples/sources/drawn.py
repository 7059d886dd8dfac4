"""The synthetic flowers: `synthetic://flowers?per_class=200&seed=7`, drawn when they are read."""

import dataclasses
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qsl, urlsplit

from components.common.config import Range, check
from components.common.errors import ConfigError
from components.ingest_examples import synthetic
from components.ingest_examples.sources.base import Listing, Photo

SCHEME = "synthetic://"


def parse_options(images: str) -> tuple[int, int]:
    """Number of photos per class, and the seed.

    Raises:
        ConfigError: It is not of that form.
    """
    options = {"per_class": 200, "seed": 7}
    try:
        place = urlsplit(images)
        query = parse_qsl(place.query, keep_blank_values=True, strict_parsing=bool(place.query))
        options |= {key: int(value) for key, value in query}
        if (place.netloc, place.path) != ("flowers", "") or len(options) > 2:
            raise ValueError
    except ValueError as error:
        raise ConfigError(
            f"--images {images}: expected synthetic://flowers?per_class=NUMBER&seed=NUMBER"
        ) from error
    check("--images: per_class", options["per_class"], Range(1, 100_000))
    check("--images: seed", options["seed"], Range(0, 2**31 - 1))
    return options["per_class"], options["seed"]


@dataclasses.dataclass(frozen=True)
class Painter:
    """Draws photos."""

    seed: int

    def read(self, photos: Sequence[Photo]) -> Iterator[bytes]:
        """Draws one photo after the other."""
        for photo in photos:
            yield synthetic.render_jpeg(photo.class_name, int(photo.place), self.seed)


def list_flowers(images: str) -> Listing:
    """The flowers that a place asks for."""
    per_class, seed = parse_options(images)
    photos = [
        Photo(f"{name}/{index:05d}.jpg", name, str(index))
        for name in synthetic.CLASS_NAMES
        for index in range(per_class)
    ]
    return Listing(synthetic.CLASS_NAMES, photos, Painter(seed))
