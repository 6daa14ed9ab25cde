"""The calibrated rule: what a score is, what it ignores, its rate and its power."""

import doctest
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jump_curves import noisy_step

from headspec.errors import InputError
from headspec.series import jump_test_null
from headspec.series.jump_battery_curves import NULL_CURVES
from headspec.series.jump_rules import study_jumps, trailing_window_jumps
from headspec.series.jump_test import calibrated_jumps, score_peaks
from headspec.series.jump_test_contrasts import contrast_scores, widths_of, without_outliers
from headspec.series.jump_test_null import curve_p_value, score_threshold
from headspec.series.jump_test_rise import fit_rise
from headspec.series.jump_test_table import LENGTHS, RATES, SCORES


def found(values, **options):
    """Jumps of one curve."""
    options = {"false_positives": 1.0} | options
    return calibrated_jumps(values[None], np.zeros(1), **options).found[0]


def scores(values):
    return contrast_scores(values[None], np.zeros(1))[0].max(axis=0)


def white(n=200, seed=0):
    return np.random.default_rng(seed).standard_normal(n)


# --- scores ----------------------------------------------------------------------------------


def test_score_by_hand():
    """Alternating +1, -1 with a step of 10: all contrasts of even width are 0 but at the step."""
    values = (-1.0) ** np.arange(60) + 10.0 * (np.arange(60) >= 30)
    (score,) = contrast_scores(values[None], np.ones(1))
    # contrasts of width 4, 6, 10 at 30 are all 10; those around are 0, so the floor of 1 counts
    assert score.shape == (3, 60)
    assert score[:, 30] == pytest.approx([10.0] * 3)
    assert score.argmax(axis=1).tolist() == [30] * 3
    assert (score[0, :8] == -np.inf).all()
    assert np.isfinite(score[0, 8:53]).all()


def test_widths_grow_with_the_curve():
    assert widths_of(30) == (4,)
    assert widths_of(60) == (4, 6, 10)
    assert widths_of(2000) == (4, 6, 10, 15, 22)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-6, 0.3, 7.0, 1e5]),
    shift=st.floats(-100, 100),
    sign=st.sampled_from([-1, 1]),
)
def test_score_does_not_change_with_unit_and_origin(seed, scale, shift, sign):
    values = noisy_step(120, at=60, size=3.0, seed=seed)
    changed = sign * scale * values + scale * shift
    inside = np.isfinite(scores(values))
    assert np.allclose(scores(changed)[inside], scores(values)[inside], rtol=1e-6, atol=1e-6)


def test_score_is_the_same_read_backwards():
    values = noisy_step(121, at=60, size=3.0)
    here, back = scores(values), scores(values[::-1].copy())
    inside = slice(9, 112)
    assert np.allclose(here[inside], back[::-1][8:111], rtol=1e-9)


@pytest.mark.parametrize("decay", [2.0, 10.0, 30.0])
def test_drift_that_only_slows_down_scores_nothing(decay):
    values = 100 * np.exp(-decay * np.linspace(0, 1, 300))
    assert scores(values).max() <= 1e-6
    # negative control: the study's rule calls its fast part
    assert len(study_jumps(values[None])[0]) > 5


def test_single_outliers_are_drawn_in_and_steps_are_not():
    values = noisy_step(size=8.0)
    values[40] += 30.0
    calm = without_outliers(values[None])[0]
    assert abs(calm[40]) < 5
    kept = np.r_[0:40, 41:200]
    assert np.abs(calm - values)[kept].mean() < 0.05
    assert [jump.after for jump in found(values)] == [120]
    assert found(np.where(np.arange(200) == 40, 30.0, white())) == []
    # negative control: both other rules call an outlier
    assert len(study_jumps(values[None])[0]) >= 2
    assert 40 in [jump.after for jump in trailing_window_jumps(values[None])[0]]


def test_one_jump_is_one_detection():
    for size in (5.0, 20.0, 1000.0):
        (jump,) = found(noisy_step(size=size))
        assert (jump.before, jump.after) == (119, 120)
        assert jump.change == pytest.approx(size, abs=0.6)
    assert len(trailing_window_jumps(noisy_step(size=20.0)[None])[0]) > 3


