"""Changepoints: goldens, ruptures by another search, error rates, the noise estimate."""

import doctest
import itertools

import numpy as np
import pytest
import ruptures
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from series_curves import as_frame, doubling, jump

from headspec import results
from headspec.errors import InputError
from headspec.series import changepoints as module
from headspec.series import noise as noise_module
from headspec.series.changepoints import changepoints
from headspec.series.noise import local_noise_sd
from headspec.series.transitions import find_transition


def test_golden_two_levels():
    found = changepoints(as_frame(range(10), [0.0] * 4 + [1.0] * 6), "m", axis="step")
    assert found.steps_before.tolist() == [3]
    assert found.steps_after.tolist() == [4]
    assert found.sizes.tolist() == pytest.approx([1.0])


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-9, 1e-8])
@pytest.mark.parametrize("n", [100, 400])
def test_levels_without_noise_are_cut_where_they_change(noise, n):
    """Squares of a range far above the noise are rounded: without a floor, every second cuts."""
    at = np.arange(n)
    levels = np.where(at < n // 3, 9.0, np.where(at < n // 2, 8.0, 3.0))
    values = levels + noise * np.random.default_rng(0).standard_normal(n)
    found = changepoints(as_frame(at, values), "m", axis="step", dtype="float64")
    assert found.steps_after.tolist() == [n // 3, n // 2]
    assert found.sizes.tolist() == pytest.approx([-1.0, -5.0], abs=1e-6)


def test_golden_bend_of_straight_lines():
    values = np.r_[np.arange(8.0), 7 - 2 * np.arange(1.0, 9.0)] + 0.01 * (-1.0) ** np.arange(16)
    found = changepoints(as_frame(np.arange(16), values), "m", axis="step", segments="trend")
    assert found.steps_after.tolist() in ([7], [8])
    assert found.n == 16


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), at=st.integers(3, 17), height=st.floats(4, 50))
def test_oracle_dynamic_programming(seed, at, height):
    """One changepoint: where `ruptures.Dynp` puts it, and where `find_transition` does."""
    values = np.random.default_rng(seed).standard_normal(20) + jump(20, at, height)
    search = ruptures.Dynp(model="l2", min_size=2, jump=1).fit(values[:, None])
    frame = as_frame(np.arange(20), values)
    found = changepoints(frame, "m", axis="step", noise_sd=1.0, penalty=10.5)
    if len(found.sizes) == 1:
        assert found.steps_after.tolist() == search.predict(n_bkps=1)[:-1]
    if height > 20 and len(found.sizes) == 1:
        at_jump = find_transition(frame, "m", axis="step", n_null=100)
        assert at_jump.step_after == found.steps_after[0] == at


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), penalty=st.floats(2, 20))
def test_oracle_penalised_optimum(seed, penalty):
    """No number of cuts by `Dynp` does better than the cuts returned."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(16) + jump(16, 5, 4.0) - jump(16, 11, 3.0)
    frame = as_frame(np.arange(16), values)
    found = changepoints(frame, "m", axis="step", noise_sd=1.0, penalty=penalty)

    def loss(cuts):
        edges = [0, *cuts, 16]
        parts = [values[a:b] for a, b in itertools.pairwise(edges)]
        return sum(((p - p.mean()) ** 2).sum() for p in parts) + penalty * len(cuts)

    search = ruptures.Dynp(model="l2", min_size=2, jump=1).fit(values[:, None])
    best = min(loss([]), *(loss(search.predict(n_bkps=k)[:-1]) for k in range(1, 6)))
    assert loss(found.steps_after.tolist()) == pytest.approx(best)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50), log_scale=st.floats(-3, 3))
def test_shift_and_scale(seed, shift, log_scale):
    values = np.random.default_rng(seed).standard_normal(16) + jump(16, 8, 10.0)
    one = changepoints(as_frame(doubling(16), values), "m")
    two = changepoints(as_frame(doubling(16), shift + 10**log_scale * values), "m")
    assert one.steps_after.tolist() == two.steps_after.tolist()
    np.testing.assert_allclose(two.sizes, 10**log_scale * one.sizes, rtol=1e-6)


@pytest.mark.parametrize("segments", ["level", "trend"])
@pytest.mark.parametrize("known", [None, 1.0])
def test_normal_noise_stays_whole(segments, known):
    rng, reps, cut = np.random.default_rng(0), 100 if segments == "level" else 30, 0
    for n in (8, 24):
        drift = 5 * np.arange(n) if segments == "trend" else 0
        for _ in range(reps):
            frame = as_frame(np.arange(n), drift + rng.standard_normal(n))
            found = changepoints(frame, "m", segments=segments, axis="step", noise_sd=known)
            cut += len(found.sizes) > 0
    assert cut <= binom.ppf(0.9999, 2 * reps, 0.05)


def test_negative_control_the_usual_penalty_cuts_noise():
    """BIC's 2 log n with a noise sd estimated from so few points."""
    rng, naive, found = np.random.default_rng(0), 0, 0
    for _ in range(150):
        frame = as_frame(np.arange(10), rng.standard_normal(10))
        naive += len(changepoints(frame, "m", axis="step", penalty=2 * np.log(10)).sizes) > 0
        found += len(changepoints(frame, "m", axis="step").sizes) > 0
    assert naive > 0.2 * 150
    assert found <= binom.ppf(0.9999, 150, 0.05)


