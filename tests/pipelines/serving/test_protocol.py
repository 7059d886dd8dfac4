import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.serving.protocol import BadRequestError, format_answer, parse

PHOTOS = st.lists(st.binary(max_size=40), min_size=1, max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["instances", "inputs", "b64", "image_bytes"]), inner)
    ),
)


def b64(photo):
    return {"b64": base64.b64encode(photo).decode()}


def read_or_refuse(body):
    """Says which of the two it was; any other error is a fault."""
    try:
        photos = parse(body, 5).photos
    except BadRequestError as error:
        return str(error)
    return "read" if all(isinstance(photo, bytes) for photo in photos) else ""


@given(PHOTOS)
def test_all_forms_say_the_same(photos):
    bodies = [
        {"instances": [b64(one) for one in photos]},
        {"instances": [{"image_bytes": b64(one)} for one in photos]},
        {"inputs": {"image_bytes": [b64(one) for one in photos]}},
        {"inputs": [b64(one) for one in photos]},
    ]
    for number, body in enumerate(bodies):
        asked = parse(json.dumps(body).encode(), 5)
        assert asked.photos == photos
        assert asked.columnar == (number > 1)


@given(JSON)
def test_any_json_is_read_or_refused(content):
    found = read_or_refuse(json.dumps(content).encode())
    assert "expected" in found or "base64" in found or "read" in found


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body):
    assert read_or_refuse(body)


def test_columns_hold_what_rows_hold():
    rows = [{"label": "a", "probabilities": [1.0]}, {"label": "b", "probabilities": [0.5]}]
    assert json.loads(format_answer(rows, False)) == {"predictions": rows}
    assert json.loads(format_answer(rows, True)) == {
        "outputs": {"label": ["a", "b"], "probabilities": [[1.0], [0.5]]}
    }


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_answer_that_is_no_json(number):
    with pytest.raises(ValueError, match="JSON"):
        format_answer([{"probabilities": [number]}], False)
