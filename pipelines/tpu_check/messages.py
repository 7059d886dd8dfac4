"""What the two processes of a check say to each other: one line of JSON each."""

import dataclasses
from typing import Any

from pipelines.tpu_check.hlo import Operation


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be compiled.

    Attributes:
        model_config: Architecture; keys of `ModelConfig`.
        train_config: How to train; keys of `TrainConfig`.
        image_size: Side of the examples, in pixels.
        classes: Number of classes.
        topology: Slice as the compiler names it, e.g. `v5e:2x4`.
        cores: Its cores, as our table has them.
    """

    model_config: dict[str, Any]
    train_config: dict[str, Any]
    image_size: int
    classes: int
    topology: str
    cores: int


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a train step; all figures are of one core and one step.

    The step is that of a recipe's `train`, once its crops have grown. Where `train.refine` has
    larger images, its memory counts too.

    Attributes:
        batch_per_core: Images.
        flops: Floating-point operations.
        bytes_accessed: Bytes that operations read and write, wherever these are.
        hbm_bytes: Those of them that are in HBM.
        peak_bytes: HBM that is taken at most at a time.
        all_reduce_bytes: Bytes given into all-reduces.
        heaviest: What moves most of `hbm_bytes`.
        seconds: Duration of the compilation.
        precision: What the step computes in.
        parameters: Weights of the net.
        compiler: Version of libtpu.
    """

    batch_per_core: int
    flops: float
    bytes_accessed: float
    hbm_bytes: float
    peak_bytes: float
    all_reduce_bytes: float
    heaviest: tuple[Operation, ...]
    seconds: float
    precision: str
    parameters: int
    compiler: str


@dataclasses.dataclass(frozen=True)
class Refused:
    """Why the compiler refused a train step.

    Attributes:
        batch_per_core: Images.
        op: The operation it names; empty where it names none.
        message: What it says, in one line.
        out_of_memory: It compiles, but does not fit.
    """

    batch_per_core: int
    op: str
    message: str
    out_of_memory: bool