def test_levels_cut_drift_to_stairs_and_trends_do_not():
    frame = as_frame(np.arange(20), np.arange(20.0) + 0.1 * (-1.0) ** np.arange(20))
    assert len(changepoints(frame, "m", axis="step").sizes) > 2
    assert len(changepoints(frame, "m", axis="step", segments="trend").sizes) == 0


def test_rounding_is_not_cut():
    values = 1 + 1e-9 * jump(12, 6)
    assert len(changepoints(as_frame(range(12), values), "m").sizes) == 0
    assert len(changepoints(as_frame(range(12), values), "m", dtype="float64").sizes) == 1
    assert len(changepoints(as_frame(range(12), np.ones(12)), "m").sizes) == 0


def test_frame_and_files(tmp_path):
    values = jump(12, 4, 5.0) - jump(12, 8, 3.0) + 0.1 * (-1.0) ** np.arange(12)
    found = changepoints(as_frame(doubling(12), values, layer=3), "m")
    table = found.to_frame()
    assert tuple(table.columns[:11]) == results.TIDY_COLUMNS
    assert table["step"].tolist() == found.steps_after.tolist() == [8, 128]
    assert table["layer"].tolist() == [3, 3]
    results.save(found, tmp_path / "found.json")
    again = results.load(tmp_path / "found.json")
    assert again.steps_after.tolist() == found.steps_after.tolist()
    none = changepoints(as_frame(doubling(12), np.ones(12)), "m").to_frame()
    assert len(none) == 0
    assert none.columns.tolist() == table.columns.tolist()


def test_what_cannot_be_used():
    with pytest.raises(InputError, match="at least 6 steps"):
        changepoints(as_frame(range(5), np.arange(5.0)), "m", segments="trend")
    with pytest.raises(InputError, match="above zero"):
        changepoints(as_frame(range(8), np.arange(8.0)), "m", noise_sd=0.0)


def test_local_noise():
    rng, x = np.random.default_rng(0), np.log1p(doubling(2000)[:30].astype(float))
    values = 2.0 * rng.standard_normal((2000, 30))
    assert np.median(local_noise_sd(values, x)) == pytest.approx(2.0, rel=0.1)
    drifting = values + 100 * x
    np.testing.assert_allclose(local_noise_sd(drifting, x), local_noise_sd(values, x), rtol=1e-6)
    jumping = local_noise_sd(values + jump(30, 15, 1000.0), x)
    assert np.median(jumping) < 2.6  # the standard deviation is 500 there


@pytest.mark.parametrize("documented", [module, noise_module])
def test_examples(documented):
    assert doctest.testmod(documented).failed == 0
