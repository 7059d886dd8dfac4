"""Image operations shared by the steps: decoding, encoding and resizing.

Every operation takes and gives one image, runs eagerly and inside `Dataset.map` alike and keeps
static shapes.
"""

import tensorflow as tf

from components.common import exif
from components.common.resizing import CROP, STRETCH


def decode_jpeg(jpeg: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG bytes to `uint8` [height, width, 3], RGB.

    The accurate DCT is named because the default may differ between machines, and a probability
    that depends on the machine cannot be checked.
    """
    return tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a photo as it is sent; a JPEG, or a PNG that is upright, as ingestion does.

    Args:
        encoded: Scalar `tf.string`: JPEG, PNG, GIF (first frame) or BMP.

    Returns:
        `uint8` [height, width, 3], RGB: a JPEG upright as its EXIF orientation says, a PNG white
        where it is transparent. GIF and BMP are as TensorFlow decodes them: black where they are
        transparent, and without a palette.
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


def to_square(image: tf.Tensor, size: int, resize: str = CROP) -> tf.Tensor:
    """Makes an image a square of one size, antialiased.

    Args:
        image: `uint8` [height, width, 3].
        size: Side of the result, in pixels.
        resize: How; see `components.common.resizing`.

    Returns:
        `uint8` [size, size, 3]. An image that has this size already is returned bit for bit.
    """
    if resize == STRETCH:
        return _resize(image, size)
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
