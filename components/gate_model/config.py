"""What a model must reach."""

import dataclasses

from components.common.config import Range, check


@dataclasses.dataclass(frozen=True)
class GateConfig:
    """When the gate opens.

    Attributes:
        threshold: Smallest top-1 accuracy on the test split, above 0 and at most 1. There is no
            default: a gate that nobody has set stays closed.
    """

    threshold: float

    def __post_init__(self) -> None:
        # A threshold of 0 would let every model through, which is no gate.
        check("threshold", self.threshold, Range(1e-6, 1.0))
