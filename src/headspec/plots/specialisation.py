"""What ablating each cluster does to each task, in front of random groups of heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from headspec.interventions.specialisation_result import ClusterEffects
from headspec.plots.palette import (
    AXIS,
    BLANK,
    INK,
    NULL_BAND,
    NULL_MEAN,
    PAPER,
    category,
    diverging_axis,
)
from headspec.plots.panels import Panels
from headspec.plots.window import swatch

BINS = 30
_STEP = 0.26  # between the clusters of a task, in rows


def plot_cluster_effects(effects: ClusterEffects, *, alpha: float = 0.05) -> go.Figure:
    """Effects of ablating clusters of heads on tasks, their standardised matrix, and its test.

    Left: the change of each task's metric when a cluster is ablated, in front of the mean of
    random groups of its size and two standard deviations of these; filled if q is at most `alpha`.
    Middle: the same as a matrix, in these standard deviations. Right: the interaction of cluster
    and task in front of that of permuted labels.

    What it does not show: a mark outside its grey bar says that this group of heads matters more
    (or less) than random groups; only the interaction says that clusters matter for different
    tasks. Neither says what the heads compute.

    Args:
        effects: of `cluster_effects`.
        alpha: level up to which an effect is drawn filled (q, adjusted over all cells).

    Returns:
        A figure of three panels (two with a single task); `customdata` holds p and q.
    """
    tested = not np.isnan(effects.interaction.observed)
    p = effects.p_value
    titles = ["Effect of ablation", "In sd of random groups"]
    titles += [f"Interaction: p = {p:.2g}"] if tested else []
    n = len(effects.tasks)
    units = sorted({unit for unit in effects.units if unit})
    unit = units[0] if len(set(effects.units)) == 1 and units else "each task's own unit"
    panels = Panels(
        titles=titles,
        columns=len(titles),
        height=max(150, 62 * n),
        narrow_height=max(140, 56 * n),
        gap=88,
        gap_share=0.085,
        legend_lines=2,
        narrow_legend_lines=4,
        footer=64,
        bar=True,
        left=24 + 7 * max(len(line) for name in effects.tasks for line in _lines(name)),
    )
    step = "" if effects.step is None else f", step {effects.step}"
    whose = f" · {effects.model}{step}" if effects.model else ""
    draws = f"{len(effects.interaction_draws)} {'' if effects.exact else 'random '}relabellings"
    figure = panels.figure(
        title=f"Clusters of layer {effects.layer}, ablated on each task{whose}",
        x_title="",
        y_titles=["", "", "share of relabellings"][: len(titles)],
        alt=_alt(effects),
        note=f"Heads of a cluster ablated together ({effects.mode}). Grey: random groups of its "
        f"size, mean ± 2 sd ({draws} of the layer's heads). Filled: q ≤ {alpha:g}, over all "
        "cells. Numbers in cells: standard deviations from random groups, and q.",
    )
    for c in range(len(effects.clusters)):
        figure.add_traces([t.update(panels.names(0)) for t in _cluster(effects, c, alpha=alpha)])
    figure.add_trace(_matrix(effects).update(panels.names(1)))
    if tested:
        figure.add_traces([t.update(panels.names(2)) for t in _interaction(effects)])
    figure.add_shape(
        {"type": "line", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "xref": "x", "yref": "y domain"},
        line={"color": AXIS, "width": 1.5},
        layer="below",
    )
    _draw_axes(figure, panels, effects, unit=unit)
    limit = float(np.abs(effects.standardised).max()) or 1.0
    return figure.add_traces(_legend(effects)).update_layout(
        legend={"itemclick": False, "itemdoubleclick": False},
        coloraxis=diverging_axis(
            limit, title="standard deviations from random groups", below=panels.below()
        ),
        bargap=0,
    )


def _cluster(effects: ClusterEffects, c: int, *, alpha: float) -> list[go.Scatter]:
    """One cluster's effects, each over the bar of random groups of its size."""
    colour, symbol, _ = category(c)
    rows = np.arange(len(effects.tasks)) + _STEP * (c - (len(effects.clusters) - 1) / 2)
    mean, sd = effects.null_mean[c], effects.null_sd[c]
    null = go.Scatter(
        x=np.stack([mean - 2 * sd, mean + 2 * sd, np.full(len(mean), np.nan)], -1).ravel(),
        y=np.repeat(rows, 3),
        mode="lines",
        line={"color": NULL_BAND, "width": 13},
        hoverinfo="skip",
        connectgaps=False,
        meta="null",
        showlegend=False,
    )
    centre = go.Scatter(
        x=mean,
        y=rows,
        mode="markers",
        marker={
            "symbol": "line-ns",
            "size": 12,
            "line": {"color": NULL_MEAN, "width": 2},
        },
        hoverinfo="skip",
        meta="null mean",
        showlegend=False,
    )
    clear = effects.cell_q[c] <= alpha
    marks = go.Scatter(
        x=effects.effects[c],
        y=rows,
        customdata=np.stack([effects.cell_p[c], effects.cell_q[c], mean, sd], axis=-1),
        text=[f"{task} ({unit})" for task, unit in zip(effects.tasks, effects.units, strict=True)],
        mode="markers",
        marker={
            "color": [colour if each else PAPER for each in clear],
            "symbol": symbol,
            "size": 10,
            "line": {"color": colour, "width": 2},
        },
        hovertemplate="%{text}<br>%{x:+.3g}, random groups %{customdata[2]:+.3g} ± "
        "%{customdata[3]:.2g}<br>p = %{customdata[0]:.2g}, q = %{customdata[1]:.2g}"
        f"<extra>cluster {c + 1}</extra>",
        name=f"cluster {c + 1}",
        meta="effect",
        showlegend=False,
    )
    return [null, centre, marks]


