"""Heads as points in two dimensions, coloured by cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.frames import layer_rows, number_column, whose
from headspec.plots.heads import head_table, steady_labels
from headspec.plots.palette import MUTED, PAPER, category
from headspec.plots.panels import Panels
from headspec.plots.steps import choose_steps, short_number

_AXES = {
    "pca": ("first principal component (weight norm)", "second component", "PCA"),
    "tsne": ("t-SNE 1 (no unit)", "t-SNE 2", "t-SNE"),
}

_NOTE = (
    "Numbers are heads; colour and shape are clusters, which keep their colour from panel to "
    "panel. Every panel has its own scale and orientation."
)
_TSNE_NOTE = " t-SNE keeps neighbours, not distances, and shows clumps in structureless data too."


def plot_head_projection(
    frame: pd.DataFrame,
    *,
    layer: int,
    method: Literal["pca", "tsne"] = "pca",
    steps: Sequence[int] | None = None,
) -> go.Figure:
    """Where the heads of a layer lie at several steps, coloured and shaped by cluster.

    Numbers are heads. A cluster keeps its colour over the panels (clusters of neighbouring
    panels are matched by shared heads), so that a head that changes colour changed company.

    What it does not show: two dimensions hold part of the distances only. Each panel has its own
    scale and, by nature of both methods, its own orientation; t-SNE keeps neighbours and not
    distances, and shows clumps in structureless data too.

    Args:
        frame: tidy frame with per-head rows of `cluster` and `pca_1`, `pca_2` (or `tsne_1`, ...).
        layer: the layer to show.
        method: which coordinates.
        steps: one panel each; None for at most six, spread evenly over those in the frame.

    Returns:
        A figure with one trace for each step and cluster; `customdata` holds head and step.

    Raises:
        InputError: for a layer, step or coordinates that the frame lacks.
    """
    rows = layer_rows(frame, layer)
    first, second = (head_table(rows, f"{method}_{i}") for i in (1, 2))
    clusters = steady_labels(head_table(rows, "cluster"))
    known = [step for step in first.columns if np.isfinite(first[step].to_numpy()).any()]
    shown = choose_steps(known, steps, most=6)
    if not set(shown) <= set(clusters.columns):
        raise InputError(
            expected="cluster labels at every step shown",
            got=f"none at {sorted(set(shown) - set(clusters.columns))}",
            fix="Measure clusters at these steps too, or leave them out of `steps`.",
        )
    x_title, y_title, name = _AXES[method]
    panels = Panels(
        titles=[f"step {short_number(step)}{_share(rows, step, method)}" for step in shown],
        columns=3,
        narrow_columns=1,
        height=230 if len(shown) > 1 else 400,
        narrow_height=210,
        gap=64,
        gap_share=0.07,
        narrow_legend_lines=2,
        share_y=True,
    )
    figure = panels.figure(
        title=f"Heads of layer {layer} by {name}{whose(rows)}",
        x_title=x_title,
        y_titles=[y_title] * len(shown),
        alt=_alt(clusters.loc[:, shown], layer=layer, name=name),
        note=_NOTE + (_TSNE_NOTE if method == "tsne" else ""),
    )
    named: set[int] = set()
    for i, step in enumerate(shown):
        labels = clusters[step].reindex(first.index).fillna(-1).astype(int)
        for label in sorted(set(labels)):
            heads = labels.index[labels == label]
            trace = _trace(first.loc[heads, step], second.loc[heads, step], label=label, step=step)
            trace.update({"showlegend": label not in named, **panels.names(i)})
            named.add(label)
            figure.add_trace(trace)
        square = {"scaleanchor": panels.names(i)["xaxis"]} if method == "pca" else {}
        figure.update_layout(
            {
                panels.axis("x", i): {"nticks": 5},
                panels.axis("y", i): {
                    "nticks": 5,
                    **square,
                },
            }
        )
    figure.update_layout(legend={"traceorder": "normal"})
    return figure


def _share(rows: pd.DataFrame, step: int, method: str) -> str:
    """The share of the variance in the two components, where the frame has it (`explained`)."""
    at = (rows["step"] == step) & (rows["metric"].isin([f"{method}_1", f"{method}_2"]))
    shares = number_column(rows.loc[at].drop_duplicates(subset=["metric"]), "explained")
    if shares is None or len(shares) != 2:
        return ""
    return f": {shares.sum():.0%} of the variance"


def _trace(first: pd.Series, second: pd.Series, *, label: int, step: int) -> go.Scatter:
    """The heads of one cluster at one step."""
    heads = np.array(first.index)
    if label < 0:
        colour, symbol, text, name = PAPER, "circle", MUTED, "in no cluster"
    else:
        colour, symbol, text = category(label)
        name = f"cluster {label + 1}"
    return go.Scatter(
        x=first.to_numpy(dtype=float),
        y=second.to_numpy(dtype=float),
        mode="markers+text",
        text=[str(head) for head in heads],
        customdata=np.stack([heads, np.full(len(heads), step)], axis=-1),
        textfont={"size": 10, "color": text},
        textposition="middle center",
        marker={
            "color": colour,
            "symbol": symbol,
            "size": 17,
            "line": {"color": MUTED if label < 0 else PAPER, "width": 1},
        },
        cliponaxis=False,
        hovertemplate="head %{customdata[0]}, step %{customdata[1]}<br>%{x:.3g}, %{y:.3g}"
        f"<extra>{name}</extra>",
        name=name,
        legendgroup=name,
        meta={"cluster": label, "step": step},
    )


def _alt(clusters: pd.DataFrame, *, layer: int, name: str) -> str:
    words = f"Scatter plots of the heads of layer {layer} by {name}, one panel a step. "
    last = clusters.columns[-1]
    groups = clusters[last].dropna().astype(int)
    said = [
        f"{'no cluster' if label < 0 else f'cluster {label + 1}'}: heads "
        + ", ".join(str(head) for head in groups.index[groups == label])
        for label in sorted(set(groups))
    ]
    return words + f"At step {int(last)}, " + "; ".join(said) + "."
