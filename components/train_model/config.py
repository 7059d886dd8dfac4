"""Every hyperparameter of training, as frozen dataclasses that check themselves.

Needs no TensorFlow, so that a recipe is checked where it is written, not where it runs.
"""

import dataclasses

from components.common.config import Range, check, choose
from components.common.errors import ConfigError
from components.common.policy import AugmentPolicy

MODELS = ("squeezenet",)
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "one_cycle")

Fire = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Architecture as data.

    Attributes:
        name: Which builder in `models/` reads the rest.
        stem_filters: Filters of the first 3x3 convolution.
        stem_stride: Its stride; 2 quarters the work of everything behind it.
        stem_pool: Pool behind the stem too, which quarters it once more.
        stages: Fire modules as (squeeze, expand) filters; `expand` counts the 1x1 and the 3x3
            half together. A 3x3 max pooling of stride 2 stands between two stages.
        bypass: Add the input of a fire module to its output where both have the same shape.
        dropout: Share of the pooled features dropped in front of the head.
    """

    name: str
    stem_filters: int
    stem_stride: int
    stages: tuple[tuple[Fire, ...], ...]
    stem_pool: bool = False
    bypass: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        choose("name", self.name, MODELS)
        check("stem_filters", self.stem_filters, Range(1, 4096))
        check("stem_stride", self.stem_stride, Range(1, 4))
        check("dropout", self.dropout, Range(0.0, 0.95))
        if not self.stages or not all(self.stages):
            raise ConfigError("stages: expected at least one stage of at least one fire module")
        for squeeze, expand in (fire for stage in self.stages for fire in stage):
            check("stages: squeeze", squeeze, Range(1, 4096))
            check("stages: expand", expand, Range(2, 8192))
            if expand % 2:
                raise ConfigError(f"stages: expand: expected an even number, received {expand}")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become steps.

    Attributes:
        name: `adam`, `adamw` or `sgd`.
        weight_decay: Of `adamw`: decoupled decay of the kernels; biases and BatchNorm are left
            alone.
        momentum: Of `sgd`; the others have none.
    """

    name: str = "adamw"
    weight_decay: float = 0.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        choose("name", self.name, OPTIMIZERS)
        check("weight_decay", self.weight_decay, Range(0.0, 1.0))
        if self.weight_decay and self.name != "adamw":
            raise ConfigError(
                f"weight_decay: expected 0 with {self.name}, received {self.weight_decay:g}; "
                "only adamw has it"
            )
        check("momentum", self.momentum, Range(0.0, 0.9999))


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the steps of training.

    Attributes:
        name: `constant` or `one_cycle`.
        peak: The highest learning rate.
        warmup: Share of all steps in which `one_cycle` climbs from `peak / 25` to `peak`.
        final: Learning rate at the last step, as a part of `peak`.
    """

    name: str = "one_cycle"
    peak: float = 1e-3
    warmup: float = 0.25
    final: float = 0.001

    def __post_init__(self) -> None:
        choose("name", self.name, SCHEDULES)
        check("peak", self.peak, Range(1e-8, 100.0))
        check("warmup", self.warmup, Range(0.0, 0.9))
        check("final", self.final, Range(0.0, 1.0))


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How the model is trained.

    Attributes:
        epochs: Passes over the augmented train split.
        global_batch_size: Examples per step over all replicas.
        optimizer: How gradients become steps.
        schedule: The learning rate over the steps.
        label_smoothing: Share of the target spread evenly over all classes.
        policy: Augmentation applied anew in every epoch; None for none.
        seed: Of the weights, of the order and of the augmentation.
    """

    epochs: int
    global_batch_size: int
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    label_smoothing: float = 0.0
    policy: AugmentPolicy | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check("epochs", self.epochs, Range(1, 100_000))
        check("global_batch_size", self.global_batch_size, Range(1, 1 << 20))
        check("label_smoothing", self.label_smoothing, Range(0.0, 0.9))
        check("seed", self.seed, Range(0, 2**31 - 1))
