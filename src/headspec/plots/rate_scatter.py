"""Correlations of rates against those of raw values: how much a raw correlation misleads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.plots.palette import INK, NULL_BAND, NULL_MEAN, VALUE
from headspec.plots.panels import Panels
from headspec.plots.weight_wording import metric_label
from headspec.plots.window import swatch
from headspec.plots.wording import capability_name


def add_raw_panel(figure: go.Figure, panels: Panels, rows: pd.DataFrame, *, alpha: float) -> None:
    """Fill the last panel: one point a row, r of raw values across, r of rates up.

    Behind lies the widest 90 % band of the null of r of rates.
    """
    index = len(panels.titles) - 1
    names = panels.names(index)
    low, high = (rows[name].to_numpy(float) for name in ("null_q05", "null_q95"))
    if np.isfinite(low).any() and np.isfinite(high).any():
        figure.add_trace(_band(float(np.nanmin(low)), float(np.nanmax(high))).update(names))
        words = "90 % of the null, at its widest"
        entry = {"mode": "markers", "marker": swatch(NULL_BAND), "name": words}
        figure.add_scatter(x=[None], y=[None], meta="legend", **entry)
    clear = rows["q"].to_numpy(float) <= alpha
    for chosen, colour, opacity, name in (
        (~clear, INK, 0.35, "not significant"),
        (clear, VALUE, 1.0, "significant"),
    ):
        figure.add_trace(_points(rows.loc[chosen], colour, opacity, name).update(names))
    scale = {"range": [-1.08, 1.08], "tickmode": "array", "tickvals": [-1, -0.5, 0, 0.5, 1]}
    titles = {"x": "r of raw values (no unit)", "y": "r of rates (no unit)"}
    meta: Any = figure.layout["meta"]
    for kind, text in titles.items():
        key = panels.axis(kind, index)
        figure.update_layout({key: {**scale, "title": {"text": text}}})
        if kind == "x":
            meta["headspec"]["narrow"][key]["title"] = {"text": text}


def _band(low: float, high: float) -> go.Scatter:
    return go.Scatter(
        x=[-1.08, 1.08, 1.08, -1.08],
        y=[low, low, high, high],
        fill="toself",
        fillcolor=NULL_BAND,
        mode="lines",
        line={"width": 0, "color": NULL_MEAN},
        hoverinfo="skip",
        name="null",
        meta="null band",
        showlegend=False,
    )


def _points(rows: pd.DataFrame, colour: str, opacity: float, name: str) -> go.Scatter:
    said = [
        f"{metric_label(row['metric'])}{', ' * bool(row['place'])}{row['place']}"
        f"<br>{capability_name(row['capability'])}"
        for row in rows.to_dict("records")
    ]
    return go.Scatter(
        x=rows["raw_r"].to_numpy(float),
        y=rows["value"].to_numpy(float),
        text=said,
        mode="markers",
        marker={"color": colour, "size": 5, "opacity": opacity, "line": {"width": 0}},
        hovertemplate="%{text}<br>raw values %{x:+.2f}, rates %{y:+.2f}<extra></extra>",
        name=name,
        meta="raw",
        showlegend=False,
    )
