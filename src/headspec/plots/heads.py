"""What figures of single heads share: clusters whose colours stay with them over steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from headspec.errors import InputError
from headspec.plots.frames import metric_rows


def head_table(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A per-head metric as a table of heads by steps.

    Raises:
        InputError: when the metric is missing, has no head, or several rows for one head.
    """
    found = metric_rows(rows, metric, ("step", "head")) if "head" in rows.columns else rows[:0]
    found = found.dropna(subset=["head"])
    if found.empty:
        raise InputError(
            expected=f"rows of {metric!r} with a head",
            got="rows without a head",
            fix="Measure heads in the sweep (`ClusterMeasure` does).",
        )
    table = found.pivot(index="head", columns="step", values="value")  # noqa: PD010
    table.index = table.index.astype(int)
    return table.sort_index()


def steady_labels(clusters: pd.DataFrame) -> pd.DataFrame:
    """Cluster labels renamed so that a cluster keeps its name from step to step.

    Labels of a clustering are arbitrary. The last step's clusters are named 0, 1, ... by falling
    size (ties: the one with the smallest head first); going backwards, each step's clusters take
    the names of the clusters with which they share most heads (optimal one-to-one matching).
    Noise (-1) stays -1, and missing labels stay missing.

    Args:
        clusters: heads by steps, values are labels.
    """
    renamed = pd.DataFrame(np.nan, index=clusters.index, columns=clusters.columns)
    later: pd.Series | None = None
    for step in reversed(list(clusters.columns)):
        labels = clusters[step]
        names = _by_size(labels) if later is None else _by_overlap(labels, later)
        renamed[step] = labels.map(names | {-1: -1})
        if renamed[step].notna().any():
            later = renamed[step]
    return renamed


def _by_size(labels: pd.Series) -> dict:
    kinds = [kind for kind in labels.dropna().unique() if kind != -1]
    sizes = {kind: (-(labels == kind).sum(), (labels == kind).idxmax()) for kind in kinds}
    return {kind: i for i, kind in enumerate(sorted(kinds, key=sizes.__getitem__))}


def _by_overlap(labels: pd.Series, later: pd.Series) -> dict:
    kinds = [kind for kind in sorted(labels.dropna().unique()) if kind != -1]
    known = [kind for kind in sorted(later.dropna().unique()) if kind != -1]
    size = max(len(kinds), len(known), 1)
    overlap = np.zeros((size, size))
    for i, kind in enumerate(kinds):
        for j, name in enumerate(known):
            overlap[i, j] = ((labels == kind) & (later == name)).sum()
    rows, columns = linear_sum_assignment(-overlap)
    free = iter(range(int(max(known, default=-1)) + 1, 10**6))
    names = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    return {
        kind: known[names[i]] if names[i] < len(known) else next(free)
        for i, kind in enumerate(kinds)
    }
