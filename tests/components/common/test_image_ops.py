"""Tests of image operations on images written by hand, eagerly and inside `Dataset.map`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.common import image_ops
from components.common.resizing import RESIZES, STRETCH
from components.ingest_examples import photos
from components.ingest_examples.synthetic import render_flower, render_jpeg
from tests.builders import draw_photo, encode
from tests.images import FOUR, grey, pixel

SIZE = 32


def photo() -> np.ndarray:
    return np.asarray(draw_photo(1, 1, (SIZE, SIZE)))


def test_square_of_the_right_size_stays() -> None:
    assert pixel(image_ops.to_square(tf.constant(grey(FOUR)), 4).numpy()) == FOUR


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([row[:2] for row in FOUR], [[50, 60], [90, 100]], id="tall"),
        pytest.param(FOUR[:2], [[20, 30], [60, 70]], id="wide"),
        pytest.param(FOUR[:3], [[10, 20, 30], [50, 60, 70], [90, 100, 110]], id="odd rest"),
        pytest.param([FOUR[0]], [[20]], id="one row"),
    ],
)
def test_crop_keeps_the_centre_square(rows: list[list[int]], expected: list[list[int]]) -> None:
    image = grey(rows)
    filled = image_ops.to_square(tf.constant(image), min(image.shape[:2]))
    assert pixel(filled.numpy()) == expected


def test_square_is_reduced_with_antialiasing() -> None:
    # Without it, every second pixel would be taken, and all would be black or all white.
    stripes = grey([[0, 255] * 4] * 8)
    filled = np.array(pixel(image_ops.to_square(tf.constant(stripes), 4).numpy()))
    assert np.abs(filled[:, 1:3] - 128).max() <= 2


@pytest.mark.parametrize("size", [2, 7])
def test_plain_colour_stays(size: int) -> None:
    image = np.full((4, 4, 3), (10, 200, 90), np.uint8)
    filled = image_ops.to_square(tf.constant(image), size).numpy()
    assert filled.tolist() == [[[10, 200, 90]] * size] * size


@pytest.mark.parametrize("size", [64, 128, 192])
@pytest.mark.parametrize("class_name", ["daisy", "roses"])
@pytest.mark.parametrize("resize", RESIZES)
def test_square_is_that_of_ingestion(class_name: str, size: int, resize: str) -> None:
    flower = np.asarray(render_flower(class_name, 3, 1))
    flower = flower[: 2 * len(flower) // 3]
    ours = image_ops.to_square(tf.constant(flower), size, resize).numpy().astype(np.int64)
    theirs = photos.to_square(flower, size, resize).astype(np.int64)
    assert np.abs(ours - theirs).mean() < 0.5


@pytest.mark.parametrize(("height", "width"), [(2, 4), (4, 2)])
def test_stretch_keeps_what_is_at_the_edges(height: int, width: int) -> None:
    image = grey([[0] * width] * height)
    image[0, 0], image[-1, -1] = 255, 255
    whole = image_ops.to_square(tf.constant(image), 64, STRETCH).numpy()
    assert (whole[0, 0].min(), whole[-1, -1].min()) == (255, 255)
    assert image_ops.to_square(tf.constant(image), 64).numpy().max() < 255


def test_square_has_a_shape_within_a_dataset() -> None:
    images = tf.data.Dataset.from_tensors(np.asarray(draw_photo(0, 0)))
    filled = images.map(lambda image: image_ops.to_square(image, 16))
    assert filled.element_spec.shape == (16, 16, 3)
    assert next(iter(filled)).shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_format_is_decoded(kind: str) -> None:
    image = Image.new("RGB", (8, 6), (200, 60, 30))
    decoded = image_ops.decode_image(tf.constant(encode(image, kind))).numpy()
    assert (decoded.dtype, decoded.shape) == (np.uint8, (6, 8, 3))
    assert np.abs(decoded[3, 3].astype(int) - (200, 60, 30)).max() <= 4


def test_first_frame_of_an_animation_is_decoded() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    animation = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    decoded = image_ops.decode_image(tf.constant(animation)).numpy()
    assert decoded.shape == (6, 8, 3)
    assert decoded[0, 0].tolist() == [255, 0, 0]


def test_grey_jpeg_is_decoded_as_rgb() -> None:
    jpeg = encode(Image.new("L", (8, 6), 100))
    assert image_ops.decode_jpeg(tf.constant(jpeg)).numpy().tolist() == [[[100] * 3] * 8] * 6


def test_bytes_that_are_no_image_are_refused() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        image_ops.decode_image(tf.constant(b"no image"))


def test_jpeg_is_decoded_about_as_it_was_encoded() -> None:
    image = np.asarray(Image.fromarray(photo()).resize((64, 64), Image.Resampling.BICUBIC))
    jpeg = image_ops.encode_jpeg(tf.constant(image))
    decoded = image_ops.decode_jpeg(jpeg).numpy().astype(int)
    assert np.abs(decoded - image).mean() < 2


def turned(orientation: int) -> bytes:
    """A JPEG, red in one half and blue in the other, that asks to be turned when shown."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (64, 64), "red")
    image.paste((0, 0, 255), (32, 0, 64, 64))
    return encode(image, quality=95, exif=exif)


def transparent() -> bytes:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 64, 32))
    return encode(image, "PNG")


PHOTOS: dict[str, Callable[[], bytes]] = {
    "flower": lambda: render_jpeg("tulips", 1, 1),
    "grey": lambda: encode(draw_photo(0, 0).convert("L")),
    "PNG": lambda: encode(draw_photo(0, 0), "PNG"),
    "turned": lambda: turned(6),
    "transparent": transparent,
    "16 bits": lambda: encode(Image.fromarray(np.full((64, 64), 25_700, np.uint16)), "PNG"),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_exported_model_sees_what_ingestion_stores(name: str) -> None:
    content = PHOTOS[name]()
    ready = photos.prepare(content, SIZE)
    stored: Any = image_ops.decode_jpeg(tf.constant(ready.jpeg)).numpy()
    served: Any = image_ops.to_square(image_ops.decode_image(tf.constant(content)), SIZE).numpy()
    assert np.abs(served.astype(int) - stored).mean() < 4
