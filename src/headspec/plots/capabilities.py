"""What the model can do, over training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.plots.frames import metric_rows, number_column, usable, whose
from headspec.plots.palette import MUTED, category
from headspec.plots.panels import Panels
from headspec.plots.steps import StepAxis
from headspec.plots.window import TransitionLike, shade_window, window_entry
from headspec.plots.wording import capability_name, capability_unit


def plot_capability_curves(
    capabilities: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    transition: TransitionLike | None = None,
) -> go.Figure:
    """Capabilities over training steps with standard errors, one panel a unit.

    Curves differ in colour and in symbol; chance levels, where given, are thin dotted lines of
    the same colour, behind; the window of a transition is shaded.

    What it does not show: bars of one standard error cover test items only, not other seeds or
    training runs; a shared window is no cause.

    Args:
        capabilities: columns `step`, `metric`, `value`; optional `se` (standard error),
            `chance`, `unit` (otherwise told from the name: losses and gains in nats).
        metrics: which capabilities, in this order; None for all.
        transition: window to shade, from `find_transition`.

    Returns:
        A figure with one trace a capability; `customdata` holds the true steps.

    Raises:
        InputError: for an empty frame, missing columns or metrics, or several rows for one step.
    """
    capabilities = usable(capabilities, ("step", "metric", "value"))
    found = list(dict.fromkeys(str(name) for name in capabilities["metric"]))
    names = found if metrics is None else list(metrics)
    series = {name: metric_rows(capabilities, name) for name in names}
    unit_of = {name: capability_unit(name, rows) for name, rows in series.items()}
    units = list(dict.fromkeys(unit_of[name] for name in names))
    axis = StepAxis([step for rows in series.values() for step in rows["step"]])
    has_chance = any(number_column(rows, "chance") is not None for rows in series.values())
    panels = Panels(
        titles=[_panel_title(unit, [n for n in names if unit_of[n] == unit]) for unit in units],
        columns=min(2, len(units)),
        height=280,
        narrow_height=230,
        legend_lines=2,
        narrow_legend_lines=len(names) // 2 + 3,
    )
    figure = panels.figure(
        title=f"Capabilities over training{whose(capabilities)}",
        x_title=axis.title,
        y_titles=units,
        alt=_alt(series, unit_of),
        note="Bars are one standard error over test items." + (" Dotted: chance." * has_chance),
    )
    for i, unit in enumerate(units):
        bounded = {"range": [-0.03, 1.03]} if unit.startswith("accuracy") else {}
        figure.update_layout(
            {
                panels.axis("x", i): {**axis.layout(), "matches": "x" if i else None},
                panels.axis("y", i): bounded,
            }
        )
        if transition is not None:
            shade_window(figure, panels, i, axis=axis, transition=transition)
    places = {name: panels.names(units.index(unit_of[name])) for name in names}
    for i, name in enumerate(names):
        figure.add_traces(
            [t.update(places[name]) for t in chance_traces(series[name], axis, name, i)]
        )
    for i, name in enumerate(names):
        figure.add_trace(curve_trace(series[name], axis, name, i).update(places[name]))
    if has_chance:
        dotted = {"color": MUTED, "width": 1, "dash": "dot"}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=dotted, name="chance")
    if transition is not None:
        figure.add_trace(window_entry(transition))
    return figure


def _panel_title(unit: str, names: list[str]) -> str:
    """What a panel holds: "Accuracy", or the capabilities by name."""
    if unit.startswith("accuracy"):
        return "Accuracy"
    words = ", ".join(capability_name(name) for name in names)
    if len(words) > 44:
        words = unit
    return words[:1].upper() + words[1:]


def curve_trace(rows: pd.DataFrame, axis: StepAxis, name: str, index: int) -> go.Scatter:
    """One capability over training, with standard errors where the rows have them."""
    colour, symbol, _ = category(index)
    se = number_column(rows, "se")
    bars = {"error_y": {"type": "data", "array": se, "thickness": 1, "width": 3}}
    return go.Scatter(
        x=axis.place(rows["step"]),
        y=rows["value"].to_numpy(dtype=float),
        customdata=rows["step"].to_numpy(),
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"color": colour, "symbol": symbol, "size": 8},
        hovertemplate=f"step %{{customdata}}<br>{capability_name(name)} %{{y:.3g}}<extra></extra>",
        name=capability_name(name),
        legendgroup=name,
        meta="value",
        **(bars if se is not None else {}),
    )


def chance_traces(rows: pd.DataFrame, axis: StepAxis, name: str, index: int) -> list[go.Scatter]:
    """The level of chance as a dotted line; nothing where it is not known."""
    chance = number_column(rows, "chance")
    if chance is None:
        return []
    return [
        go.Scatter(
            x=axis.place(rows["step"]),
            y=chance,
            mode="lines",
            line={"color": category(index)[0], "width": 1, "dash": "dot"},
            hoverinfo="skip",
            name=f"{capability_name(name)}: chance",
            legendgroup=name,
            showlegend=False,
            meta="chance",
        )
    ]


def _alt(series: dict[str, pd.DataFrame], unit_of: dict[str, str]) -> str:
    said = []
    for name, rows in series.items():
        values = rows.dropna(subset=["value"])
        if len(values):
            first, last = values.iloc[0], values.iloc[-1]
            words = (
                f"{capability_name(name)} from {first['value']:.3g} to {last['value']:.3g} "
                f"{unit_of[name]}"
            )
            changes = np.abs(np.diff(values["value"].to_numpy()))
            if len(changes):
                by = int(values["step"].to_numpy()[1 + int(np.argmax(changes))])
                words += f", changing most by step {by}"
            said.append(words)
    return "Line charts of capabilities over training steps: " + "; ".join(said) + "."
