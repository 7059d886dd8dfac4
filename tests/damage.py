"""Damaged inputs by the thousand, the same ones on every run."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import Image, ImageCms

from tests.builders import draw_photo, encode

Damage = Callable[[bytes, random.Random], bytes]
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".txt", "")


def _icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _originals() -> list[bytes]:
    """Good photos of every format that people send."""
    photos = [draw_photo(number % 3, 10_000 + number, (96, 72)) for number in range(14)]
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a picture"
    return [
        encode(photos[0], quality=90),
        encode(photos[1], quality=90, progressive=True),
        encode(photos[2].convert("CMYK"), quality=90),
        encode(photos[3].convert("L"), quality=90),
        encode(photos[4], quality=90, exif=exif),
        encode(photos[5], quality=90, icc_profile=_icc()),
        encode(photos[6], "PNG", icc_profile=_icc()),
        encode(photos[7].convert("P"), "PNG"),
        encode(photos[8].convert("LA"), "PNG"),
        encode(photos[9], "WebP"),
        encode(photos[10], "GIF"),
        encode(photos[11], "BMP"),
        encode(photos[12], "TIFF"),
        encode(photos[13], quality=90, subsampling=0, comment=b"x" * 2_000),
    ]


def _flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 50))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _flip_header(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 2, 4))):
        damaged[rng.randrange(min(700, len(damaged)))] = rng.randrange(256)
    return bytes(damaged)


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _wrong_magic(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(4) + content[4:]


def _splice(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(content)) for _ in range(2))
    return (
        content[:start]
        + rng.choice((b"", rng.randbytes(300), content[start:end] * 2))
        + content[end:]
    )


def _empty(content: bytes, rng: random.Random) -> bytes:
    return b""


def _noise(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.choice((0, 2, 4, 12))] + rng.randbytes(rng.randrange(1, 5_000))


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _huge_exif(content: bytes, rng: random.Random) -> bytes:
    """A JPEG with up to 6 MB of notes, some of them with directories that point anywhere."""
    directory = b"II*\0" + struct.pack("<IH", 8, 4_000) + rng.randbytes(48_000)
    note = _segment(0xE1, b"Exif\0\0" + directory)
    return _jpeg(content)[:2] + note * rng.choice((1, 10, 120)) + _jpeg(content)[2:]


def _nested_icc(content: bytes, rng: random.Random) -> bytes:
    """A colour profile whose parts lie about their number, or that is wrapped in another."""
    profile = _icc()
    inner = profile[:128] + profile + rng.randbytes(rng.randrange(200))
    parts = [
        _segment(0xE2, b"ICC_PROFILE\0" + bytes([rng.randrange(5), rng.randrange(5)]) + inner)
        for _ in range(rng.randrange(1, 6))
    ]
    return _jpeg(content)[:2] + b"".join(parts) + _jpeg(content)[2:]


def _jpeg(content: bytes) -> bytes:
    return content if content[:2] == b"\xff\xd8" else encode(draw_photo(0, len(content), (96, 72)))


def _other_size(content: bytes, rng: random.Random) -> bytes:
    """A JPEG whose header asks for another number of pixels, up to 4 billion."""
    damaged = bytearray(_jpeg(content))
    at = next(i for m in (b"\xff\xc0", b"\xff\xc2") if (i := damaged.find(m)) >= 0)
    sides = rng.choice(((65_500, 65_500), (1, 1), (0, 0), (4_000, 3_000), (97, 72), (33, 65_000)))
    damaged[at + 5 : at + 9] = struct.pack(">HH", *sides)
    return bytes(damaged)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_bomb(content: bytes, rng: random.Random) -> bytes:
    """A few KB that unpack to very much: as pixels, as a profile or as text."""
    side = rng.choice((64, 20_000, 2**31 - 1))
    zeros = zlib.compress(bytes(4_000_000))
    more = rng.choice(
        (b"", _chunk(b"iCCP", b"x\0\0" + zeros), _chunk(b"zTXt", b"x\0\0" + zeros) * 20)
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    pixels = _chunk(b"IDAT", zeros) + _chunk(b"IEND", b"")
    return signature + _chunk(b"IHDR", header) + more + pixels


def _scan_bomb(content: bytes, rng: random.Random) -> bytes:
    """A progressive JPEG with thousands of scans over all its pixels."""
    photo = encode(draw_photo(1, 7, (1_000, 1_000)), quality=30, progressive=True)
    last = photo.rfind(b"\xff\xda")
    return photo[:-2] + photo[last:-2] * rng.choice((300, 3_000)) + photo[-2:]


DAMAGES: tuple[Damage, ...] = (
    _flip,
    _flip,
    _flip_header,
    _flip_header,
    _truncate,
    _truncate,
    _wrong_magic,
    _splice,
    _noise,
    _empty,
    _huge_exif,
    _nested_icc,
    _other_size,
    _png_bomb,
)


def damaged_inputs(count: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of damaged photos; every kind of damage to every format comes in turn."""
    rng = random.Random(20_26)
    originals = _originals()
    for number in range(count):
        # The last digits of both run through all pairs: 14 kinds, 14 formats, shifted each round.
        damage = DAMAGES[number % len(DAMAGES)]
        content = originals[(number // len(DAMAGES) + number) % len(originals)]
        if number % 300 == 299:
            damage = _scan_bomb
        yield f"{number:05d}{rng.choice(SUFFIXES)}", damage(content, rng)


def damaged_shards(content: bytes, count: int) -> Iterator[bytes]:
    """A shard with flipped bits, cuts and splices, and the same shard whole between them."""
    rng = random.Random(20_27)
    damages = (_flip, _truncate, _splice, _flip, _flip_header)
    for number in range(count):
        yield damages[number % len(damages)](content, rng)


def is_image(jpeg: bytes, size: int) -> bool:
    """Whether bytes are a whole RGB JPEG of that side."""
    image = Image.open(io.BytesIO(jpeg))
    image.load()
    return (image.format, image.mode, image.size) == ("JPEG", "RGB", (size, size))
