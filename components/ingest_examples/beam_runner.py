"""Runs the work of ingestion under Apache Beam, on this machine or on Dataflow.

A Beam pipeline here is one map over tasks. Tasks and results lie in files beside each other, since
a job description may hold a few megabytes only and a million photos are more; what goes through
Beam are the names of the files. A task that Beam runs twice writes the same bytes twice.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from components.common import storage
from components.common.errors import ConfigError, FlowersError
from components.common.extras import how_to_install

T = TypeVar("T")
R = TypeVar("R")
_REQUESTS = 16


class BeamRunner:
    """Maps functions over tasks by one Beam pipeline for each function."""

    def __init__(self, options: Sequence[str], scratch: str) -> None:
        """Takes Beam's options and a place that this machine and all workers reach.

        Args:
            options: Flags of Beam, e.g. `["--runner=DataflowRunner", "--region=europe-west1"]`.
            scratch: Folder or `gs://bucket/name` for tasks and results.

        Raises:
            ConfigError: Beam is not installed, or does not take the options.
        """
        try:
            import apache_beam as beam
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError as error:
            raise ConfigError(f"Apache Beam is not installed: {how_to_install('beam')}") from error
        try:
            self._options = PipelineOptions(list(options))
            unknown = sorted(_unknown(self._options))
        except SystemExit as error:
            raise ConfigError(f"Beam does not take the options {' '.join(options)}") from error
        if unknown:
            raise ConfigError(f"Beam does not know {' '.join(unknown)}")
        try:
            beam.Pipeline(options=self._options)
        except ValueError as error:
            raise ConfigError(f"Beam: {' '.join(str(error).split())}") from error
        self._scratch = scratch
        self._stages = 0

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """The results of `work`, in the order of the tasks; see `Runner`."""
        stage = storage.join(self._scratch, f"stage-{self._stages}")
        self._stages += 1
        with ThreadPoolExecutor(_REQUESTS) as pool:
            places = [
                pool.submit(_write_task, storage.join(stage, f"task-{number:06d}"), work, task)
                for number, task in enumerate(tasks)
            ]
            names = [place.result() for place in places]
            self._run(names)
            for result in pool.map(_read_result, names):
                if isinstance(result, FlowersError):
                    raise result
                yield result

    def _run(self, places: list[str]) -> None:
        import apache_beam as beam

        pipeline = beam.Pipeline(options=self._options)
        _ = (
            pipeline
            | "Tasks" >> beam.Create(places)
            # Without it neighbours are fused into one bundle for one worker.
            | "Spread" >> beam.Reshuffle()
            | "Work" >> beam.Map(run_task)
        )
        try:
            pipeline.run().wait_until_finish()
        except Exception as error:
            text = " ".join(str(error).split())
            raise FlowersError(f"the Beam pipeline failed: {text[-500:]}") from error


def _unknown(options: Any) -> Iterator[str]:
    """Flags that no part of Beam takes."""
    taken = options.get_all_options(retain_unknown_options=False)
    for flag in options._flags:
        name = flag.partition("=")[0].lstrip("-").removeprefix("no_")
        if flag.startswith("--") and name not in taken:
            yield flag


def _write_task(place: str, work: Callable[[T], R], task: T) -> str:
    storage.write(place, pickle.dumps((work, task)))
    return place


def _result_place(place: str) -> str:
    return f"{place}.result"


def run_task(place: str) -> None:
    """Does the task that lies at a place and puts its result beside it.

    An error that we raise on purpose is a result too: Beam would wrap it into a page of text.
    """
    work, task = pickle.loads(storage.read(place))  # noqa: S301 - our own file, see `_write_task`
    try:
        result = work(task)
    except FlowersError as error:
        result = error
    storage.write(_result_place(place), pickle.dumps(result))


def _read_result(place: str) -> Any:
    return pickle.loads(storage.read(_result_place(place)))  # noqa: S301 - as above
