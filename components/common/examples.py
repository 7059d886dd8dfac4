"""The `tf.train.Example` schema of the public flowers TFRecords.

| key             | type    | shape     | meaning                                 |
|-----------------|---------|-----------|-----------------------------------------|
| `image`         | bytes   | []        | JPEG, RGB                               |
| `class`         | int64   | []        | index into `class_names`                |
| `label`         | bytes   | []        | the class name                          |
| `size`          | int64   | [2]       | height and width of the image, in pixels |
| `one_hot_class` | float32 | [classes] | one at `class`, zero elsewhere          |

Source: 03_Flower_pictures_to_TFRecords.ipynb of GoogleCloudPlatform/training-data-analyst.
"""

import tensorflow as tf

from components.common import image_ops
from components.common.example_proto import (
    CLASS,
    IMAGE,
    LABEL,
    ONE_HOT_CLASS,
    SIZE,
    encode_example,
)

__all__ = [
    "CLASS",
    "IMAGE",
    "LABEL",
    "ONE_HOT_CLASS",
    "SIZE",
    "encode_example",
    "parse_example",
    "parse_features",
]


def parse_features(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes the stored JPEG and the label out of one serialized example.

    Args:
        serialized: Scalar `tf.string`, one TFRecord payload.

    Returns:
        jpeg: Scalar `tf.string`.
        label: `int64` scalar, index into `class_names`.

    Raises:
        tf.errors.InvalidArgumentError: `image` or `class` is missing; neither has a default.
    """
    features = tf.io.parse_single_example(
        serialized,
        {IMAGE: tf.io.FixedLenFeature([], tf.string), CLASS: tf.io.FixedLenFeature([], tf.int64)},
    )
    return features[IMAGE], features[CLASS]


def parse_example(serialized: tf.Tensor, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Parses and decodes one serialized example.

    Args:
        serialized: Scalar `tf.string`, one TFRecord payload.
        image_size: Side of the stored square image, in pixels.

    Returns:
        image: `uint8` [image_size, image_size, 3], RGB, 0 to 255; the shape is static.
        label: `int64` scalar, index into `class_names`.

    Raises:
        tf.errors.InvalidArgumentError: `image` or `class` is missing, or the size differs.
    """
    jpeg, label = parse_features(serialized)
    image = tf.ensure_shape(image_ops.decode_jpeg(jpeg), [image_size, image_size, 3])
    return image, label
