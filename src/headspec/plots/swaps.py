"""Swaps of two clusters of heads, in front of swaps of random sets and inside a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.interventions.swap_result import ClusterSwap
from headspec.plots.palette import INK, MUTED, NULL_BAND, NULL_MEAN, PAPER, category
from headspec.plots.panels import Panels
from headspec.plots.swap_axis import FLOOR, draw_thresholds, kl_axis, placed, span_of
from headspec.plots.window import swatch

_HOW = {
    "outputs": "outputs",
    "queries": "queries",
    "keys": "keys",
    "values": "values",
    "qk": "query-key circuits",
    "pattern": "attention patterns",
    "ov": "value-output circuits",
    "all": "all weights",
}

BINS = 60
RIDGE = 0.5
"""Height of the highest bin, in rows."""


def plot_swap_null(
    swaps: ClusterSwap | Mapping[str, ClusterSwap], *, alpha: float = 0.05
) -> go.Figure:
    """KL(base || swapped) of clusters that change places, in front of its null; and by prompt.

    One row a swap (a task, say). Left: grey, the mean KL of random sets of the same sizes; the
    dark line, that of the clusters, filled if p is at most `alpha`; below it, swaps inside either
    cluster (filled) and as many pairs between the clusters (hollow). Right: the KL of each prompt.
    Lines at 0.1 and 1 nat part the study's words.

    What it does not show: the study's words are no verdict. Where the grey hill itself stands in
    "strong", any exchange of heads does this much, and only the place of the line in the hill
    says something of the clusters. p-values are not adjusted for the number of rows.

    Args:
        swaps: of `swap_clusters`: one, or several by name.
        alpha: level up to which a mean is drawn filled.

    Returns:
        A figure of two panels on logarithmic axes; `customdata` of the marks holds the true KL.

    Raises:
        InputError: without a swap, or with swaps of several layers.
    """
    named = {"": swaps} if isinstance(swaps, ClusterSwap) else dict(swaps)
    one = _common(named)
    span = _span(named)
    panels = Panels(
        titles=["Mean over prompts", "Each prompt"],
        columns=2,
        height=40 + 112 * len(named),
        narrow_height=40 + 100 * len(named),
        gap=84,
        gap_share=0.05,
        legend_lines=2,
        narrow_legend_lines=5,
        left=24 + 7 * max(len(line) for name in named for line in _lines(name)),
    )
    step = "" if one.step is None else f", step {one.step}"
    whose = f" · {one.model}{step}" if one.model else ""
    figure = panels.figure(
        title=f"Swapping {_HOW[one.how]} of two clusters, layer {one.layer}{whose}",
        x_title="KL(base || swapped), nats (log scale)",
        y_titles=["", ""],
        alt=_alt(named),
        note="Grey: mean KL of random sets of heads of the same sizes. Line: the clusters; its "
        f"mark is filled if p ≤ {alpha:g} (not adjusted). Below each row: swaps inside a cluster, "
        "filled, and as many pairs between the clusters, hollow. Dashed: the study's words, which "
        "know no null.",
    )
    for row, swap in enumerate(named.values()):
        figure.add_trace(_ridge(swap, row, span).update(panels.names(0)))
        figure.add_traces([t.update(panels.names(0)) for t in _within(swap, row)])
        figure.add_traces([t.update(panels.names(0)) for t in _mean(swap, row, alpha=alpha)])
        figure.add_trace(_prompts(swap, row).update(panels.names(1)))
    for i in (0, 1):
        draw_thresholds(figure, panels, i, span)
        figure.update_layout({panels.axis("x", i): kl_axis(span)})
        figure.update_layout({panels.axis("y", i): _row_axis(list(named), shown=i == 0)})
    meta: Any = figure.layout["meta"]
    meta["headspec"]["narrow"][panels.axis("y", 1)] |= {"showticklabels": True}
    return figure.add_traces(_legend(named)).update_layout(
        legend={"itemclick": False, "itemdoubleclick": False}
    )


def _common(named: Mapping[str, ClusterSwap]) -> ClusterSwap:
    """The first swap, for what all share."""
    kinds = {(swap.layer, swap.how, swap.model, swap.step) for swap in named.values()}
    if len(kinds) != 1:
        raise InputError(
            expected="one or more swaps of one layer and kind",
            got=f"{len(named)} swaps of {len(kinds)} layers or kinds",
            fix="Draw a figure for each.",
        )
    return next(iter(named.values()))


def _span(named: Mapping[str, ClusterSwap]) -> tuple[float, float]:
    drawn = [each for swap in named.values() for each in (swap.kl, swap.null_draws)]
    drawn += [w.draws for swap in named.values() for w in swap.within]
    return span_of(np.concatenate([np.ravel(each) for each in drawn]))


def _ridge(swap: ClusterSwap, row: int, span: tuple[float, float]) -> go.Scatter:
    """A histogram of the null on the row's line, its bins even on the log axis."""
    edges = np.linspace(np.log10(span[0]), np.log10(span[1]), BINS + 1)
    counts, _ = np.histogram(np.log10(placed(swap.null_draws)), bins=edges)
    heights = RIDGE * counts / max(int(counts.max()), 1)
    x = 10 ** np.repeat(edges, 2)
    y = np.concatenate([[0.0], np.repeat(heights, 2), [0.0]])
    used = np.flatnonzero(counts)
    part = slice(2 * int(used[0]), 2 * int(used[-1]) + 4)
    return go.Scatter(
        x=x[part],
        y=row - y[part],
        fill="toself",
        fillcolor=NULL_BAND,
        mode="lines",
        line={"color": NULL_MEAN, "width": 1},
        hoverinfo="skip",
        name="null",
        meta="null",
        showlegend=False,
    )


