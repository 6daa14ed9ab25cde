"""Power law against lognormal and exponential: powerlaw as oracle, limits, error rates."""

import doctest
import warnings
from types import SimpleNamespace

import numpy as np
import powerlaw
import pytest
import torch
from scipy import stats

from headspec import results
from headspec.errors import InputError
from headspec.weights import tail_comparison
from headspec.weights.power_law import fit_power_law
from headspec.weights.tail_comparison import compare_tails

RNG = np.random.default_rng(0)
SAMPLES = {
    "pareto": (1 - RNG.random(300)) ** (-1 / 1.5),
    "lognormal": np.exp(RNG.normal(size=300)),
    "exponential": RNG.exponential(size=300),
    "gaussian": np.linalg.svd(RNG.standard_normal((200, 200)), compute_uv=False) ** 2,
}


def power_likelihood(values, fit):
    tail = values[values >= fit.xmin]
    return np.sum(np.log((fit.alpha - 1) / fit.xmin) - fit.alpha * np.log(tail / fit.xmin))


def likelihood(values, fit, lognormal):
    """By SciPy: the peer's own underflows where mu is far below the tail (-.164 for .002)."""
    law = stats.lognorm(lognormal.sigma, scale=np.exp(lognormal.mu))
    tail = values[values >= fit.xmin]
    return law.logpdf(tail).sum() - len(tail) * law.logsf(fit.xmin)


@pytest.mark.parametrize("name", list(SAMPLES))
@pytest.mark.parametrize("quantile", [None, 0.3])
def test_agrees_with_powerlaw(name, quantile):
    values = SAMPLES[name]
    xmin = None if quantile is None else float(np.quantile(values, quantile))
    fit = fit_power_law(values, xmin=xmin)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = powerlaw.Fit(values, xmin=xmin, verbose=0, parameter_ranges={"alpha": [1, 100]})
        for against in ("exponential", "lognormal"):
            found = compare_tails(values, fit, against=against)
            ratio, _ = other.distribution_compare("power_law", against)
            normalised, p = other.distribution_compare("power_law", against, normalized_ratio=True)
            if found.ratio == 0:  # the limit: no lognormal is better, the peer's neither
                assert power_likelihood(values, fit) >= likelihood(values, fit, other.lognormal)
                continue
            assert found.ratio == pytest.approx(ratio, abs=1e-3)
            assert found.normalised == pytest.approx(normalised, rel=0.05)
            assert found.p_value == pytest.approx(p, rel=0.3, abs=1e-3)


@pytest.mark.parametrize("h", [-1000.0, -30.0, -5.0, 0.0, 3.0, 20.0])
def test_moments_of_a_truncated_normal(h):
    mean, ratio = tail_comparison._moments(h)
    cut = stats.truncnorm(h, np.inf, loc=-h)
    assert mean == pytest.approx(cut.mean(), rel=1e-8)
    assert ratio == pytest.approx((cut.var() + cut.mean() ** 2) / cut.mean() ** 2, rel=1e-8)


def test_the_series_meets_the_closed_form():
    close = [tail_comparison._moments(h) for h in (25.0, np.nextafter(25.0, 26))]
    np.testing.assert_allclose(close[0], close[1], rtol=1e-9)
    assert tail_comparison._moments(1e5)[1] == pytest.approx(2, abs=1e-9)


def test_golden_exponential_by_hand():
    """Tail 1, 2, 4: rate 3/4; log-likelihood 3 ln(3/4) - 3 against 3 ln(1/ln 2) - 3 - 3 ln 2."""
    values = np.array([1.0, 2.0, 4.0])
    found = compare_tails(values, fit_power_law(values, xmin=1), against="exponential")
    power = -3 * np.log(np.log(2)) - (1 + 1 / np.log(2)) * 3 * np.log(2)
    assert found.ratio == pytest.approx(power - (3 * np.log(0.75) - 3))
    assert found.parameters == pytest.approx([0.75])
    tenfold = compare_tails(10 * values, fit_power_law(10 * values, xmin=10), against="exponential")
    assert tenfold.parameters == pytest.approx([0.075])  # a rate is per unit
    assert tenfold.ratio == pytest.approx(found.ratio)


def test_the_lognormal_found_is_the_best():
    """No other mu and sigma does better, and the density integrates to one."""
    values = SAMPLES["lognormal"]
    fit = fit_power_law(values, xmin=float(np.quantile(values, 0.2)))
    found = compare_tails(values, fit)
    mu, sigma = found.parameters

    def at(mu, sigma):
        return likelihood(values, fit, SimpleNamespace(mu=mu, sigma=sigma))

    best = at(mu, sigma)
    assert found.ratio == pytest.approx(power_likelihood(values, fit) - best, abs=1e-8)
    for dmu, dsigma in ((0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02), (0.02, -0.02)):
        assert at(mu + dmu, sigma + dsigma) < best


def test_the_power_law_is_a_limit_of_the_lognormal():
    """Never better than the lognormal: with a wide spread of logs exactly as good, ratio 0."""
    values = (1 - np.random.default_rng(1).random((300, 60))) ** (-1 / 1.5)
    found = compare_tails(values, fit_power_law(values, xmin=1))
    assert (found.ratio <= 1e-9).all()
    at_limit = found.ratio == 0
    assert 0.2 < at_limit.mean() < 0.8
    assert (found.p_value[at_limit] == 1).all()
    assert np.isinf(found.parameters[at_limit]).all()


def test_error_rates_and_power():
    rng = np.random.default_rng(2)
    pareto = (1 - rng.random((500, 400))) ** (-1 / 1.5)
    shifted = 1 + rng.exponential(size=(100, 400))
    for values, against, favours, rate in (
        (pareto, "lognormal", -1, (0.0, 0.05)),  # false favour of the lognormal
        (pareto, "exponential", 1, (0.9, 1.0)),
        (shifted, "exponential", -1, (0.95, 1.0)),
        (shifted, "lognormal", -1, (0.95, 1.0)),
    ):
        found = compare_tails(values, fit_power_law(values, xmin=1), against=against)
        called = np.mean((found.p_value < 0.05) & (np.sign(found.ratio) == favours))
        assert rate[0] <= called <= rate[1], (against, called)


def test_batches_frames_and_files(tmp_path):
    values = np.stack([SAMPLES["pareto"], SAMPLES["lognormal"], np.zeros(300)])
    fit = fit_power_law(values)
    found = compare_tails(torch.from_numpy(values), fit, against="exponential")
    assert found.p_value.shape == (3,)
    assert np.isnan(found.p_value[2])
    one = compare_tails(values[1], fit_power_law(values[1]), against="exponential")
    assert found.ratio[1] == one.ratio
    assert found.summary().startswith("Of 2 tails, 1 favour")
    frame = found.to_frame()
    assert frame["metric"].unique().tolist() == ["power_law_vs_exponential"]
    results.save(found, tmp_path / "tails.json")
    assert results.load(tmp_path / "tails.json").to_frame().equals(frame)


def test_other_values_than_the_fit_are_an_error():
    values = SAMPLES["pareto"]
    fit = fit_power_law(values)
    with pytest.raises(InputError, match="what was passed to fit_power_law"):
        compare_tails(2 * values, fit)
    with pytest.raises(InputError, match="batch"):
        compare_tails(values[None], fit)


def test_docstrings():
    assert doctest.testmod(tail_comparison).failed == 0
