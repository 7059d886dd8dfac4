"""Tests that ingestion under Apache Beam gives the bytes that it gives on one machine."""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.common.errors import ConfigError, DataError, FlowersError
from components.ingest_examples.beam_runner import BeamRunner
from components.ingest_examples.config import IngestConfig, PhotosConfig
from components.ingest_examples.ingest import ingest_to
from components.ingest_examples.runners import LocalRunner

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CONFIG = IngestConfig(image_size=32, max_reject_fraction=0.1)
DIRECT = ["--runner=DirectRunner"]


@pytest.fixture(autouse=True)
def quiet_beam() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def digests_below(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def double(number: int) -> int:
    return 2 * number


def refuse(number: int) -> int:
    if number == 3:
        raise DataError("three is refused")
    return number


def fail(number: int) -> int:
    raise ZeroDivisionError(f"a fault of ours at {number}")


def test_beam_and_local_outputs_are_the_same_bytes(photos_folder: Path, tmp_path: Path) -> None:
    photos = PhotosConfig(str(photos_folder))
    beam, local = tmp_path / "beam", tmp_path / "local"
    scratch = tmp_path / "scratch"
    ingest_to(photos, CONFIG, str(beam), str(scratch), BeamRunner(DIRECT, str(scratch)))
    assert not scratch.exists()
    with LocalRunner(2) as runner:
        ingest_to(photos, CONFIG, str(local), str(scratch), runner)
    assert digests_below(beam) == digests_below(local)
    assert len(list(beam.rglob("*.tfrec"))) == 3


def test_results_come_in_the_order_of_the_tasks(tmp_path: Path) -> None:
    runner = BeamRunner(DIRECT, str(tmp_path))
    assert list(runner.map(double, range(40))) == list(range(0, 80, 2))
    assert list(runner.map(double, range(3))) == [0, 2, 4]


def test_error_of_ours_stays_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^three is refused$"):
        list(BeamRunner(DIRECT, str(tmp_path)).map(refuse, range(5)))


def test_fault_ends_the_pipeline(tmp_path: Path) -> None:
    with pytest.raises(FlowersError, match=r"the Beam pipeline failed: .*a fault of ours at 0"):
        list(BeamRunner(DIRECT, str(tmp_path)).map(fail, range(1)))


def test_nothing_is_left_of_a_run_that_failed(photos_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,who\ncircles/000.jpg,Ann\n")
    photos = PhotosConfig(str(photos_folder), str(tmp_path / "manifest.csv"), "who")
    output, scratch = tmp_path / "output", tmp_path / "scratch"
    with pytest.raises(DataError, match="not in the manifest"), LocalRunner(1) as runner:
        ingest_to(photos, CONFIG, str(output), str(scratch), runner)
    assert not [path for path in output.rglob("*") if path.is_file()]
    assert not scratch.exists()


@pytest.mark.parametrize("flag", ["--no-such-flag=1", "--regoin=x"])
def test_flag_that_beam_does_not_know_is_refused(tmp_path: Path, flag: str) -> None:
    with pytest.raises(ConfigError, match=f"Beam does not know {flag}"):
        BeamRunner([*DIRECT, flag], str(tmp_path))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--runner=NoSuchRunner"], "NoSuchRunner"),
        (["--runner=DataflowRunner", "--region=x", "--temp_location=gs://x/y"], "project"),
    ],
)
def test_runner_that_cannot_run_is_refused(tmp_path: Path, flags: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"^Beam: .*{reason}"):
        BeamRunner(flags, str(tmp_path))
