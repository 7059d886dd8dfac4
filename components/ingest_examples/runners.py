"""Where the work runs. A runner maps a function over tasks and gives the results in order.

The functions are those of `work.py`, whichever runner calls them.
"""

import gc
import itertools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Protocol, TypeVar

from components.common.errors import FlowersError
from components.common.processes import count_cores, end_with_parent

T = TypeVar("T")
R = TypeVar("R")
# Tasks begun for each worker before their results are asked for: so many that the workers do not
# run out while the process that sends them has something else to do, such as drawing a page.
_AHEAD = 8


class Runner(Protocol):
    """Maps functions over tasks."""

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """The results of `work`, in the order of the tasks.

        The work may begin with the call or with the first result that is asked for; it is done
        once all results are taken.

        Args:
            work: A function of a module, which may run in another process.
            tasks: Can be sent to another process.

        Raises:
            FlowersError: What `work` raises, or that a worker is gone.
        """


class LocalRunner:
    """Runs tasks in processes of this machine, or in this one for `workers=1`.

    Processes and not threads, because what Pillow and Python do between two calls of libjpeg-turbo
    would hold all others up. Tasks are sent a few ahead, so memory stays flat.
    """

    def __init__(self, workers: int = 0) -> None:
        """Takes the number of processes; 0 for one per core."""
        self._workers = workers or count_cores()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "LocalRunner":
        if self._workers > 1:
            self._pool = ProcessPoolExecutor(
                self._workers, mp_context=_context(), initializer=_begin_worker
            )
            # The processes start here, while this one has no other thread.
            self._pool.submit(os.getpid).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """The results of `work`, in the order of the tasks; see `Runner`."""
        pool = self._pool
        if pool is None:
            return map(work, tasks)
        further = (pool.submit(work, task) for task in tasks)
        with _lost_worker_explained():
            begun = deque(itertools.islice(further, _AHEAD * self._workers))
        return _in_order(begun, further)


def _in_order(begun: deque[Future[R]], further: Iterator[Future[R]]) -> Iterator[R]:
    """Waits for one after the other, and begins another for each."""
    with _lost_worker_explained():
        while begun:
            result = begun.popleft().result()
            begun.extend(itertools.islice(further, 1))
            yield result


@contextmanager
def _lost_worker_explained() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise FlowersError(
            "a worker process was killed, most often for lack of memory: use fewer --workers, "
            "or remove photos of very many pixels"
        ) from error


def _begin_worker() -> None:
    end_with_parent()
    # What a fork inherits lives as long as the worker: looking through it again copies its pages.
    gc.freeze()


def _context() -> BaseContext:
    """How processes start: by a fork where that is safe, since it takes no time.

    The locks that other threads hold, TensorFlow's above all, would stay locked in a fork for ever.
    """
    alone = threading.active_count() == 1 and "tensorflow" not in sys.modules
    if alone and sys.platform == "linux":
        return get_context("fork")
    context = get_context("forkserver")
    context.set_forkserver_preload(["components.ingest_examples.work"])
    return context
