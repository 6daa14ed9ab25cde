"""Dimensionality over training: a panel a layer or a model, jumps marked, resolution behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import check_choice
from headspec.plots.conditions import single_rows
from headspec.plots.dimension_panels import By, chosen_layers, jumps_of, panel_groups
from headspec.plots.frames import whose
from headspec.plots.jump_rows import (
    UNIT,
    Rows,
    count,
    in_order,
    metric_name,
    named,
    number,
    one_metric,
    plain_rows,
    short_name,
    with_places,
)
from headspec.plots.jump_steps import (
    LinearSteps,
    StepScale,
    direction_entries,
    jump_marker,
    step_axis,
)
from headspec.plots.palette import INK, NULL_BAND, category, ordered
from headspec.plots.panels import Panels, legend_lines
from headspec.plots.steps import StepAxis
from headspec.plots.window import swatch

_FIX = "Give the dimensionality frame of a run: one row for each model, seed, layer and step."
_MOST_NAMED = 6


def plot_dimensionality(
    frame: pd.DataFrame,
    jumps: Rows | None = None,
    *,
    metric: str | None = None,
    layers: Sequence[str] | None = None,
    by: By = "layer",
    scale: StepScale = "linear",
) -> go.Figure:
    """One measure of dimensionality over training, a line a seed, with its jumps.

    Triangles on the lines are jumps, at the first measurement after them, pointing up for an
    increase. The grey band is the resolution of the data type about the middle of the curves:
    what moves inside it is rounding. It is drawn to scale, so a band that cannot be seen is
    narrower than the line.

    What it does not show: that a marked step differs from noise (that is the detector's work),
    or that layers differ in how fast they change: panels have y axes of their own.

    Args:
        frame: rows with `step metric value`, and `layer_name` or `layer`; optional `model seed
            resolution`.
        jumps: of `detect_jumps`, or its frame with `step direction` and the same places.
        metric: which measure; needed where the frame has several.
        layers: names of the layers to show, in this order; None: all.
        by: a panel for each "layer" (of each model), its lines the seeds; or for each "model",
            its lines the layers, from light to dark.
        scale: of the steps, "linear" or "log".

    Returns:
        A figure whose `value` traces hold the frame's numbers.

    Raises:
        InputError: several metrics and none chosen, missing columns, unknown layers, or several
            rows for one step of a curve.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_dimensionality
        >>> rows = pd.DataFrame({"step": [0, 5, 10], "value": [3.0, 3.1, 2.2], "layer": 0})
        >>> figure = plot_dimensionality(rows.assign(metric="stable_rank"))
        >>> figure.layout.title.text
        'Stable rank over training'
    """
    check_choice("by", by, get_args(By))
    rows, metric = one_metric(plain_rows(frame, ("step", "metric", "value"), fix=_FIX), metric)
    rows = chosen_layers(with_places(rows), layers)
    single_rows(rows, ["model", "layer_name", "step"], fix=_FIX)
    marks = jumps_of(jumps, metric, rows)
    axis = step_axis(rows["step"], scale)
    groups = panel_groups(rows, by=by)
    seeds = list(dict.fromkeys(rows["seed"].dropna()))
    names = in_order(rows) if layers is None else list(layers)
    entries = _legend(rows, marks, by=by, names=names, seeds=seeds)
    said = [str(entry.name) for entry in entries]
    panels = Panels(
        titles=[title for title, _ in groups],
        columns=min(3, len(groups)) if len(groups) != 4 else 2,
        height=240 if len(groups) < 5 else 150,
        narrow_height=170 if len(groups) < 5 else 130,
        gap=56,
        gap_share=0.06,
        legend_lines=legend_lines(said, width=900),
        narrow_legend_lines=legend_lines(said, width=320),
        share_y=True,
    )
    figure = panels.figure(
        title=f"{metric_name(metric)} over training{whose(frame)}",
        x_title=axis.title,
        y_titles=[UNIT] * len(groups),
        alt=_alt(groups, marks, metric),
        note=_note(rows, marks, jumps is not None, by=by),
    )
    for i, (_, part) in enumerate(groups):
        x = {**axis.layout(), "matches": "x" if i else None}
        figure.update_layout({panels.axis("x", i): x, panels.axis("y", i): {"nticks": 5}})
        traces = [_band(part, axis)]
        for (name, seed), curve in part.groupby(["layer_name", "seed"], sort=False, dropna=False):
            curve = curve.sort_values("step")
            colour = (
                category(seeds.index(seed) if seed in seeds else 0)[0]
                if by == "layer"
                else _depth_colour(part, str(name))
            )
            traces += [_line(curve, axis, colour), *_marks(curve, marks, axis, colour)]
        figure.add_traces([trace.update(panels.names(i)) for trace in traces if trace is not None])
    return figure.add_traces(entries)


def _line(curve: Any, axis: StepAxis | LinearSteps, colour: str) -> go.Scatter:
    row = curve.iloc[0]
    where = " · ".join(part for part in (row["model"], row["layer_name"]) if part)
    seed = "" if pd.isna(row["seed"]) else f" · seed {named(row['seed'])}"
    return go.Scatter(
        x=axis.place(curve["step"]),
        y=curve["value"].to_numpy(float),
        customdata=curve["step"].to_numpy(float),
        mode="lines+markers" if len(curve) < 3 else "lines",
        line={"color": colour, "width": 1.4},
        marker={"color": colour, "size": 5},
        hovertemplate=f"{where}{seed}<br>step %{{customdata:,.0f}}<br>%{{y:.5g}} {UNIT}"
        "<extra></extra>",
        name=f"{where}{seed}",
        meta="value",
        showlegend=False,
    )


def _marks(curve: Any, marks: Any, axis: StepAxis | LinearSteps, colour: str) -> list[go.Scatter]:
    """The jumps of one curve, on the curve."""
    row = curve.iloc[0]
    own = marks.loc[(marks["layer_name"] == row["layer_name"])]
    for name in ("model", "seed"):
        known = own[name].notna() & (own[name] != "")
        own = own.loc[~known | (own[name] == row[name]) | pd.isna(row[name]) | (row[name] == "")]
    traces = []
    for direction, part in own.groupby("direction", sort=False):
        steps = part["step"].to_numpy(float)
        size = number(part, "magnitude")
        text = [
            f"jump: {direction}" + ("" if np.isnan(each) else f" of {each:.3g} {UNIT}")
            for each in size
        ]
        traces.append(
            go.Scatter(
                x=axis.place(steps),
                y=np.interp(steps, curve["step"].to_numpy(float), curve["value"].to_numpy(float)),
                customdata=steps,
                text=text,
                mode="markers",
                marker=jump_marker(str(direction), colour=colour),
                hovertemplate="%{text}<br>step %{customdata:,.0f}<extra></extra>",
                name=f"jump: {direction}",
                meta="jump",
                showlegend=False,
            )
        )
    return traces


def _band(part: Any, axis: StepAxis | LinearSteps) -> go.Scatter | None:
    """The resolution about the middle of a panel's curves."""
    sizes = number(part, "resolution")
    values = part["value"].to_numpy(float)
    if not np.isfinite(sizes).any() or not np.isfinite(values).any():
        return None
    middle, size = float(np.nanmedian(values)), float(np.nanmax(sizes))
    ends = axis.place([part["step"].min(), part["step"].max()])
    return go.Scatter(
        x=[ends[0], ends[1], ends[1], ends[0]],
        y=[middle - size, middle - size, middle + size, middle + size],
        mode="lines",
        fill="toself",
        fillcolor=NULL_BAND,
        line={"width": 0, "color": NULL_BAND},
        hoverinfo="skip",
        name="resolution",
        meta="null band",
        showlegend=False,
    )


def _depth_colour(part: Any, name: str) -> str:
    """The colour of a layer by its place in its own model."""
    names = in_order(part)
    return ordered(names.index(name), len(names))


def _legend(rows: Any, marks: Any, *, by: By, names: list[str], seeds: list) -> list[go.Scatter]:
    if by == "layer":
        lines = [(f"seed {named(seed)}", category(i)[0]) for i, seed in enumerate(seeds)]
        lines = lines if len(seeds) > 1 else []
    elif len(set(rows["model"])) > 1 or len(names) > _MOST_NAMED:
        lines = [("first layer", ordered(0, 3)), ("middle", ordered(1, 3)), ("last", ordered(2, 3))]
    else:
        lines = [(short_name(name), ordered(i, len(names))) for i, name in enumerate(names)]
    entries = [
        go.Scatter(
            x=[None],
            y=[None],
            mode="lines",
            line={"color": colour, "width": 2},
            name=name,
            meta="legend",
        )
        for name, colour in lines
    ]
    entries += direction_entries(marks["direction"], colour=INK)
    if np.isfinite(number(rows, "resolution")).any():
        marker = swatch(NULL_BAND)
        name = "± resolution of the data type"
        entries.append(
            go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, meta="legend")
        )
    return entries


def _note(rows: Any, marks: Any, asked: bool, *, by: By) -> str:
    words = "Panels have y axes of their own."
    if asked:
        words += f" Triangles: {count(len(marks), 'jump')}, at the first measurement after each."
    sizes = number(rows, "resolution")
    if np.isfinite(sizes).any():
        low, high = np.nanmin(sizes), np.nanmax(sizes)
        words += f" Resolution: {low:.2g}" + (f" to {high:.2g}" if high > low else "")
        words += f" {UNIT}; what moves inside the grey band is rounding."
    if by == "model":
        words += " Lines from light to dark: from the first layer to the last."
    return words


def _alt(groups: list[tuple[str, Any]], marks: Any, metric: str) -> str:
    said = []
    for title, part in groups:
        known = part.dropna(subset=["value"]).sort_values("step")
        if len(known):
            by_step = known.groupby("step")["value"].mean()
            ends = by_step.iloc[0], by_step.iloc[-1]
            said.append(f"{title} from {ends[0]:.3g} to {ends[1]:.3g}")
    return (
        f"Line charts of {metric_name(metric).lower()} over training steps, "
        f"{count(len(marks), 'jump')} marked. {'; '.join(said) or 'No value'}."
    )
