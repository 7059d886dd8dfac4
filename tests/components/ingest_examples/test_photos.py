"""Tests of one photo's way from the bytes of a file to a square JPEG or a reason."""

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from components.common.resizing import RESIZES, STRETCH
from components.ingest_examples import photos
from components.ingest_examples.photos import (
    MIN_SIDE,
    Reason,
    RejectedError,
    decode_square,
    perceptual_hash,
    prepare,
    to_square,
)
from components.ingest_examples.synthetic import render_flower
from tests.builders import draw_photo, encode

SIZE = 32
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def stored(content: bytes, size: int = SIZE) -> Image.Image:
    """The image that is stored for a photo that is accepted."""
    ready = prepare(content, size)
    assert ready.reason is None, ready.detail
    image = Image.open(io.BytesIO(ready.jpeg))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (size, size))
    return image


def rejected(content: bytes | OSError) -> tuple[Reason | None, str]:
    """Reason and detail of a photo that is refused."""
    ready = prepare(content, SIZE)
    assert ready.jpeg == b""
    return ready.reason, ready.detail


def colour(image: Image.Image, x: int, y: int) -> np.ndarray:
    return np.asarray(np.asarray(image, np.int64)[y, x])


def plain(mode: str, tone: object, size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new(mode, size, tone)  # type: ignore[arg-type]


def png(width: int, height: int, rows: bytes) -> bytes:
    """A PNG of 1-bit grey; `rows` is the compressed data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def oriented(orientation: int, kind: str = "JPEG") -> bytes:
    """Red on the left and blue on the right, and asks to be turned when shown."""
    image = plain("RGB", RED, (96, 96))
    image.paste(BLUE, (48, 0, 96, 96))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, kind, quality=95, exif=exif)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF"])
def test_format_is_read(kind: str) -> None:
    image = stored(encode(plain("RGB", (200, 60, 30)), kind))
    assert np.abs(colour(image, 16, 16) - (200, 60, 30)).max() <= 4


@pytest.mark.parametrize(
    ("mode", "tone", "expected"),
    [
        ("1", 1, WHITE),
        ("L", 100, (100, 100, 100)),
        ("LA", (0, 0), WHITE),
        ("RGBA", (*RED, 0), WHITE),
        ("RGBA", (*RED, 255), RED),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("I;16", 65535, WHITE),
        ("I;16", 25700, (100, 100, 100)),
    ],
)
def test_mode_becomes_rgb(mode: str, tone: object, expected: tuple[int, int, int]) -> None:
    image = stored(encode(plain(mode, tone), "PNG"))
    assert np.abs(colour(image, 16, 16) - expected).max() <= 2


@pytest.mark.parametrize("mode", ["F", "I"])
def test_samples_of_32_bits_are_rejected(mode: str) -> None:
    """Whether 1 or 255 is white, nothing says; as 16 bits they would be black."""
    reason, detail = rejected(encode(plain(mode, 1), "TIFF"))
    assert (reason, detail) == (Reason.UNREADABLE, "samples of 32 bits; expected 8 or 16")


def test_transparent_palette_entry_becomes_white() -> None:
    image = plain("P", 1)
    image.putpalette([0, 0, 0, *RED])
    image.paste(0, (0, 0, 32, 48))
    left_and_right = stored(encode(image, "PNG", transparency=b"\x00\xff"))
    assert np.abs(colour(left_and_right, 4, 16) - WHITE).max() <= 4
    assert np.abs(colour(left_and_right, 28, 16) - RED).max() <= 4


def test_cmyk_jpeg_keeps_its_colour() -> None:
    image = stored(encode(plain("CMYK", (0, 255, 255, 0)), "JPEG"))
    assert np.abs(colour(image, 16, 16) - RED).max() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "red_at"),
    [
        (1, (4, 16)),
        (2, (28, 16)),
        (3, (28, 16)),
        (4, (4, 16)),
        (5, (16, 4)),
        (6, (16, 4)),
        (7, (16, 28)),
        (8, (16, 28)),
    ],
)
def test_orientation_is_applied(orientation: int, red_at: tuple[int, int], kind: str) -> None:
    image = stored(oriented(orientation, kind))
    assert np.abs(colour(image, *red_at) - RED).max() <= 6
    opposite = SIZE - 1 - red_at[0], SIZE - 1 - red_at[1]
    assert np.abs(colour(image, *opposite) - BLUE).max() <= 6


def test_size_is_that_of_the_file() -> None:
    ready = prepare(encode(plain("RGB", RED, (640, 480)), "JPEG"), SIZE)
    assert (ready.width, ready.height) == (640, 480)


def test_digest_is_of_the_bytes_in_the_source() -> None:
    content = encode(plain("RGB", RED))
    assert prepare(content, SIZE).sha256 == hashlib.sha256(content).digest()


def test_same_bytes_are_prepared_alike() -> None:
    content = encode(draw_photo(0, 0))
    assert prepare(content, SIZE) == prepare(content, SIZE)


@pytest.mark.parametrize(
    ("size", "box"), [((96, 48), (24, 0, 72, 48)), ((48, 96), (0, 24, 48, 72))]
)
def test_centre_square_is_kept(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    image = plain("RGB", BLUE, size)
    image.paste(RED, box)
    assert to_square(np.asarray(image), 48).reshape(-1, 3).tolist() == [list(RED)] * 48 * 48


@pytest.mark.parametrize("resize", RESIZES)
def test_image_of_the_right_size_keeps_every_pixel(resize: str) -> None:
    image = draw_photo(0, 0, (SIZE, SIZE))
    assert to_square(np.asarray(image), SIZE, resize).tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("size", "half"), [((160, 40), (0, 0, 80, 40)), ((1200, 4800), (0, 0, 1200, 2400))]
)
def test_stretching_keeps_the_whole_photo(
    size: tuple[int, int], half: tuple[int, int, int, int]
) -> None:
    image = plain("RGB", BLUE, size)
    image.paste(RED, half)
    square = decode_square(encode(image, "PNG"), SIZE, STRETCH)
    lying = square if size[0] > size[1] else square.swapaxes(0, 1)
    assert np.abs(lying[:, :15].astype(int) - RED).max() <= 2
    assert np.abs(lying[:, 17:].astype(int) - BLUE).max() <= 2
    stored = Image.open(io.BytesIO(prepare(encode(image, "PNG"), SIZE, STRETCH).jpeg))
    assert np.abs(np.asarray(stored, int) - square).mean() < 6


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_large_photo_is_reduced_first_whatever_decodes_it(mode: str, kind: str) -> None:
    photo = render_flower("daisy", 0, 0).resize((1600, 1200)).convert(mode)
    ready = prepare(encode(photo, kind), SIZE)
    stored_pixels = np.asarray(Image.open(io.BytesIO(ready.jpeg)), np.int64)
    whole = to_square(np.asarray(photo.convert("RGB")), SIZE).astype(np.int64)
    assert np.abs(stored_pixels - whole).mean() < 4


def test_smallest_side_is_accepted() -> None:
    stored(encode(plain("RGB", RED, (MIN_SIDE, 200))))


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        pytest.param(b"", Reason.NOT_AN_IMAGE, "the file is empty", id="empty"),
        pytest.param(
            b"no picture", Reason.NOT_AN_IMAGE, "no image format is recognised", id="text"
        ),
        pytest.param(
            b"%PDF-1.7 ...", Reason.NOT_AN_IMAGE, "no image format is recognised", id="PDF"
        ),
        pytest.param(
            encode(plain("RGB", RED, (1, 1)), "PNG"),
            Reason.TOO_SMALL,
            "1 x 1 pixels, each side must have 32",
            id="1x1",
        ),
        pytest.param(
            encode(plain("RGB", RED, (MIN_SIDE - 1, 500))),
            Reason.TOO_SMALL,
            "31 x 500 pixels, each side must have 32",
            id="narrow",
        ),
        pytest.param(
            PermissionError(13, "Permission denied"),
            Reason.UNREADABLE,
            "Permission denied",
            id="unreadable",
        ),
    ],
)
def test_photo_is_rejected(content: bytes | OSError, reason: Reason, detail: str) -> None:
    assert rejected(content) == (reason, detail)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_cut_file_is_truncated(kind: str, kept: float) -> None:
    content = encode(draw_photo(0, 0, (640, 480)), kind)
    reason, _ = rejected(content[: int(kept * len(content))])
    assert reason is Reason.TRUNCATED


@pytest.mark.parametrize("kept", range(1, 40, 3))
def test_file_cut_in_its_header_is_rejected(kept: int) -> None:
    reason, detail = rejected(encode(draw_photo(0, 0), "PNG")[:kept])
    assert reason is not None
    assert detail


def test_decompression_bomb_is_too_large() -> None:
    # 50 MB of rows in 50 KB.
    bomb = png(20_000, 20_000, zlib.compress(bytes(20_000 * 2_501), level=9))
    assert rejected(bomb) == (
        Reason.TOO_LARGE,
        "20000 x 20000 is 400 megapixels, the limit is 134",
    )


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_large_image_is_rejected_without_decoding_it(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Mock()
    # Not by what it raises: Pillow takes the memory of all pixels before it looks at the first.
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    reason, _ = rejected(png(side, side, b"garbage"))
    assert reason is Reason.TOO_LARGE
    with pytest.raises(RejectedError, match="megapixels"):
        decode_square(png(side, side, b"garbage"), SIZE)
    load.assert_not_called()


@pytest.mark.parametrize("position", range(20, 1500, 74))
def test_flipped_byte_never_raises(position: int) -> None:
    content = bytearray(encode(draw_photo(0, 0), "PNG"))
    content[position % len(content)] ^= 0xFF
    ready = prepare(bytes(content), SIZE)
    assert bool(ready.jpeg) != bool(ready.reason)


def hash_of(image: Image.Image) -> int:
    return perceptual_hash(np.asarray(image))


def test_hash_of_another_photo_differs_in_many_bits() -> None:
    first, second = (hash_of(draw_photo(0, number)) for number in (0, 1))
    assert (first ^ second).bit_count() > 12


@pytest.mark.parametrize("quality", [60, 95])
def test_hash_survives_compression(quality: int) -> None:
    flower = render_flower("daisy", 0, 0)
    again = Image.open(io.BytesIO(encode(flower, quality=quality)))
    assert (hash_of(flower) ^ hash_of(again)).bit_count() <= 4


def test_hash_survives_resizing() -> None:
    flower = render_flower("tulips", 1, 0)
    half = flower.resize((flower.width // 2, flower.height // 2))
    assert (hash_of(flower) ^ hash_of(half)).bit_count() <= 4


def test_hash_ignores_brightness() -> None:
    dark = Image.fromarray(np.asarray(draw_photo(0, 0)) // 4)
    bright = Image.fromarray(np.asarray(dark) + np.uint8(60))
    assert (hash_of(dark) ^ hash_of(bright)).bit_count() <= 2


@pytest.mark.parametrize("tone", [10, 101, 200])
def test_plain_photos_have_the_same_hash(tone: int) -> None:
    # Their frequencies are zero but for rounding, which must not decide a split.
    plain_photos = [Image.new("RGB", (64, 48), (level, level, level)) for level in (100, tone)]
    assert len({hash_of(image) for image in plain_photos}) == 1


def test_hash_does_not_depend_on_the_size_that_is_stored() -> None:
    # It decides the split, and a photo must not move when only the image size changes.
    content = encode(render_flower("roses", 2, 0).resize((1200, 900)))
    assert len({prepare(content, size).phash for size in (32, 64, 192, 512)}) == 1


def wide_gamut_profile() -> bytes:
    """A profile in which full green is far greener than sRGB can show."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for number in range(int.from_bytes(profile[128:132], "big")):
        tag = 132 + 12 * number
        offset = int.from_bytes(profile[tag + 4 : tag + 8], "big")
        if profile[tag : tag + 4] == b"desc":
            at = profile.find("sRGB".encode("utf-16-be"), offset)
            profile[at : at + 8] = "Wide".encode("utf-16-be")
        if profile[tag : tag + 4] == b"gXYZ":
            profile[offset + 8 : offset + 20] = struct.pack(">iii", 10_000, 47_000, 2_000)
    return bytes(profile)


def test_colour_profile_is_converted_to_srgb() -> None:
    photo = encode(plain("RGB", (60, 180, 60)), quality=95, icc_profile=wide_gamut_profile())
    converted = colour(stored(photo), 16, 16)
    assert np.abs(converted - (60, 180, 60)).max() > 8
    opened = Image.open(io.BytesIO(photo))
    source = ImageCms.ImageCmsProfile(io.BytesIO(wide_gamut_profile()))
    expected = ImageCms.profileToProfile(opened, source, ImageCms.createProfile("sRGB"))
    assert expected is not None
    assert np.abs(converted - colour(expected, 16, 16)).max() <= 3


def test_profile_does_not_change_the_hash() -> None:
    photo = draw_photo(0, 0)
    plain_hash = prepare(encode(photo, quality=90), SIZE).phash
    profile = wide_gamut_profile()
    assert prepare(encode(photo, quality=90, icc_profile=profile), SIZE).phash == plain_hash


@pytest.mark.parametrize("profile", [b"nonsense", b"", wide_gamut_profile()[:300]])
def test_damaged_profile_is_left_aside(profile: bytes) -> None:
    photo = encode(plain("RGB", (60, 180, 60)), quality=95, icc_profile=profile)
    assert np.abs(colour(stored(photo), 16, 16) - (60, 180, 60)).max() <= 4


def test_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = draw_photo(0, 0)
    with_profile = prepare(encode(photo, quality=90, icc_profile=profile), SIZE).jpeg
    assert with_profile == prepare(encode(photo, quality=90), SIZE).jpeg


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_that_is_right_keeps_its_bytes(options: dict[str, Any]) -> None:
    content = encode(draw_photo(0, 0, (SIZE, SIZE)), quality=80, **options)
    assert prepare(content, SIZE).jpeg == content


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: encode(draw_photo(0, 0, (SIZE, SIZE)), "PNG"), id="PNG"),
        pytest.param(lambda: encode(draw_photo(0, 0, (SIZE, SIZE)).convert("L")), id="grey"),
        pytest.param(lambda: encode(draw_photo(0, 0, (SIZE, SIZE)), comment=b"GPS"), id="comment"),
        pytest.param(lambda: encode(draw_photo(0, 0, (SIZE + 1, SIZE))), id="size"),
        pytest.param(lambda: encode(draw_photo(0, 0, (SIZE, SIZE))) + b"tail", id="tail"),
    ],
)
def test_what_is_not_right_is_encoded_anew(content: Callable[[], bytes]) -> None:
    assert prepare(content(), SIZE).jpeg != content()
    stored(content())


