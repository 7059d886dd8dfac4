"""Tests of image operations on images written by hand, eagerly and inside `Dataset.map`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.common import image_ops
from components.common.policy import AugmentPolicy
from components.ingest_examples import photos
from components.ingest_examples.synthetic import render_flower, render_jpeg
from tests.builders import draw_photo, encode

SIZE = 32
IDENTITY = AugmentPolicy(
    flip=False, saturation=(1.0, 1.0), brightness=0.0, contrast=0.0, crop_area=1.0
)
FLIP = dataclasses.replace(IDENTITY, flip=True)
EVERYTHING = AugmentPolicy(crop_area=0.35, rotation=30.0)
POLICIES = {
    "identity": IDENTITY,
    "flip": FLIP,
    "saturation": dataclasses.replace(IDENTITY, saturation=(0.2, 1.8)),
    "brightness": dataclasses.replace(IDENTITY, brightness=0.3),
    "contrast": dataclasses.replace(IDENTITY, contrast=0.5),
    "crop": dataclasses.replace(IDENTITY, crop_area=0.3),
    "rotation": dataclasses.replace(IDENTITY, rotation=30.0),
    "default": AugmentPolicy(),
    "everything": EVERYTHING,
}
CHANGING = [name for name in POLICIES if name != "identity"]


def grey(rows: list[list[int]]) -> np.ndarray:
    """An image whose three channels are the same."""
    return np.repeat(np.array(rows, np.uint8)[:, :, np.newaxis], 3, axis=2)


def photo() -> np.ndarray:
    return np.asarray(draw_photo(1, 1, (SIZE, SIZE)))


def augmented(image: np.ndarray, seed: tuple[int, int], policy: AugmentPolicy) -> np.ndarray:
    result = image_ops.augment(tf.constant(image), tf.constant(seed, tf.int32), policy)
    return np.asarray(result.numpy())


def versions(image: np.ndarray, policy: AugmentPolicy, count: int = 16) -> list[np.ndarray]:
    return [augmented(image, (seed, 0), policy) for seed in range(count)]


def pixel(image: np.ndarray) -> list[list[int]]:
    """The first channel of an image whose channels are the same."""
    assert np.array_equal(image, np.repeat(image[..., :1], 3, axis=2))
    return np.asarray(image)[..., 0].tolist()  # type: ignore[no-any-return]


FOUR = [
    [10, 20, 30, 40],
    [50, 60, 70, 80],
    [90, 100, 110, 120],
    [130, 140, 150, 160],
]


def test_fill_of_a_square_of_the_right_size_changes_nothing() -> None:
    assert pixel(image_ops.fill(tf.constant(grey(FOUR)), 4).numpy()) == FOUR


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([row[:2] for row in FOUR], [[50, 60], [90, 100]], id="tall"),
        pytest.param(FOUR[:2], [[20, 30], [60, 70]], id="wide"),
        pytest.param(FOUR[:3], [[10, 20, 30], [50, 60, 70], [90, 100, 110]], id="odd rest"),
        pytest.param([FOUR[0]], [[20]], id="one row"),
    ],
)
def test_fill_keeps_the_centre_square(rows: list[list[int]], expected: list[list[int]]) -> None:
    image = grey(rows)
    filled = image_ops.fill(tf.constant(image), min(image.shape[:2]))
    assert pixel(filled.numpy()) == expected


def test_fill_reduces_with_antialiasing() -> None:
    # Without it, every second pixel would be taken, and all would be black or all white.
    stripes = grey([[0, 255] * 4] * 8)
    filled = np.array(pixel(image_ops.fill(tf.constant(stripes), 4).numpy()))
    assert np.abs(filled[:, 1:3] - 128).max() <= 2


@pytest.mark.parametrize("size", [2, 7])
def test_fill_keeps_a_plain_colour(size: int) -> None:
    image = np.full((4, 4, 3), (10, 200, 90), np.uint8)
    filled = image_ops.fill(tf.constant(image), size).numpy()
    assert filled.tolist() == [[[10, 200, 90]] * size] * size


@pytest.mark.parametrize("size", [64, 128, 192])
@pytest.mark.parametrize("class_name", ["daisy", "roses"])
def test_fill_is_that_of_ingestion(class_name: str, size: int) -> None:
    flower = render_flower(class_name, 3, 1)
    ours = image_ops.fill(tf.constant(np.asarray(flower)), size).numpy().astype(np.int64)
    theirs = photos.fill(np.asarray(flower), size).astype(np.int64)
    assert np.abs(ours - theirs).mean() < 0.5


def test_fill_has_a_shape_within_a_dataset() -> None:
    images = tf.data.Dataset.from_tensors(np.asarray(draw_photo(0, 0)))
    filled = images.map(lambda image: image_ops.fill(image, 16))
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


def test_identity_policy_changes_nothing() -> None:
    image = photo()
    assert all(np.array_equal(version, image) for version in versions(image, IDENTITY))


def test_every_level_survives_the_identity_policy() -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert np.array_equal(augmented(levels, (3, 4), IDENTITY), levels)


def test_flip_mirrors_left_and_right_or_changes_nothing() -> None:
    mirrored = [row[::-1] for row in FOUR]
    found = [pixel(version) for version in versions(grey(FOUR), FLIP)]
    assert all(rows in (FOUR, mirrored) for rows in found)
    assert FOUR in found
    assert mirrored in found


def test_flip_happens_half_of_the_time() -> None:
    seeds = tf.stack([tf.fill([400], 7), tf.range(400)], axis=1)
    images = tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda seed: image_ops.augment(tf.constant(grey(FOUR)), seed, FLIP)
    )
    flipped = sum(int(image[0, 0, 0] == 40) for image in images)
    # Five standard deviations of a fair coin.
    assert abs(flipped - 200) < 50


def test_saturation_of_zero_gives_grey() -> None:
    policy = dataclasses.replace(IDENTITY, saturation=(0.0, 0.0))
    for version in versions(photo(), policy, 4):
        assert np.array_equal(version, np.repeat(version[..., :1], 3, axis=2))


def test_saturation_keeps_grey_as_it_is() -> None:
    policy = dataclasses.replace(IDENTITY, saturation=(0.0, 2.0))
    for version in versions(grey(FOUR), policy):
        assert np.abs(version.astype(int) - grey(FOUR)).max() <= 1


def test_saturation_of_two_doubles_the_distance_from_grey() -> None:
    policy = dataclasses.replace(IDENTITY, saturation=(2.0, 2.0))
    image = np.full((4, 4, 3), (120, 100, 90), np.uint8)
    # Its luma is 0.299 * 120 + 0.587 * 100 + 0.114 * 90 = 104.84, which stays.
    assert augmented(image, (0, 0), policy)[0, 0].tolist() == [135, 95, 75]


def test_brightness_shifts_every_pixel_alike() -> None:
    policy = dataclasses.replace(IDENTITY, brightness=0.1)
    image = np.clip(photo(), 30, 220)
    shifts = [version.astype(int) - image for version in versions(image, policy)]
    assert all(shift.min() == shift.max() for shift in shifts)
    assert all(abs(shift[0, 0, 0]) <= 26 for shift in shifts)
    assert len({shift[0, 0, 0] for shift in shifts}) > 8


def test_brightness_stops_at_black_and_white() -> None:
    policy = dataclasses.replace(IDENTITY, brightness=1.0)
    image = np.zeros((4, 4, 3), np.uint8)
    assert min(version.min() for version in versions(image, policy)) == 0


def test_contrast_keeps_the_mean() -> None:
    policy = dataclasses.replace(IDENTITY, contrast=0.3)
    image = np.clip(photo(), 90, 160)
    for version in versions(image, policy):
        assert np.abs(version.mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < 1


def test_contrast_scales_the_spread_within_its_range() -> None:
    policy = dataclasses.replace(IDENTITY, contrast=0.3)
    image = np.clip(photo(), 90, 160)
    scales = [version.std() / image.std() for version in versions(image, policy)]
    assert 0.68 < min(scales) < 0.9
    assert 1.1 < max(scales) < 1.32


def test_crop_enlarges_a_part() -> None:
    # Of a ramp, a crop shows a shorter piece, still rising from left to right.
    ramp = grey([list(range(0, 256, 8))] * SIZE)
    policy = dataclasses.replace(IDENTITY, crop_area=0.25, crop_aspect=1.0)
    for version in versions(ramp, policy):
        row = version[SIZE // 2, :, 0].astype(int)
        assert (np.diff(row) >= 0).all()
        # A quarter of the area is half of the side.
        assert 110 <= row[-1] - row[0] <= 248


def test_crop_of_everything_changes_nothing() -> None:
    image = photo()
    policy = dataclasses.replace(IDENTITY, crop_area=1.0, crop_aspect=2.0)
    assert np.array_equal(augmented(image, (1, 2), policy), image)


def test_rotation_alone_crops_nothing() -> None:
    # The centre stays where it is, and a disc around it stays whole.
    y, x = np.mgrid[:SIZE, :SIZE]
    radius = np.hypot(y - (SIZE - 1) / 2, x - (SIZE - 1) / 2)
    disc = np.repeat(np.where(radius < 8, 255, 0).astype(np.uint8)[..., np.newaxis], 3, axis=2)
    policy = dataclasses.replace(IDENTITY, rotation=45.0)
    for version in versions(disc, policy):
        assert np.abs(version.astype(int) - disc).mean() < 6


def test_rotation_turns_the_image() -> None:
    half = grey([[0] * 16 + [255] * 16] * SIZE)
    policy = dataclasses.replace(IDENTITY, rotation=90.0, crop_aspect=1.0)
    tops = [float(version[2, 4:28].mean()) for version in versions(half, policy)]
    assert max(tops) - min(tops) > 60


@pytest.mark.parametrize("name", POLICIES)
def test_same_seed_gives_the_same_image(name: str) -> None:
    image = photo()
    assert np.array_equal(
        augmented(image, (5, 6), POLICIES[name]), augmented(image, (5, 6), POLICIES[name])
    )


@pytest.mark.parametrize("name", CHANGING)
def test_another_seed_gives_another_image(name: str) -> None:
    images = {version.tobytes() for version in versions(photo(), POLICIES[name])}
    assert len(images) >= (2 if name == "flip" else 12)


@pytest.mark.parametrize("part", [0, 1])
def test_both_halves_of_the_seed_count(part: int) -> None:
    seeds = [tuple(number if index == part else 0 for index in range(2)) for number in range(8)]
    images = {augmented(photo(), (seed[0], seed[1]), EVERYTHING).tobytes() for seed in seeds}
    assert len(images) == len(seeds)


@pytest.mark.parametrize("name", POLICIES)
def test_dataset_gives_the_same_as_eager(name: str) -> None:
    policy, image = POLICIES[name], photo()
    seeds = tf.constant([[seed, 1] for seed in range(4)], tf.int32)
    mapped = tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda seed: image_ops.augment(tf.constant(image), seed, policy),
        num_parallel_calls=2,
    )
    for number, version in enumerate(mapped):
        expected = augmented(image, (number, 1), policy).astype(int)
        # A graph may fuse two roundings into one.
        assert np.abs(version.numpy() - expected).max() <= 1


@pytest.mark.parametrize("name", POLICIES)
def test_shape_and_type_are_static(name: str) -> None:
    policy = POLICIES[name]
    images = tf.data.Dataset.from_tensors(photo())
    spec = images.map(
        lambda image: image_ops.augment(image, tf.constant([1, 2]), policy)
    ).element_spec
    assert (spec.shape, spec.dtype) == ((SIZE, SIZE, 3), tf.uint8)


def test_global_seed_does_not_matter() -> None:
    tf.random.set_seed(1)
    first = augmented(photo(), (5, 6), EVERYTHING)
    tf.random.set_seed(2)
    assert np.array_equal(augmented(photo(), (5, 6), EVERYTHING), first)


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
    served: Any = image_ops.fill(image_ops.decode_image(tf.constant(content)), SIZE).numpy()
    assert np.abs(served.astype(int) - stored).mean() < 4


def test_crop_of_the_whole_is_the_image():
    image = photo()
    policy = dataclasses.replace(IDENTITY, crop_area=0.9999999, crop_aspect=1.0)
    assert np.abs(augmented(image, (1, 2), policy).astype(int) - image).max() <= 1


def test_both_kernels_cut_out_the_same():
    image = tf.constant(photo())
    seed = tf.constant([3, 4])
    upright = image_ops.random_warp(image, seed, 0.3, 1.33, 0.0, 24)
    rotated = image_ops.random_warp(image, seed, 0.3, 1.33, 1e-9, 24)
    np.testing.assert_allclose(upright, rotated, atol=0.6)


def test_result_may_have_another_size():
    policy = dataclasses.replace(IDENTITY, crop_area=0.5)
    smaller = image_ops.augment(tf.constant(photo()), tf.constant([1, 2]), policy, size=20)
    assert smaller.shape == [20, 20, 3]
    assert smaller.dtype == tf.uint8


def test_smaller_result_shows_the_whole_without_a_crop():
    halves = np.zeros((32, 32, 3), np.uint8)
    halves[:, 16:] = 200
    smaller = image_ops.augment(tf.constant(halves), tf.constant([1, 2]), IDENTITY, size=16)
    assert smaller[:, :8].numpy().max() == 0
    assert smaller[:, 8:].numpy().min() == 200
