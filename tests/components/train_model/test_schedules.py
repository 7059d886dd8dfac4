import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.train_model.config import ScheduleConfig
from components.train_model.schedules import Schedule, one_cycle

CONFIG = ScheduleConfig(peak=0.1, warmup=0.2, final=0.01)


def rates(config, steps):
    return np.array([float(one_cycle(step, steps, config)) for step in range(steps)])


def test_starts_low_peaks_and_ends_lower():
    curve = rates(CONFIG, 101)
    np.testing.assert_allclose(curve[0], 0.1 / 25, rtol=1e-5)
    assert curve.argmax() in {20, 21}
    np.testing.assert_allclose(curve.max(), 0.1, rtol=1e-3)
    np.testing.assert_allclose(curve[-1], 0.001, rtol=1e-3)


@given(
    steps=st.integers(2, 60),
    warmup=st.floats(0.0, 0.9),
    peak=st.floats(1e-6, 1.0),
    final=st.floats(0.0, 1.0),
)
def test_never_above_the_peak_and_never_negative(steps, warmup, peak, final):
    curve = rates(ScheduleConfig(peak=peak, warmup=warmup, final=final), steps)
    assert np.isfinite(curve).all()
    assert (curve <= peak * (1 + 1e-5)).all()
    assert (curve >= 0).all()


def test_rises_then_falls():
    curve = np.diff(rates(CONFIG, 100))
    assert (curve[:19] > 0).all()
    assert (curve[21:] < 0).all()


@pytest.mark.parametrize("step", [0, 7, 99])
def test_constant(step):
    schedule = Schedule(ScheduleConfig(name="constant", peak=0.3), steps=100)
    np.testing.assert_allclose(float(schedule(step)), 0.3, rtol=1e-6)
