"""Photos as they are sent to a model: checked by their header, then decoded."""

import numpy as np

from components.ingest_examples.photos import RejectedError, decode_square

# What browsers, phones and cameras send; the rest of what Pillow reads stays closed to strangers.
FORMATS = frozenset({"BMP", "GIF", "JPEG", "MPO", "PNG", "WEBP"})


class BadPhotoError(Exception):
    """A photo cannot be used; the message says why."""


def decode(content: bytes, image_size: int, resize: str, max_megapixels: float) -> np.ndarray:
    """A photo as the model sees it, prepared as the photos it learnt from were.

    Args:
        content: The encoded photo.
        image_size: Side of the result, in pixels.
        resize: How it becomes a square; see `components.common.resizing`.
        max_megapixels: Largest photo by its header.

    Returns:
        `uint8` [image_size, image_size, 3], RGB.

    Raises:
        BadPhotoError: Says what is wrong with it.
    """
    try:
        return decode_square(content, image_size, resize, int(max_megapixels * 1e6), FORMATS)
    except RejectedError as error:
        raise BadPhotoError(f"{error.reason}: {error.detail}") from error
    except MemoryError as error:
        raise BadPhotoError("too large: it does not fit into memory") from error
