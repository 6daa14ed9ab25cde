"""Curves of weight statistics over training, ready to be compared with capabilities."""

from __future__ import annotations

import numpy as np
import pandas as pd

from headspec.errors import InputError
from headspec.results import tidy

STATISTICS = (
    *("spectral_norm", "frobenius_norm", "stable_rank", "effective_rank"),
    *("participation_ratio", "top_10_variance", "decay_rate"),
    *("alpha", "weighted_alpha", "mp_spikes"),
    *("path_length", "turning"),
)
"""Statistics that the study asks about, fixed beforehand: size, rank, shape of the spectrum, its
tail, and how far and in what direction a matrix has moved."""

CLUSTER_METRIC = "qk.silhouette_excess"
"""How much more clearly a layer's heads are clustered than their null: silhouette less its mean."""

_SUMMED = {"relative_change": "path_length", "cosine": "turning"}
_COLUMNS = ["model", "step", "layer", "metric", "value", "matrix", "statistic"]


def weight_curves(
    weights: pd.DataFrame,
    clusters: pd.DataFrame | None = None,
    *,
    statistics: tuple[str, ...] = STATISTICS,
) -> pd.DataFrame:
    """One curve a matrix, statistic and layer, out of the rows of a sweep.

    Values of heads are averaged over the heads of their layer. What compares a checkpoint with the
    one before it is a change already, so that correlating its rate would be correlating a second
    derivative: such numbers are summed over training. `path_length` is the sum of relative changes
    |W - W'| / |W'|, `turning` that of 1 - cosine; their rates are the changes themselves.

    Args:
        weights: rows of `WeightMeasure` over steps, of one model or several.
        clusters: rows of `ClusterMeasure` on the same steps, whose silhouette above its null
            becomes one more statistic, `qk.silhouette_excess`; None: without.
        statistics: which to keep.

    Returns:
        Tidy rows with the columns `matrix` and `statistic`: `metric` is the two joined by a dot.
        Curves that are not finite at every step of their model are left out (such as a tail
        exponent of a spectrum without tail); `dropped_curves` lists them.

    What it does not show: what single heads do: the mean over heads hides one that changes
    alone.
    """
    curves = _all_curves(weights, clusters, statistics)
    return curves.loc[~_is_broken(curves)].reset_index(drop=True)


def dropped_curves(
    weights: pd.DataFrame,
    clusters: pd.DataFrame | None = None,
    *,
    statistics: tuple[str, ...] = STATISTICS,
) -> pd.DataFrame:
    """The curves that `weight_curves` leaves out: `model layer metric`, and `n_missing` steps."""
    curves = _all_curves(weights, clusters, statistics)
    broken = curves.loc[_is_broken(curves)]
    n_steps = curves.groupby("model")["step"].nunique()
    keys = ["model", "layer", "metric"]
    finite = broken.assign(ok=np.isfinite(broken["value"]))
    counted = finite.groupby(keys, dropna=False)["ok"].sum().reset_index(name="n_finite")
    counted["n_missing"] = counted["model"].map(n_steps).astype("Int64") - counted["n_finite"]
    return counted.drop(columns="n_finite")


def mean_over_layers(curves: pd.DataFrame) -> pd.DataFrame:
    """Curves averaged over the layers of each model, which exist in models of any depth.

    Args:
        curves: of `weight_curves`. A metric is averaged over the layers that have it; embeddings,
            which belong to no layer, stay as they are.

    Returns:
        Tidy rows without layer; `n` is the number of layers.
    """
    keys = ["model", "step", "metric", "matrix", "statistic"]
    grouped = curves.groupby(keys, sort=False, observed=True)
    means = grouped.agg(value=("value", "mean"), n=("layer", "count")).reset_index()
    return tidy(means)


def mean_over_matrices(curves: pd.DataFrame) -> pd.DataFrame:
    """Each statistic averaged over all layers and matrices of a model: few curves, few tests.

    Args:
        curves: of `weight_curves`. Matrices of layers are averaged, all alike; embeddings and the
            circuits of heads are left out, except for how clearly heads are clustered.

    Returns:
        Tidy rows without layer, `metric` such as `"all.stable_rank"`.
    """
    inside = curves.loc[curves["layer"].notna() & ~curves["matrix"].isin(("qk", "ov"))]
    everything = inside.assign(matrix="all", metric="all." + inside["statistic"])
    clusters = curves.loc[curves["metric"] == CLUSTER_METRIC]
    return mean_over_layers(pd.concat([everything, clusters], ignore_index=True))


def _all_curves(
    weights: pd.DataFrame, clusters: pd.DataFrame | None, statistics: tuple[str, ...]
) -> pd.DataFrame:
    if missing := [name for name in ("matrix", "statistic") if name not in weights.columns]:
        raise InputError(
            expected="rows of a sweep of WeightMeasure, with the columns matrix and statistic",
            got=f"columns {list(weights.columns)}, without {missing}",
            fix="Pass hs.sweep(suite, hs.WeightMeasure()).",
        )
    rows = weights.loc[weights["statistic"] != "singular_value", _COLUMNS]
    keys = ["model", "step", "layer", "matrix", "statistic"]
    rows = rows.groupby(keys, dropna=False, sort=False)["value"].mean().reset_index()
    parts = [rows.loc[rows["statistic"].isin(statistics)]]
    for change, name in _SUMMED.items():
        if name in statistics:
            parts.append(_summed(rows, change, name))
    if clusters is not None:
        parts.append(_cluster_excess(clusters))
    curves = pd.concat(parts, ignore_index=True)
    curves["metric"] = curves["matrix"] + "." + curves["statistic"]
    order = ["model", "layer", "metric", "step"]
    return tidy(curves.sort_values(by=order, ignore_index=True))


def _summed(rows: pd.DataFrame, change: str, name: str) -> pd.DataFrame:
    """Changes between checkpoints, summed over training; 0 at the first step."""
    found = rows.loc[rows["statistic"] == change].copy()
    if change == "cosine":
        found["value"] = 1 - found["value"]
    keys = ["model", "layer", "matrix"]
    first = rows.groupby("model")["step"].min()
    start = found.drop_duplicates(keys).assign(value=0.0)
    start["step"] = start["model"].map(first).astype(found["step"].dtype)
    later = found.loc[found["step"] > found["model"].map(first)]
    joined = pd.concat([start, later]).sort_values(by="step")
    joined["value"] = joined.groupby(keys, dropna=False)["value"].cumsum()
    return joined.assign(statistic=name)


def _cluster_excess(clusters: pd.DataFrame) -> pd.DataFrame:
    found = clusters.loc[clusters["metric"] == "silhouette"]
    found = found.assign(value=found["value"] - found["null_mean"])
    found = found[["model", "step", "layer", "value"]]
    matrix, statistic = CLUSTER_METRIC.split(".")
    return found.assign(matrix=matrix, statistic=statistic)


def _is_broken(curves: pd.DataFrame) -> np.ndarray:
    """Whether the row's curve lacks a finite value at some step of its model."""
    n_steps = curves.groupby("model")["step"].transform("nunique").to_numpy(int)
    finite = curves.assign(finite=np.isfinite(curves["value"]))
    n_finite = finite.groupby(["model", "layer", "metric"], dropna=False)["finite"].transform("sum")
    return np.asarray(n_finite, dtype=int) < n_steps
