"""TensorFlow Serving's REST predict, which Vertex AI's custom containers speak too.

Row format, what Vertex AI sends:   {"instances": [{"image_bytes": {"b64": "..."}}, ...]}
                                    {"instances": [{"b64": "..."}, ...]}
Columnar format:                    {"inputs": {"image_bytes": [{"b64": "..."}, ...]}}

Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import binascii
import dataclasses
import json
from typing import Any

INPUT = "image_bytes"
SIGNATURES = ("serving_default", "explain")
_EXPECTED = 'expected {"instances": [{"image_bytes": {"b64": "..."}}]}'


class BadRequestError(Exception):
    """A request is not as it must be; the message says what was expected."""


@dataclasses.dataclass(frozen=True)
class PredictRequest:
    """What is asked.

    Attributes:
        photos: Encoded photos.
        columnar: Whether the answer has one list per output, in place of one object per photo.
        explain: Whether it is also asked where the model looked.
    """

    photos: list[bytes]
    columnar: bool = False
    explain: bool = False


def parse(body: bytes, max_instances: int) -> PredictRequest:
    """Reads the body of a request.

    Raises:
        BadRequestError: Says what was expected and what was received.
    """
    content = _json(body)
    if not isinstance(content, dict):
        raise BadRequestError(f"{_EXPECTED}, received a JSON {_kind(content)}")
    signature = content.get("signature_name") or SIGNATURES[0]
    if signature not in SIGNATURES:
        raise BadRequestError(f"signature_name: expected one of {', '.join(SIGNATURES)}")
    if ("instances" in content) == ("inputs" in content):
        raise BadRequestError(f"{_EXPECTED}, or inputs in its place, one of the two")
    columnar = "inputs" in content
    values = _column(content["inputs"]) if columnar else content["instances"]
    if not isinstance(values, list) or not values:
        raise BadRequestError(f"{_EXPECTED} with at least one photo, received {_kind(values)}")
    if len(values) > max_instances:
        raise BadRequestError(f"expected at most {max_instances} photos, received {len(values)}")
    photos = [_photo(value, f"photo {number}") for number, value in enumerate(values)]
    return PredictRequest(photos, columnar, signature == "explain")


def _json(body: bytes) -> Any:
    try:
        # NaN and Infinity are no JSON, though Python would take them.
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadRequestError(f"the body is not JSON ({reason}); {_EXPECTED}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", type(None): "null"}
    kind = names.get(type(value), type(value).__name__)
    return f"empty {kind}" if isinstance(value, (list, dict)) and not value else kind


def _column(inputs: Any) -> Any:
    if not isinstance(inputs, dict):
        return inputs
    if INPUT in inputs:
        inputs = inputs[INPUT]
    # A single photo may stand without its list.
    return [inputs] if isinstance(inputs, dict) and "b64" in inputs else inputs


def _photo(value: Any, where: str) -> bytes:
    if isinstance(value, dict) and set(value) == {INPUT}:
        value = value[INPUT]
    if not isinstance(value, dict) or set(value) != {"b64"} or not isinstance(value["b64"], str):
        raise BadRequestError(f'{where}: expected {{"b64": "..."}}, received {_kind(value)}')
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(f"{where}: the base64 is wrong ({error})") from error


def format_answer(rows: list[dict[str, Any]], columnar: bool) -> bytes:
    """The body of an answer.

    Args:
        rows: One object per photo, all with the same keys.
        columnar: As the request was.
    """
    if columnar:
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        return _encode({"outputs": columns})
    return _encode({"predictions": rows})


def format_error(message: str) -> bytes:
    """The body of a refusal."""
    return _encode({"error": message})


def _encode(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
