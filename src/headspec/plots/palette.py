"""Colours and the figure template, chosen to be told apart by colour-blind readers.

Categories take the palette of Okabe and Ito with a symbol each, so that colour is never the only
sign; signed quantities take a blue-to-orange scale whose middle is neutral; what is in order
(layers, steps) takes the steps of plasma, which darken evenly. `DARK` names the
colour that stands for each of these on a dark page.

References:
    Okabe, M. and Ito, K. (2008). Color Universal Design: how to make figures and presentations
    that are friendly to colorblind people. https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

import plotly.graph_objects as go

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442", "#0a0a0a")
SYMBOLS = ("circle", "square", "diamond", "hexagon", "pentagon", "star", "cross", "triangle-up")
LIGHT_TEXT, DARK_TEXT = "#fffffe", "#111112"
TEXT_ON = (*[LIGHT_TEXT] * 3, *[DARK_TEXT] * 4, LIGHT_TEXT)

PAPER = "#ffffff"
INK = "#1b1f24"
MUTED = "#57606a"
GRID = "#e7eaee"
AXIS = "#b6bec8"
BLANK = "#d3d8de"

VALUE = OKABE_ITO[0]
NULL_BAND = "rgba(87,96,106,0.20)"
NULL_RANGE = "rgba(87,96,106,0.09)"
NULL_MEAN = "#6b7683"
TRANSITION = "rgba(230,159,0,0.22)"

DIVERGING = (
    (0.0, "#084594"),
    (0.25, "#6aaed6"),
    (0.5, "#f6f6f4"),
    (0.75, "#f5a460"),
    (1.0, "#a63603"),
)

# fmt: off
SEQUENTIAL = (
    "#f48b47", "#eb7556", "#de6164", "#d04e73", "#c03b83", "#ae2891",
    "#9a169f", "#8109a4", "#6801a6", "#4e03a1", "#2f0595", "#0d0887",
)
# fmt: on
"""From first to last: layers, training steps. The last stands out most, on either page."""

DARK = {
    "#0072B2": "#4fa8e0",
    "#D55E00": "#f0833a",
    "#009E73": "#2fc79c",
    "#CC79A7": "#dd9cc0",
    "#56B4E9": "#a5dbf7",
    "#E69F00": "#f2b63c",
    "#F0E442": "#f5ec7a",
    "#0a0a0a": "#f4f4f2",
    LIGHT_TEXT: "#0b0d10",
    DARK_TEXT: "#0b0d11",
    PAPER: "#14171b",
    INK: "#e8eaed",
    MUTED: "#a9b2bd",
    GRID: "#282d34",
    AXIS: "#57606c",
    BLANK: "#3a4048",
    NULL_BAND: "rgba(169,178,189,0.24)",
    NULL_RANGE: "rgba(169,178,189,0.11)",
    NULL_MEAN: "#98a3af",
    TRANSITION: "rgba(242,182,60,0.24)",
    "#084594": "#8ccbff",
    "#6aaed6": "#2f74ad",
    "#f6f6f4": "#20252b",
    "#f5a460": "#b0601f",
    "#a63603": "#ffb877",
    "#f48b47": "#ab2693",
    "#eb7556": "#bc3687",
    "#de6164": "#c9457a",
    "#d04e73": "#d6556d",
    "#c03b83": "#e16661",
    "#ae2891": "#eb7655",
    "#9a169f": "#f38949",
    "#8109a4": "#fa9b3c",
    "#6801a6": "#fcb032",
    "#4e03a1": "#fdc528",
    "#2f0595": "#f8dc24",
    "#0d0887": "#f2f322",
}

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif'

_AXIS_LOOK = {
    "gridcolor": GRID,
    "linecolor": AXIS,
    "tickcolor": AXIS,
    "zeroline": False,
    "showline": True,
    "ticks": "outside",
    "exponentformat": "e",
    "ticklen": 4,
    "tickfont": {"size": 11, "color": MUTED},
    "title": {"font": {"size": 12, "color": MUTED}, "standoff": 6},
}

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "title": {"font": {"size": 17, "color": INK}, "x": 0, "xref": "paper", "xanchor": "left"},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "colorway": list(OKABE_ITO),
        "hoverlabel": {
            "bgcolor": PAPER,
            "bordercolor": AXIS,
            "font": {"family": FONT, "size": 12, "color": INK},
        },
        "legend": {"font": {"size": 12, "color": INK}, "bgcolor": "rgba(0,0,0,0)"},
        "xaxis": _AXIS_LOOK,
        "yaxis": _AXIS_LOOK,
        "coloraxis": {
            "colorbar": {
                "outlinewidth": 0,
                "tickfont": {"size": 11, "color": MUTED},
                "title": {"font": {"size": 12, "color": MUTED}},
            }
        },
        "hovermode": "closest",
        "dragmode": "zoom",
    }
)
"""Applied to each figure by itself; never registered with `plotly.io.templates`."""


def diverging_axis(limit: float, *, title: str, below: float, capped: bool = False) -> dict:
    """A colour axis centred on 0 with its bar lying below the panels.

    Args:
        limit: the largest absolute value; both ends of the scale.
        title: what the colours show, with the unit.
        capped: whether values beyond the limit share its colour; the ends then say so.
        below: distance of the bar from the panels, in shares of their height.
    """
    ends = {}
    if capped:
        marks = [-limit, -limit / 2, 0, limit / 2, limit]
        words = [f"{mark:g}".replace("-", "−") for mark in marks]
        words[0], words[-1] = f"≤ {words[0]}", f"≥ {words[-1]}"
        ends = {"tickmode": "array", "tickvals": marks, "ticktext": words}
    return {
        "colorscale": [list(stop) for stop in DIVERGING],
        "cmin": -limit,
        "cmax": limit,
        "cmid": 0,
        "colorbar": {
            "title": {"text": title, "side": "top"},
            "orientation": "h",
            "thickness": 10,
            "len": 1,
            "x": 0,
            "xanchor": "left",
            "xpad": 0,
            "y": -below,
            "yanchor": "top",
            "ypad": 0,
            "nticks": 7,
            **ends,
        },
    }


def category(index: int) -> tuple[str, str, str]:
    """The colour, the marker symbol and the colour of text on it, of the index-th category.

    Colours repeat after eight, with other symbols: 64 pairs differ.
    """
    turn, i = divmod(index, len(OKABE_ITO))
    return OKABE_ITO[i], SYMBOLS[(i + turn) % len(SYMBOLS)], TEXT_ON[i]


def ordered(index: int, count: int) -> str:
    """The colour of the index-th of `count` things in order; neighbours share one beyond twelve."""
    last = len(SEQUENTIAL) - 1
    return SEQUENTIAL[last if count == 1 else round(index * last / (count - 1))]
