"""How a photo of any aspect becomes the square that a model sees.

`crop` keeps its middle and its aspect, and loses what is beside it; `stretch` keeps all of it, and
shows it narrower or lower than it is.
"""

from collections.abc import Mapping
from typing import Any

CROP, STRETCH = "crop", "stretch"
RESIZES = (CROP, STRETCH)


def resize_of(metadata: Mapping[str, Any]) -> str:
    """How squares were made, by the `flowers.json` of an export or by a `dataset.json`.

    What does not say was made when there was but one way.
    """
    return str(metadata.get("resize", CROP))
