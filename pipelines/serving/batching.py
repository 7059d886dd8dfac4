"""Batches out of single requests: whatever waits when the model is free goes together."""

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Batcher(Generic[T]):
    """Asks a model about single images in batches.

    Nothing is held back to fill a batch: a lone image is asked about at once, and while the model
    works others gather. So the batches grow with the load, and the latency does not.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], list[T]],
        max_batch: int,
        thread: concurrent.futures.Executor,
        observe: Callable[[int], None],
    ) -> None:
        """Starts with the running loop.

        Args:
            run: Images, `uint8` [batch, side, side, 3], to one result for each.
            max_batch: Most images at once.
            thread: Runs `run`, one call at a time.
            observe: Is told the size of every batch.
        """
        self._run = run
        self._max_batch = max_batch
        self._thread = thread
        self._observe = observe
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[T]]] = deque()
        self._some = asyncio.Event()
        self._task = asyncio.create_task(self._work())

    async def ask(self, image: np.ndarray) -> T:
        """The result for one image, `uint8` [side, side, 3]."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((image, future))
        self._some.set()
        return await future

    async def close(self) -> None:
        """Stops; who still waits is told so."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for _, future in self._waiting:
            future.cancel()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            batch = self._take()
            if not batch:
                self._some.clear()
                continue
            self._observe(len(batch))
            try:
                images = np.stack([image for image, _ in batch])
                results = await loop.run_in_executor(self._thread, self._run, images)
            # Whatever it is, those who wait must hear of it, and the next batch be asked about.
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _take(self) -> list[tuple[np.ndarray, "asyncio.Future[T]"]]:
        """The next images; those that nobody waits for any more are passed over."""
        batch: list[tuple[np.ndarray, asyncio.Future[T]]] = []
        while self._waiting and len(batch) < self._max_batch:
            image, future = self._waiting.popleft()
            if not future.done():
                batch.append((image, future))
        return batch
