"""The check before a submission: whether a recipe can be trained on the TPUs of a target."""

from collections.abc import Callable
from typing import Any

from pipelines.recipe import Recipe
from pipelines.targets.tpu_chips import TpuSlice, slice_of
from pipelines.tpu_check.check import batch_of, gib, make_task, require, roofline
from pipelines.tpu_check.compiler import NOT_INSTALLED, is_installed, open_compiler

# The architecture of a head for so many classes is that for any number.
_CLASSES = 5


def slice_of_target(target: Any) -> TpuSlice | None:
    """The TPUs that a target trains on; None where there are none."""
    train = target.train
    if train.accelerator != "TPU":
        return None
    return slice_of(train.machine_type, train.tpu_topology)


def check_batch(target: Any, recipe: Recipe) -> None:
    """Refuses a batch that cannot be divided by the cores of the target; compiles nothing.

    Raises:
        ConfigError: Names the batch and the cores.
    """
    where = slice_of_target(target)
    if where:
        batch_of(recipe, where)


def check_train_step(target: Any, recipe: Recipe, tell: Callable[[str], None]) -> None:
    """Compiles the train step for the TPUs of a target, before anything is created.

    Args:
        target: A target file; one without TPUs is not checked.
        recipe: What is to be trained.
        tell: Takes one line: what was found, or how to get the compiler where it is not installed.

    Raises:
        TrainStepError: It does not fit, or an operation does not compile.
    """
    where = slice_of_target(target)
    if where is None:
        return
    if not is_installed():
        tell(f"no TPU check: {NOT_INSTALLED}")
        return
    tell(f"compiling the train step for {where}; --no-tpu-check skips this")
    with open_compiler(make_task(recipe, where, _CLASSES)) as compiler:
        compiled = require(compiler.compile(batch_of(recipe, where)), where)
    rate = where.cores * compiled.batch_per_core / roofline(compiled, where).step_seconds
    tell(
        f"fits {where}: {gib(compiled.peak_bytes)} of {gib(where.core_memory)} of HBM a core, at "
        f"most {rate:,.0f} images/s"
    )
