"""The null of unrelated directions against simulation and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_heads import rejection_bounds
from scipy import stats

from headspec.weights.orientation_null import (
    alignment_moments,
    alignment_p,
    gaussian_power_ratios,
    power_ratios,
    root_moments,
)


def simulated(first: np.ndarray, second: np.ndarray, d: int, n: int) -> np.ndarray:
    """tr(A Q B Q^T) / (tr A tr B) for eigenvalues of A and B and random Q, by brute force."""
    rng = np.random.default_rng(0)
    draws = []
    for start in range(0, n, 1000):
        size = min(1000, n - start)
        normal = torch.from_numpy(rng.standard_normal((size, d, len(second))))
        corner = torch.linalg.qr(normal).Q[:, : len(first)].numpy()
        draws.append(np.einsum("i,nij,j->n", first, corner**2, second))
    return np.concatenate(draws) / first.sum() / second.sum()


def ratios(eigenvalues: np.ndarray) -> np.ndarray:
    return power_ratios(torch.from_numpy(np.diag(np.sqrt(eigenvalues)))[None])


SPECTRA = {
    "equal": np.ones(6),
    "decaying": 1 / np.arange(1.0, 7),
    "one large": np.array([1, 0.02, 0.02, 0.02, 0.02, 0.02]),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_moments_and_error_rates_against_simulation(name):
    d, n, first, second = 40, 20_000, SPECTRA[name], SPECTRA["decaying"]
    x = simulated(first, second, d, n)
    mean, sd, skew = alignment_moments(ratios(first), ratios(second), d)
    assert x.mean() == pytest.approx(mean[0], abs=4 * sd[0] / np.sqrt(n))
    assert x.std() == pytest.approx(sd[0], rel=0.05)
    assert stats.skew(x) == pytest.approx(skew[0], abs=0.2)
    p = alignment_p(x, mean, sd, skew)
    for level, slack in ((0.05, 1.1), (0.01, 1.15)):
        assert (p <= level).mean() == pytest.approx(level, rel=slack - 1 + 3 / np.sqrt(n * level))
    assert 0.3 < (p <= 0.001).mean() / 0.001 < 2.2
    root, root_sd = root_moments(mean, sd)
    assert np.sqrt(x).mean() == pytest.approx(root[0], rel=0.04)
    assert np.sqrt(x).std() == pytest.approx(root_sd[0], rel=0.2)


def test_two_moments_are_not_enough():
    """Negative control: a gamma law with the same mean and variance errs more in the tail."""
    d, first = 40, SPECTRA["decaying"]
    x = simulated(first, first, d, 40_000)
    mean, sd, skew = alignment_moments(ratios(first), ratios(first), d)
    gamma = stats.gamma.sf(x, (mean / sd) ** 2, scale=sd**2 / mean)
    assert (gamma <= 0.001).mean() > 2 * 0.001
    low, high = rejection_bounds(len(x), 0.001)
    assert low / 3 <= (alignment_p(x, mean, sd, skew) <= 0.001).sum() <= 1.6 * high


@given(st.integers(2, 200))
def test_single_directions_follow_a_beta_law(d):
    """u.v squared of two random unit vectors is Beta(1/2, (d - 1)/2)."""
    one = ratios(np.ones(1))
    mean, sd, skew = alignment_moments(one, one, d)
    law = stats.beta(0.5, (d - 1) / 2)
    exact = law.stats("mvs")
    assert mean == pytest.approx(exact[0])
    assert sd**2 == pytest.approx(exact[1])
    assert skew == pytest.approx(exact[2], abs=1e-6)


@given(
    st.lists(st.floats(0.01, 10), min_size=1, max_size=5),
    st.lists(st.floats(0.01, 10), min_size=1, max_size=5),
)
def test_the_mean_square_is_one_over_d_whatever_the_spectra(first, second):
    mean, sd, _ = alignment_moments(ratios(np.array(first)), ratios(np.array(second)), 7)
    assert mean == pytest.approx(1 / 7)
    assert 0 <= sd < 1


def test_nothing_varies_against_the_identity():
    mean, sd, skew = alignment_moments(ratios(np.ones(5)), ratios(SPECTRA["decaying"][:5]), 5)
    assert sd == pytest.approx(0, abs=1e-9)
    assert alignment_p(np.array([0.2]), mean, sd, skew) == 1
    assert root_moments(mean, sd)[0] == pytest.approx(np.sqrt(0.2))


def test_gaussian_spectra_against_products_of_gaussian_matrices():
    found = gaussian_power_ratios(30, 5, seed=0)
    generator = torch.Generator().manual_seed(1)
    left, right = torch.randn(2, 400, 30, 5, generator=generator, dtype=torch.float64)
    np.testing.assert_allclose(found, power_ratios(left @ right.mT).mean(0), rtol=0.05)


def test_zeros_are_nan():
    assert np.isnan(power_ratios(torch.zeros(1, 3, 3))).all()
