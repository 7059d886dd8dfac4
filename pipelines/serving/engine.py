"""Between HTTP and the model: admission, decoding, batching, answers."""

import asyncio
import concurrent.futures
from collections.abc import Sequence
from typing import Any

import numpy as np

from components.common.processes import count_cores
from pipelines.serving.batching import Batcher
from pipelines.serving.config import ServeConfig
from pipelines.serving.metrics import Metrics
from pipelines.serving.model import ServedModel
from pipelines.serving.photos import BadPhotoError, decode


class OverloadedError(Exception):
    """There is more to do than the server may take on."""


class Engine:
    """Answers about photos, as many at a time as it may."""

    def __init__(self, model: ServedModel, config: ServeConfig, metrics: Metrics) -> None:
        """Starts with the running loop; `close` ends it."""
        self.model = model
        self._config = config
        self._metrics = metrics
        self._in_flight = 0
        self._decoders = concurrent.futures.ThreadPoolExecutor(
            config.workers or count_cores(), thread_name_prefix="decode"
        )
        # One thread for the model: TensorFlow uses all cores for one batch.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="model")
        self._batcher = Batcher(
            lambda images: list(model.predict(images)),
            config.max_batch,
            self._thread,
            metrics.batches.observe,
        )

    async def close(self) -> None:
        """Lets go of the threads."""
        await self._batcher.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def answer(self, photos: Sequence[bytes], explain: bool = False) -> list[dict[str, Any]]:
        """Answers about photos, in their order.

        Args:
            photos: Encoded photos.
            explain: Whether to say also where the model looked.

        Raises:
            OverloadedError: Too many photos are worked on already.
            BadPhotoError: Says which photo is wrong, and why.
        """
        if self._in_flight + len(photos) > self._config.max_photos:
            raise OverloadedError(
                f"{self._in_flight} photos are worked on, and no more than "
                f"{self._config.max_photos} may be; try again in a moment"
            )
        self._count(len(photos))
        try:
            return await self._answer(photos, explain)
        finally:
            self._count(-len(photos))

    def _count(self, change: int) -> None:
        self._in_flight += change
        self._metrics.in_flight.set(self._in_flight)

    async def _answer(self, photos: Sequence[bytes], explain: bool) -> list[dict[str, Any]]:
        ask = self._explain if explain else self._classify
        # All end before an error is told, so that nothing goes on behind an answer.
        found = await asyncio.gather(*(ask(photo) for photo in photos), return_exceptions=True)
        answers: list[dict[str, Any]] = []
        for number, one in enumerate(found):
            if isinstance(one, BadPhotoError):
                self._metrics.photos.labels("").inc()
                where = f"photo {number}: " if len(photos) > 1 else ""
                raise BadPhotoError(f"{where}{one}")
            if isinstance(one, BaseException):
                raise one
            answers.append(one)
        for answer in answers:
            self._metrics.photos.labels(answer["label"]).inc()
        return answers

    async def _decode(self, photo: bytes) -> np.ndarray:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._decoders,
            decode,
            photo,
            self.model.image_size,
            self.model.resize,
            self._config.max_megapixels,
        )

    async def _classify(self, photo: bytes) -> dict[str, Any]:
        image = await self._decode(photo)
        return self._row(await self._batcher.ask(image))

    async def _explain(self, photo: bytes) -> dict[str, Any]:
        image = await self._decode(photo)
        loop = asyncio.get_running_loop()
        images = image[np.newaxis]
        shares, heat = await loop.run_in_executor(self._thread, self.model.explain, images)
        return self._row(shares[0]) | {"heat_map": np.round(heat[0].astype(np.float64), 3).tolist()}

    def _row(self, probabilities: np.ndarray) -> dict[str, Any]:
        names = self.model.class_names
        return {
            "probabilities": [float(one) for one in probabilities],
            "class_names": list(names),
            "label": names[int(probabilities.argmax())],
        }
