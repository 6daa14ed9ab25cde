"""Effects of sets of heads as points with intervals."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from headspec.interventions.effects import HeadEffects
from headspec.plots.effect_words import EffectNumbers, said_of
from headspec.plots.palette import AXIS
from headspec.plots.panels import Panels
from headspec.plots.row_panels import interval_points

LONGEST = 34
"""Characters of a row's name that fit beside the panel; the whole name is in the hover text."""


def plot_effect_whiskers(
    effects: HeadEffects,
    numbers: EffectNumbers,
    *,
    most: int = 40,
) -> go.Figure:
    """One row an intervention: the mean effect and its interval, filled where that excludes 0.

    Args:
        effects: of sets of heads or of layers.
        numbers: of `effect_numbers`.
        most: how many rows: those with the largest effects, in the order given.
    """
    given = [_row_name(effects, row) for row in range(len(effects.heads))]
    largest = np.argsort(-np.abs(np.nan_to_num(numbers.values)), kind="stable")[:most]
    shown = np.sort(largest)
    labels = [_short(given[row]) for row in shown]
    cut = "" if len(shown) == len(given) else f" The {len(shown)} largest of {len(given)}."
    panels = Panels(
        titles=["● interval excludes 0, ○ holds it"],
        columns=1,
        height=max(110, 26 * len(shown)),
        narrow_height=max(110, 26 * len(shown)),
        legend_lines=0,
        narrow_legend_lines=0,
        left=24 + 7 * max((len(label) for label in labels), default=4),
    )
    figure = panels.figure(
        title=numbers.title,
        x_title=numbers.axis,
        y_titles=[""],
        alt=f"Points with intervals. {said_of(effects, numbers)}",
        note=f"{numbers.note}{cut} Whiskers: {numbers.level:.0%} intervals over examples.",
    )
    values, low, high = (each[shown] for each in (numbers.values, numbers.low, numbers.high))
    figure.add_trace(
        interval_points(
            values,
            low,
            high,
            text=[given[row] for row in shown],
            hovertemplate="%{text}<br>%{x:+.3g}" + f" {numbers.unit}<br>interval "
            "%{customdata[0]:.3g} to %{customdata[1]:.3g}<extra></extra>",
        )
    )
    figure.add_vline(x=0, line={"color": AXIS, "width": 1.5}, layer="below")
    return figure.update_layout(
        yaxis={
            "tickmode": "array",
            "tickvals": list(range(len(shown))),
            "ticktext": labels,
            "range": [len(shown) - 0.5, -0.5],
            "ticks": "",
            "showgrid": False,
        }
    )


def _row_name(effects: HeadEffects, row: int) -> str:
    """`L2: 0 3 5` for heads of one layer, all names for heads of several."""
    heads, layer = effects.heads[row], effects.layers[row]
    if layer is None or not heads:
        name = " ".join(map(str, heads)) or ("no heads" if layer is None else f"layer {layer}")
    else:
        name = f"L{layer}: " + " ".join(str(head.index) for head in sorted(heads))
    return f"{name} at {effects.positions[row]}" if effects.by_position else name


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1].rstrip() + "…"
