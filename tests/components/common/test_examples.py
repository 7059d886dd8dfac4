"""Tests of the `tf.train.Example` schema, key by key and byte by byte."""

import io
import struct
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from components.common.example_proto import Features
from components.common.examples import encode_example, parse_example, parse_features
from tests.builders import draw_photo, encode

NAMES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
SIZE = 32
JPEG = encode(draw_photo(0, 0, (SIZE, SIZE)), quality=95)


def features_of(payload: bytes) -> dict[str, tf.train.Feature]:
    return dict(tf.train.Example.FromString(payload).features.feature)


def values_of(feature: tf.train.Feature) -> tuple[str, list[Any]]:
    kind = feature.WhichOneof("kind")
    return kind, list(getattr(feature, kind).value)


def field(number: int, content: bytes) -> bytes:
    """A protocol buffer field that holds bytes or a message."""
    length, size = b"", len(content)
    while size >= 128:
        length, size = length + bytes([size % 128 + 128]), size // 128
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def record(features: dict[str, bytes]) -> bytes:
    """An Example, put together by hand: {1: {1: map of key 1 to Feature 2}}."""
    entries = (field(1, field(1, key.encode()) + field(2, body)) for key, body in features.items())
    return field(1, b"".join(entries))


def bytes_feature(value: bytes) -> bytes:
    return field(1, field(1, value))


def int_feature(*values: int) -> bytes:
    """Values below 128, packed, as every modern writer does."""
    return field(3, field(1, bytes(values)))


def float_feature(*values: float) -> bytes:
    return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("image", ("bytes_list", [JPEG])),
        ("class", ("int64_list", [2])),
        ("label", ("bytes_list", [b"roses"])),
        ("size", ("int64_list", [SIZE, SIZE])),
        ("one_hot_class", ("float_list", [0.0, 0.0, 1.0, 0.0, 0.0])),
    ],
)
def test_feature_is_as_documented(key: str, expected: tuple[str, list[Any]]) -> None:
    assert values_of(features_of(encode_example(JPEG, 2, NAMES, SIZE))[key]) == expected


def test_example_holds_the_documented_keys_and_no_others() -> None:
    keys = features_of(encode_example(JPEG, 2, NAMES, SIZE)).keys()
    assert keys == {"image", "class", "label", "size", "one_hot_class"}


def test_class_name_is_stored_as_utf8() -> None:
    feature = features_of(encode_example(JPEG, 1, ("a", "żółw"), SIZE))["label"]
    assert values_of(feature) == ("bytes_list", ["żółw".encode()])


def test_same_arguments_give_the_same_bytes() -> None:
    assert encode_example(JPEG, 2, NAMES, SIZE) == encode_example(JPEG, 2, NAMES, SIZE)


@pytest.mark.parametrize("label", [-1, 5])
def test_label_without_a_class_is_refused(label: int) -> None:
    with pytest.raises(ValueError, match=f"label {label}: expected 0 to 4"):
        encode_example(JPEG, label, NAMES, SIZE)


@given(st.binary(max_size=200), st.integers(0, len(NAMES) - 1))
def test_features_are_parsed_as_they_were_encoded(jpeg: bytes, label: int) -> None:
    parsed = parse_features(tf.constant(encode_example(jpeg, label, NAMES, SIZE)))
    assert (parsed[0].numpy(), int(parsed[1])) == (jpeg, label)


def test_image_is_decoded() -> None:
    image, label = parse_example(tf.constant(encode_example(JPEG, 3, NAMES, SIZE)), SIZE)
    assert (image.dtype, image.shape) == (tf.uint8, (SIZE, SIZE, 3))
    assert (label.dtype, int(label)) == (tf.int64, 3)
    # Another decoder may round otherwise, by a level or two.
    expected = np.asarray(Image.open(io.BytesIO(JPEG)), np.int64)
    assert np.abs(image.numpy() - expected).max() <= 3


def test_shape_is_static_within_a_dataset() -> None:
    records = tf.data.Dataset.from_tensors(encode_example(JPEG, 3, NAMES, SIZE))
    image, label = records.map(lambda serialized: parse_example(serialized, SIZE)).element_spec
    assert (image.shape, label.shape) == ((SIZE, SIZE, 3), ())


@pytest.mark.parametrize("missing", ["image", "class"])
def test_missing_feature_is_refused(missing: str) -> None:
    features = {"image": bytes_feature(JPEG), "class": int_feature(2)}
    del features[missing]
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"Feature: {missing}"):
        parse_features(tf.constant(record(features)))


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_other_size_is_refused(size: int) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not compatible"):
        parse_example(tf.constant(encode_example(JPEG, 2, NAMES, SIZE)), size)


@pytest.mark.parametrize("payload", [b"", b"no example", encode_example(b"no jpeg", 0, NAMES, 32)])
def test_payload_that_is_no_example_is_refused(payload: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        parse_example(tf.constant(payload), SIZE)


def test_record_of_the_public_flowers_is_parsed() -> None:
    payload = record(
        {
            "image": bytes_feature(JPEG),
            "class": int_feature(4),
            "label": bytes_feature(b"tulips"),
            "size": int_feature(SIZE, SIZE),
            "one_hot_class": float_feature(0.0, 0.0, 0.0, 0.0, 1.0),
        }
    )
    image, label = parse_example(tf.constant(payload), SIZE)
    assert (image.shape, int(label)) == ((SIZE, SIZE, 3), 4)


def test_record_made_by_hand_is_the_one_that_is_encoded() -> None:
    payload = record(
        {
            "class": int_feature(1),
            "image": bytes_feature(JPEG),
            "label": bytes_feature(b"dandelion"),
            "one_hot_class": float_feature(0.0, 1.0, 0.0, 0.0, 0.0),
            "size": int_feature(SIZE, SIZE),
        }
    )
    assert features_of(payload) == features_of(encode_example(JPEG, 1, NAMES, SIZE))


@given(st.binary(max_size=200), st.integers(0, 3), st.integers(1, 4096))
def test_bytes_are_those_of_tensorflow(jpeg: bytes, label: int, size: int) -> None:
    names = ("daisy", "żółw", "日本語", "x")
    serialized = encode_example(jpeg, label, names, size)
    example = tf.train.Example.FromString(serialized)
    assert example.SerializeToString(deterministic=True) == serialized
    features = Features(serialized)
    assert features.bytes("image") == jpeg
    assert features.ints("size", 2) == [size, size]
    assert features.floats("one_hot_class").index(1.0) == label
