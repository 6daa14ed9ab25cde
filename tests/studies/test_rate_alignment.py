"""Rates of change of two curves against circular shifts."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from headspec.studies.rate_alignment import align_rates


def curve(values, steps=None, metric="a"):
    steps = np.arange(len(values)) if steps is None else steps
    return pd.DataFrame({"step": steps, "metric": metric, "value": np.asarray(values, float)})


def test_r_and_p_by_hand():
    steps = np.array([0, 1, 3, 7])  # log(1 + step) evenly spaced
    first, second = curve([0, 1, 1, 1], steps), curve([0, 2, 2, 5], steps, "b")
    found = align_rates(first, second, metrics=("a", "b"))
    # rates (1, 0, 0) and (2, 0, 3), shifted (3, 2, 0) and (0, 3, 2)
    expected = [pearsonr([1, 0, 0], each).statistic for each in ([2, 0, 3], [3, 2, 0], [0, 3, 2])]
    assert found.r == pytest.approx(expected[0])
    assert found.p == pytest.approx(np.mean(np.array(expected) >= expected[0] - 1e-9))
    assert (found.n, found.least_p) == (3, pytest.approx(1 / 3))
    assert found.r_needed == pytest.approx(max(expected[1:]))


def test_rates_are_per_log_step():
    steps = np.array([0, 1, 10, 100, 1000])
    even = np.log1p(steps)
    found = align_rates(curve(even, steps), curve(even + 1, steps, "b"), metrics=("a", "b"))
    assert np.isnan(found.r)  # constant rates: no correlation is defined
    assert found.p == 1
    assert "constant" in found.words()


def test_only_steps_of_both_count():
    first = curve(np.random.default_rng(0).normal(size=6))
    second = curve(np.random.default_rng(1).normal(size=9), np.arange(9) * 2, "b")
    assert align_rates(first, second, metrics=("a", "b")).n == 2


def test_two_curves_that_rise_apart_are_called_aligned_at_the_stated_rate():
    """Both rise once, at random times: raw correlation of the curves is close to 1 throughout."""
    rng = np.random.default_rng(3)
    place = np.log1p(np.arange(41))
    steps, n = np.arange(41), 300
    p, raw = [], []
    for _ in range(n):
        middles = rng.uniform(place[3], place[-3], size=2)
        rises = [1 / (1 + np.exp(-(place - m) * 6)) for m in middles]
        rises = [rise + 0.01 * rng.normal(size=41) for rise in rises]
        found = align_rates(curve(rises[0], steps), curve(rises[1], steps, "b"), metrics=("a", "b"))
        p.append(found.p)
        raw.append(pearsonr(*rises).pvalue)
    assert np.mean(np.array(raw) < 0.05) > 0.9  # negative control
    assert np.mean(np.array(p) <= 0.05) <= 0.12
