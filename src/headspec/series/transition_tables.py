"""Transitions of many curves at once, corrected for how many were looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from headspec.errors import InputError
from headspec.results import tidy
from headspec.series.curve import Axis, DType
from headspec.series.step_test import Drift
from headspec.series.transitions import find_transition, transition_verdict


def find_transitions(
    frame: pd.DataFrame,
    metric: str,
    *,
    by: Sequence[str] = ("layer",),
    threshold: float | int = 0.2,
    axis: Axis = "log_step",
    noise_sd: float | int | str | None = None,
    drift: Drift = "both",
    min_share: float = 0.5,
    alpha: float = 0.05,
    dtype: DType = "float32",
    n_null: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """`find_transition` for each group of a frame, corrected for the number of groups.

    Args:
        frame: tidy frame; every group holds one value of the metric a step.
        metric: which metric.
        by: columns that tell the groups apart, such as `("layer", "head")`.
        alpha: false discovery rate (Benjamini and Hochberg) among the groups called sudden, and
            among those with any change.
        threshold, axis, noise_sd, drift, min_share, dtype, n_null, seed: as `find_transition`.

    Returns:
        The rows of `Transition.to_frame`, one a group in order of the groups, with `q` and
        `q_change` (p-values adjusted over the groups that could be tested) as last columns, and
        `kind`, `reason` decided by them. Columns of `by` hold the group.

    Raises:
        InputError: as `find_transition`, or if a column of `by` is missing.

    What it does not show: groups of one model share their checkpoints, so what happens to one
    layer tends to happen to others; the correction holds for positively dependent groups, but
    the groups are no independent replications.

    Example:
        >>> import pandas as pd
        >>> from headspec.series.transition_tables import find_transitions
        >>> curves = {0: [0, 0, 0, 0, 1, 1, 1, 1], 1: [0, 1, 0, 1, 0, 1, 0, 1]}
        >>> rows = [(2**k, layer, v) for layer, vs in curves.items() for k, v in enumerate(vs)]
        >>> frame = pd.DataFrame(rows, columns=["step", "layer", "value"]).assign(metric="score")
        >>> find_transitions(frame, "score")["kind"].tolist()
        ['sudden', 'none']
    """
    if missing := [name for name in by if name not in frame.columns]:
        raise InputError(
            expected="columns to group by",
            got=f"{missing}, not in {list(frame.columns)}",
            fix="Name columns of the frame in by=...",
        )
    groups = _groups(frame, metric, by)
    found = [
        find_transition(
            group,
            metric,
            threshold=threshold,
            axis=axis,
            noise_sd=noise_sd,
            drift=drift,
            min_share=min_share,
            alpha=alpha,
            dtype=dtype,
            n_null=n_null,
            seed=seed,
        )
        for _, group in groups
    ]
    q_jump = _adjusted([one.p_value for one in found])
    q_change = _adjusted([one.p_change for one in found])
    tables = []
    for (values, _), one, q, q_any in zip(groups, found, q_jump, q_change, strict=True):
        if np.isfinite(q):
            kind, reason = transition_verdict(q, q_any, one.jump_share, alpha, min_share)
            one = replace(one, kind=kind, reason=reason)
        row = one.to_frame().iloc[0].to_dict() | values
        tables.append(row | {"q": q, "q_change": q_any})
    return tidy(tables)


def _groups(
    frame: pd.DataFrame, metric: str, by: Sequence[str]
) -> list[tuple[dict[str, object], pd.DataFrame]]:
    """What each group has in common, and its rows; the whole frame if there is nothing to group."""
    is_metric = (frame["metric"] == metric).to_numpy() if "metric" in frame.columns else np.zeros(0)
    if not by or not is_metric.any():
        return [({}, frame)]
    groups = []
    for _, rows in frame.loc[is_metric].groupby(list(by), dropna=False, sort=True):
        groups.append(({name: rows[name].iloc[0] for name in by}, rows))
    return groups


def _adjusted(p_values: list[float]) -> np.ndarray:
    p, q = np.array(p_values), np.full(len(p_values), np.nan)
    if (tested := np.isfinite(p)).any():
        q[tested] = false_discovery_control(p[tested])
    return q
