"""The types that training computes in, chosen for the device unless the recipe names them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

FLOAT32 = "float32"
BFLOAT16 = "mixed_bfloat16"
FLOAT16 = "mixed_float16"
_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def choose_precision(named: str, device: str, pays_on_cpu: bool) -> str:
    """Chooses the precision of a training.

    Args:
        named: What the recipe says; `auto` leaves it to the device.
        device: `tpu`, `gpu` or `cpu`.
        pays_on_cpu: Whether the net is faster in bfloat16 on a CPU that has it. Small nets
            spend their time on moving numbers and converting them, and are not.

    Returns:
        Name of a Keras dtype policy. Variables, softmax and loss are `float32` in each.
    """
    if named != "auto":
        return named
    if device == "tpu":
        return BFLOAT16
    if device == "gpu":
        return FLOAT16
    return BFLOAT16 if pays_on_cpu and _CPU_FLAGS & cpu_flags() else FLOAT32


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Instruction sets of this machine's CPU; none are known outside Linux on x86."""
    if not path.exists():
        return set()
    lines = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
    return next((set(value.split()) for key, _, value in lines if key.strip() == "flags"), set())


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Builds the layers made within the block for a precision."""
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)
