"""How many augmented copies, and what may be done to them."""

import dataclasses

from components.common.config import Range, check
from components.common.policy import AugmentPolicy


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How the train split is augmented.

    Attributes:
        copies: Augmented versions of each example, beside the example itself.
        seed: The same seed gives the same bytes; another seed gives other versions.
        policy: What may be done to an image.
    """

    copies: int = 1
    seed: int = 0
    policy: AugmentPolicy = dataclasses.field(default_factory=AugmentPolicy)

    def __post_init__(self) -> None:
        check("copies", self.copies, Range(0, 100))
        check("seed", self.seed, Range(0, 2**31 - 1))
