"""The axis of divergences: logarithmic, with the study's words at 0.1 and 1 nat."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from headspec.plots.palette import MUTED
from headspec.plots.panels import Panels

FLOOR = 1e-3
"""Divergences below this (in nats) are drawn at it: a log axis has no place for 0."""

THRESHOLDS = {"minimal": (0.0, 0.1), "moderate": (0.1, 1.0), "strong": (1.0, np.inf)}
"""The study's words and their bounds in nats."""


def placed(kl: np.ndarray) -> np.ndarray:
    """Divergences as the log axis can show them."""
    return np.maximum(np.asarray(kl, dtype=float), FLOOR)


def span_of(kl: np.ndarray) -> tuple[float, float]:
    """Ends of the axis in nats: all that is drawn, and the study's thresholds."""
    every = placed(kl)
    return min(0.05, float(every.min()) / 1.3), max(2.0, float(every.max()) * 1.3)


def draw_thresholds(
    figure: go.Figure, panels: Panels, index: int, span: tuple[float, float]
) -> None:
    """Dashed lines at 0.1 and 1 nat, and the study's words between them, inside the panel."""
    names = panels.names(index)
    refs = {"xref": names["xaxis"], "yref": f"{names['yaxis']} domain"}
    for word, (low, high) in THRESHOLDS.items():
        low, high = max(low, span[0]), min(high, span[1])
        if low > span[0]:
            line = {"color": MUTED, "width": 1, "dash": "dash"}
            figure.add_shape(
                type="line", x0=low, x1=low, y0=0, y1=1, line=line, name="threshold", **refs
            )
        if np.log10(high / low) > 0.25:
            figure.add_annotation(
                text=word,
                x=float(np.log10(low * high) / 2),
                y=1,
                yanchor="top",
                yshift=-2,
                showarrow=False,
                font={"size": 11, "color": MUTED},
                **refs,
            )


def kl_axis(span: tuple[float, float]) -> dict:
    """Ticks at powers of ten, and at their triples where there are few of them."""
    powers = [k for k in range(-4, 4) if span[0] <= 10.0**k <= span[1]]
    ticks = [f * 10.0**k for k in range(-4, 4) for f in ((1,) if len(powers) > 3 else (1, 3))]
    shown = [tick for tick in ticks if span[0] <= tick <= span[1]]
    return {
        "type": "log",
        "range": [float(np.log10(span[0])), float(np.log10(span[1]))],
        "tickmode": "array",
        "tickangle": 0,
        "tickvals": shown,
        "ticktext": [f"≤ {tick:g}" if tick <= FLOOR else f"{tick:g}" for tick in shown],
        "showgrid": False,
    }
