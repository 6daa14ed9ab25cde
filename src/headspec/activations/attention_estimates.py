"""Metrics from sums over queries, with errors over sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats

from headspec.activations.attention_by_topic import (
    TopicTotals,
    ratio_of_totals,
    specialisation_of_totals,
)

Sums = Mapping[str, np.ndarray]
Statistic = Callable[[Sums], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A statistic, its standard error and the ends of its interval, `layer head`."""

    value: Float[np.ndarray, "layer head"]
    se: Float[np.ndarray, "layer head"]
    low: Float[np.ndarray, "layer head"]
    high: Float[np.ndarray, "layer head"]


def jackknife(
    statistic: Statistic,
    parts: Sums,
    *,
    level: float,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """Leave out one sequence at a time: se^2 = (n - 1) / n sum (theta_i - mean theta)^2.

    Args:
        statistic: of sums over sequences; leading axes pass through.
        parts: what each sequence adds, sequences first.
        level: of the interval, t with n - 1 degrees of freedom.
        bounds: range of the statistic. With (0, infinity) the interval is made on its logarithm,
            elsewhere it is cut to the range.
    """
    whole = summed(parts)
    value = statistic(whole)
    n = len(next(iter(parts.values())))
    log = bounds == (0.0, np.inf)
    scale = np.log if log else np.asarray
    with np.errstate(divide="ignore", invalid="ignore"):
        left_out = scale(statistic({name: whole[name] - part for name, part in parts.items()}))
        se = np.sqrt((n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0))
        se = se if n > 1 else np.full(value.shape, np.nan)
        reach = _t(level, n) * se
        low, high = scale(value) - reach, scale(value) + reach
        low, high = (np.exp(x) if log else np.clip(x, *bounds) for x in (low, high))
    return Estimate(value, value * se if log else se, low, high)


def estimate_excess(
    own: tuple[np.ndarray, np.ndarray],
    reader: tuple[np.ndarray, np.ndarray],
    lender: tuple[np.ndarray, np.ndarray],
    *,
    n_exchanged: int,
    level: float,
) -> Estimate:
    """Within-topic mass less that with labels of other sequences, and its error.

    With A_ij the mass of sequence i read with the labels of j, the excess is the mean of A_ii less
    the mean of A_ij. A permutation of the labels keeps what is particular to sequences (a_i) and to
    rows of labels (b_j), so these cancel, and the error is the standard deviation of

        D_i = A_ii - mean_j A_ij - mean_j A_ji

    over root n, means over the exchanges. (The jackknife would count a and b in: 2.5 times too wide
    in simulation.) A few exchanges leave some of them in.

    Args:
        own, reader, lender: mass and number of labelled queries, one row a sequence: with its own
            labels, with those it was lent, and of others with its labels, summed over exchanges.
        n_exchanged: exchanges.
        level: of the interval.
    """
    n = len(own[0])
    base = reader[0].sum(0) / reader[1].sum(0)
    value = own[0].sum(0) / own[1].sum(0) - base
    own_left, *others = (mass - base * count for mass, count in (own, reader, lender))
    differences = (own_left - sum(others) / n_exchanged) / own[1].mean()
    se = differences.std(0, ddof=1) / np.sqrt(n)
    reach = _t(level, n) * se
    return Estimate(value, se, value - reach, value + reach)


def summed(parts: Sums) -> dict[str, np.ndarray]:
    """Sums over sequences."""
    return {name: part.sum(0) for name, part in parts.items()}


def mean_of(name: str) -> Statistic:
    """Mean over queries of what `name` sums."""
    return lambda sums: sums[name] / sums["queries"]


def topic_totals(sums: Sums) -> TopicTotals:
    """The masses that ratios are made of."""
    names = ("within", "cross", "uniform_within", "uniform_cross")
    return TopicTotals(*(sums[name] for name in names))


OF_TOPICS: dict[str, Statistic] = {
    "within_topic_mass": lambda sums: sums["within"].sum(-1) / sums["labelled"],
    "topic_ratio": lambda sums: ratio_of_totals(topic_totals(sums)),
    "topic_specialisation": lambda sums: specialisation_of_totals(topic_totals(sums)),
}
"""Metrics of topics, from masses by the query's topic."""

BOUNDS = {
    "within_topic_mass": (0.0, 1.0),
    "topic_ratio": (0.0, np.inf),
    "topic_specialisation": (0.0, 1.0),
}


def _t(level: float, n: int) -> float:
    return float(scipy_stats.t.ppf((1 + level) / 2, n - 1)) if n > 1 else np.nan
