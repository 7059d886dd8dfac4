"""The table of TPU slices."""

import math

import pytest

from components.common.errors import ConfigError
from pipelines.targets.tpus import GENERATIONS, MACHINES, check_slice, sides_of


@pytest.mark.parametrize("name", MACHINES)
def test_slices_are_whole_hosts(name):
    machine = MACHINES[name]
    assert machine.topologies or machine.most_chips
    for topology in machine.topologies:
        assert math.prod(sides_of(topology)) % machine.chips == 0
        assert check_slice(name, topology, machine.chips).hosts(topology) >= 1


@pytest.mark.parametrize(
    ("machine", "topology", "label", "hosts"),
    [
        ("ct3-hightpu-4t", "2x2", "tpu-v3-device", 1),
        ("ct3p-hightpu-4t", "4x4", "tpu-v3-slice", 4),
        ("ct4p-hightpu-4t", "2x2x1", "tpu-v4-podslice", 1),
        ("ct4p-hightpu-4t", "4x4x8", "tpu-v4-podslice", 32),
        ("ct5lp-hightpu-1t", "1x1", "tpu-v5-lite-podslice", 1),
        ("ct5lp-hightpu-4t", "2x2", "tpu-v5-lite-podslice", 1),
        ("ct5lp-hightpu-4t", "2x4", "tpu-v5-lite-podslice", 2),
        ("ct5lp-hightpu-8t", "2x4", "tpu-v5-lite-podslice", 1),
        ("ct5lp-hightpu-4t", "4x4", "tpu-v5-lite-podslice", 4),
        ("ct5p-hightpu-4t", "16x16x24", "tpu-v5p-slice", 1536),
        ("ct6e-standard-4t", "16x16", "tpu-v6e-slice", 64),
    ],
)
def test_slice_has_its_label_and_its_hosts(machine, topology, label, hosts):
    found = check_slice(machine, topology)
    assert (found.accelerator, found.hosts(topology)) == (label, hosts)


@pytest.mark.parametrize(
    ("machine", "topology", "words"),
    [
        ("ct5lp-hightpu-4t", "", ["ct5lp-hightpu-4t has 2x2, 2x4", "no TPU has"]),
        ("ct5lp-hightpu-4t", "4x2", ["'4x2', which no TPU has"]),
        ("ct5lp-hightpu-4t", "2x2x2x2", ["no TPU has"]),
        ("ct5lp-hightpu-1t", "2x2", ["goes with ct3-hightpu-4t, ct5lp-hightpu-4t"]),
        # Sides rise, and the largest slice of v4 has 4,096 chips.
        ("ct4p-hightpu-4t", "8x4x4", ["A <= B <= C", "no TPU has"]),
        ("ct4p-hightpu-4t", "16x16x20", ["up to 4096 chips", "goes with ct5p-hightpu-4t"]),
        ("ct4p-hightpu-4t", "4x4x6", ["multiples of 4", "no TPU has"]),
        ("e2-standard-8", "2x2", ["machine_type", "ct5lp-hightpu-1t", "'e2-standard-8'"]),
    ],
)
def test_slice_that_there_is_not_is_refused(machine, topology, words):
    with pytest.raises(ConfigError) as error:
        check_slice(machine, topology)
    assert all(word in str(error.value) for word in words), error.value


def test_chips_are_those_of_a_host():
    with pytest.raises(ConfigError, match="a host ct6e-standard-8t has 8 chips, received 4"):
        check_slice("ct6e-standard-8t", "2x4", 4)


def test_every_generation_is_there():
    assert list(GENERATIONS) == ["v2", "v3", "v4", "v5e", "v5p", "v6e"]
    # No two generations claim one machine.
    machines = [name for one in GENERATIONS.values() for name in one.machines]
    assert len(machines) == len(set(machines)) == len(MACHINES)
