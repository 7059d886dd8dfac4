"""`tf.train.Example` without TensorFlow, for the processes that read and write records by the core.

Importing TensorFlow takes seconds and hundreds of megabytes in each of them. The messages here are
made from the field numbers of `tensorflow/core/example/{example,feature}.proto`, in a pool of their
own, so they never meet TensorFlow's. The bytes are the same either way; a test says so.
"""

from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from components.common.errors import DataError

IMAGE = "image"
CLASS = "class"
LABEL = "label"
SIZE = "size"
ONE_HOT_CLASS = "one_hot_class"

_Field = descriptor_pb2.FieldDescriptorProto
_LISTS = (
    ("BytesList", _Field.TYPE_BYTES),
    ("FloatList", _Field.TYPE_FLOAT),
    ("Int64List", _Field.TYPE_INT64),
)


def _example_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="flowers/example.proto", package="flowers", syntax="proto3"
    )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(_LISTS, start=1):
        values = file.message_type.add(name=name)
        values.field.add(name="value", number=1, label=_Field.LABEL_REPEATED, type=kind)
        feature.field.add(
            name=("bytes_list", "float_list", "int64_list")[number - 1],
            number=number,
            label=_Field.LABEL_OPTIONAL,
            type=_Field.TYPE_MESSAGE,
            type_name=f".flowers.{name}",
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    optional = _Field.LABEL_OPTIONAL
    entry.field.add(name="key", number=1, label=optional, type=_Field.TYPE_STRING)
    entry.field.add(
        name="value",
        number=2,
        label=optional,
        type=_Field.TYPE_MESSAGE,
        type_name=".flowers.Feature",
    )
    features.field.add(
        name="feature",
        number=1,
        label=_Field.LABEL_REPEATED,
        type=_Field.TYPE_MESSAGE,
        type_name=".flowers.Features.FeatureEntry",
    )
    example = file.message_type.add(name="Example")
    example.field.add(
        name="features",
        number=1,
        label=optional,
        type=_Field.TYPE_MESSAGE,
        type_name=".flowers.Features",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("flowers.Example"))


_Example = _example_class()


def encode_example(jpeg: bytes, label: int, class_names: Sequence[str], size: int) -> bytes:
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
    example = _Example()
    feature = example.features.feature
    feature[IMAGE].bytes_list.value.append(jpeg)
    feature[CLASS].int64_list.value.append(label)
    feature[LABEL].bytes_list.value.append(class_names[label].encode())
    feature[SIZE].int64_list.value.extend((size, size))
    one_hot = [float(index == label) for index in range(len(class_names))]
    feature[ONE_HOT_CLASS].float_list.value.extend(one_hot)
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


class Features:
    """The features of one serialized example, asked for by name, type and number of values."""

    def __init__(self, serialized: bytes) -> None:
        try:
            self._features = _Example.FromString(serialized).features.feature
        except DecodeError as error:
            raise DataError("not a tf.train.Example") from error

    def bytes(self, key: str) -> bytes:
        """The one value of a feature of bytes.

        Raises:
            DataError: The feature is absent, of another type, or has another number of values.
        """
        value: bytes = self._values(key, "bytes_list", 1)[0]
        return value

    def ints(self, key: str, count: int) -> list[int]:
        """The values of a feature of `int64`; raises as `bytes` does."""
        return self._values(key, "int64_list", count)

    def floats(self, key: str) -> list[float]:
        """The values of a feature of `float32`, one or more; raises as `bytes` does."""
        return self._values(key, "float_list", None)

    def _values(self, key: str, kind: str, count: int | None) -> list[Any]:
        # Asking a map of messages for a key would add it.
        if key not in self._features:
            raise DataError(f"feature {key!r} is missing")
        feature = self._features[key]
        found = feature.WhichOneof("kind")
        if found != kind:
            raise DataError(f"feature {key!r}: expected {kind}, found {found or 'nothing'}")
        values = list(getattr(feature, kind).value)
        if not values or (count is not None and len(values) != count):
            raise DataError(
                f"feature {key!r}: expected {count or 'some'} values, received {len(values)}"
            )
        return values
