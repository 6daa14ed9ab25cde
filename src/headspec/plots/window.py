"""The window of a transition, shaded behind a panel and named in the legend."""

from __future__ import annotations

import math
from math import nan
from typing import Protocol, runtime_checkable

import plotly.graph_objects as go

from headspec.plots.palette import TRANSITION
from headspec.plots.panels import Panels
from headspec.plots.steps import StepAxis, short_number


@runtime_checkable
class TransitionLike(Protocol):
    """What a figure needs to know of a transition.

    A result of `find_transition` has it, and so has a row (`itertuples`) of a frame of
    transitions. The p-value that goes with the kind is shown where there is one: `p_value` (or
    the column `p`) of a sudden change, `p_change` of a gradual one.
    """

    @property
    def step_before(self) -> int: ...
    @property
    def step_after(self) -> int: ...
    @property
    def kind(self) -> str: ...


def shade_window(
    figure: go.Figure, panels: Panels, index: int, *, axis: StepAxis, transition: TransitionLike
) -> None:
    """Shade the window in one panel, below grid and data."""
    if not _is_known(transition):
        return
    before, after = axis.place([transition.step_before, transition.step_after])
    shade_span(figure, panels, index, ends=(before, after), name="transition")


def shade_span(
    figure: go.Figure, panels: Panels, index: int, *, ends: tuple[float, float], name: str
) -> None:
    """Shade between two places on the step axis in one panel, below grid and data."""
    names = panels.names(index)
    figure.add_shape(
        type="rect",
        xref=names["xaxis"],
        yref=f"{names['yaxis']} domain",
        x0=ends[0],
        x1=ends[1],
        y0=0,
        y1=1,
        fillcolor=TRANSITION,
        line={"width": 0},
        layer="below",
        name=name,
    )


def _is_known(transition: TransitionLike) -> bool:
    """Whether there is a window at all: a flat curve has none."""
    return all(math.isfinite(step) for step in (transition.step_before, transition.step_after))


def swatch(colour: str) -> dict:
    """A square of colour, for legend entries that stand for an area."""
    return {"symbol": "square", "size": 14, "color": colour, "line": {"width": 0}}


def window_entry(transition: TransitionLike) -> go.Scatter:
    """The legend entry: the window, its kind and its p-value."""
    if not _is_known(transition):
        return go.Scatter(x=[None], y=[None], meta="legend", showlegend=False)
    before, after = (short_number(int(s)) for s in (transition.step_before, transition.step_after))
    kind = {"none": "not clear"}.get(transition.kind, transition.kind)
    text = f"largest change, {before} to {after}: {kind}"
    names = {"sudden": ("p_value", "p"), "gradual": ("p_change",)}.get(transition.kind, ())
    p = next((float(getattr(transition, name)) for name in names if hasattr(transition, name)), nan)
    text += f" (p = {p:.2g})" if math.isfinite(p) else ""
    return go.Scatter(
        x=[None], y=[None], mode="markers", marker=swatch(TRANSITION), name=text, meta="legend"
    )
