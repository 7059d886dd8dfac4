import asyncio
import concurrent.futures
import threading

import numpy as np
import pytest

from pipelines.serving.batching import Batcher


class Model:
    """Doubles numbers, and waits for leave."""

    def __init__(self):
        self.sizes = []
        self.leave = threading.Event()

    def run(self, images):
        assert self.leave.wait(10)
        self.sizes.append(len(images))
        if (images < 0).any():
            raise ValueError("negative")
        return [int(image.sum()) * 2 for image in images]


def run(story, model, max_batch=4):
    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            batcher = Batcher(model.run, max_batch, thread, lambda size: None)
            try:
                return await asyncio.wait_for(story(batcher), 10)
            finally:
                model.leave.set()
                await batcher.close()

    return asyncio.run(main())


def image(value):
    return np.array([value])


def test_what_waits_goes_together():
    model = Model()

    async def story(batcher):
        asked = [asyncio.create_task(batcher.ask(image(i))) for i in range(9)]
        await asyncio.sleep(0.05)
        model.leave.set()
        return await asyncio.gather(*asked)

    assert run(story, model) == [2 * i for i in range(9)]
    assert sum(model.sizes) == 9
    assert max(model.sizes) == 4


def test_lone_image_is_not_held_back():
    model = Model()
    model.leave.set()

    async def story(batcher):
        return await batcher.ask(image(3))

    assert run(story, model) == 6
    assert model.sizes == [1]


def test_nobody_is_asked_about_what_nobody_waits_for():
    model = Model()

    async def story(batcher):
        first = asyncio.create_task(batcher.ask(image(0)))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.ask(image(i))) for i in (1, 2)]
        await asyncio.sleep(0.05)
        others[0].cancel()
        await asyncio.sleep(0)
        model.leave.set()
        return await asyncio.gather(first, others[1])

    assert run(story, model) == [0, 4]
    assert model.sizes == [1, 1]


def test_error_reaches_those_who_wait_and_no_others():
    model = Model()
    model.leave.set()

    async def story(batcher):
        with pytest.raises(ValueError, match="negative"):
            await batcher.ask(image(-1))
        return await batcher.ask(image(2))

    assert run(story, model) == 4
