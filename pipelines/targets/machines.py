"""Machines of Vertex AI: how large they are, and which accelerators they take.

Source: cloud.google.com/vertex-ai/docs/training/configure-compute, cloud.google.com/tpu/docs.
"""

import re

from components.common.errors import ConfigError
from pipelines.targets.tpus import MACHINES

# Family -> GB of memory per vCPU, and the numbers of vCPUs there are.
_FAMILIES: dict[str, tuple[float, tuple[int, ...]]] = {
    "n1-standard": (3.75, (4, 8, 16, 32, 64, 96)),
    "n1-highmem": (6.5, (2, 4, 8, 16, 32, 64, 96)),
    "n1-highcpu": (0.9, (16, 32, 64, 96)),
    "n2-standard": (4.0, (4, 8, 16, 32, 48, 64, 80)),
    "n2-highmem": (8.0, (2, 4, 8, 16, 32, 48, 64, 80)),
    "e2-standard": (4.0, (4, 8, 16, 32)),
    "e2-highmem": (8.0, (2, 4, 8, 16)),
    "e2-highcpu": (1.0, (16, 32)),
    "c2-standard": (4.0, (4, 8, 16, 30, 60)),
}
# GPUs are attached to any machine of this family; the others come with theirs.
_N1 = "n1-"
# GPU -> machine (or family) -> the numbers of GPUs it takes.
_GPUS: dict[str, dict[str, tuple[int, ...]]] = {
    "NVIDIA_TESLA_T4": {_N1: (1, 2, 4)},
    "NVIDIA_TESLA_V100": {_N1: (1, 2, 4, 8)},
    "NVIDIA_L4": {
        **{f"g2-standard-{cpus}": (1,) for cpus in (4, 8, 12, 16, 32)},
        "g2-standard-24": (2,),
        "g2-standard-48": (4,),
        "g2-standard-96": (8,),
    },
    "NVIDIA_TESLA_A100": {f"a2-highgpu-{count}g": (count,) for count in (1, 2, 4, 8)},
    "NVIDIA_A100_80GB": {f"a2-ultragpu-{count}g": (count,) for count in (1, 2, 4, 8)},
    "NVIDIA_H100_80GB": {f"a3-highgpu-{count}g": (count,) for count in (1, 2, 4, 8)},
}
# Machine with TPUs -> topologies of one host, which is what a training job here takes.
_TPUS = {
    name: tuple(one for one in machine.topologies if machine.hosts(one) == 1)
    for name, machine in MACHINES.items()
    if name.startswith(("ct5lp-", "ct6e-"))
}


def cpu_and_memory(machine_type: str) -> tuple[str, str]:
    """VCPUs and memory of a machine, as KFP takes them, e.g. ("8", "32G").

    Raises:
        ConfigError: There is no such machine without an accelerator.
    """
    found = re.fullmatch(r"(\w+-\w+)-(\d+)", machine_type)
    family = found[1] if found else ""
    if not found or family not in _FAMILIES or int(found[2]) not in _FAMILIES[family][1]:
        sizes = _FAMILIES.get(family, (0, ()))[1]
        names = [f"{family}-{size}" for size in sizes] or [f"{one}-N" for one in _FAMILIES]
        raise ConfigError(
            f"machine_type: expected one of {', '.join(names)}, received {machine_type!r}"
        )
    memory = _FAMILIES[family][0] * int(found[2])
    return found[2], f"{memory:g}G"


def check_accelerator(machine_type: str, accelerator: str, count: int, topology: str) -> None:
    """Refuses an accelerator that does not fit the machine.

    Args:
        machine_type: The machine.
        accelerator: A GPU as Vertex AI names it, or `TPU`; empty for none.
        count: Number of GPUs.
        topology: Of the TPUs, e.g. `2x2`; empty for none.

    Raises:
        ConfigError: Says what would fit.
    """
    if accelerator == "TPU":
        _check_tpu(machine_type, topology)
        return
    if topology:
        raise ConfigError(f"tpu_topology: goes with accelerator: TPU, received {topology!r}")
    if not accelerator:
        cpu_and_memory(machine_type)
        return
    if accelerator not in _GPUS:
        raise ConfigError(
            f"accelerator: expected TPU or one of {', '.join(_GPUS)}, received {accelerator!r}"
        )
    _check_gpu(machine_type, accelerator, count)


def _check_tpu(machine_type: str, topology: str) -> None:
    if machine_type not in _TPUS:
        raise ConfigError(
            f"machine_type: expected one with TPUs, {', '.join(_TPUS)}, received {machine_type!r}"
        )
    if topology not in _TPUS[machine_type]:
        raise ConfigError(
            f"tpu_topology: {machine_type} has {', '.join(_TPUS[machine_type])}, "
            f"received {topology!r}"
        )


def _check_gpu(machine_type: str, accelerator: str, count: int) -> None:
    machines = _GPUS[accelerator]
    if machine_type.startswith(_N1) and _N1 in machines:
        cpu_and_memory(machine_type)
        counts = machines[_N1]
    else:
        counts = machines.get(machine_type, ())
    if not counts:
        shown = ", ".join("n1-standard-N" if name == _N1 else name for name in machines)
        raise ConfigError(
            f"machine_type: {accelerator} goes with {shown}, received {machine_type!r}"
        )
    if count not in counts:
        raise ConfigError(
            f"accelerator_count: {machine_type} takes {' or '.join(map(str, counts))} of "
            f"{accelerator}, received {count}"
        )


def quota_of(accelerator: str, machine_type: str, spot: bool) -> str:
    """Name of the quota that a training job with an accelerator draws from."""
    if accelerator == "TPU":
        kind = "tpu_v5e" if machine_type.startswith("ct5lp") else "tpu_v6e"
    else:
        kind = accelerator.lower().replace("tesla_", "") + "_gpus"
    return f"custom_model_training_{'preemptible_' if spot else ''}{kind}"
