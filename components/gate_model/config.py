"""What a model must reach."""

import dataclasses

from components.common.errors import ConfigError

EXPECTED = "expected a number above 0 and at most 1"


def is_threshold(value: float) -> bool:
    """Whether a number can be a threshold; 0 would let every model through, which is no gate."""
    return 0.0 < value <= 1.0


@dataclasses.dataclass(frozen=True)
class GateConfig:
    """When the gate opens.

    Attributes:
        threshold: Smallest top-1 accuracy on the test split, above 0 and at most 1. There is no
            default: a gate that nobody has set stays closed.
    """

    threshold: float

    def __post_init__(self) -> None:
        if not is_threshold(self.threshold):
            raise ConfigError(f"threshold: {EXPECTED}, received {self.threshold:g}")