def test_curves_without_noise():
    """Rounding of sums is no noise to stand out from."""
    at = np.arange(300)
    step = 0.1 + 0.7 * (at >= 111)
    assert [(jump.before, jump.after) for jump in found(step + at / 900)] == [(110, 111)]
    assert [(jump.before, jump.after) for jump in found(step)] == []  # two values: a count by one
    for smooth in (at / 3.0, 1e3 + at / 7.0, np.sqrt(at / 3.0), np.exp(-at / 9.0), np.sin(at / 40)):
        assert found(smooth) == []


@pytest.mark.parametrize("unit", [1.0, 1 / 96])
@pytest.mark.parametrize(("n", "start", "decay"), [(60, 40, 8.0), (120, 40, 3.0), (200, 160, 8.0)])
def test_smooth_drift_of_counts_is_no_jump(unit, n, start, decay):
    """More values than a quarter of the points, and yet every step of one is rounding."""
    counts = np.round(start * np.exp(-decay * np.linspace(0, 1, n)) + 2)
    assert 4 * len(np.unique(counts)) > n
    for values in (counts * unit, (counts * unit).astype(np.float32).astype(float)):
        assert found(values) == []
        # negative control: the stairs as they are score like jumps
        stairs = contrast_scores(values[None], np.full(1, 1e-6))
        assert stairs.max() > score_threshold(1.0, n)


def test_known_limit_noise_that_swells_at_once_is_called_too_often():
    """The page says so: 2 to 9 calls per 1,000 points, where one is accepted."""
    noise = np.random.default_rng(0).standard_normal((150, 120))
    swelling = noise * np.where(np.abs(np.arange(120) - 60) < 10, 5, 1)
    for values, low, high in ((noise, 0, 2), (swelling, 2, 13)):
        jumps = calibrated_jumps(values, np.zeros(150), false_positives=1.0).found
        assert low <= 1000 * sum(map(len, jumps)) / values.size <= high


def test_a_count_that_jumps_between_two_values():
    """Counts move in ones, also where only 5 and 21 occur."""
    counts = np.where(np.arange(200) < 111, 5.0, 21.0)
    (jump,) = found(counts)
    assert (jump.before, jump.after, jump.change) == (110, 111, pytest.approx(16))
    assert found(np.where(np.arange(200) < 111, 5.0, 6.0)) == []


def test_a_jump_that_does_not_last_is_two_or_none():
    values = white()
    values[100:103] += 10.0
    assert found(values) == []
    values = white()
    values[100:140] += 10.0
    assert [np.sign(jump.change) for jump in found(values)] == [1, -1]


