"""How often surrogates in the place of a capability correlate as much, in all of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from headspec.series.rate_correlations import RateGroup
from headspec.series.rates import lagged, without_design
from headspec.series.surrogates import Null, surrogates, width_scale

_FIRST = 1000  # draws that every pair gets; all of them only where these leave p at or below
_UNDECIDED = 0.1
_RIDGE = 0.1  # of the whole series' variation: less than that left over is little to go by
_BLOCK = 2**22  # null correlations held at once: 32 MiB
_SLACK = 1e-12  # correlations this close are equal
_COLUMNS = ("null_mean", "null_sd", "p", "null_q05", "null_q95")


def surrogate_rates(
    group: RateGroup, *, null: Null, n_null: int, seed: int
) -> Float[np.ndarray, "capability draw interval"]:
    """Surrogates of the capabilities' rates, as large by width of interval as these are."""
    scale = width_scale(group.capability_rates, group.spread_widths)
    draws = surrogates(group.capability_rates / scale, null=null, n_null=n_null, seed=seed)
    return draws * scale[:, None]


def stretches(n: int, leave_out: float) -> list[np.ndarray]:
    """Intervals kept: all of them, then all but each stretch of neighbours in turn."""
    length = round(leave_out * n)
    everything = np.arange(n)
    if not length:
        return [everything]
    starts = range(n - length + 1)
    return [everything, *(np.r_[0:start, start + length : n] for start in starts)]


def kept_correlations(
    group: RateGroup,
    statistics: Float[np.ndarray, "curve interval"],
    capabilities: Float[np.ndarray, "draw interval"],
    lag: int,
    keep: Int[np.ndarray, " kept"],
) -> Float[np.ndarray, "curve draw"]:
    """r of each statistic with each row over the intervals kept, the design taken out there.

    Where intervals are left out, a tenth of the whole series' variation is added to what is left
    of it, so that the tails of one event do not count as much as the event.
    """
    designs = lagged(group.design.T, group.design.T, lag)
    sides = []
    for rows, design in zip(lagged(statistics, capabilities, lag), designs, strict=True):
        left = without_design(rows[:, keep], design[:, keep].T)
        size = (left**2).sum(axis=1)
        if len(keep) < rows.shape[1]:
            size = size + _RIDGE * (without_design(rows, design.T) ** 2).sum(axis=1)
        length = np.sqrt(size)[:, None]
        sides.append(np.divide(left, length, out=np.full_like(left, np.nan), where=length > 0))
    return sides[0] @ sides[1].T


def null_summaries(
    group: RateGroup,
    lags: Sequence[int],
    *,
    null: Null,
    leave_out: float,
    n_null: int,
    seed: int,
) -> list[dict[str, Float[np.ndarray, " curve"] | float]]:
    """Per capability and lag: r, moments and quantiles of its null, and p, of each statistic.

    p is the share of draws with |r| as large or larger, the observed one counted as a draw
    (circular shifts are all there and hold it already), and the largest such share when each
    stretch of training is left out; 1 if r changes its sign then.
    """
    draws = surrogate_rates(group, null=null, n_null=n_null, seed=seed)
    exact = null == "circular_shift"
    found = []
    for at in range(len(draws)):
        for lag in lags:
            n = len(group.spread_widths) - abs(lag)
            kept = stretches(n, leave_out)
            found.append(_summary(group, at, lag, kept, draws[at], exact))
    return found


def _summary(
    group: RateGroup,
    at: int,
    lag: int,
    kept: list[np.ndarray],
    draws: Float[np.ndarray, "draw interval"],
    exact: bool,
) -> dict[str, Float[np.ndarray, " curve"] | float]:
    rates, goal = group.statistic_rates, group.capability_rates[at : at + 1]
    observed = np.stack([kept_correlations(group, rates, goal, lag, keep)[:, 0] for keep in kept])
    columns = {name: np.full(len(rates), np.nan) for name in _COLUMNS}
    rows, extra = np.flatnonzero(np.isfinite(observed[0])), 0 if exact else 1
    for part in _parts(rows, min(len(draws), _FIRST)):
        first = draws[:_FIRST]
        r = kept_correlations(group, rates[part], first, lag, kept[0])
        columns["null_mean"][part] = r.mean(axis=1)
        columns["null_sd"][part] = r.std(axis=1, ddof=1)
        columns["null_q05"][part], columns["null_q95"][part] = np.quantile(r, [0.05, 0.95], axis=1)
        columns["p"][part] = _largest_share(group, part, lag, kept, first, observed, extra, r)
    if len(draws) > _FIRST:
        for part in _parts(rows[columns["p"][rows] <= _UNDECIDED], len(draws)):
            columns["p"][part] = _largest_share(group, part, lag, kept, draws, observed, extra)
    return columns | {"value": observed[0], "n": len(kept[0]), "least_p": 1 / (extra + len(draws))}


def _parts(rows: Int[np.ndarray, " row"], n_draws: int) -> list[np.ndarray]:
    size = max(1, _BLOCK // n_draws)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _largest_share(
    group: RateGroup,
    rows: Int[np.ndarray, " row"],
    lag: int,
    kept: list[np.ndarray],
    draws: Float[np.ndarray, "draw interval"],
    observed: Float[np.ndarray, "stretch curve"],
    extra: int,
    whole: Float[np.ndarray, "row draw"] | None = None,
) -> Float[np.ndarray, " row"]:
    p, sign = np.zeros(len(rows)), np.sign(observed[0, rows])
    for at, keep in enumerate(kept):
        r = whole if whole is not None and at == 0 else None
        if r is None:
            r = kept_correlations(group, group.statistic_rates[rows], draws, lag, keep)
        least = np.nan_to_num(observed[at, rows] * sign, nan=-1.0)  # nothing left: no evidence
        reached = (np.abs(r) >= least[:, None] - _SLACK).sum(axis=1)
        p = np.maximum(p, np.where(least < 0, 1.0, (extra + reached) / (extra + len(draws))))
    return p
