"""One photo: from whatever bytes a source holds to a square JPEG, or to the reason why not.

This is the work of the worker processes; it needs no TensorFlow. JPEG goes through libjpeg-turbo
without a detour; Pillow looks at every header and decodes the rest. Both give a half, quarter or
eighth of the size where that is still large enough.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import threading
from collections.abc import Collection
from enum import StrEnum
from typing import Any

import numpy as np
import simplejpeg
from cykooz_resizer import (
    FilterType,
    ImageData,
    PixelType,
    ResizeAlg,
    ResizeOptions,
    Resizer,
)
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from components.common.resizing import CROP, STRETCH

# A side below this carries no flower; stretched to the size of the model it would only be noise.
MIN_SIDE = 32
# Above the largest phone photo sold, and 512 MiB as Pillow holds decoded pixels.
MAX_PIXELS = 2**27
# A progressive JPEG has some ten scans; each of ten thousand would decode all pixels again.
MAX_SCANS = 200
# The widest frame that Pillow may open at all is bounded here, not by a warning.
Image.MAX_IMAGE_PIXELS = None
Image.init()
# All that Pillow reads but the formats that it hands over to other programs of the machine.
# They are asked in this order.
_FORMATS = ["JPEG", *sorted(Image.OPEN.keys() - {"JPEG", "EPS", "WMF"})]

# A JPEG with these segments and no others holds nothing but the picture.
_BARE_SEGMENTS = {"APP0", "APP14"}
_JPEG = ("JPEG", "MPO")
# Codes of JPEG markers; source: ITU-T T.81, table B.1.
_START_OF_SCAN = 0xDA
_PROGRESSIVE = 0xC2
# Tables, frames, comments, JFIF and Adobe: none has an orientation or a profile.
_PLAIN_MARKERS = frozenset({0xC0, 0xC1, _PROGRESSIVE, 0xC4, 0xDB, 0xDD, 0xE0, 0xEE, 0xFE})
# A file of a million segments is none that a camera wrote.
_SEGMENTS = 64
_QUALITY = 95

_HASH_INPUT = 32
_HASH_SIDE = 8
_LUMA = np.array([0.299, 0.587, 0.114])

Pixels = NDArray[np.uint8]


class Reason(StrEnum):
    """Why a photo was not written."""

    NOT_AN_IMAGE = "not an image"
    TRUNCATED = "truncated"
    TOO_SMALL = "too small"
    TOO_LARGE = "too large"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    NO_LABEL = "without a label"
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
        sha256: Digest of the bytes as the source holds them; empty if unread.
        phash: 64-bit perceptual hash of the whole photo.
        width: Width of the photo as it came, in pixels.
        height: Height of the photo as it came, in pixels.
        reason: Why it cannot be used, or None.
        detail: What the reason rests on.
    """

    jpeg: bytes = b""
    sha256: bytes = b""
    phash: int = 0
    width: int = 0
    height: int = 0
    reason: Reason | None = None
    detail: str = ""


def prepare(content: bytes | OSError, image_size: int, resize: str = CROP) -> Prepared:
    """Checks, resizes and encodes one photo.

    Args:
        content: The encoded photo, or why it could not be read.
        image_size: Side of the square result, in pixels.
        resize: How it becomes a square; see `components.common.resizing`.

    Returns:
        The photo made ready, or with the reason why it was rejected. Never raises for what a file
        may hold. A JPEG that is right already keeps its bytes.
    """
    digest = b""
    try:
        if isinstance(content, OSError):
            raise RejectedError(Reason.UNREADABLE, content.strerror or str(content))
        if not content:
            raise RejectedError(Reason.NOT_AN_IMAGE, "the file is empty")
        digest = hashlib.sha256(content).digest()
        header = _read_header(content, MAX_PIXELS)
        width, height = header.size
        source = _Source(content, header)
        # The hash decides the split, so it must not depend on the size that is asked for.
        phash = perceptual_hash(source.plain(_hash_reduction(width, height)))
        if _is_right(content, header, image_size):
            return Prepared(content, digest, phash, width, height)
        pixels = source.srgb(_reduction(width, height, image_size))
        jpeg = encode(to_square(pixels, image_size, resize))
    except RejectedError as rejected:
        return Prepared(sha256=digest, reason=rejected.reason, detail=rejected.detail)
    return Prepared(jpeg, digest, phash, width, height)


