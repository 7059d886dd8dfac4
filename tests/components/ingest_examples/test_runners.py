"""Tests of the runner of this machine."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.common import processes
from components.common.errors import FlowersError
from components.ingest_examples.runners import LocalRunner


def process_of(_: int) -> int:
    return os.getpid()


@pytest.fixture(scope="module")
def runner() -> Iterator[LocalRunner]:
    with LocalRunner(2) as started:
        yield started


def test_results_have_the_order_of_the_tasks(runner: LocalRunner) -> None:
    assert list(runner.map(abs, range(0, -100, -1))) == list(range(100))


def test_work_begins_before_a_result_is_asked_for(runner: LocalRunner, tmp_path: Path) -> None:
    results = runner.map(os.mkdir, [tmp_path / "first", tmp_path / "second"])
    until = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert list(results) == [None, None]


def test_tasks_are_made_a_few_ahead(runner: LocalRunner) -> None:
    left = iter(range(1_000))
    results = runner.map(abs, left)
    assert next(results) == 0
    assert 2 < next(left) < 50
    assert len(list(results)) == 998


def test_container_with_one_core_gets_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(processes, "_CPU_MAX", tmp_path / "cpu.max")
    with LocalRunner() as runner:
        assert list(runner.map(process_of, range(20))) == [os.getpid()] * 20


def test_worker_that_is_killed_is_told() -> None:
    with LocalRunner(2) as runner, pytest.raises(FlowersError, match="a worker process was killed"):
        list(runner.map(os._exit, [1]))


def test_lost_worker_is_told_by_the_next_stage_too() -> None:
    with LocalRunner(2) as runner:
        with pytest.raises(FlowersError):
            list(runner.map(os._exit, [1]))
        with pytest.raises(FlowersError, match="a worker process was killed"):
            runner.map(abs, [1])
