"""In which formats a model leaves, and what its card says; needs no library."""

import dataclasses
from typing import Any

from components.common.config import Range, check

# What messages call the step.
STEP = "export-model"


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """In which formats a model leaves, and what its card says.

    Attributes:
        litert: Whether to write LiteRT (TensorFlow Lite) files, in float and in int8.
        onnx: Whether to write ONNX, which takes the extra `onnx`.
        calibration_photos: Photos of the train split that set the ranges of int8.
        intended_use: For the model card; empty for a sentence that names the classes.
        licence: Licence of the photos, for the model card; empty for the licence file that lies
            beside them.
    """

    litert: bool = True
    onnx: bool = False
    calibration_photos: int = 200
    intended_use: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        check("calibration_photos", self.calibration_photos, Range(1, 10_000))


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a model comes from, for its card.

    Attributes:
        images: Where the photos are, as `ingest_examples` was told.
        manifest: Their manifest; empty for none.
        model_config: Architecture, as data.
        train_config: Training, as data.
    """

    images: str = ""
    manifest: str = ""
    model_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    train_config: dict[str, Any] = dataclasses.field(default_factory=dict)
