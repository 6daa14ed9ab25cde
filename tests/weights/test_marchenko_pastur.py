"""Bulk edge and spikes: closed forms, the Gaussian null, planted signals, odd matrices."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from headspec import results
from headspec.errors import InputError
from headspec.weights import gaussian_spectra as spectra
from headspec.weights import marchenko_pastur as module
from headspec.weights.gaussian_spectra import gaussian_spectra, middle_and_top
from headspec.weights.marchenko_pastur import marchenko_pastur
from headspec.weights.marchenko_pastur_law import _TRACY_WIDOM, _survival, median_singular_value


def planted(shape, strengths, seed=0):
    """Noise of variance 1 with signals this many times the detection limit."""
    rng = np.random.default_rng(seed)
    limit = (shape[0] * shape[1]) ** 0.25
    left, right = (np.linalg.qr(rng.standard_normal((side, len(strengths))))[0] for side in shape)
    signal = (left * (limit * np.array(strengths))) @ right.T
    return np.linalg.svd(rng.standard_normal(shape) + signal, compute_uv=False)


@pytest.mark.parametrize("beta", [0.05, 0.5, 1.0])
def test_the_law_in_closed_form(beta):
    low, high = (1 - np.sqrt(beta)) ** 2, (1 + np.sqrt(beta)) ** 2

    def density(x):
        return np.sqrt((high - x) * (x - low)) / (2 * np.pi * beta * x)

    for at in (0.2, 0.5, 0.9):
        x = low + at * (high - low)
        angle = np.arccos((x - 1 - beta) / (2 * np.sqrt(beta)))
        above = integrate.quad(density, x, high)[0]
        assert _survival(angle, beta) == pytest.approx(above, abs=1e-8)


def test_published_constants():
    """Gavish and Donoho: median .6528 for square; Tracy-Widom's quantiles."""
    assert median_singular_value((1000, 1000)) ** 2 / 1000 == pytest.approx(0.6528, abs=2e-4)
    np.testing.assert_allclose(
        _TRACY_WIDOM.isf([0.1, 0.05, 0.01]), [0.4501, 0.9793, 2.0234], atol=0.012
    )


def test_edges_and_detection_limit():
    found = marchenko_pastur(np.ones(4), (9, 4), sigma=2)
    edges = (found.edge, found.lower_edge, found.detection_limit)
    assert edges == pytest.approx((2 * (3 + 2), 2 * (3 - 2), 2 * np.sqrt(6)))
    assert found.threshold > found.edge
    assert found.n_spikes == 0


@pytest.mark.parametrize("shape", [(8, 64), (16, 16), (64, 64), (128, 32)])
@pytest.mark.parametrize("level", [0.01, 0.1])
def test_gaussian_matrices_have_spikes_at_the_stated_rate(shape, level):
    values = np.sqrt(gaussian_spectra(shape, n_draws=2000, seed=1))
    for sigma in (None, 1):
        rate = np.mean(marchenko_pastur(values, shape, sigma=sigma, level=level).n_spikes > 0)
        assert rate == pytest.approx(level, rel=0.25, abs=0.008)


def test_a_plain_edge_finds_spikes_in_noise():
    """The naive way counts what is above lambda_plus: in one Gaussian matrix in six or more."""
    values = np.sqrt(gaussian_spectra((64, 64), n_draws=1000, seed=2))
    found = marchenko_pastur(values, (64, 64))
    naive = np.mean((values > found.edge[:, None]).any(1))
    assert naive > 0.15
    assert np.mean(found.n_spikes > 0) < 0.025


@pytest.mark.parametrize("rank", [1, 5, 20])
def test_planted_signals_above_the_limit_are_counted(rank):
    found = marchenko_pastur(planted((200, 300), [2.5] * rank), (200, 300))
    assert found.n_spikes == rank
    assert found.sigma == pytest.approx(1, abs=0.03)


def test_planted_signals_below_the_limit_leave_no_spike():
    """A sixth of the variance, and nothing outside the edge."""
    assert marchenko_pastur(planted((200, 300), [0.7] * 20), (200, 300)).n_spikes == 0


def test_spikes_lie_where_theory_says():
    """theta^2 = (x^2 + m)(x^2 + n) / x^2 for a signal x in noise of variance 1."""
    shape, strength = (200, 300), 2.0
    squared = strength**2 * np.sqrt(200 * 300)
    expected = np.sqrt((squared + 200) * (squared + 300) / squared)
    tops = [planted(shape, [strength], seed)[0] for seed in range(10)]
    assert np.mean(tops) == pytest.approx(expected, rel=0.02)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_scale_moves_everything_but_the_counts(scale, seed):
    values = planted((30, 40), [3, 2], seed)
    one, other = marchenko_pastur(values, (30, 40)), marchenko_pastur(scale * values, (40, 30))
    assert one.n_spikes == other.n_spikes
    assert other.sigma == pytest.approx(scale * one.sigma, rel=1e-9)
    assert other.spike_variance == pytest.approx(one.spike_variance, rel=1e-9)
    assert other.bulk_ks == pytest.approx(one.bulk_ks, abs=1e-9)


