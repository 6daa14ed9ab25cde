"""Panels whose rows have names: the names stand beside the first column only; points on them."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go

from headspec.plots.palette import AXIS, INK, PAPER, VALUE
from headspec.plots.panels import Panels

_LONGEST = 18
"""Characters of a line on a phone."""


def label_width(labels: Sequence[str]) -> int:
    """Pixels that names of rows take."""
    return 24 + round(6.6 * max((len(label) for label in labels), default=4))


def name_rows(
    figure: go.Figure,
    panels: Panels,
    labels: Sequence[str],
    *,
    index: int,
    cuts: Sequence[int] = (),
) -> None:
    """Names of rows from top to bottom, and lines before the rows in `cuts`.

    On a phone, where panels stand below each other, every panel has the names, in short lines.
    """
    key, names = panels.axis("y", index), panels.names(index)
    figure.update_layout(
        {
            key: {
                "tickmode": "array",
                "tickvals": list(range(len(labels))),
                "ticktext": list(labels),
                "tickfont": {"size": 11, "color": INK},
                "range": [len(labels) - 0.5, -0.5],
                "ticks": "",
                "showgrid": False,
                "showticklabels": panels.is_left(index),
            }
        }
    )
    narrow, broken = _narrow(figure), [wrap(label, _LONGEST) for label in labels]
    narrow[key] |= {"showticklabels": True, "ticktext": ["<br>".join(lines) for lines in broken]}
    narrow["margin"]["l"] = label_width([line for lines in broken for line in lines])
    for cut in cuts:
        figure.add_shape(
            type="line",
            xref=f"{names['xaxis']} domain",
            yref=names["yaxis"],
            x0=0,
            x1=1,
            y0=cut - 0.5,
            y1=cut - 0.5,
            line={"color": AXIS, "width": 0.5},
            layer="below",
            name="row",
        )


def name_axis(figure: go.Figure, panels: Panels, text: str, *, index: int) -> None:
    """The title of one panel's x axis, on wide screens and phones."""
    key = panels.axis("x", index)
    figure.update_layout({key: {"title": {"text": text}}})
    _narrow(figure)[key]["title"] = {"text": text}


def interval_points(
    value: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    text: Sequence[str],
    hovertemplate: str,
) -> go.Scatter:
    """One point a row with its interval, filled where that excludes 0; `customdata`: its ends."""
    clear = (low > 0) | (high < 0)
    return go.Scatter(
        x=value,
        y=list(range(len(value))),
        customdata=np.stack([low, high], axis=-1),
        text=list(text),
        mode="markers",
        marker={
            "color": [VALUE if each else PAPER for each in clear],
            "size": 9,
            "line": {"color": VALUE, "width": 1.6},
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": np.nan_to_num(high - value),
            "arrayminus": np.nan_to_num(value - low),
            "color": VALUE,
            "thickness": 1.6,
            "width": 4,
        },
        hovertemplate=hovertemplate,
        name="effect",
        meta="effect",
        showlegend=False,
    )


def _narrow(figure: go.Figure) -> Any:
    """The layout for phones."""
    return figure.layout["meta"]["headspec"]["narrow"]


def mark_level(
    figure: go.Figure, panels: Panels, index: int, *, at: float, look: dict, name: str
) -> None:
    """A line down a panel at one value, behind the data."""
    names = panels.names(index)
    figure.add_shape(
        type="line",
        xref=names["xaxis"],
        yref=f"{names['yaxis']} domain",
        x0=at,
        x1=at,
        y0=0,
        y1=1,
        line=look,
        layer="below",
        name=name,
    )
