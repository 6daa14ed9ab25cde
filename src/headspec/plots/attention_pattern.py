"""Attention patterns of texts and of images cut into patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from headspec.errors import InputError
from headspec.plots.attention_heatmap import Scale, plot_attention_heatmaps
from headspec.plots.conditions import condition_name
from headspec.plots.palette import GRID, INK, diverging_axis
from headspec.plots.panels import Panels

_CLASS = "class"
_STOPS = ((0.0, "#f6f6f4"), (0.5, "#6aaed6"), (1.0, "#084594"))


def plot_attention_pattern(
    patterns: ArrayLike | Mapping[str, ArrayLike],
    labels: ArrayLike | Sequence[object] | None = None,
    *,
    causal: bool = True,
    grid: tuple[int, int] | None = None,
    class_token: bool = True,
    query: int | Literal["class", "mean"] | None = None,
    scale: Scale = "log",
    title: str = "Attention patterns",
) -> go.Figure:
    """Attention of each query to each key, of a text or of an image cut into patches.

    A text is drawn by `plot_attention_heatmaps`, which this calls. With `grid`, tokens are
    patches of an image in reading order, the class token first: axes name them, and lines part
    the rows of patches. With `grid` and `query`, each panel is the image itself: the attention
    that one token (or the mean over all queries) gives to each patch; what it gives to the class
    token stands in the panel's title.

    What it does not show: what the attention does. A patch with much attention may carry nothing
    that is used, and averages over images blur what each image does.

    Args:
        patterns: probabilities `q_pos k_pos`, or name of the panel -> probabilities.
        labels: of each token of a text, outlined where query and key share one.
        causal: whether queries can see no later keys. If so, attention to later tokens is named in
            the panel's title; False for encoders and vision transformers.
        grid: rows and columns of patches.
        class_token: whether the first token is the class token (with `grid`).
        query: position of a token, "class", or "mean"; None: the whole pattern.
        scale: "log", from 0.001 to 1, or "linear", from 0 to 1; images of patches are linear
            from 0 to their largest share.
        title: of the figure.

    Returns:
        A figure whose `cells` traces hold the shares in `customdata` (images of patches: in `z`).

    Raises:
        InputError: patterns that are not square or no shares, or that do not fit the grid.

    Example:
        >>> import numpy as np
        >>> from headspec.plots import plot_attention_pattern
        >>> uniform = np.full((5, 5), 0.2)
        >>> figure = plot_attention_pattern(uniform, grid=(2, 2), query="class", causal=False)
        >>> np.array(figure.data[0].z).shape
        (2, 2)
    """
    named = patterns if isinstance(patterns, Mapping) else {"attention": patterns}
    named = {str(name): np.asarray(pattern, dtype=np.float32) for name, pattern in named.items()}
    if grid is not None:
        _check_grid(named, grid, class_token=class_token)
    elif query is not None:
        raise InputError(
            expected="the grid of patches to draw one query's attention on",
            got="grid=None",
            fix="Give grid=(rows, columns), or leave `query` out.",
        )
    figure = plot_attention_heatmaps(named, labels, scale=scale, title=title)  # checks the shares
    if grid is not None and query is not None:
        return _images(named, grid, query=query, class_token=class_token, title=title)
    if not causal:
        _forget_order(figure, named)
    if grid is not None:
        _name_patches(figure, len(named), grid, class_token=class_token)
    return figure


def _check_grid(
    named: Mapping[str, np.ndarray], grid: tuple[int, int], *, class_token: bool
) -> None:
    tokens = grid[0] * grid[1] + class_token
    for name, pattern in named.items():
        if pattern.shape != (tokens, tokens):
            raise InputError(
                expected=f"{name!r} of {tokens} tokens: {grid[0]} × {grid[1]} patches"
                + " and the class token" * class_token,
                got=f"shape {list(pattern.shape)}",
                fix="Give one head of one image, or another `grid` or `class_token`.",
            )


def _forget_order(figure: go.Figure, named: Mapping[str, np.ndarray]) -> None:
    """Without a mask no token is later: titles are names, and no diagonal parts the panel."""
    layout: Any = figure.layout
    for annotation, name in zip(layout.annotations, named, strict=False):
        annotation.text = condition_name(name)
    layout.shapes = [shape for shape in layout.shapes if shape.name != "diagonal"]
    ours = layout["meta"]["headspec"]
    ours["note"] = "Each row is a query and sums to 1 over all keys; nothing is masked."
    ours["alt"] = ours["alt"].replace(" to later tokens", " to tokens further on")


def _name_patches(
    figure: go.Figure, n_panels: int, grid: tuple[int, int], *, class_token: bool
) -> None:
    """Axes in rows of patches, the class token by name, lines between rows."""
    layout: Any = figure.layout
    rows, columns = grid
    starts = [class_token + row * columns for row in range(rows)]
    shown = range(0, rows, -(-rows // 8))
    ticks = {
        "tickmode": "array",
        "tickvals": [0] * class_token + [starts[row] + (columns - 1) / 2 for row in shown],
        "ticktext": [_CLASS] * class_token + [f"row {row}" for row in shown],
    }
    narrow = layout["meta"]["headspec"]["narrow"]
    for i in range(n_panels):
        end = str(i + 1) if i else ""
        size = rows * columns + class_token
        for axis, words in (("x", "key"), ("y", "query")):
            key = f"{axis}axis{end}"
            has_title = bool(layout[key].title.text)
            text = f"{words} (row of patches)"
            look = ticks | ({"tickangle": -90} if axis == "x" else {})
            figure.update_layout({key: look | {"title": {"text": text if has_title else ""}}})
            if narrow[key].get("title", {}).get("text"):
                narrow[key]["title"] = {"text": text}
        for start in starts[not class_token :]:
            for along in ("x", "y"):
                cut, whole = (start - 0.5, start - 0.5), (-0.5, size - 0.5)
                (x0, x1), (y0, y1) = (cut, whole) if along == "x" else (whole, cut)
                figure.add_shape(
                    type="line",
                    xref=f"x{end}",
                    yref=f"y{end}",
                    x0=x0,
                    x1=x1,
                    y0=y0,
                    y1=y1,
                    line={"color": GRID, "width": 1},
                    name="patch row",
                )
    figure.update_layout(margin={"l": 76})
    narrow["margin"]["l"] = 76


def _images(
    named: Mapping[str, np.ndarray],
    grid: tuple[int, int],
    *,
    query: int | str,
    class_token: bool,
    title: str,
) -> go.Figure:
    """What one query gives to each patch, as the image lies."""
    given = {name: _row(pattern, query, class_token) for name, pattern in named.items()}
    images = {name: row[int(class_token) :].reshape(grid) for name, row in given.items()}
    count = len(images)
    columns = min(count, 4)
    who = {"class": "the class token", "mean": "all queries (mean)"}.get(
        str(query), f"token {query}"
    )
    side = {1: 460, 2: 380, 3: 300, 4: 250}[columns]
    panels = Panels(
        titles=[
            condition_name(name)
            + (f", {given[name][0]:.0%} to the class token" if class_token else "")
            for name in images
        ],
        columns=columns,
        height=side,
        narrow_height=300,
        gap=56,
        gap_share=0.05,
        legend_lines=0,
        narrow_legend_lines=0,
        footer=44,
        left=44,
        bar=True,
        share_y=True,
    )
    figure = panels.figure(
        title=title,
        x_title="column of patches",
        y_titles=["row of patches"] * count,
        alt=f"Maps of the attention of {who} over {grid[0]} by {grid[1]} patches. "
        + "; ".join(_said(name, image) for name, image in images.items())
        + ".",
        note=f"Attention of {who} to each patch, in shares of all its attention; one scale.",
    )
    top = max(float(image.max()) for image in images.values()) or 1.0
    for i, (name, image) in enumerate(images.items()):
        names = panels.names(i)
        look = {"showgrid": False, "ticks": "", "showline": False, "constrain": "domain"}
        look |= {"tickmode": "linear", "dtick": -(-max(grid) // 8), "tick0": 0}
        figure.update_layout(
            {
                panels.axis("x", i): {**look, "range": [-0.5, grid[1] - 0.5]},
                panels.axis("y", i): {
                    **look,
                    "range": [grid[0] - 0.5, -0.5],
                    "scaleanchor": names["xaxis"],
                },
            }
        )
        cells = go.Heatmap(
            z=image,
            coloraxis="coloraxis",
            xgap=1,
            ygap=1,
            hovertemplate="patch in row %{y}, column %{x}<br>%{z:.3g} of the attention"
            f"<extra>{condition_name(name)}</extra>",
            name=name,
            meta="cells",
        )
        figure.add_trace(cells.update(names))
        if isinstance(query, int) and query >= class_token:
            _outline(figure, names, divmod(query - class_token, grid[1]))
    bar = diverging_axis(1.0, title="share of the query's attention", below=panels.below())
    return figure.update_layout(
        coloraxis={
            "colorscale": [list(stop) for stop in _STOPS],
            "cmin": 0.0,
            "cmax": top,
            "colorbar": bar["colorbar"],
        }
    )


def _row(pattern: np.ndarray, query: int | str, class_token: bool) -> np.ndarray:
    if query == "mean":
        return pattern.mean(0)
    if query == _CLASS and class_token:
        return pattern[0]
    if isinstance(query, int) and 0 <= query < len(pattern):
        return pattern[query]
    raise InputError(
        expected=f'a token from 0 to {len(pattern) - 1}, "mean"' + ', or "class"' * class_token,
        got=repr(query),
        fix="Name a token that is there.",
    )


def _outline(figure: go.Figure, names: dict[str, str], place: tuple[int, int]) -> None:
    row, column = place
    figure.add_shape(
        type="rect",
        xref=names["xaxis"],
        yref=names["yaxis"],
        x0=column - 0.5,
        x1=column + 0.5,
        y0=row - 0.5,
        y1=row + 0.5,
        line={"color": INK, "width": 2},
        name="query",
    )


def _said(name: str, image: np.ndarray) -> str:
    row, column = np.unravel_index(int(image.argmax()), image.shape)
    return (
        f"{condition_name(name)}: most, {image.max():.2g}, to the patch in row {row}, "
        f"column {column}"
    )
