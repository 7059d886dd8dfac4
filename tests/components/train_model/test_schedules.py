import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.train_model.config import ConstantConfig, RampConfig, WarmupConfig
from components.train_model.schedules import Schedule, cosine, one_cycle, ramp

CONFIG = WarmupConfig(peak=0.1, warmup=0.2, final=0.01)
# The public lab's, for one replica: 1e-5 to 5e-5 in 5 epochs, then 0.8 an epoch.
LAB = RampConfig(peak=5e-5, start=1e-5, ramp_epochs=5, sustain_epochs=0, decay=0.8, floor=1e-5)


def rates(config, steps, function=one_cycle):
    return np.array(function(np.arange(steps), steps, config))


def test_one_cycle_starts_low_peaks_and_ends_lower():
    curve = rates(CONFIG, 101)
    np.testing.assert_allclose(curve[0], 0.1 / 25, rtol=1e-5)
    assert curve.argmax() in {20, 21}
    np.testing.assert_allclose(curve.max(), 0.1, rtol=1e-3)
    np.testing.assert_allclose(curve[-1], 0.001, rtol=1e-3)


def test_cosine_climbs_along_a_line():
    curve = rates(CONFIG, 101, cosine)
    np.testing.assert_allclose(curve[:20], 0.1 * np.arange(1, 21) / 20.2, rtol=1e-5)
    np.testing.assert_allclose(curve[-1], 0.001, rtol=1e-3)
    # Half way down it is half way between peak and end.
    np.testing.assert_allclose(curve[60], (0.1 + 0.001) / 2, rtol=0.01)


@pytest.mark.parametrize("function", [one_cycle, cosine])
@given(
    steps=st.integers(2, 60),
    warmup=st.floats(0.0, 0.9),
    peak=st.floats(1e-6, 1.0),
    final=st.floats(0.0, 1.0),
)
def test_never_above_the_peak_and_never_negative(function, steps, warmup, peak, final):
    curve = rates(WarmupConfig(peak=peak, warmup=warmup, final=final), steps, function)
    assert np.isfinite(curve).all()
    assert (curve <= peak * (1 + 1e-5)).all()
    assert (curve >= 0).all()


@pytest.mark.parametrize("function", [one_cycle, cosine])
def test_rises_then_falls(function):
    curve = np.diff(rates(CONFIG, 100, function))
    assert (curve[:19] > 0).all()
    assert (curve[21:] < 0).all()


@pytest.mark.parametrize("replicas", [1, 8])
def test_ramp_is_the_labs_at_the_start_of_every_epoch(replicas):
    schedule = Schedule(dataclasses.replace(LAB, scaled_by_replicas=True), 12, 10, replicas)
    # The lab scales its highest rate, not those it starts and ends with.
    rise = 5e-5 * replicas - 1e-5
    climb = [1e-5 + rise * epoch / 5 for epoch in range(5)]
    decay = [1e-5 + rise * 0.8**epoch for epoch in range(7)]
    np.testing.assert_allclose(schedule(np.arange(12) * 10), climb + decay, rtol=1e-5)


def test_ramp_changes_with_every_step_and_sustains():
    config = RampConfig(peak=1.0, start=0.0, ramp_epochs=1, sustain_epochs=2, decay=0.5, floor=0.0)
    curve = np.array(ramp(np.arange(16), 4, config))
    np.testing.assert_allclose(curve[:4], [0.0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(curve[4:12], np.ones(8))
    np.testing.assert_allclose(curve[12:], 0.5 ** (np.arange(4) / 4), rtol=1e-6)


def test_ramp_without_climb_starts_at_the_peak():
    config = RampConfig(peak=1.0, start=0.0, ramp_epochs=0, decay=0.5, floor=0.0)
    np.testing.assert_allclose(ramp(0, 4, config), 1.0)


@pytest.mark.parametrize("step", [0, 7, 99])
def test_constant(step):
    schedule = Schedule(ConstantConfig(peak=0.3), epochs=10, steps_per_epoch=10)
    np.testing.assert_allclose(float(schedule(step)), 0.3, rtol=1e-6)


@pytest.mark.parametrize(("scaled", "factor"), [(True, 8), (False, 1)])
@pytest.mark.parametrize("kind", [ConstantConfig, WarmupConfig])
def test_replicas_scale_the_curve_where_the_recipe_says_so(kind, scaled, factor):
    config = kind(peak=0.3, scaled_by_replicas=scaled)
    one = Schedule(config, 4, 10, replicas=1)
    eight = Schedule(config, 4, 10, replicas=8)
    steps = np.arange(40)
    np.testing.assert_allclose(eight(steps), factor * np.array(one(steps)), rtol=1e-6)


@pytest.mark.parametrize(("name", "function"), [("one_cycle", one_cycle), ("cosine", cosine)])
def test_name_chooses_the_curve(name, function):
    config = WarmupConfig(name=name, peak=0.1)
    schedule = Schedule(config, 4, 10)
    np.testing.assert_allclose(schedule(np.arange(40)), rates(config, 40, function))
