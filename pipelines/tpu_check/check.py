"""The check: does a recipe's train step fit a slice of TPUs, how fast can it be, what will it cost.

The speed is a roofline: the longest of the times that the arithmetic, the memory and the network
would take at their published peaks. No run is faster; how much slower it is, only a run can say.
"""

import dataclasses
import math
from collections.abc import Callable

from components.common.errors import ConfigError, TrainStepError
from pipelines.recipe import Recipe, plain
from pipelines.targets.tpu_chips import TpuSlice
from pipelines.tpu_check.compiler import Compiler
from pipelines.tpu_check.messages import Compiled, Refused, Task

# A batch so much larger that does not fit ends the search for the largest one.
_PRECISION = 1.125
_LARGEST = 16384
Compile = Callable[[int], Compiled | Refused]


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Bounds of a train step, per core.

    Attributes:
        compute_seconds: The arithmetic at the peak of bfloat16.
        memory_seconds: The traffic with HBM at its bandwidth.
        network_seconds: The all-reduces, in a ring, at the bandwidth between chips.
        accessed_seconds: All bytes accessed at the bandwidth of HBM, as if the core had no vector
            memory; no bound.
    """

    compute_seconds: float
    memory_seconds: float
    network_seconds: float
    accessed_seconds: float

    @property
    def step_seconds(self) -> float:
        """No step is shorter."""
        return max(self.compute_seconds, self.memory_seconds, self.network_seconds)

    @property
    def bound(self) -> str:
        """What takes that long."""
        times = {
            "arithmetic": self.compute_seconds,
            "memory": self.memory_seconds,
            "network": self.network_seconds,
        }
        return max(times, key=lambda name: times[name])

    @property
    def of_peak(self) -> float:
        """Share of the peak of the arithmetic that can be reached at most."""
        return self.compute_seconds / self.step_seconds


def roofline(compiled: Compiled, where: TpuSlice) -> Roofline:
    """Bounds of a compiled train step."""
    others = where.cores - 1
    sent = 2 * others / where.cores * compiled.all_reduce_bytes
    return Roofline(
        compiled.flops / where.core_flops,
        compiled.hbm_bytes / where.core_bandwidth,
        sent * where.chip.cores / where.chip.ici_bandwidth,
        compiled.bytes_accessed / where.core_bandwidth,
    )


@dataclasses.dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        recipe: Name of the recipe.
        where: The slice.
        compiled: The train step.
        largest_batch: Images per core that still fit, as found by compiling; 0 if not asked for.
        largest_is_limit: A batch of 1.125 times as many does not fit; else the search ended before.
        input_rate: Images per second that a core of this machine delivers; 0 if not measured.
        examples: Images of an epoch.
        price: US dollars for one chip and one hour; None where the table has none.
    """

    recipe: str
    where: TpuSlice
    compiled: Compiled
    largest_batch: int
    largest_is_limit: bool
    input_rate: float
    examples: int
    price: float | None

    @property
    def roofline(self) -> Roofline:
        """Its bounds."""
        return roofline(self.compiled, self.where)

    @property
    def images_per_second(self) -> float:
        """Of one core, at most."""
        return self.compiled.batch_per_core / self.roofline.step_seconds

    @property
    def host_rate(self) -> float:
        """Images per second that each host must deliver."""
        return self.images_per_second * self.where.cores / self.where.hosts

    @property
    def epoch_seconds(self) -> float:
        """Duration of an epoch, at least."""
        return self.examples / (self.images_per_second * self.where.cores)

    @property
    def epoch_price(self) -> float | None:
        """US dollars for an epoch, at least."""
        if self.price is None:
            return None
        return self.epoch_seconds / 3600 * self.where.chips * self.price


def make_task(recipe: Recipe, where: TpuSlice, classes: int) -> Task:
    """What the compiler is given for a recipe."""
    return Task(
        plain(recipe.model),
        plain(recipe.train),
        recipe.ingest.image_size,
        classes,
        str(where),
        where.cores,
    )


