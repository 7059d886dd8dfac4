"""One photo: from whatever bytes a source holds to a square JPEG, or to the reason why not.

This is the work of the worker processes; it needs Pillow and numpy and no TensorFlow.
"""

import dataclasses
import hashlib
import io
from enum import StrEnum

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from components.ingest_examples.sources import Photo

# A side below this carries no flower; stretched to the size of the model it would only be noise.
MIN_SIDE = 32
# Above the largest phone photo sold, and 512 MiB as Pillow holds decoded pixels.
MAX_PIXELS = 2**27
# The widest frame that Pillow may open at all is bounded here, not by a warning.
Image.MAX_IMAGE_PIXELS = None
Image.init()
# All that Pillow reads but the formats that it hands over to other programs of the machine.
_FORMATS = sorted(Image.OPEN.keys() - {"EPS", "WMF"})

_HASH_INPUT = 32
_HASH_SIDE = 8


class Reason(StrEnum):
    """Why a photo was not written."""

    NOT_AN_IMAGE = "not an image"
    TRUNCATED = "truncated"
    TOO_SMALL = "too small"
    TOO_LARGE = "too large"
    UNREADABLE = "unreadable"
    NOT_IN_MANIFEST = "not in the manifest"
    TWO_LABELS = "the same photo under two labels"
    EXACT_DUPLICATE = "exact duplicate"
    NEAR_DUPLICATE = "near-duplicate of a photo in another split"


# A copy of a photo is no damage, however many there are: it does not make a data set fail.
DUPLICATES = frozenset({Reason.EXACT_DUPLICATE, Reason.NEAR_DUPLICATE})


class RejectedError(Exception):
    """A photo cannot be used."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A photo made ready.

    Attributes:
        jpeg: The square image, encoded; empty when the photo was rejected.
        sha256: Digest of the bytes as the source holds them, in hexadecimal; empty if unread.
        phash: 64-bit perceptual hash of the whole photo.
        width: Width of the photo as it came, in pixels.
        height: Height of the photo as it came, in pixels.
        reason: Why it cannot be used, or None.
        detail: What the reason rests on.
    """

    jpeg: bytes = b""
    sha256: str = ""
    phash: int = 0
    width: int = 0
    height: int = 0
    reason: Reason | None = None
    detail: str = ""


def prepare(photo: Photo, image_size: int) -> Prepared:
    """Reads, checks, crops, resizes and encodes one photo.

    Args:
        photo: The photo, not read yet.
        image_size: Side of the square result, in pixels.

    Returns:
        The photo made ready, or with the reason why it was rejected. Never raises for what a file
        may hold.
    """
    digest = ""
    try:
        content = _read(photo)
        digest = hashlib.sha256(content).hexdigest()
        with _open(content) as image:
            width, height = image.size
            _check_size(width, height)
            pixels = _decode(image, 2 * image_size)
        jpeg = _encode(fill(pixels, image_size))
        # The hash decides the split, so it must not depend on the size that is asked for.
        with _open(content) as image:
            phash = perceptual_hash(_decode(image, 2 * _HASH_INPUT))
    except RejectedError as rejected:
        return Prepared(sha256=digest, reason=rejected.reason, detail=rejected.detail)
    return Prepared(jpeg, digest, phash, width, height)


def _read(photo: Photo) -> bytes:
    try:
        content = photo.read()
    except OSError as error:
        raise RejectedError(Reason.UNREADABLE, error.strerror or str(error)) from error
    if not content:
        raise RejectedError(Reason.NOT_AN_IMAGE, "the file is empty")
    return content


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise RejectedError(Reason.NOT_AN_IMAGE, "no image format is recognised") from error
    # Pillow's readers raise nearly anything on damaged headers.
    except Exception as error:
        raise RejectedError(Reason.UNREADABLE, _describe(error)) from error


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise RejectedError(
            Reason.TOO_SMALL, f"{width} x {height} pixels, each side must have {MIN_SIDE}"
        )
    if width * height > MAX_PIXELS:
        raise RejectedError(
            Reason.TOO_LARGE,
            f"{width} x {height} is {width * height / 1e6:.0f} megapixels, "
            f"the limit is {MAX_PIXELS / 1e6:.0f}",
        )


def _decode(image: Image.Image, side: int) -> Image.Image:
    """Decodes to RGB, upright; a larger JPEG only to a half, quarter or eighth above `side`."""
    image.draft("RGB", (side, side))
    return _to_rgb(_load(image))


def _load(image: Image.Image) -> Image.Image:
    """Decodes the pixels and turns them upright as the EXIF orientation says."""
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except OSError as error:
        cut = "truncated" in str(error) or "broken" in str(error) or "incomplete" in str(error)
        raise RejectedError(
            Reason.TRUNCATED if cut else Reason.UNREADABLE, _describe(error)
        ) from error
    except Exception as error:
        raise RejectedError(Reason.UNREADABLE, _describe(error)) from error


def _describe(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _to_rgb(image: Image.Image) -> Image.Image:
    """Converts any mode to RGB; transparent parts become white, 16 bits become 8."""
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image, np.int64) // 256, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def fill(image: Image.Image, size: int) -> Image.Image:
    """Crops the centre square and resizes it, aspect kept, antialiased.

    The exported model does the same to the bytes that it is sent; see `image_ops.fill`.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _dct_matrix(size: int) -> np.ndarray:
    """The first `_HASH_SIDE` rows of the type-II discrete cosine transform."""
    column = np.arange(size)
    row = np.arange(_HASH_SIDE)[:, np.newaxis]
    return np.cos(np.pi * (2 * column + 1) * row / (2 * size))


_DCT = _dct_matrix(_HASH_INPUT)


def perceptual_hash(image: Image.Image) -> int:
    """Hashes what a photo looks like; near-duplicates differ in a few of the 64 bits.

    The lowest 8 x 8 frequencies of a 32 x 32 grey version, each compared with their median
    (pHash). The constant term is left out, since brightness alone decides it.
    """
    side = (_HASH_INPUT, _HASH_INPUT)
    grey = np.asarray(image.convert("L").resize(side, Image.Resampling.LANCZOS), np.float64)
    # Rounded: in a plain picture all of them are zero but for noise, which differs by machine.
    frequencies = np.round(_DCT @ grey @ _DCT.T, 3).ravel()
    bits = frequencies > np.median(frequencies[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
