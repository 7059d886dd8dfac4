r"""The EXIF orientation of a JPEG, read inside a TensorFlow graph.

Cameras store a photo as the sensor saw it and note how to turn it upright. TensorFlow's decoder
leaves the note aside, so a served model would see photos lying on their side that were upright in
training. Layout read here: the marker APP1 (FF E1), a length of two bytes, `Exif\0\0`, then a TIFF
header whose first directory holds the tag 0x0112, a number from 1 to 8.

Source: CIPA DC-008 (Exif 2.32), sections 4.5 and 4.6.4.
"""

import tensorflow as tf

# Segments come first in a file and are at most 64 KiB long each.
_HEAD = 1 << 17
_SIGNATURE = b"Exif\0\0"
_ORIENTATION = 0x0112
_ENTRY = 12
_ENTRIES = 64


def orientation(jpeg: tf.Tensor) -> tf.Tensor:
    """The orientation of a JPEG.

    Args:
        jpeg: Scalar `tf.string`.

    Returns:
        `int32` scalar from 1 to 8; 1, which means upright, where there is none.
    """
    head = tf.io.decode_raw(tf.strings.substr(jpeg, 0, _HEAD), tf.uint8)
    head = tf.cast(head, tf.int32)
    found = _find_exif(head)
    return tf.cond(
        tf.size(found) > 0,
        lambda: _read_directory(head[found[0] + len(_SIGNATURE) :]),
        lambda: tf.constant(1),
    )


def _find_exif(head: tf.Tensor) -> tf.Tensor:
    """Positions of the EXIF signature behind an APP1 marker, `int32` [n]."""
    marker = (0xFF, 0xE1)
    # Four bytes lie between: the marker's two, and the length's.
    expected = [*enumerate(marker), *enumerate(_SIGNATURE, start=4)]
    last = tf.maximum(tf.size(head) - 4 - len(_SIGNATURE) + 1, 0)
    matches = tf.ones([last], tf.bool)
    for offset, byte in expected:
        matches &= head[offset : offset + last] == byte
    return tf.reshape(tf.cast(tf.where(matches), tf.int32), [-1]) + 4


def _read_directory(tiff: tf.Tensor) -> tf.Tensor:
    """The orientation in the first directory of a TIFF header, `int32` scalar."""
    # Past the end of what was read everything is zero, which is no tag.
    tiff = tf.pad(tiff, [[0, 8]])
    big_endian = tiff[0] == ord("M")

    def number(position: tf.Tensor, length: int) -> tf.Tensor:
        places = tf.range(length)
        places = tf.where(big_endian, places[::-1], places)
        inside = tf.clip_by_value(position[..., tf.newaxis] + places, 0, tf.size(tiff) - 1)
        shifted = tf.bitwise.left_shift(tf.gather(tiff, inside), 8 * tf.range(length))
        return tf.reduce_sum(shifted, axis=-1)

    start = number(tf.constant(4), 4)
    entries = start + 2 + _ENTRY * tf.range(_ENTRIES)
    belongs = tf.range(_ENTRIES) < number(start, 2)
    is_orientation = belongs & (number(entries, 2) == _ORIENTATION)
    values = tf.boolean_mask(number(entries + 8, 2), is_orientation)
    value = tf.cond(tf.size(values) > 0, lambda: values[0], lambda: tf.constant(1))
    return tf.where((value >= 1) & (value <= 8), value, 1)


def turn_upright(image: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Undoes an orientation.

    Args:
        image: `uint8` [height, width, 3].
        value: `int32` scalar from 1 to 8.

    Returns:
        `uint8` [height, width, 3], or [width, height, 3] for 5 to 8.
    """
    transposed = tf.transpose(image, [1, 0, 2])
    return tf.switch_case(
        value - 1,
        [
            lambda: image,
            lambda: image[:, ::-1],
            lambda: image[::-1, ::-1],
            lambda: image[::-1],
            lambda: transposed,
            lambda: transposed[:, ::-1],
            lambda: transposed[::-1, ::-1],
            lambda: transposed[::-1],
        ],
    )
