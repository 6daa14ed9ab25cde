"""A late decline: goldens, error rates with picking the peak, what Pythia's LAMBADA does."""

import doctest

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression
from scipy.stats import binom
from series_curves import EVALS, as_frame, doubling

import headspec as hs
from headspec import results
from headspec.errors import InputError
from headspec.series import decline
from headspec.series.decline import (
    _gain_of_falling,
    _monotone_residuals,
    _wobble_variance,
    decline_after_peak,
)

needs_evals = pytest.mark.skipif(not EVALS.is_dir(), reason="published evaluations not here")


def test_golden():
    frame = as_frame(range(6), [0.0, 0.1, 0.5, 0.9, 0.7, 0.6], se=0.01)
    found = decline_after_peak(frame, "m")
    assert (found.peak_step, found.peak, found.last_step, found.last) == (3, 0.9, 5, 0.6)
    assert found.drop == pytest.approx(0.3)
    # the largest of six standard normals is 1.267 on average
    assert found.null_mean == pytest.approx(0.01267, rel=0.05)
    assert found.p_examples == pytest.approx(1 / 2001)
    assert found.p_wobble > found.p_examples  # five points say little about wobble
    assert found.p_value == found.p_wobble


def test_a_loss_falls():
    loss = 3 - np.array([0, 0, 0.1, 0.5, 1, 1.5, 2, 1.9, 1.7, 1.5, 1.3, 1.0])
    found = decline_after_peak(as_frame(range(12), loss), "m", se=0.02, direction="fall")
    assert found.peak == loss.min()
    assert found.drop == pytest.approx(1.0)
    assert found.declines
    assert "lowest at step 6" in found.summary()


def test_no_decline_where_the_last_point_is_best():
    found = decline_after_peak(as_frame(range(8), np.arange(8.0)), "m", se=0.1)
    assert (found.drop, found.p_value, found.declines) == (0, 1, False)
    assert "no decline" in found.summary()
    constant = decline_after_peak(as_frame(range(8), np.zeros(8)), "m", se=None)
    assert constant.p_value == 1
    assert np.isnan(constant.p_examples)


@given(st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=1, max_size=15))
@settings(max_examples=60, deadline=None)
def test_monotone_residuals_are_those_of_scipy(values):
    expected = [0.0] + [
        float(((isotonic_regression(values[:k]).x - values[:k]) ** 2).sum())
        for k in range(1, len(values) + 1)
    ]
    assert _monotone_residuals(values) == pytest.approx(expected, abs=1e-9)


def test_gain_of_falling_by_hand():
    assert _gain_of_falling([0.0, 1.0, 2.0, 3.0]) == pytest.approx(0)
    # never falling: 0, 1.5, 1.5 with residual .5; rising and falling fits exactly
    assert _gain_of_falling([0.0, 2.0, 1.0]) == pytest.approx(0.5)
    assert _gain_of_falling([2.0, 1.0, 0.0]) == pytest.approx(2)


def test_wobble_is_the_noise_of_a_straight_line():
    steps = np.array([0, 10, 20, 50, 60, 100, 110, 200])
    assert _wobble_variance(3 + 0.1 * steps, steps) == pytest.approx(0)
    draws = np.random.default_rng(0).standard_normal((3000, 8))
    assert np.mean([_wobble_variance(d, steps) for d in draws]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("shape", ["level", "rising", "saturating"])
@pytest.mark.parametrize("wobble", [0.0, 2.0])
def test_false_declines_are_rare(shape, wobble):
    """Monotone curves with errors of examples and, on top, wobble that `se` does not know."""
    n, runs = 20, 300
    rng = np.random.default_rng(3)
    truth = {
        "level": np.zeros(n),
        "rising": np.linspace(0, 10, n),
        "saturating": 30 * (1 - np.exp(-np.arange(n) / 3)),
    }[shape]
    steps = np.arange(n) * 1000
    false, naive = 0, 0
    for _ in range(runs):
        values = truth + rng.standard_normal(n) * np.hypot(1, wobble)
        found = decline_after_peak(as_frame(steps, values), "m", se=1.0, n_null=500)
        false += found.declines
        naive += found.drop / np.sqrt(2) > 1.645
    assert false <= binom.ppf(0.999, runs, 0.05)
    if shape == "level":  # negative control: a z-test of peak against end
        assert naive > 0.2 * runs


def test_a_real_decline_is_found():
    rng = np.random.default_rng(4)
    truth = np.r_[np.linspace(0, 0.4, 10), np.linspace(0.4, 0.33, 10)]
    found = [
        decline_after_peak(
            as_frame(np.arange(20) * 1000, truth + 0.01 * rng.standard_normal(20)),
            "m",
            se=0.007,
            n_null=500,
        ).declines
        for _ in range(50)
    ]
    assert np.mean(found) > 0.9


@needs_evals
def test_the_late_decline_of_small_pythias_is_reported():
    frame = hs.load_pythia_evals(EVALS, tasks="lambada_openai", metrics="acc")
    found = {
        model: decline_after_peak(curve, "lambada_openai.acc")
        for model, curve in frame.groupby("model")
    }
    ends = {model: (round(one.peak, 3), round(one.last, 3)) for model, one in found.items()}
    assert ends["pythia-70m"] == (0.253, 0.185)
    assert ends["pythia-160m"] == (0.399, 0.328)
    assert {model for model, one in found.items() if one.declines} == {"pythia-70m", "pythia-160m"}
    assert "worse by 0.0708" in found["pythia-160m"].summary()
    assert "no decline" in found["pythia-1.4b"].summary()


def test_frame_and_files(tmp_path):
    found = decline_after_peak(as_frame(doubling(9), [0, 0, 1, 2, 3, 4, 3, 2, 1.0]), "m", se=0.1)
    frame = found.to_frame()
    assert frame["metric"].tolist() == ["m.decline"]
    assert (frame["value"][0], frame["step"][0], frame["peak_step"][0]) == (3, 128, 16)
    results.save(found, tmp_path / "a.json")
    assert results.load(tmp_path / "a.json") == found
    assert isinstance(frame, pd.DataFrame)


def test_errors():
    with pytest.raises(InputError, match="5 steps"):
        decline_after_peak(as_frame(range(4), np.arange(4.0)), "m", se=None)
    with pytest.raises(InputError, match="n_null"):
        decline_after_peak(as_frame(range(9), np.arange(9.0)), "m", se=None, n_null=10)


def test_docstrings():
    assert doctest.testmod(decline).failed == 0