def test_bulk_distance_tells_noise_from_heavy_tails():
    noise = np.sqrt(gaussian_spectra((100, 200), n_draws=20))
    assert marchenko_pastur(noise, (100, 200)).bulk_ks.max() < 0.05
    heavy = np.linalg.svd(np.random.default_rng(0).standard_t(1.5, (100, 200)), compute_uv=False)
    assert marchenko_pastur(heavy, (100, 200)).bulk_ks > 0.1


def test_low_rank_and_zero_matrices():
    low = marchenko_pastur(np.array([3.0, 2, 1e-17, 0, 0]), (5, 9))
    assert (float(low.sigma), int(low.n_spikes), float(low.spike_variance)) == (0, 2, 1)
    nothing = marchenko_pastur(np.zeros(4), (4, 4))
    assert nothing.n_spikes == 0
    assert np.isnan(nothing.spike_variance)
    assert "0 singular values" in nothing.summary()
    assert marchenko_pastur(np.array([2.0]), (1, 7)).n_spikes == 0


def test_a_noise_level_far_below_leaves_no_bulk():
    """Every value is a spike; nothing is left to compare with the law, and nothing warns."""
    values = np.linspace(1, 2, 20)
    found = marchenko_pastur(values, (20, 30), sigma=1e-3)
    assert int(found.n_spikes) == 20
    assert np.isnan(found.bulk_ks)
    assert found.spike_variance == 1


def test_a_batch_is_its_rows_and_saves(tmp_path):
    values = np.stack([planted((30, 50), s, i) for i, s in enumerate(([3], [3, 3, 2.5], [0.1]))])
    both = marchenko_pastur(torch.from_numpy(values).float(), (50, 30))
    for row in range(3):
        one = marchenko_pastur(values[row].astype(np.float32).astype(float), (50, 30))
        assert both.n_spikes[row] == one.n_spikes
        assert both.sigma[row] == one.sigma
    assert both.n_spikes.tolist()[:2] == [1, 3]
    frame = both.to_frame()
    assert frame["metric"].unique().tolist()[:3] == ["n_spikes", "spike_variance", "mp_sigma"]
    assert "3 matrices of 50 x 30" in both.summary()
    results.save(both, tmp_path / "bulk.json")
    assert results.load(tmp_path / "bulk.json").to_frame().equals(frame)


@pytest.mark.parametrize(
    ("values", "options", "match"),
    [
        ([1.0, 2.0], {}, "the 3 singular values"),
        ([1.0, 2.0, np.nan], {}, "1 not finite"),
        ([1.0, 2.0, -1.0], {}, "1 below 0"),
        ([1.0, 2.0, 3.0], {"level": 1.0}, "level between 0 and 1"),
        ([1.0, 2.0, 3.0], {"sigma": -1.0}, "sigma from 0 up"),
    ],
)
def test_errors(values, options, match):
    with pytest.raises(InputError, match=match):
        marchenko_pastur(np.array(values), (3, 5), **options)


def test_drawn_spectra_are_those_of_gaussian_matrices():
    """Top, median and bottom against matrices that are really made (two-sample KS)."""
    rng = np.random.default_rng(0)
    made = np.linalg.svd(rng.standard_normal((600, 12, 20)), compute_uv=False)[:, ::-1] ** 2
    drawn = gaussian_spectra((12, 20), n_draws=600)
    for rank in (0, 6, 11):
        assert stats.ks_2samp(made[:, rank], drawn[:, rank]).pvalue > 0.01
    assert drawn.sum(1).mean() == pytest.approx(240, rel=0.01)
    assert gaussian_spectra((1, 5), n_draws=4).shape == (4, 1)
    with pytest.raises(InputError, match="at least one draw"):
        gaussian_spectra((3, 0))


@pytest.mark.parametrize("shape", [(7, 9), (8, 8)])
def test_middle_and_top_of_the_same_draws(shape):
    values = np.sqrt(gaussian_spectra(shape, n_draws=5, seed=3))
    middle, top = middle_and_top(shape, n_draws=5, seed=3)
    np.testing.assert_allclose(middle, np.median(values, axis=1), rtol=1e-9)
    np.testing.assert_allclose(top, values[:, -1], rtol=1e-9)


def test_docstrings():
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(spectra).failed == 0


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e200])
@pytest.mark.parametrize("sigma", [None, 1.0])
def test_scale_changes_nothing_but_the_scale(scale, sigma):
    """Squares of such values are 0 or infinite."""
    values = np.linalg.svd(np.random.default_rng(0).standard_normal((20, 30)))[1]
    values[0] *= 3
    one = marchenko_pastur(values, (20, 30), sigma=sigma)
    other = marchenko_pastur(values * scale, (20, 30), sigma=sigma and sigma * scale)
    for name in ("n_spikes", "spike_variance", "bulk_ks"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-9)
    for name in ("sigma", "edge", "threshold", "detection_limit", "largest"):
        np.testing.assert_allclose(getattr(other, name) / scale, getattr(one, name), rtol=1e-9)
