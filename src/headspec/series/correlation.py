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
    MeasuredRates,
    Method,
    Partial,
    Weights,
    align_curves,
    correlations,
    lagged,
    measure_rates,
    ranked,
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
    weights: Weights = "width",
    method: Method = "pearson",
    partial: Partial | Sequence[Partial] = ("log_step",),
    trend_degree: int = 2,
    loss: pd.DataFrame | None = None,
    steps: Sequence[int] | None = None,
    by: Sequence[str] = (),
    leave_out: float | int = 0.2,
    n_null: int = 10_000,
    seed: int = 0,
) -> RateCorrelations:
    """Correlate the rates of change of statistics with those of capabilities, against a null.

    Everything changes during training, and most of it early, so that raw values of any two curves
    are correlated (`raw_r`). Here r is that of the rates between neighbouring checkpoints, each
    interval weighted by its width, without what a polynomial of log(1 + step) explains. Its null
    replaces the capability by surrogates with the same autocorrelation and the same size of
    changes by width of interval, which have the polynomial taken out as well.

    One event is no evidence. Curves that rise once in one run are correlated perfectly if they
    rise together, and by chance one in ten does. So p is the largest of the p-values over all of
    training and with each stretch of `leave_out` of the intervals left out: a link must show in
    more than one part of training. p then errs on the safe side: .05 is at most that, mostly
    .01 (`docs/rates.md` has the measured rates, the power, and the nulls that do not hold).

    Args:
        stats: tidy frame of statistics; a curve is what has one `model`, `layer`, `head`,
            `metric` (and columns of `by`).
        capability: tidy frame of capabilities. Those of a model go with the statistics of that
            model; those without a model go with every model.
        metric: which capabilities; all by default.
        null: how surrogates of the capability's rates are drawn, see `surrogates`. Shifts and
            phases take neighbouring intervals to be neighbours, whatever their width.
        lag: intervals by which the statistic leads: its rate in interval i goes with the
            capability's in interval i + lag. Several are all tested, and all counted.
        axis: rates per log(1 + step), or per step.
        weights: `"width"`, or `"equal"`: every interval counts alike, and surrogates do not know
            widths. Then noise in the narrow intervals of an uneven grid looks like a link.
        method: `"pearson"`, or `"spearman"` for ranks of what is left of the rates.
        partial: what is partialled out of all rates: a polynomial of log(1 + step), the rates of
            the loss.
        trend_degree: of that polynomial.
        loss: tidy frame with the loss, one curve a model; needed for `partial=("loss",)`.
        steps: a grid to interpolate to, linearly on log(1 + step), never outside of what was
            measured. By default the steps that both curves have.
        by: columns that tell statistics apart besides model, layer, head and metric.
        leave_out: share of the intervals in the stretch that a link must survive without; 0
            tests all of training only, which is right where rates are noise around a trend, and
            wrong for curves that rise once.
        n_null: surrogates; the first 1000 for pairs whose p they show to be above 0.1. To
            reject one of m tests after correction takes 20 m of them.
        seed: of the surrogates, the same draws for all capabilities.

    Returns:
        `RateCorrelations`, one row a statistic curve, capability and lag. q counts all rows of
        this call: what else was looked at belongs into the same call. A constant curve has no r
        and is no test.

    Raises:
        InputError: if frames do not hold finite curves with steps in common, or too few of them.

    What it does not show: cause, or that a link not found is absent (of rates correlated .95, half
    are found among 50 statistics on 16 intervals). A run of training is one observation, whatever
    its number of checkpoints: see `pool_models`.

    References:
        Theiler et al., Physica D 58 (1992); Prichard and Theiler, Physical Review Letters 73
        (1994); Benjamini and Hochberg, JRSS B 57 (1995).

    Example:
        >>> import numpy as np, pandas as pd
        >>> from headspec.series.correlation import correlate_rates
        >>> steps, rng = np.r_[0, 2 ** np.arange(20)], np.random.default_rng(0)
        >>> loss, noise = np.cumsum(rng.normal(size=21)), np.cumsum(rng.normal(size=21))
        >>> def curve(name, values):
        ...     return pd.DataFrame({"step": steps, "metric": name, "value": values})
        >>> stats = pd.concat([curve("rank", 1 - 2 * loss + 0.1 * noise), curve("norm", noise)])
        >>> found = correlate_rates(stats, curve("loss", loss), n_null=500).to_frame()
        >>> found["metric"].tolist(), (found["q"] <= 0.05).tolist()
        (['rank', 'norm'], [True, False])
    """
    check_choice("null", null, get_args(Null))
    check_choice("axis", axis, get_args(Axis))
    check_choice("method", method, get_args(Method))
    partial = (partial,) if isinstance(partial, str) else tuple(partial)
    for value in partial:
        check_choice("partial", value, get_args(Partial))
    if ("loss" in partial) != (loss is not None):
        raise InputError(
            expected="loss=... exactly where the loss is partialled out",
            got=f"partial {tuple(partial)} and {'a' if loss is not None else 'no'} loss",
            fix="Give both partial=('log_step', 'loss') and loss=frame, or neither.",
        )
    leave_out = float(leave_out)
    if not 0 <= leave_out < 0.5:
        raise InputError(
            expected="leave_out from 0 to below 0.5", got=f"{leave_out}", fix="Use 0.2."
        )
    lags = tuple(dict.fromkeys(int(each) for each in np.atleast_1d(lag)))
    if not lags or trend_degree < 0:
        raise InputError(
            expected="one lag or more, and a trend_degree of 0 or more",
            got=f"lag={lag}, trend_degree={trend_degree}",
            fix="Use lag=0 and trend_degree=2.",
        )
    wanted = capability if metric is None else _chosen(capability, metric)
    groups, tables = [], []
    for curves in align_curves(stats, wanted, loss=loss, steps=steps, by=by):
        measured = measure_rates(curves, axis, weights, partial, trend_degree)
        _check_length(curves, measured, lags, leave_out)
        group = _group(curves, measured, method)
        nulls = null_summaries(
            group, lags, null=null, leave_out=leave_out, n_null=n_null, seed=seed
        )
        beside = _compared(curves, measured, lags, method)
        tables += [pd.DataFrame(one | two) for one, two in zip(beside, nulls, strict=True)]
        groups.append(group)
    table = pd.concat(tables, ignore_index=True)
    table["q"] = false_discovery_rate(np.asarray(table["p"], dtype=float))
    return RateCorrelations(
        table=tidy(table, seed=seed, null=null),
        groups=tuple(groups),
        null=null,
        n_null=n_null,
        seed=seed,
        lags=lags,
        axis=axis,
        weights=weights,
        method=method,
        leave_out=leave_out,
        partial=partial,
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


def _check_length(
    curves: AlignedCurves, measured: MeasuredRates, lags: tuple[int, ...], leave_out: float
) -> None:
    n, used = measured.design.shape
    left = n - max(map(abs, lags))
    if left - round(leave_out * left) - used < MIN_FREEDOM:
        raise InputError(
            expected=f"{MIN_FREEDOM} intervals or more beyond {used} partialled out, the lag and "
            "the stretch left out",
            got=f"{n} intervals and lags {list(lags)} for model {curves.model}",
            fix="Measure more steps, or take a smaller lag, trend_degree or leave_out.",
        )


def _group(curves: AlignedCurves, measured: MeasuredRates, method: Method) -> RateGroup:
    """The rates without the design; ranks of these, again without it, for `"spearman"`."""

    def left(rates: np.ndarray) -> np.ndarray:
        alone = without_design(rates, measured.design)
        return without_design(ranked(alone), measured.design) if method == "spearman" else alone

    return RateGroup(
        curves.model,
        curves.steps,
        curves.statistics.labels,
        curves.capabilities.labels,
        left(measured.statistics),
        left(measured.capabilities),
        measured.design,
        measured.spread_widths,
    )


def _compared(
    curves: AlignedCurves, measured: MeasuredRates, lags: tuple[int, ...], method: Method
) -> list[dict[str, Any]]:
    """Per capability and lag: labels, and r of plain rates and of raw values."""
    labels, goals = curves.statistics.labels, curves.capabilities.labels["metric"]
    rank = ranked if method == "spearman" else lambda rows: rows
    plain = [measured.statistics, measured.capabilities, measured.design[:, :1]]
    raw = [curves.statistics.values, curves.capabilities.values, np.ones((len(curves.steps), 1))]
    rows = []
    for at, name in enumerate(goals):
        for lag in lags:
            row: dict[str, Any] = {key: labels[key] for key in labels}
            row |= {"capability": name, "lag": lag}
            for key, (here, there, constant) in (("raw_r", raw), ("plain_r", plain)):
                pair = lagged(rank(here), rank(there[at : at + 1]), lag)
                bases = (side.T for side in lagged(constant.T, constant.T, lag))
                left = [without_design(*both) for both in zip(pair, bases, strict=True)]
                row[key] = correlations(*left)[:, 0]
            rows.append(row)
    return rows
