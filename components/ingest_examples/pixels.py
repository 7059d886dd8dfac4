"""A photo as a model sees it, without the file in between: for those who ask a model."""

from collections.abc import Collection

import numpy as np

from components.ingest_examples import photos


def square(
    content: bytes,
    image_size: int,
    max_pixels: int = photos.MAX_PIXELS,
    formats: Collection[str] | None = None,
) -> np.ndarray:
    """Checks and decodes a photo, upright, cropped and resized as `photos.prepare` does it.

    Args:
        content: The encoded photo.
        image_size: Side of the result, in pixels.
        max_pixels: Most pixels that its header may name; nothing is decoded above it.
        formats: Formats, as Pillow calls them, that are taken; None for all it reads.

    Returns:
        `uint8` [image_size, image_size, 3], RGB.

    Raises:
        RejectedError: Says why the photo cannot be used.
    """
    if not content:
        raise photos.RejectedError(photos.Reason.NOT_AN_IMAGE, "there are no bytes")
    with photos._open(content) as image:
        if formats is not None and image.format not in formats:
            detail = f"{image.format} is not taken, but {', '.join(sorted(formats))}"
            raise photos.RejectedError(photos.Reason.NOT_AN_IMAGE, detail)
        width, height = image.size
        photos._check_size(width, height)
        if width * height > max_pixels:
            raise photos.RejectedError(
                photos.Reason.TOO_LARGE,
                f"{width} x {height} is {width * height / 1e6:.0f} megapixels, the limit is "
                f"{max_pixels / 1e6:.0f}",
            )
        source = photos._Source(content, image, photos._orientation(image))
        pixels = photos._to_srgb(source.decode(2 * image_size), source.icc_profile)
        return np.asarray(photos.fill(pixels, image_size))
