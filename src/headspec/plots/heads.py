"""What figures of single heads share: clusters whose colours stay with them over steps."""

from __future__ import annotations

from itertools import count

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
    whole = rows if "head" in rows.columns else rows.assign(head=np.nan)
    found = metric_rows(whole, metric, ("step", "head")).dropna(subset=["head"])
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
    labels = clusters.to_numpy(dtype=float)
    renamed = np.full_like(labels, np.nan)
    later: np.ndarray | None = None
    for i in reversed(range(labels.shape[1])):
        column = labels[:, i]
        names = _by_size(column) if later is None else _by_overlap(column, later)
        renamed[:, i] = [names.get(label, label) for label in column.tolist()]
        if np.isfinite(column).any():
            later = renamed[:, i]
    return pd.DataFrame(renamed, index=clusters.index, columns=clusters.columns)


def _kinds(labels: np.ndarray) -> list[float]:
    return [kind for kind in np.unique(labels[np.isfinite(labels)]).tolist() if kind != -1]


def _by_size(labels: np.ndarray) -> dict[float, float]:
    def rank(kind: float) -> tuple[int, int]:
        members = np.nonzero(labels == kind)[0]
        return -len(members), int(members[0])

    return {kind: float(i) for i, kind in enumerate(sorted(_kinds(labels), key=rank))}


def _by_overlap(labels: np.ndarray, later: np.ndarray) -> dict[float, float]:
    kinds, known = _kinds(labels), _kinds(later)
    overlap = np.array([[np.sum((labels == a) & (later == b)) for b in known] for a in kinds])
    free = count(int(max(known, default=-1)) + 1)
    pairs = linear_sum_assignment(-overlap) if overlap.size else ((), ())
    names = {kinds[i]: known[j] for i, j in zip(*pairs, strict=True)}
    return {kind: names[kind] if kind in names else float(next(free)) for kind in kinds}
