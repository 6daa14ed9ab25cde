"""P-values from null draws, bootstrap intervals, false discovery rates: thin, on SciPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from headspec.errors import InputError

Alternative = Literal["greater", "less", "two-sided"]


@dataclass(frozen=True)
class NullSummary:
    """An observed number beside what its null gives.

    Attributes:
        observed: the number itself.
        mean, sd: of the null draws (sd with n - 1).
        q05, q50, q95: quantiles of the null draws.
        p_value: see `permutation_p`.
        n: number of null draws that were defined.
        p_below: p-value of the other tail: small where the number lies below its null, which a
            large `p_value` does not tell from lying inside it. nan where `p_value` is.
    """

    observed: float
    mean: float
    sd: float
    q05: float
    q50: float
    q95: float
    p_value: float
    n: int
    p_below: float = float("nan")

    @classmethod
    def bare(cls, value: float) -> NullSummary:
        """A number that has no null: everything else is nan."""
        nothing = float("nan")
        return cls(float(value), *[nothing] * 5, p_value=nothing, n=0)


def permutation_p(
    observed: float | int,
    null: ArrayLike,
    *,
    alternative: Alternative = "greater",
    exact: bool = False,
) -> float:
    """P-value of a number against draws of it under a null hypothesis.

    For random draws p = (1 + #{null >= observed}) / (1 + n): the observed arrangement counts as
    one draw, which keeps the test valid at any n (Phipson and Smyth 2010). It can never be 0.
    Draws within rounding (relative 1e-12) of the observed number count as equal to it. `nan`
    stands for "nothing found" and is the least evidence there is, observed or drawn: below every
    number for `"greater"`, above every number for `"less"`. An observed nan has p = 1.

    Args:
        observed: the number from the data.
        null: its draws under the null, one-dimensional.
        alternative: whether large (`"greater"`), small, or large and small values are evidence;
            two-sided doubles the smaller of the two.
        exact: `null` holds every arrangement, the observed one among them; p is then their share.

    Returns:
        The p-value in (0, 1]. What it does not show: how large the effect is, or that the null
        was the right one to ask about.

    Raises:
        InputError: no draws, or an unknown alternative.

    Example:
        >>> permutation_p(3.0, [0.0, 1.0, 2.0])
        0.25
    """
    draws = np.asarray(null, dtype=float)
    if draws.ndim != 1 or not draws.size:
        raise InputError(
            expected="null draws in one dimension, at least one",
            got=f"shape {list(draws.shape)}",
            fix="Draw more (99 draws allow p = .01 at best).",
        )
    if alternative not in ("greater", "less", "two-sided"):
        raise InputError(
            expected="alternative 'greater', 'less' or 'two-sided'",
            got=repr(alternative),
            fix="Choose before looking at the data.",
        )
    finite = draws[np.isfinite(draws)]
    scale = max([abs(float(observed)) if np.isfinite(observed) else 0.0, *np.abs(finite)[:1]])
    slack = 1e-12 * scale
    if np.isnan(observed):
        return 1.0
    extra = 0 if exact else 1  # a nan among the draws is neither as large nor as small
    upper = (extra + np.count_nonzero(draws >= observed - slack)) / (extra + draws.size)
    lower = (extra + np.count_nonzero(draws <= observed + slack)) / (extra + draws.size)
    if alternative == "two-sided":
        return float(min(1.0, 2 * min(upper, lower)))
    return float(min(1.0, upper if alternative == "greater" else lower))


def summarise_null(
    observed: float | int,
    null: ArrayLike,
    *,
    alternative: Alternative = "greater",
    exact: bool = False,
) -> NullSummary:
    """Mean, standard deviation, quantiles and p-value of a number against its null draws.

    Args:
        observed, null, alternative, exact: as in `permutation_p`.

    Raises:
        InputError: as `permutation_p`.

    Example:
        >>> summarise_null(3.0, [0.0, 1.0, 2.0]).mean
        1.0
    """
    draws = np.asarray(null, dtype=float)
    p_value = permutation_p(observed, draws, alternative=alternative, exact=exact)
    other: Alternative = "greater" if alternative == "less" else "less"
    p_below = permutation_p(observed, draws, alternative=other, exact=exact)
    defined = draws[~np.isnan(draws)]
    if defined.size == 0:
        nothing = float("nan")
        return NullSummary(float(observed), *[nothing] * 5, p_value=p_value, n=0, p_below=p_below)
    quantiles = np.quantile(defined, [0.05, 0.5, 0.95])
    return NullSummary(
        observed=float(observed),
        mean=float(defined.mean()),
        sd=float(defined.std(ddof=1)) if defined.size > 1 else float("nan"),
        q05=float(quantiles[0]),
        q50=float(quantiles[1]),
        q95=float(quantiles[2]),
        p_value=p_value,
        n=int(defined.size),
        p_below=p_below,
    )


@dataclass(frozen=True)
class Interval:
    """A statistic with its confidence interval.

    Attributes:
        value: the statistic of the sample.
        low, high: ends of the interval.
        level: its nominal coverage, such as 0.95.
        n: sample size.
    """

    value: float
    low: float
    high: float
    level: float
    n: int


def bootstrap_interval(
    values: ArrayLike,
    *,
    statistic: Callable[..., Any] = np.mean,
    level: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of a statistic of independent values.

    Args:
        values: one number per independent unit (a prompt, a head, a seed; not a token of the
            same prompt), one-dimensional, at least two.
        statistic: takes an array and `axis=`.
        level: nominal coverage.
        n_resamples: bootstrap samples.
        seed: of the resampling.

    Returns:
        The statistic and its interval; both ends equal it where all values are equal. Coverage
        falls short of `level` for small n (below about 20).

    Raises:
        InputError: fewer than two values, or values that are not finite.

    References:
        Efron 1987, "Better bootstrap confidence intervals"; computed by `scipy.stats.bootstrap`.
    """
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or sample.size < 2 or not np.isfinite(sample).all():
        raise InputError(
            expected="at least two finite numbers in one dimension",
            got=f"shape {list(sample.shape)}, {int((~np.isfinite(sample)).sum())} not finite",
            fix="Give one number per independent unit and leave out what failed.",
        )
    value = float(statistic(sample, axis=-1))
    low = high = value
    if np.ptp(sample) > 1e-12 * np.abs(sample).max():  # rounding is no spread
        found = scipy_stats.bootstrap(
            (sample,),
            statistic,
            confidence_level=level,
            n_resamples=n_resamples,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    return Interval(value=value, low=low, high=high, level=level, n=int(sample.size))


@dataclass(frozen=True)
class MeanIntervals:
    """Means of rows, ends of their bootstrap intervals (nan with a single unit), level, n."""

    means: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    n: int


def bootstrap_means(
    values: ArrayLike,
    *,
    over: ArrayLike | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> MeanIntervals:
    """Percentile bootstrap intervals of many row means at once, by one matrix product.

    Equal to `scipy.stats.bootstrap(method="percentile")` (Efron and Tibshirani 1993).

    Args:
        values: `row unit`. Units (prompts, say) are drawn with replacement, alike for all rows.
        over: `unit` or `row unit`: the statistic is then sum(values) / sum(over), such as a mean
            over groups of unequal size (sums over sizes) or a ratio of means.
        level: nominal coverage; falls short for small n (at n = 10 by about .05).
        n_resamples: bootstrap samples.
        seed: of the resampling.

    Raises:
        InputError: values that are not `row unit`.
    """
    rows = np.asarray(values, dtype=float)
    if rows.ndim != 2 or not rows.shape[1]:
        raise InputError(
            expected="values of shape row unit", got=f"shape {list(rows.shape)}", fix="Add an axis."
        )
    n = rows.shape[1]
    below = np.atleast_2d(np.ones(n) if over is None else np.asarray(over, dtype=float))
    chosen = np.random.default_rng(seed).integers(0, n, (n_resamples, n))
    counts = np.stack([np.bincount(draw, minlength=n) for draw in chosen]).astype(float)
    ends = np.full((2, len(rows)), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = rows.sum(1) / below.sum(1)
        for start in range(0, len(rows) if n > 1 else 0, 2048):
            part = slice(start, start + 2048)
            divisors = counts @ (below[part] if len(below) > 1 else below).T
            resampled = (counts @ rows[part].T) / divisors
            ends[:, part] = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return MeanIntervals(means, ends[0], ends[1], level=level, n=n)


def false_discovery_rate(p_values: ArrayLike, *, method: Literal["bh", "by"] = "bh") -> np.ndarray:
    """P-values adjusted so that calling those below alpha keeps false discoveries at alpha.

    Args:
        p_values: p-values of all tests that were tried, any shape; `nan` marks a test that was
            not done and stays `nan`.
        method: `"bh"` (Benjamini-Hochberg; independent or positively dependent tests) or `"by"`
            (Benjamini-Yekutieli; any dependence).

    Returns:
        Adjusted p-values, same shape.

    Raises:
        InputError: numbers outside 0 to 1.

    Example:
        >>> false_discovery_rate([0.01, 0.04, 0.5]).round(3).tolist()
        [0.03, 0.06, 0.5]
    """
    p = np.asarray(p_values, dtype=float)
    done = ~np.isnan(p)
    if ((p[done] < 0) | (p[done] > 1)).any():
        raise InputError(
            expected="p-values between 0 and 1 (nan where a test was not done)",
            got=f"values from {p[done].min():.3g} to {p[done].max():.3g}",
            fix="Pass p-values, not test statistics.",
        )
    adjusted = np.full(p.shape, np.nan)
    if done.any():
        adjusted[done] = scipy_stats.false_discovery_control(p[done], method=method)
    return adjusted
