"""P-values, null summaries, bootstrap intervals, false discovery rates."""

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from headspec.errors import InputError
from headspec.stats import (
    NullSummary,
    bootstrap_interval,
    bootstrap_means,
    false_discovery_rate,
    permutation_p,
    summarise_null,
)


def test_p_by_hand():
    assert permutation_p(3.0, [0.0, 1.0, 2.0]) == 1 / 4
    assert permutation_p(1.0, [0.0, 1.0, 2.0]) == 3 / 4
    assert permutation_p(0.0, [0.0, 1.0, 2.0], alternative="less") == 2 / 4
    assert permutation_p(3.0, [0.0, 1.0, 2.0], alternative="two-sided") == 2 / 4
    assert permutation_p(2.0, [0.0, 1.0, 2.0], exact=True) == 1 / 3


def test_p_is_never_zero_and_counts_ties_despite_rounding():
    assert permutation_p(1e9, np.zeros(99)) == 0.01
    third = 0.1 + 0.2  # 0.30000000000000004
    assert permutation_p(third, [0.3, 0.3, 0.3]) == 1
    assert permutation_p(0.3, [third, third, third], alternative="less") == 1


def test_nothing_found_is_no_evidence_whatever_is_asked():
    """Also not for "less", where -inf in its place would be the strongest evidence."""
    draws = np.arange(99.0)
    for alternative in ("greater", "less", "two-sided"):
        assert permutation_p(float("nan"), draws, alternative=alternative) == 1
        assert summarise_null(float("nan"), draws, alternative=alternative).p_value == 1
    nothing = np.full(99, np.nan)
    assert permutation_p(0.0, nothing, alternative="less") == 0.01
    assert permutation_p(0.0, nothing) == 0.01
    assert permutation_p(-1.0, [*draws, np.nan], alternative="less") == 1 / 101


def test_both_tails_are_summarised():
    assert summarise_null(3.0, [0.0, 1.0, 2.0]).p_below == 1
    assert summarise_null(-1.0, [0.0, 1.0, 2.0]).p_below == 1 / 4
    assert summarise_null(3.0, [0.0, 1.0, 2.0], alternative="less").p_below == 1 / 4
    assert np.isnan(NullSummary.bare(2.0).p_below)


def test_nothing_found_is_below_every_number():
    assert permutation_p(float("nan"), [0.0, -5.0]) == 1
    assert permutation_p(0.0, [np.nan, np.nan, np.nan]) == 1 / 4
    assert permutation_p(float("nan"), [np.nan, 1.0]) == 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_p_agrees_with_scipy(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.standard_normal(4), rng.standard_normal(4)

    def difference(x, y, axis=-1):
        return np.mean(x, axis=axis) - np.mean(y, axis=axis)

    oracle = scipy_stats.permutation_test((one, other), difference, alternative="greater")
    ours = permutation_p(difference(one, other), oracle.null_distribution, exact=True)
    assert ours == pytest.approx(oracle.pvalue)


def test_p_of_the_null_is_uniform_or_above():
    rng = np.random.default_rng(0)
    p = [permutation_p(rng.standard_normal(), rng.standard_normal(19)) for _ in range(4000)]
    for level in (0.05, 0.1, 0.5):
        assert np.mean(np.array(p) <= level) < level + 4 * np.sqrt(level / 4000)


def test_summary_by_hand():
    found = summarise_null(3.0, [0.0, 1.0, 2.0, float("nan")])
    assert (found.mean, found.sd, found.q50, found.n) == (1.0, 1.0, 1.0, 3)
    assert found.p_value == 1 / 5
    assert summarise_null(1.0, [np.nan]).p_value == 0.5
    assert np.isnan(NullSummary.bare(2.0).p_value)


def test_bootstrap_agrees_with_scipy_and_covers():
    sample = np.random.default_rng(1).exponential(size=30)
    ours = bootstrap_interval(sample, seed=5, n_resamples=999)
    oracle = scipy_stats.bootstrap(
        (sample,), np.mean, n_resamples=999, rng=np.random.default_rng(5)
    ).confidence_interval
    assert (ours.low, ours.high) == (oracle.low, oracle.high)
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(100):
        found = bootstrap_interval(rng.standard_normal(40), n_resamples=499)
        inside += found.low <= 0 <= found.high
    assert inside >= 86
    flat = bootstrap_interval(0.1 + np.array([0.2, 0.2, 0.2]) + [0, 1e-17, 4e-17])
    assert flat.low == flat.high == flat.value  # rounding is no spread
    flat = bootstrap_interval(np.full(5, 2.0))
    assert (flat.value, flat.low, flat.high) == (2, 2, 2)


def test_bootstrap_leaves_the_global_generator_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    bootstrap_interval([1.0, 2.0, 4.0], n_resamples=99)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_false_discovery_rate_by_hand_and_with_gaps():
    adjusted = false_discovery_rate([[0.01, np.nan], [0.04, 0.5]])
    np.testing.assert_allclose(adjusted, [[0.03, np.nan], [0.06, 0.5]])
    assert np.isnan(false_discovery_rate([np.nan])).all()
    assert (false_discovery_rate([0.01, 0.04], method="by") >= [0.02, 0.04]).all()


def test_errors_name_what_is_wrong(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong words through
    with pytest.raises(InputError, match="at least one"):
        permutation_p(1.0, [])
    with pytest.raises(InputError, match="alternative"):
        permutation_p(1.0, [1.0], alternative="bigger")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="two finite"):
        bootstrap_interval([1.0])
    with pytest.raises(InputError, match="between 0 and 1"):
        false_discovery_rate([1.5])


@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
@settings(max_examples=15, deadline=None)
def test_many_means_at_once_are_scipys_intervals(seed, n):
    rows = np.random.default_rng(seed).standard_normal((4, n))
    found = bootstrap_means(rows, n_resamples=300, seed=seed)
    oracle = scipy_stats.bootstrap(
        (rows,),
        np.mean,
        axis=-1,
        n_resamples=300,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    np.testing.assert_allclose(found.low, oracle.low, atol=1e-12)
    np.testing.assert_allclose(found.high, oracle.high, atol=1e-12)
    np.testing.assert_allclose(found.means, rows.mean(1), atol=1e-12)
    assert found.n == n


def test_ratios_of_sums_are_resampled_together():
    """With numerators twice the denominators there is nothing to be uncertain about."""
    below = np.random.default_rng(0).uniform(1, 2, 20)
    found = bootstrap_means([2 * below, below**2], over=below)
    np.testing.assert_allclose([found.means[0], found.low[0], found.high[0]], 2, rtol=1e-12)
    assert found.low[1] < (below**2).sum() / below.sum() < found.high[1]
    each = bootstrap_means([2 * below, below**2], over=[below, below])
    np.testing.assert_allclose(each.low, found.low, rtol=1e-12)


def test_coverage_of_many_means():
    rows = np.random.default_rng(0).standard_normal((2000, 30))
    found = bootstrap_means(rows, n_resamples=1000)
    covered = ((found.low <= 0) & (found.high >= 0)).mean()
    assert 0.91 < covered < 0.96


def test_one_unit_has_no_interval_and_gaps_stay_gaps():
    one = bootstrap_means([[3.0]])
    assert one.means[0] == 3
    assert np.isnan([one.low[0], one.high[0]]).all()
    gaps = bootstrap_means([[1.0, np.nan], [1.0, 2.0]], n_resamples=50)
    assert np.isnan(gaps.low).tolist() == [True, False]
    with pytest.raises(InputError, match="values of shape row unit"):
        bootstrap_means([1.0, 2.0])
