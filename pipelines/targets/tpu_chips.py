"""Chips of Cloud TPU: their peaks, and the slices that the compiler knows, such as v5e:2x4.

A core is what JAX calls a device and what data-parallel training calls a replica: a TensorCore of
v2, v3, v5e and v6e, and the two TensorCores of a v4 or v5p chip together (megacore).

Sources: cloud.google.com/tpu/docs/v2, /v3, /v4, /v5e, /v5p, /v6e (tables "key specifications":
peak compute in bfloat16, HBM capacity and bandwidth, inter-chip interconnect); v2 and v3
interconnect: Jouppi et al., "A Domain-Specific Supercomputer for Training Deep Neural Networks"
(2020), table 3; vCPUs of a host: cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.
"""

import dataclasses
import math

from components.common.errors import ConfigError
from pipelines.targets.tpus import GENERATIONS, sides_of

_TERA, _GIGA, _GIB = 1e12, 1e9, 2**30


@dataclasses.dataclass(frozen=True)
class TpuChip:
    """One chip; all figures are the published peaks of the chip, not of its cores.

    Attributes:
        cores: Devices of JAX.
        flops: Floating-point operations per second in bfloat16.
        hbm_bytes: Size of its memory.
        hbm_bandwidth: Bytes per second between memory and chip.
        ici_bandwidth: Bytes per second to the other chips, in one direction.
        chips_per_host: Chips of one host in a slice of several hosts.
        host_cpus: vCPUs of such a host.
        one_host: Topologies that have a larger host of their own -> its vCPUs.
    """

    cores: int
    flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    chips_per_host: int
    host_cpus: int
    one_host: dict[str, int] = dataclasses.field(default_factory=dict)


CHIPS: dict[str, TpuChip] = {
    "v2": TpuChip(2, 45 * _TERA, 16 * _GIB, 700 * _GIGA, 248 * _GIGA, 4, 96),
    "v3": TpuChip(2, 123 * _TERA, 32 * _GIB, 900 * _GIGA, 328 * _GIGA, 4, 96),
    "v4": TpuChip(1, 275 * _TERA, 32 * _GIB, 1200 * _GIGA, 300 * _GIGA, 4, 240),
    "v5e": TpuChip(
        1, 197 * _TERA, 16 * _GIB, 819 * _GIGA, 200 * _GIGA, 4, 112, {"1x1": 24, "2x4": 224}
    ),
    "v5p": TpuChip(1, 459 * _TERA, 95 * _GIB, 2765 * _GIGA, 600 * _GIGA, 4, 208),
    "v6e": TpuChip(
        1, 918 * _TERA, 32 * _GIB, 1640 * _GIGA, 400 * _GIGA, 4, 180, {"1x1": 44, "2x4": 180}
    ),
}
# Slices of Cloud TPU that GKE has no machines for.
_CLOUD_TPU = {"v2": ("2x2", "4x4", "4x8", "8x8", "8x16", "16x16")}


@dataclasses.dataclass(frozen=True)
class TpuSlice:
    """Chips that train one model.

    Attributes:
        generation: E.g. `v5e`.
        topology: E.g. `2x4`.
    """

    generation: str
    topology: str

    def __str__(self) -> str:
        return f"{self.generation}:{self.topology}"

    @property
    def chip(self) -> TpuChip:
        """Each of its chips."""
        return CHIPS[self.generation]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(sides_of(self.topology))

    @property
    def cores(self) -> int:
        """Number of cores."""
        return self.chips * self.chip.cores

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        if self.topology in self.chip.one_host:
            return 1
        return math.ceil(self.chips / self.chip.chips_per_host)

    @property
    def host_cpus(self) -> int:
        """The vCPUs of each host."""
        return self.chip.one_host.get(self.topology, self.chip.host_cpus)

    @property
    def core_flops(self) -> float:
        """Peak of a core in bfloat16, floating-point operations per second."""
        return self.chip.flops / self.chip.cores

    @property
    def core_bandwidth(self) -> float:
        """Memory bandwidth of a core, bytes per second."""
        return self.chip.hbm_bandwidth / self.chip.cores

    @property
    def core_memory(self) -> float:
        """Memory of a core, bytes."""
        return self.chip.hbm_bytes / self.chip.cores


def parse_slice(text: str) -> TpuSlice:
    """Reads a slice as the compiler names it.

    Args:
        text: Generation and topology, e.g. `v5e:2x4`.

    Raises:
        ConfigError: Says what there is.
    """
    generation, _, topology = text.partition(":")
    if generation not in CHIPS:
        raise ConfigError(
            f"--topology: expected GENERATION:TOPOLOGY such as v5e:2x4 with one of "
            f"{', '.join(CHIPS)}, received {text!r}"
        )
    machines = GENERATIONS[generation].machines.values()
    if topology in _CLOUD_TPU.get(generation, ()) or any(one.has(topology) for one in machines):
        return TpuSlice(generation, topology)
    known = [*_CLOUD_TPU.get(generation, ()), *(one.describe() for one in machines)]
    shown = ", ".join(dict.fromkeys(", ".join(known).split(", ")))
    raise ConfigError(f"--topology: {generation} has {shown}, received {topology!r}")


def slice_of(machine_type: str, topology: str) -> TpuSlice:
    """The slice that machines of GKE or Vertex AI make.

    Args:
        machine_type: E.g. `ct5lp-hightpu-4t`.
        topology: E.g. `2x2`; as `check_slice` has let it pass.
    """
    generation = next(name for name, one in GENERATIONS.items() if machine_type in one.machines)
    return TpuSlice(generation, topology)