def batch_of(recipe: Recipe, where: TpuSlice) -> int:
    """Images per core of a recipe's batch.

    Raises:
        ConfigError: The batch cannot be divided by the cores.
    """
    train = recipe.train
    batch, rest = divmod(train.global_batch_size, where.cores)
    if train.global_batch_size and (rest or not batch):
        raise ConfigError(
            f"train.global_batch_size: expected a multiple of the {where.cores} cores of {where}, "
            f"received {train.global_batch_size}"
        )
    return train.batch_size(where.cores) // where.cores


def batch_step(recipe: Recipe, where: TpuSlice) -> int:
    """What the images per core of every batch of a recipe are a multiple of."""
    train = recipe.train
    # Mixing takes the examples of a core in pairs.
    pairs = 2 if train.mixes and where.cores > 1 else 1
    ghost = train.ghost_batch_size or 1
    return math.lcm(pairs, ghost // math.gcd(ghost, where.cores))


def require(outcome: Compiled | Refused, where: TpuSlice) -> Compiled:
    """The compiled train step, if there is one and it fits.

    Raises:
        TrainStepError: Names the operation, or how much does not fit.
    """
    size = f"{outcome.batch_per_core} images a core on {where}"
    if isinstance(outcome, Refused):
        if outcome.out_of_memory:
            raise TrainStepError(
                f"{size} do not fit into {gib(where.core_memory)} of HBM; take fewer images a core "
                f"(the compiler: {outcome.message})"
            )
        op = f"the operation {outcome.op}" if outcome.op else "the train step"
        raise TrainStepError(f"{op} does not compile for {where}: {outcome.message}")
    if outcome.peak_bytes > where.core_memory:
        raise TrainStepError(
            f"{size} take {gib(outcome.peak_bytes)} of HBM, and a core has "
            f"{gib(where.core_memory)}; take fewer images a core"
        )
    return outcome


def gib(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / 2**30:.2f} GiB"


def largest_batch(
    first: Compiled, where: TpuSlice, compile_: Compile, step: int = 1
) -> tuple[int, bool]:
    """The largest batch that fits, to an eighth, each one compiled.

    The peak grows nearly in a line with the batch, so two batches say where to look.

    Args:
        first: A batch that fits.
        where: The slice.
        compile_: Compiles a batch of so many images per core.
        step: Batches are multiples of it, as `first` is.

    Returns:
        Images per core, and whether an eighth more, or one step more, does not fit.
    """
    low, high, peak = first.batch_per_core, _LARGEST * 2, first.peak_bytes
    guess = 2 * low
    while high > max(low * _PRECISION, low + step) and low + step <= _LARGEST:
        guess = min(max(guess, low + step), high - 1, _LARGEST) // step * step
        outcome = compile_(guess)
        if isinstance(outcome, Refused) or outcome.peak_bytes > where.core_memory:
            high, guess = guess, (low + guess) // 2
            continue
        slope = (outcome.peak_bytes - peak) / (guess - low)
        low, peak = guess, outcome.peak_bytes
        guess = _next_guess(low, peak, slope, where.core_memory)
    return low, high <= max(low * _PRECISION, low + step)


def _next_guess(batch: int, peak: float, slope: float, memory: float) -> int:
    """Where a line reaches the memory; a little above what fits, once that is near."""
    reached = batch + int((memory - peak) / slope) if slope > 0 else 4 * batch
    return max(min(reached * 63 // 64, 8 * batch), int(batch * _PRECISION))


def run_check(
    name: str,
    recipe: Recipe,
    where: TpuSlice,
    batch_per_core: int,
    compiler: Compiler,
    examples: int,
    price: float | None,
    search: bool,
) -> Report:
    """Compiles the train step and says what follows from it.

    Args:
        name: Of the recipe.
        recipe: What is trained.
        where: The slice.
        batch_per_core: Images.
        compiler: Compiles for that recipe and slice.
        examples: Images of an epoch.
        price: US dollars for one chip and one hour.
        search: Look for the largest batch that fits.

    Raises:
        TrainStepError: It does not fit, or an operation does not compile.
    """
    compiled = require(compiler.compile(batch_per_core), where)
    step = batch_step(recipe, where)
    found = largest_batch(compiled, where, compiler.compile, step) if search else (0, False)
    return Report(name, where, compiled, *found, compiler.input_rate, examples, price)
