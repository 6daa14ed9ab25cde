"""Attention patterns side by side: which token looks at which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal, get_args

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from headspec.errors import InputError, check_choice
from headspec.plots.conditions import condition_name
from headspec.plots.palette import AXIS, INK, diverging_axis
from headspec.plots.panels import Panels

Scale = Literal["log", "linear"]
FLOOR = 1e-3
"""Attention below this share has the lightest colour of the log scale."""

COLOURS = ((0.0, "#f6f6f4"), (0.5, "#6aaed6"), (1.0, "#084594"))
_LATER = 1e-6
_MOST_SEGMENTS = 24


def plot_attention_heatmaps(
    patterns: Mapping[str, ArrayLike],
    labels: ArrayLike | Sequence[object] | None = None,
    *,
    scale: Scale = "log",
    title: str = "Attention patterns",
) -> go.Figure:
    """Attention of each query (downwards) to each key (across), one panel a pattern.

    All panels share one colour scale. What lies above the diagonal is blank when it is 0, as it
    must be in a causal model; attention to later tokens is drawn and named in the panel's title.
    With labels, keys are named by them and every block in which query and key have the same one
    is outlined.

    What it does not show: on a log scale a diffuse head looks darker than its share; read the
    bar. One pattern is one text: averages over texts with other labels blur the blocks.

    Args:
        patterns: name of the panel -> probabilities `q_pos k_pos`, as NumPy takes them. Panels of
            512 tokens take 3 MB each in an HTML file: give the part that matters.
        labels: of each token, such as its topic, the same for all patterns.
        scale: `"log"`, from 0.001 to 1, or `"linear"`, from 0 to 1.
        title: of the figure.

    Returns:
        A figure whose `customdata` holds the shares.

    Raises:
        InputError: no patterns, patterns that are not square or no shares, labels of other length.

    Example:
        >>> import numpy as np
        >>> from headspec.plots import plot_attention_heatmaps
        >>> uniform = np.tril(np.ones((4, 4))) / np.arange(1, 5)[:, None]
        >>> figure = plot_attention_heatmaps({"uniform": uniform}, [0, 0, 1, 1])
        >>> float(figure.data[0].customdata[3][0])
        0.25
    """
    check_choice("scale", scale, get_args(Scale))
    shares = {name: _checked(name, pattern) for name, pattern in patterns.items()}
    if not shares:
        raise InputError(expected="at least one pattern", got="none", fix="Give name -> pattern.")
    segments = [] if labels is None else _segments(labels, shares)
    later = {name: float(np.triu(each, 1).sum(1).mean()) for name, each in shares.items()}
    count = len(shares)
    columns = count if count < 4 else 4 if count in (4, 7, 8) else 3
    panels = Panels(
        titles=[_title(name, later[name]) for name in shares],
        columns=columns,
        height={1: 520, 2: 400, 3: 260, 4: 195}[columns],
        narrow_height=280,
        gap=70,
        gap_share=0.06 if columns > 2 else 0.1,
        legend_lines=0,
        narrow_legend_lines=0,
        footer=60,
        bar=True,
        share_y=True,
        left=56,
    )
    figure = panels.figure(
        title=title,
        x_title="key (label)" if segments else "key (position)",
        y_titles=["query (position)"] * count,
        alt=_alt(shares, later),
        note="Each row is a query and sums to 1 over the keys it can see. "
        + _said_of(segments)
        + "Cells above the diagonal, where there are any, are attention to later tokens.",
    )
    for i, (name, share) in enumerate(shares.items()):
        figure.add_trace(_heatmap(share, name, scale=scale).update(panels.names(i)))
        _square(figure, panels, i, len(share), segments)
        _outline(figure, panels, i, segments)
    return figure.update_layout(coloraxis=_colours(scale, below=panels.below()))


def _checked(name: str, pattern: ArrayLike) -> np.ndarray:
    share = np.asarray(pattern, dtype=np.float32)
    square = share.ndim == 2 and share.shape[0] == share.shape[1] and share.size > 0
    if not square or not np.isfinite(share).all() or share.min() < -1e-6 or share.max() > 1.001:
        got = f"shape {list(share.shape)}"
        if square:
            got = f"values from {share.min():.3g} to {share.max():.3g}"
        raise InputError(
            expected=f"{name!r} as a square pattern of shares from 0 to 1",
            got=got,
            fix="Give one head of one text (after the softmax): pattern[row, head].",
        )
    return share


def _segments(
    labels: ArrayLike | Sequence[object], shares: Mapping[str, np.ndarray]
) -> list[tuple[str, int, int]]:
    """Runs of equal labels: name, first position, position after the last."""
    values = np.asarray(labels).tolist()
    sizes = {len(share) for share in shares.values()}
    if sizes != {len(values)}:
        raise InputError(
            expected="one label a token, for patterns of one size",
            got=f"{len(values)} labels, patterns of {sorted(sizes)} tokens",
            fix="Cut patterns and labels to the same tokens.",
        )
    runs, start = [], 0
    for label, run in groupby(values):
        n = len(list(run))
        runs.append((str(label), start, start + n))
        start += n
    return runs


def _title(name: str, later: float) -> str:
    words = condition_name(name)
    return words if later <= _LATER else f"{words}, not causal: {later:.0%} ahead"


def _said_of(segments: list[tuple[str, int, int]]) -> str:
    if not segments:
        return ""
    if len(segments) > _MOST_SEGMENTS:
        return f"Labels change {len(segments) - 1} times, too often to outline. "
    return "Outlined: query and key have the same label. "


def _heatmap(share: np.ndarray, name: str, *, scale: Scale) -> go.Heatmap:
    shown = np.where((np.triu(np.ones_like(share), 1) > 0) & (share <= 0), np.nan, share)
    z = np.log10(np.maximum(shown, FLOOR)) if scale == "log" else shown
    return go.Heatmap(
        z=z.astype(np.float32),
        customdata=share,
        coloraxis="coloraxis",
        hoverongaps=False,
        hovertemplate="query %{y}, key %{x}<br>%{customdata:.3g} of its attention"
        f"<extra>{condition_name(name)}</extra>",
        name=name,
        meta="cells",
    )


def _square(
    figure: go.Figure,
    panels: Panels,
    index: int,
    size: int,
    segments: list[tuple[str, int, int]],
) -> None:
    """Square cells, the first query at the top, and a line along the diagonal."""
    names = panels.names(index)
    look = {"showgrid": False, "ticks": "", "showline": False, "constrain": "domain"}
    look |= {"tickangle": 0, "tickfont": {"size": 10}}
    x: dict = {**look, "range": [-0.5, size - 0.5], "nticks": 5}
    y = {**look, "range": [size - 0.5, -0.5], "nticks": 5, "scaleanchor": names["xaxis"]}
    if 0 < len(segments) <= _MOST_SEGMENTS:
        wide = [run for run in segments if run[2] - run[1] >= size / 16] or segments
        x |= {
            "tickmode": "array",
            "tickvals": [(start + end - 1) / 2 for _, start, end in wide],
            "ticktext": [label for label, _, _ in wide],
        }
    figure.update_layout({panels.axis("x", index): x, panels.axis("y", index): y})
    figure.add_shape(
        type="line",
        xref=names["xaxis"],
        yref=names["yaxis"],
        x0=0.5,
        y0=-0.5,
        x1=size - 0.5,
        y1=size - 1.5,
        line={"color": AXIS, "width": 1},
        name="diagonal",
    )


def _outline(
    figure: go.Figure, panels: Panels, index: int, segments: list[tuple[str, int, int]]
) -> None:
    """Blocks of one label, on and below the diagonal."""
    if len(segments) > _MOST_SEGMENTS:
        return
    names = panels.names(index)
    for row, (label, top, bottom) in enumerate(segments):
        for other, left, right in segments[: row + 1]:
            if other == label:
                figure.add_shape(
                    type="rect",
                    xref=names["xaxis"],
                    yref=names["yaxis"],
                    x0=left - 0.5,
                    x1=right - 0.5,
                    y0=top - 0.5,
                    y1=bottom - 0.5,
                    line={"color": INK, "width": 1},
                    name="label",
                )


def _colours(scale: Scale, *, below: float) -> dict:
    """The colour axis of shares, its bar below the panels."""
    words = "share of the query's attention"
    bar = diverging_axis(1.0, title=words, below=below)["colorbar"]
    stops = [list(stop) for stop in COLOURS]
    if scale == "linear":
        return {"colorscale": stops, "cmin": 0.0, "cmax": 1.0, "colorbar": bar}
    ticks = [FLOOR, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
    bar |= {
        "title": {"text": f"{words} (log scale)", "side": "top"},
        "tickmode": "array",
        "tickvals": np.log10(ticks).tolist(),
        "ticktext": [f"≤ {FLOOR:g}", *(f"{tick:g}" for tick in ticks[1:])],
    }
    return {"colorscale": stops, "cmin": float(np.log10(FLOOR)), "cmax": 0.0, "colorbar": bar}


def _alt(shares: Mapping[str, np.ndarray], later: Mapping[str, float]) -> str:
    said = []
    for name, share in shares.items():
        own = np.diagonal(share).mean()
        first, last = share[1:, 0].mean() if len(share) > 1 else own, share.max()
        words = (
            f"{condition_name(name)}: {own:.2g} to the token itself and {first:.2g} to the first "
            f"on average, largest {last:.2g}"
        )
        if later[name] > _LATER:
            words += f", {later[name]:.2g} to later tokens"
        said.append(words)
    return f"Heat maps of attention, queries by keys. {'; '.join(said)}."
