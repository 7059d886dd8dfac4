"""Tests of the augmentation of batches, on images written by hand."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from components.common import augmentation
from components.common.augmentation_draws import draw_for_augmentation
from components.common.policy import AugmentPolicy
from tests.builders import draw_photo
from tests.images import FOUR, grey, pixel

SIZE = 32
IDENTITY = AugmentPolicy(
    flip=False, saturation=(1.0, 1.0), brightness=0.0, contrast=0.0, crop_area=1.0
)
FLIP = dataclasses.replace(IDENTITY, flip=True)
EVERYTHING = AugmentPolicy(crop_area=0.35, rotation=30.0, hue=0.1)
POLICIES = {
    "identity": IDENTITY,
    "flip": FLIP,
    "saturation": dataclasses.replace(IDENTITY, saturation=(0.2, 1.8)),
    "brightness": dataclasses.replace(IDENTITY, brightness=0.3),
    "contrast": dataclasses.replace(IDENTITY, contrast=0.5),
    "crop": dataclasses.replace(IDENTITY, crop_area=0.3),
    "rotation": dataclasses.replace(IDENTITY, rotation=30.0),
    "hue": dataclasses.replace(IDENTITY, hue=0.1),
    "default": AugmentPolicy(),
    "everything": EVERYTHING,
}
CHANGING = [name for name in POLICIES if name != "identity"]


def photo() -> np.ndarray:
    return np.asarray(draw_photo(1, 1, (SIZE, SIZE)))


def draws(count: int, seed: int = 0) -> tf.Tensor:
    return tf.random.stateless_uniform([count, augmentation.DRAWS], [seed, 7])


def versions(image: np.ndarray, policy: AugmentPolicy, count: int = 16) -> list[np.ndarray]:
    batch = np.stack([image] * count)
    return list(augmentation.augment(tf.constant(batch), draws(count), policy).numpy())


def test_identity_policy_changes_nothing() -> None:
    image = photo()
    assert all(np.array_equal(version, image) for version in versions(image, IDENTITY))


def test_every_level_survives_the_identity_policy() -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert np.array_equal(versions(levels, IDENTITY, 1)[0], levels)


def test_flip_mirrors_left_and_right_or_changes_nothing() -> None:
    mirrored = [row[::-1] for row in FOUR]
    found = [pixel(version) for version in versions(grey(FOUR), FLIP)]
    assert all(rows in (FOUR, mirrored) for rows in found)
    assert FOUR in found
    assert mirrored in found


def test_flip_happens_half_of_the_time() -> None:
    flipped = sum(int(image[0, 0, 0] == 40) for image in versions(grey(FOUR), FLIP, 400))
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
    assert versions(image, policy, 1)[0][0, 0].tolist() == [135, 95, 75]


def turned(image: np.ndarray, by: float) -> np.ndarray:
    """The image with its hue turned by a part of the colour wheel, and nothing else."""
    chance = np.full((1, augmentation.DRAWS), 0.5, np.float32)
    chance[0, -1] = 0.5 + by
    policy = dataclasses.replace(IDENTITY, hue=0.5)
    found = augmentation.augment(tf.constant(image[np.newaxis]), chance, policy)
    return np.asarray(found[0])


def luma(image: np.ndarray) -> np.ndarray:
    return np.asarray(image @ (0.299, 0.587, 0.114))


# Dull, so that no turn leaves the range of a pixel.
DULL = np.clip(np.asarray(draw_photo(1, 1, (SIZE, SIZE))), 110, 146)


@pytest.mark.parametrize("by", [-0.5, -0.2, 0.05, 0.25, 0.5])
def test_hue_keeps_greys_and_the_luma(by: float) -> None:
    assert np.abs(turned(grey(FOUR), by).astype(int) - grey(FOUR)).max() <= 1
    assert np.abs(luma(turned(DULL, by)) - luma(DULL)).max() <= 1


def test_half_a_turn_of_the_hue_gives_the_complement() -> None:
    image = np.full((4, 4, 3), (120, 100, 90), np.uint8)
    # What each has beyond the luma of 104.84 is taken from it in place of added.
    assert turned(image, 0.5)[0, 0].tolist() == turned(image, -0.5)[0, 0].tolist() == [90, 110, 120]


def test_turns_of_the_hue_add_up() -> None:
    assert np.abs(turned(turned(DULL, 0.15), 0.1).astype(int) - turned(DULL, 0.25)).max() <= 2
    assert np.abs(turned(turned(DULL, 0.2), -0.2).astype(int) - DULL).max() <= 2
    assert np.abs(turned(DULL, 0.25).astype(int) - DULL).max() > 10


def test_hue_turns_both_ways_within_its_range() -> None:
    """Of a greenish yellow, some versions have more green, others more red; none is blue."""
    policy = dataclasses.replace(IDENTITY, hue=0.05)
    image = np.full((4, 4, 3), (140, 140, 90), np.uint8)
    found = [version[0, 0].astype(int) for version in versions(image, policy)]
    assert {bool(red > green) for red, green, _ in found} == {True, False}
    assert all(blue < min(red, green) for red, green, blue in found)
    assert len({tuple(colour) for colour in found}) > 8


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


@pytest.mark.parametrize(
    ("side", "size"), [(48, 32), (32, 48), (48, 48), (40, 37), (64, 7), (5, 64), (200, 40)]
)
def test_crops_on_a_cpu_are_those_of_a_matrix_unit(
    side: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = dataclasses.replace(FLIP, crop_area=0.1)
    batch = tf.constant(np.random.default_rng(0).integers(0, 256, (24, side, side, 3), np.uint8))
    on_cpu = augmentation.augment(batch, draws(24), policy, size).numpy().astype(int)
    tpu = SimpleNamespace(device_type="TPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: [tpu])
    products = record_products(monkeypatch)
    elsewhere = augmentation.augment(batch, draws(24), policy, size).numpy()
    assert products[0] == ((24, size, side), (24, side, side * 3))
    difference = np.abs(on_cpu - elsewhere)
    # Halves that the last bits of a sum bring to either side.
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 1e-3


def record_products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, ...], ...]]:
    """The shapes of what is multiplied from now on."""
    seen: list[tuple[tuple[int, ...], ...]] = []
    multiply = ops.matmul

    def matmul(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        seen.append((tuple(a.shape), tuple(b.shape)))
        return multiply(a, b)

    monkeypatch.setattr(ops, "matmul", matmul)
    return seen


def test_crops_on_a_cpu_take_few_products(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = dataclasses.replace(IDENTITY, crop_area=0.1)
    products = record_products(monkeypatch)
    augmentation.augment(tf.zeros([2, 240, 240, 3], "uint8"), draws(2), policy, 96)
    macs = sum(int(np.prod(a)) * b[-1] for a, b in products)
    # Of 2 * (96 * 240 * 720 + 96 * 240 * 288) in whole matrices.
    assert macs < 2 * (96 * 240 * 720 + 96 * 240 * 288) / 4


def test_crop_of_everything_changes_nothing() -> None:
    image = photo()
    policy = dataclasses.replace(IDENTITY, crop_area=1.0, crop_aspect=2.0)
    assert np.array_equal(versions(image, policy, 1)[0], image)


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
def test_draws_decide_all(name: str) -> None:
    first, second = (versions(photo(), POLICIES[name], 3) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", CHANGING)
def test_other_draws_give_another_image(name: str) -> None:
    images = {version.tobytes() for version in versions(photo(), POLICIES[name])}
    assert len(images) >= (2 if name == "flip" else 12)


@pytest.mark.parametrize("index", range(augmentation.DRAWS))
def test_every_draw_counts(index: int) -> None:
    low, high = (np.full((1, augmentation.DRAWS), 0.25, np.float32) for _ in range(2))
    high[0, index] = 0.75
    image = tf.constant(photo()[np.newaxis])
    results = [augmentation.augment(image, tf.constant(x), EVERYTHING) for x in (low, high)]
    assert not np.array_equal(*results)


@pytest.mark.parametrize("name", POLICIES)
def test_image_does_not_depend_on_its_batch(name: str) -> None:
    policy, chance = POLICIES[name], draws(4)
    batch = tf.constant(np.stack([photo()] * 4))
    whole = augmentation.augment(batch, chance, policy).numpy().astype(int)
    alone = augmentation.augment(batch[2:3], chance[2:3], policy).numpy()
    # Products of other sizes may add up in another order.
    assert np.abs(whole[2] - alone[0]).max() <= 1


@pytest.mark.parametrize("name", POLICIES)
def test_dataset_gives_the_same_as_eager(name: str) -> None:
    policy, chance = POLICIES[name], draws(4)
    batch = tf.constant(np.stack([photo()] * 4))
    mapped = tf.data.Dataset.from_tensors((batch, chance)).map(
        lambda images, draws: augmentation.augment(images, draws, policy)
    )
    assert mapped.element_spec == tf.TensorSpec([4, SIZE, SIZE, 3], tf.uint8)
    expected = augmentation.augment(batch, chance, policy).numpy().astype(int)
    # A graph may fuse two roundings into one.
    assert np.abs(next(iter(mapped)).numpy() - expected).max() <= 1


def test_crop_of_the_whole_is_the_image() -> None:
    image = photo()
    policy = dataclasses.replace(IDENTITY, crop_area=0.9999999, crop_aspect=1.0)
    assert np.abs(versions(image, policy, 1)[0].astype(int) - image).max() <= 1


def test_turning_by_nothing_cuts_out_the_same() -> None:
    batch, chance = tf.constant(np.stack([photo()] * 4)), draws(4)
    upright = dataclasses.replace(IDENTITY, crop_area=0.3)
    turned = dataclasses.replace(upright, rotation=1e-6)
    results = [
        augmentation.augment(batch, chance, policy, 24).numpy().astype(int)
        for policy in (upright, turned)
    ]
    assert np.abs(results[0] - results[1]).max() <= 1


def test_turned_box_shows_what_lies_around_its_own_centre() -> None:
    # A quarter turn of a quarter of the image, whose centre is at a quarter of each side.
    policy = dataclasses.replace(IDENTITY, crop_area=0.25, crop_aspect=1.0, rotation=90.0)
    chance = np.zeros((1, augmentation.DRAWS), np.float32)
    chance[0, 4] = 1.0
    image = photo()
    found = augmentation.augment(tf.constant(image[np.newaxis]), tf.constant(chance), policy, 16)
    quarter = image[:16, :16].astype(int)
    turns = [np.abs(np.rot90(quarter, k) - found[0].numpy()).mean() for k in (1, 3)]
    assert min(turns) < 1.0
    assert max(turns) > 3.0


def test_result_may_have_another_size() -> None:
    policy = dataclasses.replace(IDENTITY, crop_area=0.5)
    batch = tf.constant(photo()[np.newaxis])
    smaller = augmentation.augment(batch, draws(1), policy, size=20)
    assert smaller.shape == (1, 20, 20, 3)
    assert smaller.dtype == tf.uint8


def test_reduction_is_antialiased() -> None:
    stripes = np.zeros((1, 32, 32, 3), np.uint8)
    stripes[:, :, ::2] = 200
    smaller = augmentation.augment(tf.constant(stripes), draws(1), IDENTITY, size=16).numpy()
    assert np.abs(smaller[:, :, 1:-1].astype(int) - 100).max() <= 1


def test_smaller_result_shows_the_whole_without_a_crop() -> None:
    halves = np.zeros((1, 32, 32, 3), np.uint8)
    halves[:, :, 16:] = 200
    smaller = augmentation.augment(tf.constant(halves), draws(1), IDENTITY, size=16).numpy()
    assert smaller[:, :, :7].max() == 0
    assert smaller[:, :, 9:].min() == 200


def test_draws_for_augmentation_are_those_of_before_the_hue() -> None:
    """Recipes that leave the hue alone are trained as they were when they were measured."""
    draws = draw_for_augmentation(400, tf.constant([3, 4])).numpy()
    assert draws.shape == (400, augmentation.DRAWS)
    assert np.array_equal(draws[:, :9], tf.random.stateless_uniform([400, 9], [3, 4]).numpy())
    # The standard deviation of such a correlation is 0.05.
    correlations = np.corrcoef(draws, rowvar=False)
    assert np.abs(correlations - np.eye(augmentation.DRAWS)).max() < 0.25
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
