"""The promised error rates, on fixed seeds, and the naive rules that break them."""

import numpy as np
import pytest
from scipy.stats import binom
from series_curves import as_frame, doubling, jump, logistic

from headspec.series.step_test import run_step_tests
from headspec.series.transitions import find_transition, transition_verdict

REPS = 400
FIXED = {"axis": "log_step", "n_null": 1000, "seed": 1, "floor": 0.0}
NOISE = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "t3": lambda rng, shape: rng.standard_t(3, size=shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
}


def kinds(values, steps, *, noise_sd=None) -> list[str]:
    found = run_step_tests(values, steps, noise_sd=noise_sd, drift="both", **FIXED)
    each = zip(found.p_jump.tolist(), found.p_change.tolist(), found.share.tolist(), strict=True)
    return [transition_verdict(*one, 0.05, 0.5)[0] for one in each]


def at_most(rate: float, trials: int) -> int:
    """More than this happens to a true rate once in ten thousand."""
    return int(binom.ppf(0.9999, trials, rate))


@pytest.mark.parametrize("noise", NOISE)
def test_white_noise_is_seldom_sudden_or_gradual(noise):
    found = []
    for n in (8, 15, 30):
        rng = np.random.default_rng(n)
        found += kinds(NOISE[noise](rng, (REPS, n)), doubling(n))
    assert found.count("sudden") <= at_most(0.05, len(found))
    assert found.count("gradual") <= at_most(0.05, len(found))


@pytest.mark.parametrize("noise", ["normal", "t3"])
@pytest.mark.parametrize("along", ["log_step", "step"])
@pytest.mark.parametrize("spacing", ["even", "doubling"])
def test_drift_is_seldom_sudden(noise, along, spacing):
    found = []
    for n in (8, 20):
        steps = doubling(n) if spacing == "doubling" else np.arange(n) * 1000
        x = np.log1p(steps) if along == "log_step" else steps.astype(float)
        for slope in (2.0, 5.0, 50.0):
            rng = np.random.default_rng(n)
            drift = slope * x / x[-1]
            found += kinds(drift + NOISE[noise](rng, (REPS // 2, n)), steps)
    assert found.count("sudden") <= at_most(0.05, len(found))


def test_p_of_a_jump_has_its_level_under_any_drift():
    rng, steps = np.random.default_rng(0), doubling(12)
    values = 7 * np.log1p(steps) - 0.02 * steps + rng.standard_normal((2000, 12))
    found = run_step_tests(values, steps, noise_sd=None, drift="both", **FIXED)
    for level in (0.01, 0.05, 0.2):
        assert (found.p_jump <= level).sum() <= at_most(level, 2000)
    assert (found.p_jump <= 0.05).mean() > 0.02  # not by being blind


def test_known_noise_has_its_level():
    rng, sd = np.random.default_rng(0), np.linspace(0.5, 2, 12)
    found = kinds(sd * rng.standard_normal((1000, 12)), doubling(12), noise_sd=sd)
    assert found.count("sudden") <= at_most(0.05, 1000)


def test_power_as_documented():
    """docs/calibration.md: .83 at ten noise sds and 8 steps, .69 at five and 16."""
    rng = np.random.default_rng(0)
    for n, height, rate in ((8, 10.0, 0.76), (16, 5.0, 0.6), (24, 5.0, 0.72)):
        values = jump(n, n // 2, height) + rng.standard_normal((REPS, n))
        assert kinds(values, doubling(n)).count("sudden") >= rate * REPS


def test_wide_sigmoids_are_seldom_sudden():
    rng = np.random.default_rng(0)
    values = 30 * logistic(16, 4) + rng.standard_normal((REPS, 16))
    found = kinds(values, doubling(16))
    assert found.count("sudden") <= at_most(0.01, REPS)
    assert found.count("gradual") >= 0.95 * REPS


def test_batch_and_single_agree():
    rng, steps = np.random.default_rng(2), doubling(10)
    values = jump(10, 6, 4.0) + rng.standard_normal((20, 10))
    batch = run_step_tests(
        values, steps, noise_sd=None, axis="step", drift="axis", n_null=500, seed=0, floor=0.0
    )
    for i, curve in enumerate(values):
        one = find_transition(as_frame(steps, curve), "m", axis="step", drift="axis", n_null=500)
        assert one.p_value == batch.p_jump[i]
        assert one.p_change == batch.p_change[i]
        assert one.jump_size == pytest.approx(batch.size[i])


def test_negative_control_the_studys_rule_fires_on_noise():
    values = 0.15 * np.random.default_rng(0).standard_normal((REPS, 8))
    study = (np.abs(np.diff(values, axis=1)).max(axis=1) > 0.2).mean()
    assert study > 0.7
    assert kinds(values, doubling(8)).count("sudden") <= at_most(0.05, REPS)


def test_negative_control_z_over_three_on_a_trailing_window_fires_on_noise():
    values, fired = np.random.default_rng(0).standard_normal((REPS, 24)), 0
    for changes in np.diff(values, axis=1):
        windows = [(changes[i], changes[i - 5 : i]) for i in range(5, 23)]
        fired += max(abs(c - w.mean()) / w.std() for c, w in windows) > 3
    assert fired > 0.5 * REPS
    assert kinds(values, doubling(24)).count("sudden") <= at_most(0.05, REPS)


def test_negative_control_without_drift_in_the_null_drift_is_sudden():
    """Allowing for drift along one axis only: drift along the other axis is called sudden."""
    rng, n, steps = np.random.default_rng(0), 24, np.arange(24) * 1000
    values = 4 * steps / steps[-1] + rng.standard_normal((REPS, n))
    one_axis = run_step_tests(values, steps, noise_sd=None, drift="axis", **FIXED)
    assert (one_axis.p_jump <= 0.05).mean() > 0.1
    assert kinds(values, steps).count("sudden") <= at_most(0.05, REPS)
