"""Do statistics of the weights change when capabilities change? Rates of change, with a null."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.curve import Axis
from headspec.series.rate_correlations import RateCorrelations, RateGroup
from headspec.series.rate_nulls import null_summaries
from headspec.series.rates import (
    MIN_FREEDOM,
    AlignedCurves,
    Method,
    Partial,
    align_curves,
    lagged,
    measured_rates,
    measured_values,
    rate_design,
    unit,
    without_design,
)
from headspec.series.surrogates import Null
from headspec.stats import false_discovery_rate


def correlate_rates(
    stats: pd.DataFrame,
    capability: pd.DataFrame,
    *,
    metric: str | Sequence[str] | None = None,
    null: Null = "phase_randomised",
    lag: int | Sequence[int] = 0,
    axis: Axis = "log_step",
    method: Method = "pearson",
    partial: Sequence[Partial] = ("log_step",),
    trend_degree: int = 2,
    loss: pd.DataFrame | None = None,
    steps: Sequence[int] | None = None,
    by: Sequence[str] = (),
    n_null: int = 10_000,
    seed: int = 0,
) -> RateCorrelations:
    """Correlate the rates of change of statistics with those of capabilities, against a null.

    Args:
        stats: tidy frame of statistics; a curve is what has one `model`, `layer`, `head`,
            `metric` (and columns of `by`).
        capability: tidy frame of capabilities. Those of a model go with the statistics of that
            model; those without a model go with every model.
        metric: which capabilities; all by default.
        null: how surrogates of the capability's rates are drawn, see `surrogates`.
        lag: intervals by which the statistic leads: its rate in interval i goes with the
            capability's in interval i + lag. Several are all tested, and all counted.
        axis: rates per log(1 + step), or per step.
        method: `"pearson"`, or `"spearman"` for ranks of rates.
        partial: what is partialled out of all rates: a polynomial of log(1 + step), the rates of
            the loss.
        trend_degree: of that polynomial.
        loss: tidy frame with the loss, one curve a model; needed for `partial=("loss",)`.
        steps: a grid to interpolate to, linearly on log(1 + step), never outside of what was
            measured. By default the steps that both curves have.
        by: columns that tell statistics apart besides model, layer, head and metric.
        n_null: surrogates.
        seed: of the surrogates.

    Returns:
        `RateCorrelations`.

    Raises:
        InputError: if frames do not hold finite curves with steps in common, or too few of them.
    """
    check_choice("null", null, get_args(Null))
    check_choice("axis", axis, get_args(Axis))
    check_choice("method", method, get_args(Method))
    for value in partial:
        check_choice("partial", value, get_args(Partial))
    if ("loss" in partial) != (loss is not None):
        raise InputError(
            expected="loss=... exactly where the loss is partialled out",
            got=f"partial {tuple(partial)} and {'a' if loss is not None else 'no'} loss",
            fix="Give both partial=('log_step', 'loss') and loss=frame, or neither.",
        )
    lags = (lag,) if isinstance(lag, int) else tuple(dict.fromkeys(lag))
    wanted = capability if metric is None else _chosen(capability, metric)
    groups, rows = [], []
    for curves in align_curves(stats, wanted, loss=loss, steps=steps, by=by):
        design = rate_design(curves, axis, method, partial, trend_degree)
        _check_length(curves, design, lags)
        group, compared = _correlated(curves, design, lags, axis, method)
        groups.append(group)
        found = null_summaries(group, lags, [row["value"] for row in compared], null, n_null, seed)
        rows += [row | one for row, one in zip(compared, found, strict=True)]
    table = pd.concat([pd.DataFrame(row) for row in rows], ignore_index=True)
    table["q"] = false_discovery_rate(table["p"].to_numpy(float))
    return RateCorrelations(
        table=tidy(table, seed=seed, null=null),
        groups=tuple(groups),
        null=null,
        n_null=n_null,
        seed=seed,
        lags=lags,
        axis=axis,
        method=method,
        partial=tuple(partial),
        trend_degree=trend_degree,
        interpolated=steps is not None,
    )


def _chosen(capability: pd.DataFrame, metric: str | Sequence[str]) -> pd.DataFrame:
    names = [metric] if isinstance(metric, str) else list(metric)
    known = set(capability["metric"])
    if missing := [name for name in names if name not in known]:
        raise InputError(
            expected=f"metrics out of {sorted(known)}", got=f"{missing}", fix="Check the names."
        )
    return capability.loc[capability["metric"].isin(names)]


def _check_length(curves: AlignedCurves, design: np.ndarray, lags: tuple[int, ...]) -> None:
    n, used = len(curves.steps) - 1, design.shape[1]
    if n - max(map(abs, lags)) - used < MIN_FREEDOM:
        raise InputError(
            expected=f"{MIN_FREEDOM} intervals or more beyond {used} partialled out and the lag",
            got=f"{n} intervals and lags {list(lags)} for model {curves.model}",
            fix="Measure more steps, or take partial=() and a smaller lag.",
        )


def _correlated(
    curves: AlignedCurves,
    design: np.ndarray,
    lags: tuple[int, ...],
    axis: Axis,
    method: Method,
) -> tuple[RateGroup, list[dict[str, Any]]]:
    """The rates without the design; per capability and lag the three correlations."""
    sides = (curves.statistics, curves.capabilities)
    plain = [measured_rates(side.values, curves.steps, axis, method) for side in sides]
    left = [without_design(rates, design) for rates in plain]
    raw = [measured_values(side.values, method) for side in sides]
    group = RateGroup(
        curves.model, curves.steps, sides[0].labels, sides[1].labels, left[0], left[1], design
    )
    rows = []
    for at, name in enumerate(sides[1].labels["metric"]):
        for lag in lags:
            pairs = [lagged(side[0], side[1][at], lag) for side in (left, plain, raw)]
            value, plain_r, raw_r = (unit(a) @ unit(b) for a, b in pairs)
            labels = {key: sides[0].labels[key] for key in sides[0].labels}
            labels |= {"value": value, "n": len(pairs[0][1]), "capability": name, "lag": lag}
            rows.append(labels | {"raw_r": raw_r, "plain_r": plain_r})
    return group, rows