def _mean(swap: ClusterSwap, row: int, *, alpha: float) -> list[go.Scatter]:
    """The clusters' own mean, as a line through the hill with a mark on top."""
    x = max(swap.mean_kl, FLOOR)
    words = f"{swap.mean_kl:.3g} nats, p = {swap.p_value:.2g}"
    stem = go.Scatter(
        x=[x, x],
        y=[row, row - RIDGE - 0.1],
        mode="lines",
        line={"color": INK, "width": 3},
        hoverinfo="skip",
        meta="stem",
        showlegend=False,
    )
    mark = go.Scatter(
        x=[x],
        y=[row - RIDGE - 0.1],
        customdata=[swap.mean_kl],
        text=[f"p = {swap.p_value:.2g}"],
        textposition="middle right" if x < 1 else "middle left",
        textfont={"size": 11, "color": MUTED},
        mode="markers+text",
        marker={
            "color": INK if swap.p_value <= alpha else PAPER,
            "size": 10,
            "line": {"color": INK, "width": 2},
        },
        hovertemplate=f"{words}<br>random sets {swap.null.mean:.3g}, 95 % below "
        f"{swap.null.q95:.3g}<extra>clusters</extra>",
        name="clusters",
        meta="mean",
        showlegend=False,
    )
    return [stem, mark]


def _within(swap: ClusterSwap, row: int) -> list[go.Scatter]:
    """Below the line: swaps inside a cluster, and as many pairs between the clusters."""
    traces = []
    for i, one in enumerate(swap.within):
        colour, symbol, _ = category(i)
        for draws, role, fill in (
            (one.between, "between", PAPER),
            (one.draws, "within", colour),
        ):
            where = f"inside cluster {i + 1}" if role == "within" else "between the clusters"
            traces.append(
                go.Scatter(
                    x=placed(draws),
                    y=np.full(len(draws), row + 0.1 + 0.13 * i),
                    customdata=draws,
                    mode="markers",
                    marker={
                        "color": fill,
                        "symbol": symbol,
                        "size": 7,
                        "line": {"color": colour, "width": 1.2},
                    },
                    hovertemplate=f"{where}, {one.n_pairs} pairs<br>%{{customdata:.3g}} nats"
                    "<extra></extra>",
                    name=where,
                    meta=role,
                    showlegend=False,
                )
            )
    return traces


def _prompts(swap: ClusterSwap, row: int) -> go.Scatter:
    """One dot a prompt, spread over the height of the row in a fixed order."""
    golden = np.arange(1, len(swap.kl) + 1) * 0.6180339887 % 1
    return go.Scatter(
        x=placed(swap.kl),
        y=row - 0.62 * golden + 0.1,
        customdata=np.stack([np.arange(len(swap.kl)), swap.kl], axis=-1),
        mode="markers",
        marker={"color": INK, "size": 6, "opacity": 0.4, "line": {"width": 0}},
        hovertemplate="prompt %{customdata[0]}<br>%{customdata[1]:.3g} nats<extra></extra>",
        name="prompts",
        meta="prompt",
        showlegend=False,
    )


def _lines(name: str) -> list[str]:
    """A name in two lines, if it has two words."""
    return name.rsplit(" ", 1)


def _row_axis(names: list[str], *, shown: bool) -> dict:
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": ["<br>".join(_lines(name)) for name in names],
        "tickfont": {"size": 12, "color": INK},
        "range": [len(names) - 0.6, -1.05],
        "ticks": "",
        "showticklabels": shown,
    }


def _legend(named: Mapping[str, ClusterSwap]) -> list[go.Scatter]:
    marks: list[dict] = [
        {"marker": {"color": PAPER, "size": 10, "line": {"color": INK, "width": 2}}},
        {"marker": swatch(NULL_BAND)},
    ]
    words = ["the clusters", "random sets of the same sizes"]
    for i in (0, 1):
        if not any(len(swap.within[i].draws) for swap in named.values()):
            continue
        colour, symbol, _ = category(i)
        look = {"symbol": symbol, "size": 8, "line": {"color": colour, "width": 1.2}}
        marks += [{"marker": {"color": colour, **look}}, {"marker": {"color": PAPER, **look}}]
        words += [f"inside cluster {i + 1}", "as many pairs between"]
    return [
        go.Scatter(x=[None], y=[None], mode="markers", name=name, meta="legend", **mark)
        for name, mark in zip(words, marks, strict=True)
    ]


def _alt(named: Mapping[str, ClusterSwap]) -> str:
    said = [
        f"{name + ': ' if name else ''}{swap.mean_kl:.3g} nats, random sets "
        f"{swap.null.mean:.3g} (90 % between {swap.null.q05:.3g} and {swap.null.q95:.3g}), "
        f"p = {swap.p_value:.2g}"
        for name, swap in named.items()
    ]
    return "Mean KL of swaps of two clusters beside random sets. " + "; ".join(said) + "."