def decode_square(
    content: bytes,
    image_size: int,
    resize: str = CROP,
    max_pixels: int = MAX_PIXELS,
    formats: Collection[str] | None = None,
) -> Pixels:
    """The square of a photo that `prepare` encodes: what a model is to be asked about.

    Args:
        content: The encoded photo.
        image_size: Side of the result, in pixels.
        resize: How it becomes a square; see `components.common.resizing`.
        max_pixels: Most pixels that its header may name; nothing is decoded above it.
        formats: Formats, as Pillow calls them, that are taken; None for all it reads.

    Returns:
        `uint8` [image_size, image_size, 3], RGB.

    Raises:
        RejectedError: Says why the photo cannot be used.
    """
    if not content:
        raise RejectedError(Reason.NOT_AN_IMAGE, "there are no bytes")
    header = _read_header(content, max_pixels)
    if formats is not None and header.format not in formats:
        detail = f"{header.format} is not taken, but {', '.join(sorted(formats))}"
        raise RejectedError(Reason.NOT_AN_IMAGE, detail)
    source = _Source(content, header)
    width, height = header.size
    return to_square(source.srgb(_reduction(width, height, image_size)), image_size, resize)


@dataclasses.dataclass(frozen=True)
class _Header:
    """What a photo says of itself before its pixels.

    Attributes:
        size: Width and height as stored, in pixels.
        format: As Pillow calls it.
        fast: Whether libjpeg-turbo gives its pixels as they are.
        progressive: Whether its pixels come in many scans.
        orientation: Of EXIF, 1 to 8.
        icc_profile: Its colour profile, if it has one.
    """

    size: tuple[int, int]
    format: str
    fast: bool
    progressive: bool
    orientation: int = 1
    icc_profile: bytes | None = None


def _read_header(content: bytes, max_pixels: int) -> _Header:
    """Reads the header: Pillow does, but for a JPEG in which it would find nothing else."""
    markers = _markers(content)
    if markers <= _PLAIN_MARKERS:
        with contextlib.suppress(ValueError):
            height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
            if colours in ("YCbCr", "Gray"):
                _check_size(width, height, max_pixels)
                return _Header((width, height), "JPEG", True, _PROGRESSIVE in markers)
    with _open(content) as image:
        # First of all: looking for EXIF behind the pixels of a PNG, Pillow decodes them.
        _check_size(*image.size, max_pixels)
        return _Header(
            image.size,
            str(image.format),
            image.format in _JPEG and image.mode in ("RGB", "L"),
            "progressive" in image.info,
            # Pillow turns a TIFF by itself.
            1 if image.format == "TIFF" else _orientation(image),
            image.info.get("icc_profile"),
        )