def _matrix(effects: ClusterEffects) -> go.Heatmap:
    """Tasks by clusters in standard deviations, with numbers and q written into the cells."""
    z, q = effects.standardised.T, effects.cell_q.T
    return go.Heatmap(
        z=z,
        x=list(range(z.shape[1])),
        y=list(range(z.shape[0])),
        text=[
            [f"{_signed(value)}<br>q = {each:.2g}" for value, each in zip(a, b, strict=True)]
            for a, b in zip(z, q, strict=True)
        ],
        texttemplate="%{text}",
        textfont={"size": 11},
        customdata=np.stack([effects.cell_p.T, q, effects.effects.T], axis=-1),
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        hovertemplate="%{z:+.2f} sd, effect %{customdata[2]:+.3g}<br>p = %{customdata[0]:.2g}, "
        "q = %{customdata[1]:.2g}<extra></extra>",
        name="standardised",
        meta="standardised",
    )


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−") if abs(value) >= 0.05 else "0.0"


def _interaction(effects: ClusterEffects) -> list[go.Bar | go.Scatter]:
    """The interaction of permuted labels as a histogram, and the observed one as a line."""
    draws, found = effects.interaction_draws, effects.interaction.observed
    counts, edges = np.histogram(draws, bins=BINS, range=(0, 1.02 * max(draws.max(), found)))
    shares = counts / len(draws)
    bars = go.Bar(
        x=(edges[1:] + edges[:-1]) / 2,
        y=shares,
        width=np.diff(edges),
        marker={"color": BLANK, "line": {"width": 0}},
        hovertemplate="%{x:.3g}: %{y:.1%} of relabellings<extra></extra>",
        name="relabellings",
        meta="null",
        showlegend=False,
    )
    line = go.Scatter(
        x=[found, found],
        y=[0, 1.06 * shares.max()],
        mode="lines",
        line={"color": INK, "width": 3},
        hovertemplate=f"{found:.3g}, p = {effects.p_value:.2g}<extra>the clusters</extra>",
        name="the clusters",
        meta="interaction",
        showlegend=False,
    )
    return [bars, line]


def _draw_axes(figure: go.Figure, panels: Panels, effects: ClusterEffects, *, unit: str) -> None:
    n, k = len(effects.tasks), len(effects.clusters)
    names = ["<br>".join(_lines(task)) for task in effects.tasks]
    tasks = {
        "tickmode": "array",
        "tickvals": list(range(n)),
        "ticktext": names,
        "tickfont": {"size": 12, "color": INK},
        "range": [n - 0.5, -0.5],
        "ticks": "",
    }
    clusters = {
        "tickmode": "array",
        "tickvals": list(range(k)),
        "ticktext": [f"cluster {c + 1}" for c in range(k)],
        "range": [-0.5, k - 0.5],
        "showgrid": False,
        "ticks": "",
    }
    figure.update_layout(
        {
            "xaxis": {"title": {"text": f"change, {unit}"}, "nticks": 5},
            "yaxis": tasks | {"showgrid": False},
            "xaxis2": clusters,
            "yaxis2": tasks | {"showticklabels": False, "showgrid": False},
        }
    )
    meta: Any = figure.layout["meta"]
    narrow = meta["headspec"]["narrow"]
    narrow["yaxis2"] |= {"showticklabels": True}
    titles = {"xaxis": f"change, {unit}", "xaxis2": ""}
    if len(panels.titles) > 2:
        titles["xaxis3"] = "interaction (sd²)"
        figure.update_layout(xaxis3={"title": {"text": titles["xaxis3"]}, "nticks": 4})
        figure.update_layout(yaxis3={"nticks": 4, "tickformat": ".0%", "rangemode": "tozero"})
    for axis, text in titles.items():
        narrow[axis]["title"] = {"text": text}


def _lines(name: str) -> list[str]:
    """A name in two lines, if it has two words."""
    return name.replace("_", " ").rsplit(" ", 1)


def _legend(effects: ClusterEffects) -> list[go.Scatter]:
    marks: list[dict] = []
    for c, heads in enumerate(effects.clusters):
        colour, symbol, _ = category(c)
        listed = " ".join(str(head.index) for head in heads)
        look = {"color": colour, "symbol": symbol, "size": 10}
        marks.append({"marker": look, "name": f"cluster {c + 1}: heads {listed}"})
    marks.append({"marker": swatch(NULL_BAND), "name": "random groups, mean ± 2 sd"})
    return [go.Scatter(x=[None], y=[None], mode="markers", meta="legend", **m) for m in marks]


def _alt(effects: ClusterEffects) -> str:
    said = [
        f"cluster {c + 1} on {task} {effects.effects[c, t]:+.3g} (random groups "
        f"{effects.null_mean[c, t]:+.3g}, q = {effects.cell_q[c, t]:.2g})"
        for t, task in enumerate(effects.tasks)
        for c in range(len(effects.clusters))
    ]
    words = "Effects of ablating clusters of heads on tasks: " + "; ".join(said) + "."
    if np.isnan(effects.interaction.observed):
        return words
    return words + f" Interaction of cluster and task: p = {effects.p_value:.2g}."
