"""What the tests of the study can see: links that are known to be there, put to the same tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from headspec.results import tidy
from headspec.series.correlation import correlate_rates
from headspec.series.pooling import pool_models
from headspec.series.rate_correlations import RateCorrelations, RateGroup
from headspec.series.rate_nulls import surrogate_rates
from headspec.series.rates import without_design

PERFECT, CLOSE = "perfect_link", "close_link"
CLOSE_R = 0.9
"""Correlation of rates that a close link has, in every model."""


def link_controls(
    capabilities: pd.DataFrame,
    links: pd.DataFrame,
    pooled: pd.DataFrame | None,
    *,
    n_null: int,
    n_pooled: int,
    n_draws: int = 20,
    alpha: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """Put made-up statistics with a known link to each capability to the tests of a family.

    * `"perfect_link"`: the capability itself in the place of a statistic.
    * `"close_link"`: its rates with surrogates of themselves added, so that they correlate .9 with
      the capability in every model, over all of training. What is added is drawn anew for each
      model, which is the case where pooling helps most.

    Args:
        capabilities: of `capability_curves`.
        links: the family in single models, with p and q.
        pooled: the same family pooled over models; None for one model.
        n_null, n_pooled: surrogates of p, alone and pooled.
        n_draws: statistics with a close link, of each capability.
        alpha: false discovery rate to accept.
        seed: of all surrogates.

    Returns:
        One row a kind of link (`metric`), capability and model, and one for all models (`model`
        missing, p pooled): `share_seen`, the share of draws that would pass the correction beside
        the family's `tests`; `seen`, whether that is half or more; `value`, `p`: their medians.

    What it does not show: whether a link other than of these sizes, or in some models alone, would
    be seen. Noise in what is measured is in the draws only in so far as surrogates have it.
    """
    alone, together = [], []
    for _, own in capabilities.groupby("metric", sort=False):
        close = _close_curves(correlate_rates(own, own, n_null=20), n_draws, seed + 1)
        both = pd.concat([own.assign(metric=PERFECT), close], ignore_index=True)
        found = correlate_rates(both, own, n_null=n_null, seed=seed)
        alone.append(found.to_frame())
        if pooled is not None:
            together.append(pool_models(found, n_null=n_pooled).to_frame())
    tables = [_seen(pd.concat(alone), links, alpha)]
    if pooled is not None:
        tables.append(_seen(pd.concat(together), pooled, alpha))
    return tidy(pd.concat(tables, ignore_index=True), seed=seed)


def _close_curves(found: RateCorrelations, n_draws: int, seed: int) -> pd.DataFrame:
    """Curves whose rates correlate .9 with those of each model's only capability."""
    parts = []
    for at, group in enumerate(found.groups):
        rates = _close_rates(group, n_draws, seed + at)
        widths = np.diff(np.log1p(group.steps))
        values = np.c_[np.zeros(n_draws), np.cumsum(rates * np.sqrt(widths), axis=1)]
        columns: dict[str, Any] = {
            "step": np.tile(group.steps, n_draws),
            "metric": np.repeat([f"{CLOSE}.{at}" for at in range(n_draws)], len(group.steps)),
            "value": values.ravel(),
        }
        parts.append(pd.DataFrame(columns).assign(model=group.model))
    return pd.concat(parts, ignore_index=True)


def _close_rates(group: RateGroup, n_draws: int, seed: int) -> np.ndarray:
    """Weighted rates, `draw interval`: the capability's direction and one at right angles to it."""
    draws = surrogate_rates(group, null="phase_randomised", n_null=n_draws, seed=seed)[0]
    design = np.column_stack([group.design, group.capability_rates[0]])
    sides = [without_design(group.capability_rates[:1], group.design)]
    sides.append(without_design(draws, design))
    along, across = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
    return CLOSE_R * along + np.sqrt(1 - CLOSE_R**2) * across


def _seen(control: pd.DataFrame, family: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """How often one more test with such a p would pass beside those of the family."""
    tests, passed = count_tests(family, alpha)
    passes = control["p"].to_numpy(float) * (tests + 1) <= alpha * (1 + passed)
    keys = ["model", "capability", "metric"]
    kinds = [str(name).partition(".")[0] for name in control["metric"]]
    control = control.assign(metric=kinds, share_seen=passes)
    grouped = control.groupby(keys, dropna=False, sort=False)
    columns = {"value": "median", "p": "median", "n": "first", "share_seen": "mean"}
    rows = grouped.agg(columns).reset_index()
    return rows.assign(tests=tests, seen=rows["share_seen"] >= 0.5)


def count_tests(table: pd.DataFrame, alpha: float) -> tuple[int, int]:
    """How many tests were done, and how many pass the correction at `alpha`."""
    p, q = (table[name].to_numpy(float) for name in ("p", "q"))
    return int(np.isfinite(p).sum()), int((q <= alpha).sum())


def count_seen(control: pd.DataFrame, kind: str = PERFECT) -> tuple[int, int]:
    """For how many capabilities the family that decides would see such a link, of how many.

    Args:
        control: of `link_controls`; rows of all models together decide where there are any.
        kind: `PERFECT` or `CLOSE`.
    """
    is_pooled = control["model"].isna().to_numpy(bool)
    rows = control.loc[(is_pooled == is_pooled.any()) & (control["metric"] == kind)]
    return int(rows["seen"].to_numpy(bool).sum()), len(rows)


def can_decide(control: pd.DataFrame) -> bool:
    """Whether a close link would be seen, more often than not, for half of the capabilities."""
    seen, asked = count_seen(control, CLOSE)
    return 2 * seen >= asked
