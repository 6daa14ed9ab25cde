"""Correlations of rates in models of different size, and pooled over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.panels import Panels, legend_lines
from headspec.plots.rate_forest_marks import (
    LANE,
    centres,
    diamonds,
    draw_rows,
    forest_legend,
    model_marks,
    null_bands,
    row_label,
)
from headspec.plots.rate_frames import place_names, rate_rows, signed
from headspec.plots.weight_wording import metric_label
from headspec.plots.wording import capability_name

_NEEDED = ("metric", "capability", "value", "low", "high", "p", "q")
_MOST = 40
"""Rows up to which all significant ones are shown: a page of labels that can be read."""


def plot_size_forest(
    frame: pd.DataFrame,
    pooled: pd.DataFrame,
    *,
    capabilities: Sequence[str] | None = None,
    lag: int = 0,
    most: int = 12,
    alpha: float = 0.05,
) -> go.Figure:
    """A statistic and capability a row: r of rates in every model, and pooled with its interval.

    Each model has a mark of its own before the 90 % band of its null; below lies a diamond from
    end to end of the pooled interval, filled if its `q` is at most `alpha`. Rows are those with
    such a q, the 40 largest at most, and then the largest pooled effects up to `most` in all.

    What it does not show: rows that were left out (the note counts them); choosing the largest
    makes them look larger than they are. Sizes of one suite share data and order of training, so
    that they agree more than models trained apart would.

    Args:
        frame: rows of `RateCorrelations.to_frame()` of several models.
        pooled: rows of `PooledRates.to_frame()`.
        capabilities: which; None for all.
        lag: which, in intervals, if the frames have several.
        most: rows to show, unless more are significant; above 40, also of those.
        alpha: level up to which a mark is filled.

    Returns:
        A figure of one panel; `customdata` of marks holds p and q.

    Raises:
        InputError: for missing columns, or an unknown capability or lag.

    References:
        Lewis, S. and Clarke, M. (2001). Forest plots: trying to see the wood and the trees. BMJ
        322, 1479. https://doi.org/10.1136/bmj.322.7300.1479
    """
    if most < 1:
        raise InputError(expected="at least one row", got=f"most={most}", fix="For instance 12.")
    rows = rate_rows(frame, lag=lag, capabilities=capabilities)
    rows = rows.assign(place=place_names(rows, most=2))
    chosen, n_all, n_clear = _chosen(pooled, rows, lag=lag, most=most, alpha=alpha)
    models = [str(name) for name in dict.fromkeys(rows["model"])]
    lanes = {model: (i + 0.5) / (len(models) + 1) - 0.5 for i, model in enumerate(models)}
    labels = [row_label(row) for row in chosen.to_dict("records")]
    longest = max(len(line) for label in labels for line in label)
    height = max(48, LANE * (len(models) + 1) + 8) * len(chosen) + 12
    entries = [*models, "90 % of a model's null", "pooled, with its interval"]
    panels = Panels(
        titles=[f"Filled: {rows['judged'].iloc[0]} ≤ {alpha:g}"],
        columns=1,
        height=height,
        narrow_height=height,
        legend_lines=legend_lines(entries, width=900),
        narrow_legend_lines=legend_lines(entries, width=290),
        left=30 + round(5.9 * longest),
    )
    figure = panels.figure(
        title=f"Rates of change in {len(models)} model{'s' * (len(models) > 1)}, and pooled",
        x_title="r of rates of change (no unit)",
        y_titles=[""],
        alt=_alt(chosen, alpha=alpha),
        note="Marks: r of rates in each model, before 90 % of its null (grey). Diamonds: pooled "
        "over models, from end to end of the interval; beside each row its value, q, and in how "
        "many models r has its sign. However large r is, q is not small where one stretch of "
        f"training alone makes it. {_which(chosen, n_all, n_clear, alpha=alpha)}",
    )
    draw_rows(figure, len(chosen), labels)
    meta: Any = figure.layout["meta"]
    narrow = meta["headspec"]["narrow"]
    narrow["margin"] |= {"l": 16 + round(5.3 * longest)}
    narrow["yaxis"] |= {"tickfont": {"size": 10}}
    narrow["legend"] |= {"x": -0.5}
    where = {
        key: i for i, key in enumerate(zip(chosen["metric"], chosen["capability"], strict=True))
    }
    rows["row"] = [
        where.get(key, -1) for key in zip(rows["metric"], rows["capability"], strict=True)
    ]
    rows = rows.loc[rows["row"] >= 0]
    parts = [(model, rows.loc[rows["model"].astype(str) == model]) for model in models]
    figure.add_traces([null_bands(part, lanes[model]) for model, part in parts])
    for i, (model, part) in enumerate(parts):
        figure.add_trace(model_marks(part, i, name=model, lane=lanes[model], alpha=alpha))
    lane = len(models) / (len(models) + 1) + 0.5 / (len(models) + 1) - 0.5
    figure.add_traces([*diamonds(chosen, lane=lane, alpha=alpha), centres(chosen, lane=lane)])
    return figure.add_traces(forest_legend(models)).update_layout(
        legend={"itemclick": False, "itemdoubleclick": False}
    )


def _chosen(
    pooled: pd.DataFrame, rows: pd.DataFrame, *, lag: int, most: int, alpha: float
) -> tuple[pd.DataFrame, int, int]:
    """The pooled rows to show, the largest first; how many there are, and how many are clear."""
    missing = [name for name in _NEEDED if name not in pooled.columns]
    if missing or pooled.empty:
        raise InputError(
            expected=f"rows of `PooledRates.to_frame()` with {', '.join(_NEEDED)}",
            got="an empty frame" if pooled.empty else f"no column {', '.join(missing)}",
            fix="Give the frame of `pool_models(...)`.",
        )
    every = pooled.loc[pooled["capability"].isin(list(set(rows["capability"])))]
    if "lag" in every.columns:
        every = every.loc[every["lag"].astype(float) == lag]
    every = every.loc[np.isfinite(every["value"].to_numpy(float))]
    if every.empty:
        raise InputError(
            expected="pooled effects of the capabilities of the frame",
            got=f"none at lag {lag} of {sorted(set(rows['capability']))}",
            fix="Pool the same correlations that you give as `frame`.",
        )
    if every.duplicated(subset=["metric", "capability"]).any():
        raise InputError(
            expected="one pooled row a statistic and capability",
            got="several (pooled by depth?)",
            fix="Filter `pooled` and `frame` to one part of the depth.",
        )
    every = every.iloc[np.argsort(-np.abs(every["value"].to_numpy(float)), kind="stable")]
    clear = every["q"].to_numpy(float) <= alpha
    shown = clear & (np.cumsum(clear) <= max(most, _MOST))
    shown |= ~clear & (np.cumsum(~clear) <= most - shown.sum())
    return every.loc[shown].reset_index(drop=True), len(every), int(clear.sum())


def _pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(rows["metric"], rows["capability"], strict=True))


def _which(chosen: pd.DataFrame, n_all: int, n_clear: int, *, alpha: float) -> str:
    """Which rows are shown, in words."""
    clear = int((chosen["q"].to_numpy(float) <= alpha).sum())
    words = f"{len(chosen)} of {n_all} pairs of statistic and capability are shown: "
    if not clear:
        return words + f"none has pooled q ≤ {alpha:g}, these have the largest pooled r."
    if clear < n_clear:
        return words + f"of {n_clear} with pooled q ≤ {alpha:g} those with the largest pooled r."
    words += f"all {clear} with pooled q ≤ {alpha:g}"
    return words + (", and the largest pooled r beyond these." if clear < len(chosen) else ".")


def _alt(chosen: pd.DataFrame, *, alpha: float) -> str:
    clear = int((chosen["q"].to_numpy(float) <= alpha).sum())
    said = [
        f"{metric_label(row['metric'])} with {capability_name(row['capability'])} "
        f"{signed(row['value'])} ({signed(row['low'])} to {signed(row['high'])}, "
        f"q = {row['q']:.2g})"
        for row in chosen.head(5).to_dict("records")
    ]
    return (
        f"Forest plot of correlations of rates of change, pooled over models; {clear} pairs of "
        f"statistic and capability have q at most {alpha:g}. Largest: {'; '.join(said)}."
    )
