"""Generations of Cloud TPU: labels, machines and topologies of Google Kubernetes Engine.

A topology is the shape of a slice in chips, e.g. `2x4` or `2x2x1`. A slice of one host is one pod;
a slice of N hosts is N pods that start together, each with the chips of its own host.

Sources: cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus (labels, machine types,
topologies), cloud.google.com/tpu/docs/system-architecture-tpu-vm (chips and cores).
"""

import dataclasses
import math
import re

from components.common.config import choose
from components.common.errors import ConfigError

# Resource that a pod asks chips by; the taint of TPU nodes has the same name.
RESOURCE = "google.com/tpu"
ACCELERATOR_LABEL = "cloud.google.com/gke-tpu-accelerator"
TOPOLOGY_LABEL = "cloud.google.com/gke-tpu-topology"
_TOPOLOGY = re.compile(r"[1-9]\d*(x[1-9]\d*){1,2}")


@dataclasses.dataclass(frozen=True)
class TpuMachine:
    """A host with TPU chips.

    Attributes:
        accelerator: Value of the node label `cloud.google.com/gke-tpu-accelerator`.
        chips: Chips of one host.
        topologies: Slices of such hosts; none where `most_chips` rules.
        most_chips: Chips of the largest slice, for three-dimensional topologies.
    """

    accelerator: str
    chips: int
    topologies: tuple[str, ...] = ()
    most_chips: int = 0

    def has(self, topology: str) -> bool:
        """Whether there are slices of that shape."""
        if not self.most_chips:
            return topology in self.topologies
        return topology in _SMALL_CUBES or self._is_large(topology)

    def _is_large(self, topology: str) -> bool:
        """Whether it is a cuboid of whole 4x4x4 cubes, its sides in rising order."""
        sides = sides_of(topology)
        return (
            len(sides) == 3
            and all(side % 4 == 0 for side in sides)
            and list(sides) == sorted(sides)
            and math.prod(sides) <= self.most_chips
        )

    def describe(self) -> str:
        """The topologies in words."""
        if not self.most_chips:
            return ", ".join(self.topologies)
        return (
            f"{', '.join(_SMALL_CUBES)}, and AxBxC of multiples of 4 with A <= B <= C up to "
            f"{self.most_chips} chips"
        )

    def hosts(self, topology: str) -> int:
        """Hosts of a slice."""
        return math.prod(sides_of(topology)) // self.chips


@dataclasses.dataclass(frozen=True)
class TpuGeneration:
    """A generation of chips.

    Attributes:
        cores: TensorCores of one chip, each a replica of data-parallel training on TensorFlow.
        machines: Machine type of GKE -> its host; none where GKE does not have the generation.
    """

    cores: int
    machines: dict[str, TpuMachine]


_SMALL_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")
_FLAT = ("2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_V5E, _V6E = "tpu-v5-lite-podslice", "tpu-v6e-slice"
GENERATIONS: dict[str, TpuGeneration] = {
    # On Cloud TPU and Vertex AI alone.
    "v2": TpuGeneration(2, {}),
    "v3": TpuGeneration(
        2,
        {
            "ct3-hightpu-4t": TpuMachine("tpu-v3-device", 4, ("2x2",)),
            "ct3p-hightpu-4t": TpuMachine(
                "tpu-v3-slice", 4, ("4x4", "4x8", "8x8", "8x16", "16x16", "16x32", "32x32")
            ),
        },
    ),
    "v4": TpuGeneration(2, {"ct4p-hightpu-4t": TpuMachine("tpu-v4-podslice", 4, (), 4096)}),
    "v5e": TpuGeneration(
        1,
        {
            "ct5lp-hightpu-1t": TpuMachine(_V5E, 1, ("1x1",)),
            "ct5lp-hightpu-4t": TpuMachine(_V5E, 4, ("2x2", *_FLAT)),
            "ct5lp-hightpu-8t": TpuMachine(_V5E, 8, ("2x4",)),
        },
    ),
    "v5p": TpuGeneration(2, {"ct5p-hightpu-4t": TpuMachine("tpu-v5p-slice", 4, (), 6144)}),
    "v6e": TpuGeneration(
        1,
        {
            "ct6e-standard-1t": TpuMachine(_V6E, 1, ("1x1",)),
            "ct6e-standard-4t": TpuMachine(_V6E, 4, ("2x2", *_FLAT)),
            "ct6e-standard-8t": TpuMachine(_V6E, 8, ("2x4",)),
        },
    ),
}
MACHINES = {name: machine for one in GENERATIONS.values() for name, machine in one.machines.items()}


def sides_of(topology: str) -> tuple[int, ...]:
    """Sides of a topology in chips; none for what is no topology."""
    if not _TOPOLOGY.fullmatch(topology):
        return ()
    return tuple(int(side) for side in topology.split("x"))


def check_slice(machine_type: str, topology: str, chips: int = 0) -> TpuMachine:
    """Refuses a slice that there is not.

    Args:
        machine_type: Machine of its hosts, e.g. `ct5lp-hightpu-4t`.
        topology: Shape of the slice, e.g. `2x2`.
        chips: Chips of one host as the user counts them; 0 for not said.

    Returns:
        The host.

    Raises:
        ConfigError: Says what there is.
    """
    choose("machine_type", machine_type, MACHINES)
    machine = MACHINES[machine_type]
    if not machine.has(topology):
        others = ", ".join(name for name, one in MACHINES.items() if one.has(topology))
        raise ConfigError(
            f"tpu_topology: {machine_type} has {machine.describe()}, received {topology!r}, "
            f"which {f'goes with {others}' if others else 'no TPU has'}"
        )
    if chips not in {0, machine.chips}:
        raise ConfigError(
            f"accelerator_count: a host {machine_type} has {machine.chips} chips, received {chips}"
        )
    return machine
