"""Filters of a convolution as small pictures, before and after."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from headspec.errors import InputError
from headspec.plots.palette import INK, diverging_axis
from headspec.plots.panels import Panels

_MOST = 64


def plot_filters(
    before: ArrayLike,
    after: ArrayLike | None = None,
    *,
    gabor_r2: ArrayLike | Mapping[str, ArrayLike] | None = None,
    gabor_null: float | int | None = None,
    title: str | None = None,
) -> go.Figure:
    """All filters of a layer as small pictures; with `after`, beside them and what changed.

    One symmetric scale for all panels: blue is negative, orange positive. The number above a
    filter is the R² of a Gabor fit where `gabor_r2` is given (else its index); a ● marks those
    above `gabor_null`, what random filters of that size reach.

    What it does not show: that a filter that looks like an edge detector acts as one; and the eye
    finds edges in noise, which fits well too when a filter has few weights (3 × 3: nine, for
    eight parameters).

    Args:
        before: weights `filter height width` of one input channel (or the mean over channels).
        after: of the same filters later; None: one panel.
        gabor_r2: R² of each filter (of `after` where there is one), or {"before": ..., "after":
            ...}; `fit_gabor` gives them.
        gabor_null: R² that random filters stay under, such as their 95th percentile.
        title: of the figure.

    Returns:
        A figure with a heat map a panel; `customdata` of its cells: filter, row, column.

    Raises:
        InputError: other shapes, more than 64 filters, or R² of other length.

    Example:
        >>> import numpy as np
        >>> from headspec.plots import plot_filters
        >>> figure = plot_filters(np.ones((4, 5, 5)), np.zeros((4, 5, 5)), gabor_r2=np.ones(4))
        >>> [trace.name for trace in figure.data if trace.type == "heatmap"]
        ['before', 'after', 'change']
    """
    first = _checked(before, "before")
    shown = {"filters" if after is None else "before": first}
    if after is not None:
        last = _checked(after, "after")
        if last.shape != first.shape:
            raise InputError(
                expected=f"after of the shape of before, {list(first.shape)}",
                got=f"{list(last.shape)}",
                fix="Give the same filters of another step.",
            )
        shown |= {"after": last, "change": last - first}
    fits = _fits(gabor_r2, shown, len(first))
    n, height, width = first.shape
    across = _across(n)
    gap = max(1, round(0.3 * height))
    down = -(-n // across)
    size = (down * (height + gap) + 0.5, across * (width + 1) - 1)
    side = {1: 560, 3: 372}[len(shown)]
    share = min(1.6, size[0] / size[1])
    panels = Panels(
        titles=[_title(name, fits) for name in shown],
        columns=len(shown),
        height=round(side * share),
        narrow_height=round(330 * share),
        gap=36,
        gap_share=0.03,
        legend_lines=0,
        narrow_legend_lines=0,
        footer=20,
        left=16,
        bar=True,
    )
    marked = gabor_null is not None and bool(fits)
    figure = panels.figure(
        title=title or f"{n} filters of {height} × {width}",
        x_title="",
        y_titles=[""] * len(shown),
        alt=_alt(shown, fits, gabor_null),
        note=f"Above each filter: {'R² of its Gabor fit' if fits else 'its index'}."
        + (f" ●: above {gabor_null:.2f}, what random filters reach." if marked else "")
        + " One scale for all panels.",
    )
    limit = max(float(np.abs(each).max()) for each in shown.values()) or 1.0
    for i, (name, filters) in enumerate(shown.items()):
        names = panels.names(i)
        look = {"visible": False, "constrain": "domain"}
        figure.update_layout(
            {
                panels.axis("x", i): {**look, "range": [-0.5, size[1] - 0.5]},
                panels.axis("y", i): {
                    **look,
                    "range": [size[0] - 0.5, -0.5],
                    "scaleanchor": names["xaxis"],
                },
            }
        )
        r2 = fits.get(name)
        figure.add_trace(_mosaic(filters, name, across, gap, r2).update(names))
        figure.add_trace(_labels(n, (height, width), across, gap, r2, gabor_null).update(names))
    bar = diverging_axis(limit, title="weight", below=panels.below())
    return figure.update_layout(coloraxis=bar)


def _across(n: int) -> int:
    """Filters in a row: near a square, with as few places empty as can be."""
    least = int(np.ceil(np.sqrt(n)))
    return min(range(least, max(least, min(8, 2 * least)) + 1), key=lambda k: (-n % k, k))


def _checked(filters: ArrayLike, name: str) -> np.ndarray:
    values = np.asarray(filters, dtype=np.float32)
    if values.ndim != 3 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(
            expected=f"{name} as finite weights `filter height width`",
            got=f"shape {list(values.shape)}",
            fix="Of several input channels take one, or their mean: weight[:, 0].",
        )
    if len(values) > _MOST:
        raise InputError(
            expected=f"at most {_MOST} filters",
            got=f"{len(values)}",
            fix="Give a part of them: pictures of more cannot be read.",
        )
    return values


def _fits(
    gabor_r2: ArrayLike | Mapping[str, ArrayLike] | None, shown: Mapping[str, np.ndarray], n: int
) -> dict[str, np.ndarray]:
    if gabor_r2 is None:
        return {}
    last = "after" if "after" in shown else "filters"
    given = gabor_r2 if isinstance(gabor_r2, Mapping) else {last: gabor_r2}
    fits = {str(name): np.asarray(r2, dtype=float) for name, r2 in given.items()}
    for name, r2 in fits.items():
        if name not in shown or r2.shape != (n,):
            raise InputError(
                expected=f"one R² a filter ({n}), for panels out of {', '.join(shown)}",
                got=f"shape {list(r2.shape)} for {name!r}",
                fix='Give an array, or {"before": ..., "after": ...}.',
            )
    return fits


def _title(name: str, fits: Mapping[str, np.ndarray]) -> str:
    if name not in fits or not np.isfinite(fits[name]).any():
        return name
    return f"{name}, median R² {np.nanmedian(fits[name]):.2f}"


def _mosaic(
    filters: np.ndarray, name: str, across: int, gap: int, r2: np.ndarray | None
) -> go.Heatmap:
    """All filters in one heat map, apart by empty cells; above each a gap for its label."""
    n, height, width = filters.shape
    down = -(-n // across)
    z = np.full((down * (height + gap), across * (width + 1) - 1), np.nan, dtype=np.float32)
    text = np.full(z.shape, "", dtype=object)
    for i, weights in enumerate(filters):
        row, column = divmod(i, across)
        top, left = row * (height + gap) + gap, column * (width + 1)
        z[top : top + height, left : left + width] = weights
        fit = "" if r2 is None else f", Gabor R² {r2[i]:.2f}"
        text[top : top + height, left : left + width] = [
            [f"filter {i}{fit}<br>row {y}, column {x}" for x in range(width)] for y in range(height)
        ]
    return go.Heatmap(
        z=z,
        text=text,
        coloraxis="coloraxis",
        hoverongaps=False,
        hovertemplate="%{text}: %{z:+.3g}<extra></extra>",
        name=name,
        meta="cells",
    )


def _labels(
    n: int,
    size: tuple[int, int],
    across: int,
    gap: int,
    r2: np.ndarray | None,
    null: float | int | None,
) -> go.Scatter:
    """What stands above each filter."""
    height, width = size
    rows, columns = np.divmod(np.arange(n), across)
    said = [str(i) for i in range(n)]
    if r2 is not None:
        said = [
            f"{each:.2f}" + ("\u2009●" if null is not None and each > null else "") for each in r2
        ]
    return go.Scatter(
        x=columns * (width + 1) + (width - 1) / 2,
        y=rows * (height + gap) + gap / 2 - 0.5,
        text=said,
        mode="text",
        textfont={"size": 10, "color": INK},
        hoverinfo="skip",
        name="R²" if r2 is not None else "index",
        meta="label",
        showlegend=False,
    )


def _alt(
    shown: Mapping[str, np.ndarray], fits: Mapping[str, np.ndarray], null: float | int | None
) -> str:
    said = [f"{name}: largest weight {np.abs(each).max():.2g}" for name, each in shown.items()]
    for name, r2 in fits.items():
        words = f"median Gabor R² {name} {np.nanmedian(r2):.2f}"
        if null is not None:
            words += f", {int((r2 > null).sum())} of {len(r2)} above what random filters reach"
        said.append(words)
    return f"Small pictures of filters. {'; '.join(said)}."
