"""Images written by hand, as rows of grey."""

import numpy as np

FOUR = [
    [10, 20, 30, 40],
    [50, 60, 70, 80],
    [90, 100, 110, 120],
    [130, 140, 150, 160],
]


def grey(rows: list[list[int]]) -> np.ndarray:
    """An image whose three channels are the same."""
    return np.repeat(np.array(rows, np.uint8)[:, :, np.newaxis], 3, axis=2)


def pixel(image: np.ndarray) -> list[list[int]]:
    """The first channel of an image whose channels are the same."""
    assert np.array_equal(image, np.repeat(image[..., :1], 3, axis=2))
    return np.asarray(image)[..., 0].tolist()  # type: ignore[no-any-return]