def test_jumps_of_a_curve_do_not_overlap():
    """Two peaks of the score may be fitted by the same change: here twice from 43 to 44."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = np.r_[rng.standard_normal(60), np.zeros(60)]
        jumps = found(values)
        ends = [(jump.before, jump.after) for jump in jumps]
        assert ends == sorted(set(ends))
        assert all(one[1] <= other[0] for one, other in pairwise(ends))


def test_a_peak_takes_the_scores_that_hold_the_same_change():
    score = np.array([[0, 5, 9, 6, 0, 0, 7, 8.0, 0], [0, 0, 1, 2, 6, 7, 0, 0, 6.5]])
    peaks = score_peaks(score, (2, 4), 5.0)
    assert peaks == [(2, 2, 9.0), (7, 2, 8.0)]  # 6.5 is nearer to 7 than four points
    assert score_peaks(score, (2, 2), 5.0) == [(2, 2, 9.0), (5, 2, 7.0), (7, 2, 8.0)]
    assert score_peaks(score, (2, 4), 9.5) == []


# --- rises -----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_rise_of_known_length(length):
    ramp = 4 + 3 * np.clip((np.arange(80) - 40) / length, 0, 1) + 0.02 * np.arange(80)
    rise = fit_rise(ramp + 1e-3 * white(80), 42, width=10, inside=(0, 80))
    assert (rise.before, rise.after, rise.sudden) == (40, 40 + length, True)
    assert rise.size == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize("length", [10, 16, 24])
def test_slow_rises_are_not_sudden(length):
    ramp = 10 * np.clip((np.arange(200) - 100) / length, 0, 1)
    centre = 100 + length // 2
    assert not fit_rise(ramp + 0.3 * white(), centre, width=10, inside=(0, 200)).sudden
    assert found(ramp + 0.3 * white()) == []


def test_noise_does_not_make_a_step_gradual():
    sudden = [
        fit_rise(noisy_step(size=3.0, seed=seed), 120, width=15, inside=(0, 200)).sudden
        for seed in range(200)
    ]
    assert np.mean(sudden) > 0.95


# --- the null --------------------------------------------------------------------------------


def test_null_table_is_in_order():
    table = np.array(SCORES)
    assert table.shape == (len(LENGTHS), len(RATES))
    assert (np.diff(table, axis=1) < 0).all()
    assert doctest.testmod(jump_test_null).failed == 0


@settings(max_examples=40, deadline=None)
@given(n=st.integers(30, 3000), rate=st.floats(RATES[0], RATES[-1]))
def test_threshold_and_p_value_agree(n, rate):
    """The p-value at the threshold is the chance of one detection or more at that rate."""
    p = curve_p_value(score_threshold(rate, n), n)
    assert p == pytest.approx(1 - np.exp(-rate * n / 1000), rel=1e-6)


def test_p_value_falls_with_the_score():
    p = [curve_p_value(score, 400) for score in np.linspace(2, 60, 200)]
    assert (np.diff(p) <= 0).all()
    assert p[-1] < 1e-3


def test_rates_outside_of_the_table_are_refused():
    with pytest.raises(InputError, match=r"from 0\.1 to 10"):
        score_threshold(0.01, 400)


@pytest.mark.parametrize("kind", NULL_CURVES)
def test_false_positives_are_at_most_two_per_thousand(kind):
    """On other draws than the table's: 12,000 points; 2 expected gives more than 37 once in 300.

    (24 detections are expected at a rate of 2; the bound is two standard deviations more.)
    """
    values = NULL_CURVES[kind](np.random.default_rng(77), 30, 400)
    calls = calibrated_jumps(values, np.zeros(30), false_positives=1.0).found
    assert sum(map(len, calls)) <= 24


@pytest.mark.parametrize("n_points", [60, 1000])
def test_rate_holds_at_other_lengths(n_points):
    for kind in ("white noise", "random walk", "Student t noise, 3 df", "noise falling early"):
        n_curves = 18_000 // n_points
        values = NULL_CURVES[kind](np.random.default_rng(78), n_curves, n_points)
        calls = calibrated_jumps(values, np.zeros(n_curves), false_positives=1.0).found
        assert 1000 * sum(map(len, calls)) / values.size <= 2.0


def test_a_smaller_rate_calls_less():
    values = NULL_CURVES["random walk"](np.random.default_rng(5), 50, 400)
    calls = [
        sum(map(len, calibrated_jumps(values, np.zeros(50), false_positives=rate).found))
        for rate in (0.1, 1.0, 10.0)
    ]
    assert calls[0] < calls[1] < calls[2]
    assert calls[2] <= 1.3 * 10 * 20


# --- power -----------------------------------------------------------------------------------


def test_recall_at_three_standard_deviations():
    """One jump and three, white noise, 400 points: at least .95 of 300 and of 900."""
    rng = np.random.default_rng(9)
    for at in ((200,), (100, 220, 300)):
        values = rng.standard_normal((300, 400))
        for point in at:
            values[:, point:] += 3 * rng.choice([-1.0, 1.0], (300, 1))
        calls = calibrated_jumps(values, np.zeros(300), false_positives=1.0).found
        hits = [any(abs(jump.after - p) <= 5 for jump in jumps) for jumps in calls for p in at]
        assert np.mean(hits) > 0.95


def test_many_curves_take_little_time():
    """14 layers x 6 metrics x 400 points: well under a second of processor time."""
    import time

    values = np.random.default_rng(0).standard_normal((84, 400))
    calibrated_jumps(values, np.zeros(84), false_positives=1.0)
    start = time.process_time()
    calibrated_jumps(values, np.zeros(84), false_positives=1.0)
    assert time.process_time() - start < 3
