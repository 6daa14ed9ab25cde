"""Correlations of rates that surrogates give in the place of a capability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from headspec.series.rate_correlations import RateGroup
from headspec.series.rates import lagged, unit
from headspec.series.surrogates import Null, surrogates

_BLOCK = 2**22  # null correlations held at once: 32 MiB
_SLACK = 1e-12  # correlations this close are equal


def surrogate_rates(
    group: RateGroup, *, null: Null, n_null: int, seed: int
) -> Float[np.ndarray, "capability draw interval"]:
    """Surrogates of the capabilities' rates, with the same taken out of them as of the rates."""
    draws = surrogates(group.capability_rates, null=null, n_null=n_null, seed=seed)
    return draws - (draws @ group.design) @ group.design.T


def null_summaries(
    group: RateGroup,
    lags: Sequence[int],
    observed: Sequence[Float[np.ndarray, " curve"]],
    null: Null,
    n_null: int,
    seed: int,
) -> list[dict[str, Float[np.ndarray, " curve"] | float]]:
    """Per capability and lag, as `observed` is: moments, quantiles and p of each statistic.

    p is the share of draws with |r| as large or larger, the observed one counted as a draw;
    circular shifts are all there and hold the observed one already.
    """
    draws = surrogate_rates(group, null=null, n_null=n_null, seed=seed)
    exact = null == "circular_shift"
    found = []
    for at in range(len(draws)):
        for lag in lags:
            here, there = lagged(group.statistic_rates, draws[at], lag)
            value = observed[len(found)]
            found.append(_summary(unit(here), unit(there).T, value, exact))
    return found


def _summary(
    here: Float[np.ndarray, "curve interval"],
    there: Float[np.ndarray, "interval draw"],
    observed: Float[np.ndarray, " curve"],
    exact: bool,
) -> dict[str, Float[np.ndarray, " curve"] | float]:
    there = there[:, np.isfinite(there).all(axis=0)]
    n_draws = there.shape[1]
    columns = {name: np.full(len(here), np.nan) for name in _COLUMNS}
    extra = 0 if exact else 1
    rows = np.flatnonzero(np.isfinite(observed))
    size = max(1, _BLOCK // max(n_draws, 1))
    for start in range(0, len(rows) if n_draws else 0, size):
        part = rows[start : start + size]
        r = here[part] @ there
        columns["null_mean"][part] = r.mean(axis=1)
        columns["null_sd"][part] = r.std(axis=1, ddof=1 if n_draws > 1 else 0)
        ends = np.quantile(r, [0.05, 0.95], axis=1)
        columns["null_q05"][part], columns["null_q95"][part] = ends
        reached = (np.abs(r) >= np.abs(observed[part])[:, None] - _SLACK).sum(axis=1)
        columns["p"][part] = (extra + reached) / (extra + n_draws)
    return columns | {"least_p": 1 / (extra + n_draws)}


_COLUMNS = ("null_mean", "null_sd", "p", "null_q05", "null_q95")
