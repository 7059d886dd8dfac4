"""Image operations shared by the steps: decoding, resizing and augmentation.

Every operation takes and gives one image, runs eagerly and inside `Dataset.map` alike, keeps static
shapes, and is stateless: the same image and the same `seed` (`int32` or `int64` [2]) give the same
result on every run and for any number of workers.
"""

import math

import tensorflow as tf

from components.common import exif
from components.common.policy import AugmentPolicy


def decode_jpeg(jpeg: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG bytes to `uint8` [height, width, 3], RGB.

    The accurate DCT is named because the default may differ between machines, and a probability
    that depends on the machine cannot be checked.
    """
    return tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a photo as it is sent, to what ingestion would have seen.

    Args:
        encoded: Scalar `tf.string`: JPEG, PNG, GIF (first frame) or BMP.

    Returns:
        `uint8` [height, width, 3], RGB: upright as its EXIF orientation says, white where it is
        transparent.
    """
    return tf.case(
        [
            (tf.io.is_jpeg(encoded), lambda: _decode_upright(encoded)),
            (tf.strings.substr(encoded, 0, 4) == b"\x89PNG", lambda: _decode_on_white(encoded)),
        ],
        default=lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )


def _decode_upright(jpeg: tf.Tensor) -> tf.Tensor:
    return exif.turn_upright(decode_jpeg(jpeg), exif.orientation(jpeg))


def _decode_on_white(png: tf.Tensor) -> tf.Tensor:
    layers = tf.cast(tf.io.decode_png(png, channels=4), tf.float32)
    opacity = layers[..., 3:] / 255.0
    return _to_uint8(layers[..., :3] * opacity + 255.0 * (1.0 - opacity))


def encode_jpeg(image: tf.Tensor) -> tf.Tensor:
    """Encodes `uint8` [height, width, 3] as JPEG bytes, quality 95, no chroma subsampling."""
    return tf.io.encode_jpeg(image, quality=95, chroma_downsampling=False)


def fill(image: tf.Tensor, size: int) -> tf.Tensor:
    """Crops the centre square and resizes it, aspect kept, antialiased.

    Args:
        image: `uint8` [height, width, 3].
        size: Side of the result, in pixels.

    Returns:
        `uint8` [size, size, 3]. An image that has this size already is returned bit for bit.
    """
    shape = tf.shape(image)
    side = tf.minimum(shape[0], shape[1])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    return _resize(square, size)


def _resize(image: tf.Tensor, size: int) -> tf.Tensor:
    resized = tf.image.resize(image, [size, size], method="bicubic", antialias=True)
    return _to_uint8(resized)


def _to_uint8(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)


def augment(
    image: tf.Tensor, seed: tf.Tensor, policy: AugmentPolicy, size: int | None = None
) -> tf.Tensor:
    """Applies a policy to one image.

    Args:
        image: `uint8` [height, width, 3], height and width equal.
        seed: `int32` [2]; each operation draws from a seed of its own split off from it.
        policy: What may be done.
        size: Side of the result, in pixels; None for that of the image.

    Returns:
        `uint8` [size, size, 3].
    """
    size = size or image.shape[0]
    seeds = tf.unstack(tf.random.split(seed, 5))
    if policy.crop_area < 1.0 or policy.rotation > 0.0 or size != image.shape[0]:
        pixels = random_warp(
            image, seeds[0], policy.crop_area, policy.crop_aspect, policy.rotation, size
        )
    else:
        pixels = tf.cast(image, tf.float32)
    if policy.flip:
        pixels = tf.image.stateless_random_flip_left_right(pixels, seeds[1])
    if policy.saturation != (1.0, 1.0):
        pixels = random_saturation(pixels, seeds[2], *policy.saturation)
    if policy.brightness > 0.0:
        shift = 255.0 * policy.brightness
        pixels += tf.random.stateless_uniform([], seeds[3], -shift, shift)
    if policy.contrast > 0.0:
        pixels = random_contrast(pixels, seeds[4], policy.contrast)
    return _to_uint8(pixels)


def random_saturation(pixels: tf.Tensor, seed: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Scales the saturation; a factor of 0 gives grey, 1 the image itself.

    Moves every pixel along the line through the grey of its luma, which takes a third of the time
    of a change of the saturation of HSV.

    Args:
        pixels: `float32` [height, width, 3].
        seed: `int32` [2].
        low: Smallest factor.
        high: Largest factor.

    Returns:
        `float32` [height, width, 3], which may lie outside the range of the pixels.

    Source: luma of ITU-R BT.601, as JPEG has it.
    """
    factor = tf.random.stateless_uniform([], seed, low, high)
    red, green, blue = pixels[..., :1], pixels[..., 1:2], pixels[..., 2:]
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma * (1.0 - factor) + pixels * factor


def random_contrast(pixels: tf.Tensor, seed: tf.Tensor, change: float) -> tf.Tensor:
    """Scales the distance of every pixel from the mean of its channel.

    Args:
        pixels: `float32` [height, width, 3].
        seed: `int32` [2].
        change: Largest relative change; the factor lies between 1 - change and 1 + change.

    Returns:
        `float32` [height, width, 3], which may lie outside the range of the pixels.
    """
    factor = tf.random.stateless_uniform([], seed, 1.0 - change, 1.0 + change)
    return tf.image.adjust_contrast(pixels, factor)


def random_warp(
    image: tf.Tensor, seed: tf.Tensor, area: float, aspect: float, rotation: float, size: int
) -> tf.Tensor:
    """Cuts out a random box, possibly rotated, and resizes it.

    Crop, resize and rotation are one transform, so pixels are interpolated once. A rotated box
    may reach beyond the edge, where the image is mirrored.

    Args:
        image: `uint8` [side, side, 3].
        seed: `int32` [2].
        area: Smallest area of the box as a part of the whole.
        aspect: Largest ratio of its sides, either way.
        rotation: Largest angle, either way, in degrees.
        size: Side of the result, in pixels.

    Returns:
        `float32` [size, size, 3], 0 to 255.
    """
    draws = tf.unstack(tf.random.stateless_uniform([5], seed))
    part = area + (1.0 - area) * draws[0]
    # What keeps the whole area keeps its shape too.
    ratio = tf.exp((2.0 * draws[1] - 1.0) * math.log(aspect if area < 1.0 else 1.0))
    # A long thin box of a large area would not fit: its sides stop at the edge.
    height = tf.minimum(tf.sqrt(part / ratio), 1.0)
    width = tf.minimum(tf.sqrt(part * ratio), 1.0)
    centre_y = height / 2 + (1.0 - height) * draws[2]
    centre_x = width / 2 + (1.0 - width) * draws[3]
    if rotation == 0.0:
        return _crop(image, (centre_x, centre_y), (width, height), size)
    angle = (2.0 * draws[4] - 1.0) * (rotation * math.pi / 180.0)
    return _warp(image, (centre_x, centre_y), (width, height), angle, size)


def _crop(
    image: tf.Tensor,
    centre: tuple[tf.Tensor, tf.Tensor],
    extent: tuple[tf.Tensor, tf.Tensor],
    size: int,
) -> tf.Tensor:
    """Maps the output square onto an upright box; a kernel of its own, three times as fast."""
    side = image.shape[0]
    (x, y), (width, height) = centre, extent
    edges = tf.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2])
    # From edges, as parts of the side, to the centres of the first and the last pixel of the
    # result, in which the kernel counts.
    inset = 0.5 * tf.stack([height, width, -height, -width]) / size
    boxes = tf.clip_by_value(((edges + inset) * side - 0.5) / max(side - 1, 1), 0.0, 1.0)
    cropped = tf.image.crop_and_resize(image[tf.newaxis], boxes[tf.newaxis], [0], [size, size])
    return tf.ensure_shape(cropped[0], [size, size, 3])


def _warp(
    image: tf.Tensor,
    centre: tuple[tf.Tensor, tf.Tensor],
    extent: tuple[tf.Tensor, tf.Tensor],
    angle: tf.Tensor,
    size: int,
) -> tf.Tensor:
    """Maps the output square onto a rotated box; centre and extent as parts of the side."""
    side = image.shape[0]
    cos, sin = tf.cos(angle) * side / size, tf.sin(angle) * side / size
    middle = (size - 1) / 2
    a0, a1 = extent[0] * cos, -extent[1] * sin
    b0, b1 = extent[0] * sin, extent[1] * cos
    a2 = centre[0] * side - 0.5 - middle * (a0 + a1)
    b2 = centre[1] * side - 0.5 - middle * (b0 + b1)
    transform = tf.stack([a0, a1, a2, b0, b1, b2, 0.0, 0.0])
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[tf.newaxis],
        transforms=transform[tf.newaxis],
        output_shape=[size, size],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
    return tf.ensure_shape(warped[0], [size, size, 3])
