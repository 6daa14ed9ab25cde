"""Patterns of all heads of a layer before and after a moment, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from headspec.errors import InputError, check_choice
from headspec.plots.attention_heatmap import COLOURS, FLOOR, Scale
from headspec.plots.palette import MUTED, diverging_axis
from headspec.plots.panels import Panels

_MOST = 8
_KINDS = ("before", "after", "change")


def plot_attention_heads_comparison(
    before: ArrayLike,
    after: ArrayLike,
    *,
    heads: Sequence[int] | None = None,
    scale: Scale = "linear",
    title: str = "Heads before and after",
) -> go.Figure:
    """Rows before, after and change; a column a head (on a phone, a row a head).

    Before and after share one colour scale; the change is after less before, blue where a query
    gives less to a key and orange where it gives more, on a scale of its own about 0.

    What it does not show: whether a change is more than what training does between any two steps:
    draw a pair of control steps beside it. Means over images hide heads that change differently on
    each.

    Args:
        before, after: probabilities `head q_pos k_pos` of the same input, as NumPy takes them.
        heads: which, in this order; None: all, or the eight that change most.
        scale: of the patterns, "linear" from 0 to their largest share, or "log" from 0.001 to 1.
        title: of the figure.

    Returns:
        A figure of three panels a head; `customdata` of the cells holds the shares.

    Raises:
        InputError: shapes that differ or are not `head q_pos k_pos`, or unknown heads.

    Example:
        >>> import numpy as np
        >>> from headspec.plots import plot_attention_heads_comparison
        >>> uniform = np.full((2, 3, 3), 1 / 3)
        >>> figure = plot_attention_heads_comparison(uniform, np.stack([np.eye(3)] * 2))
        >>> [annotation.text for annotation in figure.layout.annotations][::2]
        ['head 0 before', 'head 0 after', 'head 0 change']
    """
    check_choice("scale", scale, get_args(Scale))
    first, last = _checked(before, "before"), _checked(after, "after")
    if first.shape != last.shape:
        raise InputError(
            expected="before and after of the same heads and tokens",
            got=f"shapes {list(first.shape)} and {list(last.shape)}",
            fix="Measure both on the same input.",
        )
    change = last - first
    shown = _chosen(change, heads)
    n = len(shown)
    panels = Panels(
        titles=[f"head {head} {kind}" for kind in _KINDS for head in shown],
        columns=n,
        narrow_columns=3,
        height={1: 300, 2: 300, 3: 280, 4: 240, 5: 200, 6: 170, 7: 145}.get(n, 125),
        narrow_height=100,
        gap=30,
        gap_share=0.02 if n > 3 else 0.05,
        legend_lines=0,
        narrow_legend_lines=0,
        footer=34,
        left=34,
        bar=True,
    )
    figure = panels.figure(
        title=title,
        x_title="key",
        y_titles=["query" if i % n == 0 else "" for i in range(3 * n)],
        alt=_alt(first, last, shown),
        note="Rows of a panel are queries, columns keys. Change: after less before."
        + (f" The {n} heads of {len(change)} that change most." if n < len(change) else ""),
    )
    limit = float(np.abs(change[shown]).max()) or 1.0
    top = max(float(first[shown].max()), float(last[shown].max()))
    for row, (kind, values) in enumerate(zip(_KINDS, (first, last, change), strict=True)):
        for column, head in enumerate(shown):
            i = row * n + column
            _square(figure, panels, i, values.shape[-1])
            cells = _cells(values[head], head, kind, scale=scale)
            figure.add_trace(cells.update(panels.names(i)))
    _turn(figure, panels, n)
    layout: Any = figure.layout
    for annotation in layout.annotations:
        annotation.font.size = 12 if n < 7 else 11
    below = panels.below()
    colours = _colours(scale, top, below)
    bar = diverging_axis(limit, title="change (share)", below=below)
    bar["colorbar"] |= {"x": 0.54, "len": 0.46, "nticks": 4}
    figure.layout["meta"]["headspec"]["narrow"]["coloraxis2"] = {
        "colorbar": {"y": -panels.below(narrow=True)}
    }
    return figure.update_layout(coloraxis=colours, coloraxis2=bar)


def _checked(patterns: ArrayLike, name: str) -> np.ndarray:
    shares = np.asarray(patterns, dtype=np.float32)
    fits = shares.ndim == 3 and shares.shape[1] == shares.shape[2] and shares.size > 0
    if not fits or not np.isfinite(shares).all() or shares.min() < -1e-6 or shares.max() > 1.001:
        got = f"shape {list(shares.shape)}"
        if fits:
            got = f"values from {shares.min():.3g} to {shares.max():.3g}"
        raise InputError(
            expected=f"{name} as probabilities `head q_pos k_pos`",
            got=got,
            fix="Give one layer on one input (after the softmax): patterns[layer, image].",
        )
    return shares


def _chosen(change: np.ndarray, heads: Sequence[int] | None) -> list[int]:
    if heads is None:
        by_size = np.argsort(-np.abs(change).mean((1, 2)), kind="stable")
        return sorted(by_size[:_MOST].tolist())
    missing = [head for head in heads if not 0 <= head < len(change)]
    if missing or not len(heads):
        raise InputError(
            expected=f"heads from 0 to {len(change) - 1}",
            got=f"{list(heads)}",
            fix="Name heads of this layer.",
        )
    return list(heads)


def _square(figure: go.Figure, panels: Panels, index: int, size: int) -> None:
    names = panels.names(index)
    look = {
        "showgrid": False,
        "ticks": "",
        "showline": False,
        "showticklabels": False,
        "constrain": "domain",
    }
    figure.update_layout(
        {
            panels.axis("x", index): {**look, "range": [-0.5, size - 0.5]},
            panels.axis("y", index): {
                **look,
                "range": [size - 0.5, -0.5],
                "scaleanchor": names["xaxis"],
            },
        }
    )


def _cells(values: np.ndarray, head: int, kind: str, *, scale: Scale) -> go.Heatmap:
    is_change = kind == "change"
    z = values
    if scale == "log" and not is_change:
        z = np.log10(np.maximum(values, FLOOR))
    signed = "%{customdata:+.3g} of its attention" if is_change else "%{customdata:.3g}"
    return go.Heatmap(
        z=z.astype(np.float32),
        customdata=values,
        coloraxis="coloraxis2" if is_change else "coloraxis",
        hovertemplate=f"query %{{y}}, key %{{x}}<br>{signed}<extra>head {head} {kind}</extra>",
        name=f"head {head} {kind}",
        meta=kind,
    )


def _turn(figure: go.Figure, panels: Panels, n: int) -> None:
    """On a phone heads go down and before, after, change across."""
    narrow = figure.layout["meta"]["headspec"]["narrow"]
    was = panels.layout(narrow=True)
    for i in range(3 * n):
        row, column = divmod(i, n)
        place = column * 3 + row
        for kind in ("x", "y"):
            narrow[panels.axis(kind, i)]["domain"] = was[panels.axis(kind, place)]["domain"]
        narrow[panels.axis("x", i)]["title"] = {"text": "key" if column == n - 1 else ""}
        narrow[panels.axis("y", i)]["title"] = {"text": "query" if row == 0 else ""}


def _colours(scale: Scale, top: float | int, below: float | int) -> dict:
    bar = diverging_axis(1.0, title="share of attention", below=below)["colorbar"]
    bar |= {"len": 0.46, "nticks": 4, "tickfont": {"size": 11, "color": MUTED}}
    stops = [list(stop) for stop in COLOURS]
    if scale == "linear":
        return {"colorscale": stops, "cmin": 0.0, "cmax": top, "colorbar": bar}
    ticks = [FLOOR, 0.01, 0.1, 1.0]
    bar |= {
        "title": {"text": "share (log scale)", "side": "top"},
        "tickmode": "array",
        "tickvals": np.log10(ticks).tolist(),
        "ticktext": [f"≤ {FLOOR:g}", *(f"{tick:g}" for tick in ticks[1:])],
    }
    return {"colorscale": stops, "cmin": float(np.log10(FLOOR)), "cmax": 0.0, "colorbar": bar}


def _alt(first: np.ndarray, last: np.ndarray, shown: list[int]) -> str:
    said = []
    for head in shown:
        moved = float(np.abs(last[head] - first[head]).sum(-1).mean() / 2)
        said.append(f"head {head} moves {moved:.1%} of its attention")
    return (
        "Heat maps of the attention of heads before and after, queries by keys, and the change. "
        f"On average over queries, {', '.join(said)}."
    )