def test_note_on_the_place_is_not_stored() -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    content = encode(draw_photo(0, 0, (SIZE, SIZE)), exif=exif)
    assert b"taken at home" in content
    assert b"taken at home" not in prepare(content, SIZE).jpeg


@pytest.mark.parametrize("size", [(640, 480), (1_000, 1_500), (3_000, 2_000)])
@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_fast_decoder_gives_what_pillow_gives(size: tuple[int, int], reduction: int) -> None:
    content = encode(render_flower("daisy", 1, 0).resize(size), quality=90)
    fast = photos._Source(content, photos._read_header(content, photos.MAX_PIXELS)).plain(reduction)
    slow = Image.open(io.BytesIO(content))
    slow.draft("RGB", (size[0] // reduction, size[1] // reduction))
    slow.load()
    assert fast.shape == (slow.height, slow.width, 3)
    assert slow.height == -(-size[1] // reduction)
    assert fast.tobytes() == slow.tobytes()


def commented(content: bytes, count: int = 1) -> bytes:
    """A JPEG with comments in front of everything else."""
    return content[:2] + b"\xff\xfe\x00\x06note" * count + content[2:]


@pytest.mark.parametrize(
    "content",
    [
        encode(draw_photo(0, 0, (64, 48))),
        encode(draw_photo(0, 0, (64, 48)), progressive=True),
        encode(draw_photo(0, 0, (64, 48)).convert("L")),
        encode(draw_photo(0, 0, (64, 48)).convert("CMYK")),
        encode(
            draw_photo(0, 0, (64, 48)),
            icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        ),
        commented(encode(draw_photo(0, 0, (64, 48)))),
        commented(oriented(6)),
        commented(oriented(8), count=1_000),
    ],
    ids=["plain", "progressive", "grey", "cmyk", "profile", "comment", "turned", "comments"],
)
def test_header_is_what_pillow_reads(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    header = photos._read_header(content, photos.MAX_PIXELS)
    monkeypatch.setattr(photos, "_markers", lambda _: {-1})
    assert photos._read_header(content, photos.MAX_PIXELS) == header


def test_plain_jpeg_is_not_read_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "_open", None)
    assert prepare(encode(draw_photo(0, 0, (64, 48))), SIZE).jpeg


def test_many_scans_are_refused_without_decoding_them() -> None:
    photo = encode(draw_photo(0, 0, (640, 480)), progressive=True)
    last = photo.rfind(b"\xff\xda")
    bomb = photo[:-2] + photo[last:-2] * 500 + photo[-2:]
    assert rejected(bomb) == (
        Reason.TOO_LARGE,
        f"{500 + photo.count(bytes([255, 218]))} scans, the limit is 200",
    )


def test_picture_that_libjpeg_would_fill_up_with_grey_is_damaged() -> None:
    content = bytearray(encode(draw_photo(0, 0, (640, 480)), quality=90))
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    reason, detail = rejected(bytes(content))
    assert reason in (Reason.DAMAGED, Reason.TRUNCATED)
    assert "JPEG" in detail or "data" in detail


def test_bytes_between_segments_are_no_damage() -> None:
    content = encode(draw_photo(0, 0, (64, 48)), quality=90)
    end = content.rfind(b"\xff\xd9")
    stored(content[:end] + b"\x00" * 5 + content[end:])
