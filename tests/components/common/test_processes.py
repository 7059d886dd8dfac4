"""Tests of how many cores a process may use."""

import os
from pathlib import Path

import pytest

from components.common import processes
from components.common.processes import count_cores


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        pytest.param(None, 8, id="no container"),
        pytest.param("max 100000\n", 8, id="no quota"),
        pytest.param("400000 100000\n", 4, id="quota"),
        pytest.param("150000 100000\n", 2, id="quota of a part of a core more"),
        pytest.param("20000 100000\n", 1, id="quota of a part of a core"),
        pytest.param("6400000 100000\n", 8, id="quota beyond the cores"),
        pytest.param("", 8, id="empty file"),
        pytest.param("1 0\n", 8, id="no period"),
    ],
)
def test_cores_are_those_of_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu_max: str | None, cores: int
) -> None:
    if cpu_max is not None:
        (tmp_path / "cpu.max").write_text(cpu_max)
    monkeypatch.setattr(processes, "_CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert count_cores() == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot bind a process to cores")
def test_cores_are_those_that_the_process_is_bound_to() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert count_cores() == 1
    finally:
        os.sched_setaffinity(0, cores)
