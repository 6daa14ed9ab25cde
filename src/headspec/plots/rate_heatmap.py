"""Which statistics of weights change when capabilities do: a map of correlations of rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.frames import whose
from headspec.plots.palette import INK, PAPER, diverging_axis
from headspec.plots.panels import Panels
from headspec.plots.rate_cells import LEFT, ROW, WIDTH, cell_grid, draw_cells
from headspec.plots.rate_frames import place_names, rate_rows, signed
from headspec.plots.rate_scatter import add_raw_panel
from headspec.plots.weight_wording import (
    MATRICES,
    in_order,
    matrix_label,
    metric_label,
    split_metric,
)
from headspec.plots.wording import capability_name


def plot_rate_heatmap(
    frame: pd.DataFrame,
    *,
    capabilities: Sequence[str] | None = None,
    lag: int = 0,
    alpha: float = 0.05,
) -> go.Figure:
    """Statistics by capabilities: the correlation of their rates of change, a panel a matrix.

    A cell is one statistic of one matrix with one capability; several layers (or models, or heads)
    stand side by side within a capability. The scale is centred on 0 and ends at 1. A dot marks
    `q` at most `alpha` (`p` where the frame has no `q`). The last panel sets each r against the
    correlation of the raw values of the same two curves, which is near 1 or -1 for almost anything
    that changes during training; behind it lies the widest 90 % band of the null.

    What it does not show: cause, or a link of one cell alone: neighbouring statistics and layers
    are correlated with each other. Grey cells have no correlation (a constant curve).

    Args:
        frame: rows of `RateCorrelations.to_frame()`; they may differ in one of model, layer and
            head.
        capabilities: which, in this order; None for all.
        lag: which, in intervals, if the frame has several.
        alpha: level up to which a cell gets its dot.

    Returns:
        A figure; `customdata` of a cell holds p, q, both ends of the null's band, raw r and n.

    Raises:
        InputError: for missing columns, an unknown capability or lag, or rows that differ in more
            than one thing.
    """
    rows = rate_rows(frame, lag=lag, capabilities=capabilities)
    rows = rows.assign(place=place_names(rows))
    rows[["matrix", "statistic"]] = [split_metric(str(name)) for name in rows["metric"]]
    _refuse_repeats(rows)
    matrices = in_order(list(dict.fromkeys(rows["matrix"])), MATRICES)
    parts = {matrix: rows.loc[rows["matrix"] == matrix] for matrix in matrices}
    grid = cell_grid(rows)
    n_rows = [part["statistic"].nunique() for part in parts.values()]
    most = max(7, *n_rows)  # room for the last panel
    which = str(rows["judged"].iloc[0])
    panels = Panels(
        titles=[*(matrix_label(matrix) for matrix in matrices), "Raw values, to compare"],
        columns=grid.columns,
        height=ROW * most,
        narrow_height=ROW * most,
        shares=[*(n / most for n in n_rows), 1.0],
        gap=grid.label_height + 34,
        gap_share=(LEFT + 8) / WIDTH,
        legend_lines=1,
        narrow_legend_lines=2,
        footer=max(grid.label_height, 46) + 14,
        bar=True,
        left=LEFT,
    )
    places = [place for place in dict.fromkeys(rows["place"]) if place]
    figure = panels.figure(
        title=f"Rates of change of weights and of capabilities{whose(rows)}",
        x_title="",
        y_titles=[""] * len(panels.titles),
        alt=_alt(rows, alpha=alpha, which=which),
        note=_note(places, which=which, alpha=alpha, lag=lag)
        + " Grey cells: no correlation, as one of the two curves is constant or was not measured."
        * _has_blanks(rows),
    )
    shapes = [
        shape
        for i, part in enumerate(parts.values())
        for shape in draw_cells(figure, panels, i, part, grid=grid, alpha=alpha)
    ]
    add_raw_panel(figure, panels, rows, alpha=alpha)
    title = "r of rates of change (no unit)"
    bar = diverging_axis(1.0, title=title, below=panels.below())
    figure.update_layout(coloraxis=bar, shapes=shapes)
    dot = {"color": INK, "size": 7, "line": {"color": PAPER, "width": 1}}
    words = f"{which} ≤ {alpha:g}"
    figure.add_scatter(x=[None], y=[None], mode="markers", marker=dot, name=words, meta="legend")
    return figure.update_layout(legend={"itemclick": False, "itemdoubleclick": False})


def _refuse_repeats(rows: pd.DataFrame) -> None:
    doubled = rows.loc[rows.duplicated(subset=["metric", "capability", "place"])]
    if len(doubled):
        row = doubled.iloc[0]
        raise InputError(
            expected="one row a statistic, capability and place",
            got=f"several of {row['metric']} with {row['capability']} {row['place']}".rstrip(),
            fix="Filter the frame to one model and one way of correlating.",
        )


def _has_blanks(rows: pd.DataFrame) -> bool:
    """Whether some cell of a panel has no correlation."""
    for _, part in rows.groupby("matrix"):
        sizes = [len(set(part[name])) for name in ("statistic", "capability", "place")]
        if np.isfinite(part["value"].to_numpy(float)).sum() < math.prod(sizes):
            return True
    return False


def _note(places: list[str], *, which: str, alpha: float, lag: int) -> str:
    words = "One cell is one statistic with one capability: r of their rates of change. "
    if len(places) > 1:
        shown = ", ".join(places) if len(places) <= 4 else f"{places[0]} to {places[-1]}"
        words += f"Within a capability, from left to right: {shown}. "
    if lag:
        words += f"The statistic {'leads' if lag > 0 else 'follows'} by {abs(lag)} intervals. "
    corrected = "corrected for all tests" if which == "q" else "not corrected for the many tests"
    words += f"A dot marks {which} at most {alpha:g}, {corrected}. Last panel: the same r against "
    return (
        words
        + "that of the raw values, which is large for almost anything that changes in training."
    )


def _alt(rows: pd.DataFrame, *, alpha: float, which: str) -> str:
    values = rows["value"].to_numpy(float)
    found = rows.loc[rows["q"] <= alpha]
    words = (
        f"Heat maps of correlations of rates of change, {rows['metric'].nunique()} statistics by "
        f"{rows['capability'].nunique()} capabilities. {len(found)} of "
        f"{int(np.isfinite(values).sum())} cells have {which} at most {alpha:g}"
    )
    strongest = found.iloc[np.argsort(-np.abs(found["value"].to_numpy(float)))[:5]]
    said: list[Any] = [
        f"{metric_label(row['metric'])}{', ' * bool(row['place'])}{row['place']} with "
        f"{capability_name(row['capability'])} {signed(row['value'])}"
        for row in strongest.to_dict("records")
    ]
    words += f", the strongest {'; '.join(said)}" if said else ""
    raw = rows["raw_r"].to_numpy(float)
    return words + (
        f". Of the raw values, {int(np.sum(np.abs(raw) > 0.8))} of {int(np.isfinite(raw).sum())} "
        "correlations are beyond 0.8."
    )
