"""Does a link between rates hold over model sizes? Random effects, with joint surrogates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import norm
from scipy.stats import t as student

from headspec.errors import InputError
from headspec.results import tidy
from headspec.series.pooled_rates import PooledRates
from headspec.series.rate_correlations import RateCorrelations, RateGroup
from headspec.series.rate_nulls import kept_correlations, stretches, surrogate_rates
from headspec.stats import false_discovery_rate

_BLOCK = 2**22  # null correlations held at once: 32 MiB
_LARGEST = 1 - 1e-9  # a correlation of one has no finite z


def pool_models(
    found: RateCorrelations,
    *,
    by: Sequence[str] = ("metric",),
    depth_bins: int | None = None,
    level: float = 0.95,
    n_null: int = 5000,
    min_models: int = 2,
) -> PooledRates:
    """Pool correlations of rates over models, one row a statistic and capability.

    In each model the curves of a statistic (its layers, heads) are averaged in Fisher's
    z = atanh r. The models' z are pooled by random effects (DerSimonian and Laird 1986), each with
    the variance that its own surrogates give, and turned back into r. The interval is that of
    Hartung and Knapp (t with models - 1 degrees of freedom), never narrower than the spread of
    the surrogates' pooled z: sizes that repeat one accident agree by themselves, and an interval
    from their agreement alone would leave out zero three times in four.

    p comes from the same computation on surrogates. They are drawn jointly: models on the same
    number of steps get the same random phases, since sizes trained alike repeat each other's
    accidents and are no independent evidence. As in `correlate_rates`, p is the largest one when
    the same stretch of training is left out of all models.

    Args:
        found: of `correlate_rates`, on several models.
        by: what curves of different models must share to be one statistic. Layers are not in it:
            models differ in depth, so that "layer 3" is not the same place in all.
        depth_bins: keep layers apart by relative depth, layer / number of layers, in this many
            parts (column `depth_bin`).
        level: of the intervals.
        n_null: surrogates.
        min_models: statistics of fewer models are left out. What one model alone has is not
            pooled, and would count in the correction as if it were; 1 keeps it.

    Returns:
        `PooledRates`.

    Raises:
        InputError: fewer than two models or 20 surrogates, circular shifts, a column of `by`
            that is missing, or no statistic that `min_models` models have.

    What it does not show: that models to come would behave alike (two to four sizes say little
    about spread), nor that layers agree with one another. The interval asks how far r lies from
    zero if training repeated, p whether more than one stretch of training says so: an interval
    without zero and a p near one belong together where r rests on one event.

    References:
        DerSimonian and Laird, Controlled Clinical Trials 7 (1986); Hartung and Knapp, Statistics
        in Medicine 20 (2001); Prichard and Theiler, Physical Review Letters 73 (1994).
    """
    models = tuple(dict.fromkeys(str(group.model) for group in found.groups))
    if found.null == "circular_shift":
        raise InputError(
            expected="correlations with a null of random draws",
            got="circular shifts, as many as intervals",
            fix="Correlate with null='phase_randomised'.",
        )
    if n_null < 20:
        raise InputError(
            expected="n_null of 20 or more: variances come from it",
            got=f"{n_null}",
            fix="Use 5000.",
        )
    if len(models) < 2:
        raise InputError(
            expected="correlations of two models or more",
            got=f"only {', '.join(models)}",
            fix="Put the curves of all models in one frame, with their names in column model.",
        )
    keys = _keys(found.groups, by, depth_bins)
    index = pd.MultiIndex.from_frame(pd.concat(keys).drop_duplicates().sort_values(by=[*keys[0]]))
    members = [index.get_indexer(pd.MultiIndex.from_frame(each)) for each in keys]
    goals = dict.fromkeys(name for g in found.groups for name in g.capabilities["metric"])
    tables = []
    for goal in goals:
        for lag in found.lags:
            numbers = _pooled(found, goal, lag, models, members, len(index), level, n_null)
            there = np.flatnonzero(numbers["n_models"] >= max(min_models, 1))
            rows = index.to_frame(index=False).iloc[there].reset_index(drop=True)
            columns = {name: values[there] for name, values in numbers.items()}
            tables.append(rows.assign(**columns, capability=goal, lag=lag))
    table = pd.concat(tables, ignore_index=True)
    if table.empty:
        raise InputError(
            expected=f"a statistic that {min_models} models have, with a capability they have too",
            got=f"none under the same {', '.join(keys[0])}",
            fix="Give statistics of different models the same names, or lower min_models.",
        )
    table["q"] = false_discovery_rate(np.asarray(table["p"], dtype=float))
    tidied = tidy(table.assign(n=table["n_models"]), seed=found.seed)
    return PooledRates(tidied, models, (*by, *(["depth_bin"] if depth_bins else [])), level)


def _keys(
    groups: Sequence[RateGroup], by: Sequence[str], depth_bins: int | None
) -> list[pd.DataFrame]:
    """What each curve of each group is pooled under."""
    keys = []
    for group in groups:
        labels = group.statistics
        if missing := [name for name in by if name not in labels.columns]:
            raise InputError(
                expected=f"columns out of {list(labels.columns)}",
                got=f"{missing}",
                fix="Columns besides model, layer, head and metric: correlate_rates(by=...).",
            )
        key = labels[list(by)].reset_index(drop=True)
        if depth_bins:
            layer = np.asarray(pd.to_numeric(labels["layer"]), dtype=float)
            same = [g.statistics["layer"] for g in groups if g.model == group.model]
            depth = np.nanmax(np.asarray(pd.to_numeric(pd.concat(same)), dtype=float)) + 1
            key["depth_bin"] = np.floor(layer * depth_bins / depth)
        keys.append(key)
    return keys


def _pooled(
    found: RateCorrelations,
    goal: str,
    lag: int,
    models: tuple[str, ...],
    members: list[np.ndarray],
    n_keys: int,
    level: float,
    n_null: int,
) -> dict[str, np.ndarray]:
    """All columns of one capability and lag, a number each key."""
    kept = [
        stretches(len(group.spread_widths) - abs(lag), found.leave_out) for group in found.groups
    ]
    most = max(map(len, kept)) - 1
    p = np.zeros(n_keys)
    first: dict[str, np.ndarray] = {}
    for at in range(most + 1):
        # the same part of training in models with other numbers of steps
        places = [_place(at, most, len(each) - 1) for each in kept]
        keeps = [each[place] for each, place in zip(kept, places, strict=True)]
        z, null = _model_z(found, goal, lag, models, members, n_keys, keeps, n_null)
        variance = null.var(axis=2, ddof=1)
        value, tau2 = _random_effects(z, variance)
        draws, _ = _random_effects(null, variance[..., None])
        if not at:
            first = _described(z, variance, value, tau2, draws.std(axis=1, ddof=1), level)
        sign = np.sign(np.arctanh(first["value"].clip(-_LARGEST, _LARGEST)))
        least = np.nan_to_num(value * sign, nan=-1.0)
        reached = (np.abs(draws) >= least[:, None] - 1e-12).sum(axis=1)
        share = (reached + 1) / (draws.shape[1] + 1)
        p = np.maximum(p, np.where(least < 0, 1.0, share))
    return first | {"p": np.where(np.isfinite(first["value"]), p, np.nan)}


def _place(at: int, most: int, own: int) -> int:
    return 0 if not at or not own else 1 + round((at - 1) * (own - 1) / max(most - 1, 1))


def _model_z(
    found: RateCorrelations,
    goal: str,
    lag: int,
    models: tuple[str, ...],
    members: list[np.ndarray],
    n_keys: int,
    keeps: list[np.ndarray],
    n_null: int,
) -> tuple[Float[np.ndarray, "key model"], Float[np.ndarray, "key model draw"]]:
    """Mean z of each statistic in each model, and of its surrogates; NaN where there is none."""
    total, count = np.zeros((n_keys, len(models))), np.zeros((n_keys, len(models)))
    drawn = np.zeros((n_keys, len(models), n_null))
    for group, member, keep in zip(found.groups, members, keeps, strict=True):
        rows = np.flatnonzero(np.asarray(group.capabilities["metric"] == goal))
        if not len(rows):
            continue
        draws = surrogate_rates(group, null=found.null, n_null=n_null, seed=found.seed)[rows[0]]
        both = np.concatenate([group.capability_rates[rows[:1]], draws])
        size = max(1, _BLOCK // len(both))
        column = models.index(str(group.model))
        for start in range(0, len(member), size):
            part = slice(start, start + size)
            r = kept_correlations(group, group.statistic_rates[part], both, lag, keep)
            alive = np.isfinite(r).all(axis=1)
            z, into = np.arctanh(r[alive].clip(-_LARGEST, _LARGEST)), member[part][alive]
            np.add.at(total[:, column], into, z[:, 0])
            np.add.at(drawn[:, column], into, z[:, 1:])
            np.add.at(count[:, column], into, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / count, drawn / count[..., None]


def _random_effects(z: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pooled z and the variance between models, of `key model ...`; a NaN is left aside."""
    there = np.isfinite(z) & (variance > 0)
    z, weight = np.where(there, z, 0.0), np.where(there, 1 / np.where(there, variance, 1.0), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        fixed = (weight * z).sum(1) / weight.sum(1)
        spread = (weight * (z - fixed[:, None]) ** 2).sum(1)
        scale = weight.sum(1) - (weight**2).sum(1) / weight.sum(1)
        tau2 = np.maximum(0.0, (spread - (there.sum(1) - 1)) / np.where(scale > 0, scale, np.inf))
        weight = np.where(there, 1 / (1 / np.where(there, weight, 1.0) + tau2[:, None]), 0.0)
        return (weight * z).sum(1) / weight.sum(1), tau2


def _described(
    z: np.ndarray,
    variance: np.ndarray,
    value: np.ndarray,
    tau2: np.ndarray,
    joint: np.ndarray,
    level: float,
) -> dict[str, np.ndarray]:
    """Effect with its interval, and how many models say the same."""
    there = np.isfinite(z) & (variance > 0)
    weight = np.where(there, 1 / (np.where(there, variance, 1.0) + tau2[:, None]), 0.0)
    n = there.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.where(there, z - value[:, None], 0.0)
        error = np.sqrt((weight * gap**2).sum(1) / np.maximum(n - 1, 1) / weight.sum(1))
        spread = student.ppf((1 + level) / 2, np.maximum(n - 1, 1)) * np.where(n > 1, error, 0.0)
        half = np.maximum(spread, norm.ppf((1 + level) / 2) * joint)
        same = (there & (np.sign(z) == np.sign(value)[:, None])).sum(1) / n
    return {
        "value": np.tanh(value),
        "low": np.tanh(value - half),
        "high": np.tanh(value + half),
        "tau": np.sqrt(tau2),
        "sign_consistency": same,
        "n_models": n,
    }