def _markers(content: bytes) -> set[int]:
    """Codes of the segments of a JPEG before its first scan; -1 where they cannot be followed."""
    found: set[int] = set()
    place = 2
    for _ in range(_SEGMENTS if content.startswith(b"\xff\xd8") else 0):
        segment = content[place : place + 4]
        length = int.from_bytes(segment[2:], "big")
        if len(segment) < 4 or segment[0] != 0xFF or length < 2:
            break
        if segment[1] == _START_OF_SCAN:
            return found
        found.add(segment[1])
        place += 2 + length
    return {-1}


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise RejectedError(Reason.NOT_AN_IMAGE, "no image format is recognised") from error
    # Pillow's readers raise nearly anything on damaged headers.
    except Exception as error:
        raise RejectedError(Reason.UNREADABLE, _describe(error)) from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise RejectedError(
            Reason.TOO_SMALL, f"{width} x {height} pixels, each side must have {MIN_SIDE}"
        )
    if width * height > max_pixels:
        raise RejectedError(
            Reason.TOO_LARGE,
            f"{width} x {height} is {width * height / 1e6:.0f} megapixels, "
            f"the limit is {max_pixels / 1e6:.0f}",
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or one that cannot be read."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def _is_right(content: bytes, header: _Header, size: int) -> bool:
    """Whether a file is what would be stored: a JPEG of that size with nothing in it but pixels.

    It has been decoded once by then, so it is whole.
    """
    if header.size != (size, size) or not content.endswith(b"\xff\xd9"):
        return False
    with _open(content) as image:
        return (
            image.format == "JPEG"
            and image.mode == "RGB"
            and header.orientation == 1
            and {name for name, _ in getattr(image, "applist", ())} <= _BARE_SEGMENTS
        )


def _reduction(width: int, height: int, size: int) -> int:
    """The largest of 8, 4, 2 and 1 that leaves a side at least twice as long as `size`."""
    return next(n for n in (8, 4, 2, 1) if n == 1 or min(width, height) // (2 * size) >= n)


def _hash_reduction(width: int, height: int) -> int:
    """What a photo is reduced by before it is hashed.

    A smaller photo is hashed as it is, which is how most image sizes need it: it is decoded once.
    """
    return 8 if _reduction(width, height, _HASH_INPUT) == 8 else 1


class _Source:
    """An encoded photo that is decoded to one or two sizes."""

    def __init__(self, content: bytes, header: _Header) -> None:
        self._content = content
        self._header = header
        self._last: tuple[int, Pixels | Image.Image] | None = None
        if header.progressive:
            _check_scans(content)

    def plain(self, reduction: int) -> Pixels:
        """The upright picture, its profile left aside: as who stripped the profile has it.

        Args:
            reduction: 8, 4, 2 or 1: how many times smaller the picture shall be.

        Returns:
            `uint8` [height, width, 3].
        """
        picture = self._upright(reduction)
        return np.asarray(_as_rgb(picture)) if isinstance(picture, Image.Image) else picture

    def srgb(self, reduction: int) -> Pixels:
        """The upright picture in sRGB; takes and gives what `plain` does."""
        if self._header.icc_profile is None:
            return self.plain(reduction)
        picture = self._upright(reduction)
        if not isinstance(picture, Image.Image):
            picture = Image.fromarray(picture)
        return np.asarray(_to_srgb(picture, self._header.icc_profile))

    def _upright(self, reduction: int) -> Pixels | Image.Image:
        if self._last is None or self._last[0] != reduction:
            self._last = reduction, self._decode(reduction)
        return self._last[1]

    def _decode(self, reduction: int) -> Pixels | Image.Image:
        if self._header.fast:
            try:
                pixels = self._decode_jpeg(reduction)
            except ValueError as error:
                _check_damage(str(error))
            else:
                if self._header.orientation == 1:
                    return pixels
                return _turn(Image.fromarray(pixels), self._header.orientation)
        return _turn(self._decode_other(reduction), self._header.orientation)

    def _decode_jpeg(self, reduction: int) -> Pixels:
        width, height = self._header.size
        pixels: Pixels = simplejpeg.decode_jpeg(
            self._content,
            min_width=-(-width // reduction),
            min_height=-(-height // reduction),
            min_factor=reduction,
        )
        return pixels

    def _decode_other(self, reduction: int) -> Image.Image:
        """Decodes what libjpeg-turbo does not: an image of mode RGB, L or CMYK."""
        image = _open(self._content)
        width, height = self._header.size
        image.draft("RGB", (width // reduction, height // reduction))
        try:
            image.load()
        except OSError as error:
            cut = any(word in str(error) for word in ("truncated", "broken", "incomplete"))
            reason = Reason.TRUNCATED if cut else Reason.UNREADABLE
            raise RejectedError(reason, _describe(error)) from error
        except Exception as error:
            raise RejectedError(Reason.UNREADABLE, _describe(error)) from error
        drafted = image.width < width
        flat = _flatten(image)
        return flat if drafted or reduction == 1 else flat.reduce(reduction)


def _check_scans(content: bytes) -> None:
    scans = content.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise RejectedError(Reason.TOO_LARGE, f"{scans} scans, the limit is {MAX_SCANS}")


def _check_damage(message: str) -> None:
    """Refuses what libjpeg calls corrupt data: it would go on and fill up with grey.

    Bytes between two segments are what some cameras write; nothing is lost by them. All other
    complaints are left to Pillow, which knows more kinds of JPEG.
    """
    text = " ".join(message.split())
    if "premature end" in text.lower():
        raise RejectedError(Reason.TRUNCATED, text)
    if "corrupt jpeg data" in text.lower() and "extraneous" not in text:
        raise RejectedError(Reason.DAMAGED, text)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turns an image upright as its EXIF orientation says."""
    return image if orientation == 1 else image.transpose(_TURNS[orientation])


def _describe(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _flatten(image: Image.Image) -> Image.Image:
    """Converts any mode to RGB, L or CMYK; transparent parts become white, 16 bits become 8."""
    if image.mode in ("F", "I"):
        # Such samples are measurements, and nothing says which of them is white.
        raise RejectedError(Reason.UNREADABLE, "samples of 32 bits; expected 8 or 16")
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image, np.int64) // 256, 0, 255).astype(np.uint8)
        return Image.fromarray(grey)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Converts to sRGB by the profile that came with the photo.

    A profile that is damaged, or that is made for another mode, is left aside: without it the
    colours are as every viewer shows them.
    """
    transform = _transform(profile, image.mode)
    if transform is not None:
        with contextlib.suppress(ImageCms.PyCMSError):
            return ImageCms.applyTransform(image, transform) or image
    return _as_rgb(image)


def _as_rgb(image: Image.Image) -> Image.Image:
    """An image in RGB; one that is already is not copied."""
    return image if image.mode == "RGB" else image.convert("RGB")


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> Any:
    """The way from a profile to sRGB, or None where there is nothing to do or to go by."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if ImageCms.getProfileDescription(opened).startswith("sRGB"):
            return None
        return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def to_square(pixels: Pixels, size: int, resize: str = CROP) -> Pixels:
    """Makes an image a square of one size, antialiased (bicubic).

    The exported model does the same to the bytes that it is sent; see `image_ops.to_square`.

    Args:
        pixels: `uint8` [height, width, 3].
        size: Side of the result, in pixels.
        resize: How; see `components.common.resizing`.

    Returns:
        `uint8` [size, size, 3]. An image that has this size already is returned bit for bit.
    """
    if resize == STRETCH:
        return _resize(pixels, size, _CUBIC)
    height, width = pixels.shape[:2]
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return _resize(pixels[top : top + side, left : left + side], size, _CUBIC)


_CUBIC = ResizeOptions(ResizeAlg.convolution(FilterType.catmull_rom))
_BOX = ResizeOptions(ResizeAlg.convolution(FilterType.box))


class _Kept(threading.local):
    """The resizer of a thread; a new one for each image would take twice the time."""

    def __init__(self) -> None:
        self.resizer = Resizer()


_KEPT = _Kept()


def _resize(pixels: Pixels, size: int, options: ResizeOptions) -> Pixels:
    """Resizes to a square, whatever the aspect; in integers, so alike on every machine."""
    height, width = pixels.shape[:2]
    if height == width == size:
        return pixels
    resized = ImageData(size, size, PixelType.U8x3)
    source = ImageData(width, height, PixelType.U8x3, pixels.tobytes())
    _KEPT.resizer.resize(source, resized, options)
    return np.frombuffer(resized.get_buffer(), np.uint8).reshape(size, size, 3)


def encode(pixels: Pixels) -> bytes:
    """Encodes `uint8` [height, width, 3] as JPEG, quality 95, no chroma subsampling."""
    jpeg: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=_QUALITY, colorsubsampling="444"
    )
    return jpeg


def _dct_matrix(size: int) -> np.ndarray:
    """The first `_HASH_SIDE` rows of the type-II discrete cosine transform."""
    column = np.arange(size)
    row = np.arange(_HASH_SIDE)[:, np.newaxis]
    return np.cos(np.pi * (2 * column + 1) * row / (2 * size))


_DCT = _dct_matrix(_HASH_INPUT)


def perceptual_hash(pixels: Pixels) -> int:
    """Hashes what a photo looks like; near-duplicates differ in a few of the 64 bits.

    The lowest 8 x 8 frequencies of a 32 x 32 grey version, each compared with their median
    (pHash). The constant term is left out, since brightness alone decides it.

    Args:
        pixels: `uint8` [height, width, 3].
    """
    grey = _resize(pixels, _HASH_INPUT, _BOX) @ _LUMA
    # Rounded: in a plain picture all of them are zero but for noise, which differs by machine.
    frequencies = np.round(_DCT @ grey @ _DCT.T, 3).ravel()
    # Of 63 numbers the median is the middle one; `np.median` takes ten times as long.
    bits = frequencies > np.sort(frequencies[1:])[31]
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
