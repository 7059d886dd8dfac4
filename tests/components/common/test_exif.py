import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from components.common import exif, image_ops
from tests.builders import draw_photo

TAG = 0x0112


def with_orientation(value, size=(48, 32)):
    image = draw_photo(0, 0, size)
    note = Image.Exif()
    note[TAG] = value
    # Something in front of the tag and behind it.
    note[0x010F] = "a camera maker"
    note[0x0131] = "a program"
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, exif=note)
    return buffer.getvalue()


def big_endian(value):
    entries = struct.pack(">HHHIHH", 1, TAG, 3, 1, value, 0)
    segment = b"Exif\0\0" + b"MM\0*" + struct.pack(">I", 8) + entries + b"\0\0\0\0"
    plain = with_orientation(1)
    rest = plain[2 + 2 + struct.unpack(">H", plain[4:6])[0] :]
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + rest


@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation_is_read(value):
    assert exif.orientation(tf.constant(with_orientation(value))) == value


@pytest.mark.parametrize("value", range(1, 9))
def test_photo_is_turned_as_pillow_turns_it(value):
    jpeg = with_orientation(value)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg)))
    turned = image_ops.decode_image(tf.constant(jpeg)).numpy()
    assert turned.shape[:2] == upright.size[::-1]
    assert np.abs(turned.astype(int) - np.asarray(upright)).mean() < 1


@pytest.mark.parametrize("value", [1, 3, 6])
def test_other_byte_order(value):
    assert exif.orientation(tf.constant(big_endian(value))) == value


def test_inside_a_graph():
    jpegs = tf.data.Dataset.from_tensor_slices([with_orientation(6), with_orientation(8)])
    assert [int(value) for value in jpegs.map(exif.orientation)] == [6, 8]


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_value_that_means_nothing_is_upright(value):
    assert exif.orientation(tf.constant(big_endian(value))) == 1


@pytest.mark.parametrize("length", [0, 1, 9, 10, 20, 30, 40])
def test_cut_file_is_upright_or_read(length):
    assert int(exif.orientation(tf.constant(with_orientation(6)[:length]))) in {1, 6}


def test_photo_without_a_note_is_upright():
    buffer = io.BytesIO()
    draw_photo(0, 0).save(buffer, "JPEG")
    assert exif.orientation(tf.constant(buffer.getvalue())) == 1


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 200), byte=st.integers(0, 255))
def test_damage_gives_a_number_from_1_to_8(position, byte):
    damaged = bytearray(with_orientation(6))
    damaged[position] = byte
    assert 1 <= int(exif.orientation(tf.constant(bytes(damaged)))) <= 8
