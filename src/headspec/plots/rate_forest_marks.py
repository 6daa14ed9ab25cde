"""The parts of a forest plot: nulls, marks of models, diamonds of what is pooled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.plots.palette import AXIS, INK, MUTED, NULL_BAND, PAPER, category
from headspec.plots.rate_frames import signed
from headspec.plots.weight_wording import metric_label
from headspec.plots.window import swatch
from headspec.plots.wording import capability_name

LANE = 11
"""Pixels for one model."""


def row_label(row: dict) -> list[str]:
    """Statistic, capability, and what pooling says, in three short lines."""
    q = "q < 0.001" if row["q"] < 0.001 else f"q = {row['q']:.2g}"
    words = f"{signed(row['value'])}, {q}"
    agree, models = row.get("sign_consistency", np.nan), row.get("n_models", np.nan)
    if pd.notna(agree) and pd.notna(models):
        words += f", {round(agree * models)} of {int(models)}"
    return [metric_label(row["metric"]), capability_name(row["capability"]), words]


def draw_rows(figure: go.Figure, n: int, labels: list[list[str]]) -> None:
    """The axes, the line at 0, and every second row tinted by a line between rows."""
    for i in range(1, n):
        figure.add_shape(
            type="line",
            xref="x domain",
            yref="y",
            x0=0,
            x1=1,
            y0=i - 0.5,
            y1=i - 0.5,
            line={"color": AXIS, "width": 0.5},
            layer="below",
            name="row",
        )
    figure.add_shape(
        type="line",
        xref="x",
        yref="y domain",
        x0=0,
        x1=0,
        y0=0,
        y1=1,
        line={"color": AXIS, "width": 1.5},
        layer="below",
        name="zero",
    )
    figure.update_layout(
        xaxis={"range": [-1.06, 1.06], "tickmode": "array", "tickvals": [-1, -0.5, 0, 0.5, 1]},
        yaxis={
            "tickmode": "array",
            "tickvals": list(range(n)),
            "ticktext": ["<br>".join(label) for label in labels],
            "tickfont": {"size": 11, "color": INK},
            "range": [n - 0.5, -0.5],
            "ticks": "",
            "showgrid": False,
        },
    )


def null_bands(part: pd.DataFrame, lane: float) -> go.Scatter:
    """90 % of a model's null in every row, the widest of its layers, behind."""
    widest = part.groupby("row").agg({"null_q05": "min", "null_q95": "max"})
    low, high = (widest[name].to_numpy(float) for name in ("null_q05", "null_q95"))
    return go.Scatter(
        x=np.stack([low, high, np.full(len(low), np.nan)], axis=-1).ravel(),
        y=np.repeat(widest.index.to_numpy(float) + lane, 3),
        mode="lines",
        line={"color": NULL_BAND, "width": LANE - 2},
        hoverinfo="skip",
        connectgaps=False,
        name="null",
        meta="null band",
        showlegend=False,
    )


def model_marks(
    part: pd.DataFrame, index: int, *, name: str, lane: float, alpha: float
) -> go.Scatter:
    """The correlations of one model, filled where q is small."""
    colour, symbol, _ = category(index)
    data = part[["p", "q", "null_q05", "null_q95", "raw_r"]].to_numpy(float)
    said = [
        f"{metric_label(row['metric'])} with {capability_name(row['capability'])}"
        f"<br>{row['place'] or name}"
        for row in part.to_dict("records")
    ]
    return go.Scatter(
        x=part["value"].to_numpy(float),
        y=part["row"].to_numpy(float) + lane,
        customdata=data,
        text=said,
        mode="markers",
        marker={
            "color": [colour if q <= alpha else PAPER for q in data[:, 1]],
            "symbol": symbol,
            "size": 8,
            "line": {"color": colour, "width": 1.6},
        },
        hovertemplate="%{text}<br>r %{x:+.2f}, 90 % of the null %{customdata[2]:+.2f} to "
        "%{customdata[3]:+.2f}<br>p = %{customdata[0]:.3g}, q = %{customdata[1]:.3g}"
        "<br>raw values %{customdata[4]:+.2f}<extra></extra>",
        name=name,
        meta="model",
        showlegend=False,
    )


def diamonds(chosen: pd.DataFrame, *, lane: float, alpha: float) -> list[go.Scatter]:
    """Pooled intervals as diamonds, those with a small q filled."""
    clear = chosen["q"].to_numpy(float) <= alpha
    tall = 0.5 - lane - 0.02
    traces = []
    for filled in (False, True):
        part = chosen.loc[clear == filled]
        at = part.index.to_numpy(float) + lane
        low, mid, high = (part[name].to_numpy(float) for name in ("low", "value", "high"))
        gap = np.full(len(part), np.nan)
        traces.append(
            go.Scatter(
                x=np.stack([low, mid, high, mid, low, gap], axis=-1).ravel(),
                y=np.stack([at, at - tall, at, at + tall, at, gap], axis=-1).ravel(),
                mode="lines",
                fill="toself",
                fillcolor=INK if filled else PAPER,
                line={"color": INK, "width": 1.2},
                hoverinfo="skip",
                connectgaps=False,
                name="pooled, significant" if filled else "pooled",
                meta="pooled",
                showlegend=False,
            )
        )
    return traces


def centres(chosen: pd.DataFrame, *, lane: float) -> go.Scatter:
    """What pooling says, on hovering over a diamond's middle."""
    return go.Scatter(
        x=chosen["value"].to_numpy(float),
        y=chosen.index.to_numpy(float) + lane,
        customdata=chosen[["low", "high", "p", "q"]].to_numpy(float),
        text=["<br>".join(row_label(row)[:2]) for row in chosen.to_dict("records")],
        mode="markers",
        marker={"color": MUTED, "size": 3, "symbol": "circle"},
        hovertemplate="%{text}<br>pooled %{x:+.2f} (%{customdata[0]:+.2f} to "
        "%{customdata[1]:+.2f})<br>p = %{customdata[2]:.3g}, q = %{customdata[3]:.3g}"
        "<extra></extra>",
        name="pooled effect",
        meta="centre",
        showlegend=False,
    )


def forest_legend(models: list[str]) -> list[go.Scatter]:
    """What every mark and colour of the forest means."""
    marks: list[dict] = []
    for i, model in enumerate(models):
        colour, symbol, _ = category(i)
        marks.append({"marker": {"color": colour, "symbol": symbol, "size": 9}, "name": model})
    marks.append({"marker": swatch(NULL_BAND), "name": "90 % of a model's null"})
    diamond = {"color": INK, "symbol": "diamond-wide", "size": 13}
    marks.append({"marker": diamond, "name": "pooled, with its interval"})
    return [go.Scatter(x=[None], y=[None], mode="markers", meta="legend", **m) for m in marks]
