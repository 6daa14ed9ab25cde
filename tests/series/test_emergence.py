"""Emergence: goldens, censored cases, error rates, the sigmoid, real capabilities."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm
from series_curves import as_frame, doubling, jump, lambada

from headspec import results
from headspec.errors import InputError
from headspec.series import emergence, sigmoid
from headspec.series.emergence import emergence_step
from headspec.series.sigmoid import fit_sigmoid

STEPS = [0, 10, 20, 30, 40, 50]


def test_golden_with_standard_errors():
    """z = 0, 1, 2, 1, 3, 4 against 1.645: step 20 passes alone, 40 and 50 stay."""
    frame = as_frame(STEPS, [0.5, 0.6, 0.7, 0.6, 0.8, 0.9])
    found = emergence_step(frame, "m", chance=0.5, se=0.1)
    assert (found.status, found.step_before, found.step) == ("emerged", 30, 40)
    assert found.p_value == pytest.approx(norm.sf(3))
    once = emergence_step(frame, "m", chance=0.5, se=0.1, sustained=False)
    assert once.step == 40  # z = 2 is no surprise among six points
    assert once.p_value == pytest.approx(1 - (1 - norm.sf(4)) ** 6)


def test_golden_from_the_plateau():
    """Before step 40: root mean square .1 over 4 points; t = 5 and 6."""
    frame = as_frame(STEPS, [0.6, 0.4, 0.6, 0.4, 1.0, 1.1])
    found = emergence_step(frame, "m", chance=0.5)
    assert (found.status, found.step_before, found.step) == ("emerged", 30, 40)
    assert found.noise == "plateau"


def test_chance_from_the_first_step():
    """z = .1, .2 and .25 over .1 sqrt(2): .71, 1.41, 1.77 against 1.645."""
    frame = as_frame(STEPS[:5], [0.3, 0.3, 0.4, 0.5, 0.55])
    found = emergence_step(frame, "m", chance="first_step", se=0.1)
    assert (found.status, found.step, found.chance) == ("emerged", 40, 0.3)
    assert found.p_value == pytest.approx(norm.sf(2.5 / np.sqrt(2)))
    # negative control: guessing is at .1, so the untrained model seems to have the ability
    assert emergence_step(frame, "m", chance=0.1, se=0.1).status == "at_first_step"
    with pytest.raises(InputError, match="with standard errors"):
        emergence_step(frame, "m", chance="first_step")


def test_curves_that_stay_at_their_first_value_seldom_emerge():
    rng, runs = np.random.default_rng(5), 400
    false = sum(
        emergence_step(
            as_frame(doubling(10), 0.4 + 0.1 * rng.standard_normal(10)),
            "m",
            chance="first_step",
            se=0.1,
        ).status
        == "emerged"
        for _ in range(runs)
    )
    assert false <= binom.ppf(0.999, runs, 0.05)


@pytest.mark.parametrize("se", [None, 0.1])
def test_censored_cases(se):
    up = 0.05 * np.array([1, -1, 1, -1, 1, -1, 1, -1.0])
    never = emergence_step(as_frame(doubling(8), up), "m", chance=0.0, se=se)
    assert (never.status, never.step, never.step_before) == ("never", None, None)
    assert "not distinguishable from chance" in never.summary()
    first = emergence_step(as_frame(doubling(8), 1 + up), "m", chance=0.0, se=se)
    assert (first.status, first.step, first.step_before) == ("at_first_step", 0, None)
    assert "first step already" in first.summary()
    lost = emergence_step(
        as_frame(doubling(8), up + jump(8, 4, 3.0) - jump(8, 6, 3.0)), "m", chance=0.0, se=se
    )
    assert (lost.status, lost.step) == ("lost", None)
    assert "not at the last step" in lost.summary()
    back = emergence_step(
        as_frame(doubling(8), up + jump(8, 4, 3.0) - jump(8, 6, 3.0)),
        "m",
        chance=0.0,
        se=se,
        sustained=False,
    )
    assert (back.status, back.step) == ("emerged", 8)
    assert np.isnan(never.sigmoid.midpoint)


@pytest.mark.parametrize("se", [None, 0.1])
def test_falling_losses_mirror_rising_scores(se):
    values = jump(12, 7, 2.0) + 0.02 * (-1.0) ** np.arange(12)
    up = emergence_step(as_frame(doubling(12), values), "m", chance=0.0, se=se)
    down = emergence_step(
        as_frame(doubling(12), 6.0 - values), "m", chance=6.0, se=se, direction="fall"
    )
    assert (up.status, up.step) == (down.status, down.step)
    assert up.p_value == pytest.approx(down.p_value, rel=1e-6)
    assert up.step == 64
    assert down.sigmoid.midpoint == pytest.approx(up.sigmoid.midpoint, rel=1e-3)
    assert "below chance" in down.summary()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shift=st.floats(-50, 50),
    log_scale=st.floats(-3, 3),
    order=st.permutations(range(10)),
    sustained=st.booleans(),
)
def test_shift_scale_and_order_of_rows(seed, shift, log_scale, order, sustained):
    values = jump(10, 5, 3.0) + np.random.default_rng(seed).standard_normal(10)
    one = emergence_step(
        as_frame(doubling(10), values), "m", chance=0.0, n_null=100, sustained=sustained
    )
    scale = 10**log_scale
    moved = as_frame(doubling(10), shift + scale * values).iloc[list(order)]
    two = emergence_step(moved, "m", chance=shift, n_null=100, sustained=sustained)
    assert (one.status, one.step, one.p_value) == (two.status, two.step, two.p_value)


def test_exact_chance_with_standard_error_zero():
    """Accuracy 0 of 5,153 has standard error 0: neither above chance nor a division by zero."""
    frame = as_frame(
        STEPS, [0.0, 0.0, 0.0, 0.05, 0.1, 0.2], se=[0.0, 0.0, 0.0, 0.003, 0.004, 0.005]
    )
    assert emergence_step(frame, "m", chance=0.0, se="se").step == 30
    assert emergence_step(frame, "m", chance=0.0).step == 30


@pytest.mark.parametrize("sustained", [True, False])
@pytest.mark.parametrize("noise", ["known", "normal", "t3", "skewed", "skewed_down"])
def test_curves_at_chance_seldom_emerge(noise, sustained):
    rng, reps, some = np.random.default_rng(0), 80, 0
    draw = {
        "t3": lambda n: rng.standard_t(3, size=n),
        "skewed": lambda n: rng.exponential(size=n) - 1,
        "skewed_down": lambda n: 1 - rng.exponential(size=n),
    }.get(noise, rng.standard_normal)
    for n in (8, 20):
        for _ in range(reps):
            found = emergence_step(
                as_frame(doubling(n), draw(n)),
                "m",
                chance=0.0,
                se=1.0 if noise == "known" else None,
                sustained=sustained,
                n_null=500,
            )
            some += found.step is not None
    assert some <= binom.ppf(0.9999, 2 * reps, 0.05)


def test_negative_control_uncorrected_first_crossing_fires():
    rng, naive = np.random.default_rng(0), 0
    for _ in range(300):
        naive += (rng.standard_normal(20) > norm.isf(0.05)).any()
    assert naive > 0.5 * 300


@pytest.mark.parametrize("se", [None, 1.0])
def test_the_step_is_seldom_too_early(se):
    rng, early, right, reps = np.random.default_rng(0), 0, 0, 40
    for _ in range(reps):
        frame = as_frame(doubling(14), jump(14, 7, 8.0) + rng.standard_normal(14))
        found = emergence_step(frame, "m", chance=0.0, se=se)
        early += found.step is not None and found.step < 64
        right += found.step == 64
    assert early <= binom.ppf(0.9999, reps, 0.05)
    assert right >= 0.7 * reps


def test_sigmoid_of_an_exact_curve():
    steps = doubling(14)
    middle, scale = np.log1p(50.0), 0.7
    values = 0.25 + 0.6 / (1 + np.exp(-(np.log1p(steps) - middle) / scale))
    fit = fit_sigmoid(as_frame(steps, values), "m")
    assert fit.midpoint == pytest.approx(50, rel=1e-4)
    assert fit.width == pytest.approx(2 * np.log(9) * scale, rel=1e-3)
    assert (fit.low, fit.high) == (pytest.approx(0.25, abs=1e-4), pytest.approx(0.85, abs=1e-4))
    falling = fit_sigmoid(as_frame(steps, -values), "m")
    assert falling.midpoint == pytest.approx(50, rel=1e-3)
    assert falling.high < falling.low


def test_sigmoid_interval_covers():
    rng, steps, reps, held = np.random.default_rng(0), doubling(14), 40, 0
    shape = 10 / (1 + np.exp(-(np.log1p(steps) - np.log1p(50.0)) / 0.7))
    for _ in range(reps):
        fit = fit_sigmoid(as_frame(steps, shape + rng.standard_normal(14)), "m")
        held += fit.midpoint_low <= 50 <= fit.midpoint_high
    assert held >= binom.ppf(0.001, reps, 0.93)


def test_a_midpoint_is_not_known_better_than_its_window():
    fit = fit_sigmoid(as_frame(doubling(12), jump(12, 7)), "m")
    assert fit.midpoint_low <= 32.001
    assert fit.midpoint_high >= 63.999


def test_too_few_points_or_a_constant_have_no_sigmoid():
    assert np.isnan(fit_sigmoid(as_frame(range(5), np.arange(5.0)), "m").midpoint)
    assert np.isnan(fit_sigmoid(as_frame(range(9), np.ones(9)), "m").midpoint)


def test_frame_and_files(tmp_path):
    frame = as_frame(doubling(10), jump(10, 5) + 0.01 * (-1.0) ** np.arange(10), model="micro")
    found = emergence_step(frame, "m", chance=0.0)
    row = found.to_frame().iloc[0]
    assert tuple(found.to_frame().columns[:11]) == results.TIDY_COLUMNS
    assert (row["step"], row["step_before"], row["status"]) == (16, 8, "emerged")
    assert row["model"] == "micro"
    results.save(found, tmp_path / "found.json")
    assert results.load(tmp_path / "found.json") == found


def test_what_cannot_be_used():
    frame = as_frame(STEPS, np.arange(6.0))
    with pytest.raises(InputError, match="finite chance"):
        emergence_step(frame, "m", chance=float("nan"))
    with pytest.raises(InputError, match="at least 5 steps"):
        emergence_step(frame.head(4), "m", chance=0.0)
    with pytest.raises(InputError, match="from 0 up"):
        emergence_step(frame, "m", chance=0.0, se=-1.0)


@pytest.mark.parametrize("documented", [emergence, sigmoid])
def test_examples(documented):
    assert doctest.testmod(documented).failed == 0


@pytest.mark.parametrize("size", ["70m", "160m", "410m", "1.4b"])
def test_lambada_of_pythia_emerges_after_step_512(size):
    for se in ("se", None):
        found = emergence_step(lambada(size), "m", chance=0.0, se=se)
        assert (found.status, found.step_before, found.step) == ("emerged", 512, 1000)
        assert 512 < found.sigmoid.midpoint < 13000
