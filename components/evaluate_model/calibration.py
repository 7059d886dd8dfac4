"""Calibration: is a model right as often as it says?"""

from collections.abc import Sequence

import numpy as np

from components.common.evaluation import CalibrationBin

_BINS = 15


def calibration_bins(confidences: np.ndarray, hits: np.ndarray) -> tuple[CalibrationBin, ...]:
    """Divides examples into bins of equal width by their confidence; empty bins are left out.

    Args:
        confidences: `float` [examples], probability of the most probable class, 0 to 1.
        hits: `bool` [examples], whether that class is the true one.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), with their 15 bins.
    """
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, _BINS - 1)
    return tuple(
        CalibrationBin(
            low=float(edges[place]),
            high=float(edges[place + 1]),
            examples=int(inside.sum()),
            confidence=float(confidences[inside].mean()),
            accuracy=float(hits[inside].mean()),
        )
        for place, inside in ((place, places == place) for place in range(_BINS))
        if inside.any()
    )


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over the examples."""
    examples = sum(one.examples for one in bins)
    return sum(one.examples * abs(one.confidence - one.accuracy) for one in bins) / examples
