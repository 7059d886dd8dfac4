"""Small pictures for pages: shrunk photos, and heat maps laid over them. No TensorFlow."""

import io

import numpy as np
from PIL import Image

# Twice what a page shows them at, for screens with small pixels.
_SIDE = 192
_QUALITY = 80


def shrink(jpeg: bytes, side: int = _SIDE) -> bytes:
    """A photo with sides of at most `side` pixels, as JPEG; a small file stays as it is."""
    with Image.open(io.BytesIO(jpeg)) as image:
        if max(image.size) <= side and len(jpeg) <= side * side // 4:
            return jpeg
        return _encode(_small(image, side))


def overlay(jpeg: bytes, heat: np.ndarray, side: int = _SIDE) -> bytes:
    """Lays a heat map over a grey version of a photo.

    Args:
        jpeg: The photo.
        heat: `float` [height, width], 0 to 1, of whatever size; it covers the whole photo.
        side: Largest side of the result, in pixels.

    Returns:
        JPEG bytes.
    """
    from matplotlib import colormaps

    with Image.open(io.BytesIO(jpeg)) as image:
        small = _small(image, side)
    levels = Image.fromarray(np.round(255 * np.clip(heat, 0.0, 1.0)).astype(np.uint8))
    warmth = np.asarray(levels.resize(small.size, Image.Resampling.BICUBIC), np.float32) / 255
    colours = colormaps["inferno"](warmth)[..., :3] * 255
    grey = np.asarray(small.convert("L").convert("RGB"), np.float32)
    # What is cold stays grey, so that the photo can be seen.
    share = 0.7 * warmth[..., np.newaxis]
    return _encode(Image.fromarray(np.round(grey * (1 - share) + colours * share).astype(np.uint8)))


def _small(image: Image.Image, side: int) -> Image.Image:
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
