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

IMAGE = "image"
CLASS = "class"
LABEL = "label"
SIZE = "size"
ONE_HOT_CLASS = "one_hot_class"


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _ints(values: list[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values: list[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def encode_example(jpeg: bytes, label: int, class_names: tuple[str, ...], size: int) -> bytes:
    """Serializes one example.

    Args:
        jpeg: The square image, as JPEG bytes.
        label: Index into `class_names`.
        class_names: Every class, in label order.
        size: Side of the image, in pixels.

    Returns:
        One TFRecord payload; the same arguments give the same bytes.

    Raises:
        ValueError: There is no such class.
    """
    if label not in range(len(class_names)):
        raise ValueError(f"label {label}: expected 0 to {len(class_names) - 1}")
    one_hot = [float(index == label) for index in range(len(class_names))]
    features = {
        IMAGE: _bytes(jpeg),
        CLASS: _ints([label]),
        LABEL: _bytes(class_names[label].encode()),
        SIZE: _ints([size, size]),
        ONE_HOT_CLASS: _floats(one_hot),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


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
