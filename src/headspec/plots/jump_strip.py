"""When, where and how large: all jumps of a training on one strip a layer."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import check_choice
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
    areas,
    check_directions,
    direction_entries,
    jump_marker,
    step_axis,
)
from headspec.plots.null_rows import fit_names
from headspec.plots.palette import GRID, MUTED, NULL_BAND
from headspec.plots.panels import Panels, legend_lines
from headspec.plots.row_panels import label_width, mark_level, name_rows
from headspec.plots.steps import StepAxis
from headspec.plots.window import swatch

Size = Literal["magnitude", "score"]
_FIX = "Give `detect_jumps(...)` or its frame."
_EXAMINED = "examined"
_PARTS = (0.1, 0.5)


def plot_jump_overview(
    jumps: Rows,
    curves: pd.DataFrame | None = None,
    *,
    metric: str | None = None,
    size: Size = "magnitude",
    scale: StepScale = "linear",
) -> go.Figure:
    """Every jump at its step and layer: a panel a model, a row a layer, seeds above each other.

    The area of a triangle grows with the size of the jump, and it points where the curve went.
    Dashed lines stand at 10 % and 50 % of training. Layers in which nothing jumped keep their row
    when `curves` names them; rows whose curves were not examined (below the resolution of their
    data type, or too short) are grey.

    What it does not show: rates (rows with more seeds or more points have more jumps by chance
    alone: `plot_jump_rates`), or that a jump differs from noise.

    Args:
        jumps: with `step direction` and `layer_name` or `layer`; optional `model seed metric
            magnitude score phase`.
        curves: one row a curve with `verdict`, all that were looked at; None: `jumps.curves`, where
            `jumps` is a result.
        metric: which measure; needed where the frame has several.
        size: what the area shows: "magnitude" (in dimensions) or "score" (how far from noise).
        scale: of the steps, "linear" or "log".

    Returns:
        A figure whose `jump` traces hold steps, and in `customdata` step, magnitude, score, phase.

    Raises:
        InputError: several metrics and none chosen, missing columns, neither jumps nor curves.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_jump_overview
        >>> rows = pd.DataFrame({"step": [50, 900], "layer_name": ["fc", "conv"], "layer": [1, 0]})
        >>> figure = plot_jump_overview(rows.assign(direction="increase", magnitude=[0.5, 0.1]))
        >>> list(figure.layout.yaxis.ticktext)
        ['conv', 'fc']
    """
    check_choice("size", size, get_args(Size))
    if curves is None and not isinstance(jumps, pd.DataFrame):
        curves = getattr(jumps, "curves", None)
    rows = plain_rows(jumps, ("step", "direction"), fix=_FIX, may_be_empty=curves is not None)
    rows, metric = one_metric(rows, metric)
    rows = with_places(rows)
    check_directions(rows["direction"] if len(rows) else [])
    looked = rows.iloc[:0]
    if curves is not None:
        looked = plain_rows(curves, (), fix="Give `Jumps.curves`.")
        if "metric" in looked.columns and len(rows):
            looked = looked.loc[looked["metric"].astype(str) == metric]
        looked = with_places(looked)
    places = ["model", "layer_name", "layer", "seed"]
    every = pd.concat([each[places] for each in (looked, rows) if len(each)], ignore_index=True)
    models = list(dict.fromkeys(every["model"]))
    layers = {model: in_order(every.loc[every["model"] == model]) for model in models}
    axis = step_axis([*_ends(rows), *_curve_ends(looked)] or [0, 1], scale)
    grey = _not_examined(looked)
    entries = _legend(rows, grey)
    said = [str(entry.name) for entry in entries]
    most = max(map(len, layers.values()))
    every_label = [short_name(name) for names in layers.values() for name in names]
    panels = Panels(
        titles=[_title(model, rows) for model in models],
        columns=1,
        height=30 * most + 10,
        narrow_height=34 * most + 10,
        shares=[(30 * len(layers[model]) + 10) / (30 * most + 10) for model in models],
        legend_lines=legend_lines(said, width=900),
        narrow_legend_lines=legend_lines(said, width=250),
        left=label_width(every_label),
    )
    figure = panels.figure(
        title=f"Jumps of the {metric_name(metric).lower()}",
        x_title=axis.title,
        y_titles=[""] * len(models),
        alt=_alt(rows, models, layers),
        note=_note(rows, grey, size),
    )
    values = number(rows, size)
    largest = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    seeds = list(dict.fromkeys(every["seed"].dropna()))
    for i, model in enumerate(models):
        names = layers[model]
        x = {**axis.layout(), "matches": "x" if i else None}
        figure.update_layout({panels.axis("x", i): x})
        name_rows(figure, panels, [short_name(name) for name in names], index=i)
        for level in _parts(rows):
            look = {"color": MUTED, "width": 1, "dash": "dash"}
            at = axis.place([level])[0]
            mark_level(figure, panels, i, at=at, look=look, name="part")
        for row, name in enumerate(names):
            _row(figure, panels, i, row=row, is_grey=(model, name) in grey)
        part = rows.loc[rows["model"] == model]
        for direction, own in part.groupby("direction", sort=False):
            trace = _marks(own, axis, names, seeds, str(direction), size=size, largest=largest)
            figure.add_trace(trace.update(panels.names(i)))
        if part.empty:
            nothing = go.Scatter(x=[None], y=[None], showlegend=False, hoverinfo="skip")
            figure.add_trace(nothing.update(panels.names(i)))
    fit_names(figure)
    return figure.add_traces(entries)


def _ends(rows: Any) -> list[float]:
    """Steps of the figure, from the start to the end of training where phases tell it."""
    if rows.empty:
        return []
    return [*rows["step"].astype(float).tolist(), 0.0, *([_length(rows)] if _length(rows) else [])]


def _curve_ends(curves: Any) -> list[float]:
    names = [name for name in ("step", "last_step", "n_steps") if name in curves.columns]
    return [float(each) for name in names for each in curves[name].dropna()]


def _length(rows: Any) -> float:
    """Updates of the whole training, out of steps and phases; 0 where there are none."""
    phase, steps = number(rows, "phase"), number(rows, "step")
    known = np.isfinite(phase) & (phase > 0)
    return float(np.median(steps[known] / phase[known])) if known.any() else 0.0


def _parts(rows: Any) -> list[float]:
    length = _length(rows)
    return [share * length for share in _PARTS] if length else []


def _not_examined(curves: Any) -> set[tuple[str, str]]:
    """Model and layer of rows of which no curve was examined."""
    if "verdict" not in curves.columns or curves.empty:
        return set()
    examined = curves["verdict"].astype(str) == _EXAMINED
    by_row = examined.groupby([curves["model"], curves["layer_name"]], sort=False).any()
    return {(str(model), str(name)) for model, name in by_row.index[~by_row.to_numpy(bool)]}


def _title(model: str, rows: Any) -> str:
    n = int((rows["model"] == model).sum())
    return f"{model} · {count(n, 'jump')}" if model else count(n, "jump")


def _row(figure: go.Figure, panels: Panels, index: int, *, row: int, is_grey: bool) -> None:
    """A thin line for every layer, a grey bar for one that was not examined."""
    names = panels.names(index)
    half = 0.42 if is_grey else 0
    figure.add_shape(
        type="rect" if is_grey else "line",
        xref=f"{names['xaxis']} domain",
        yref=names["yaxis"],
        x0=0,
        x1=1,
        y0=row - half,
        y1=row + half,
        fillcolor=NULL_BAND if is_grey else None,
        line={"width": 0} if is_grey else {"color": GRID, "width": 1},
        layer="below",
        name="not examined" if is_grey else "row",
    )


def _marks(
    own: Any,
    axis: StepAxis | LinearSteps,
    names: list[str],
    seeds: list[Any],
    direction: str,
    *,
    size: Size,
    largest: float | int,
) -> go.Scatter:
    """The jumps of one direction; seeds lie above each other inside a row."""
    own = own.assign(order=-number(own, size)).sort_values("order", kind="stable")
    turn = np.array([seeds.index(s) if s in seeds else (len(seeds) - 1) / 2 for s in own["seed"]])
    offset = (turn - (len(seeds) - 1) / 2) * (0.6 / max(len(seeds), 1)) if seeds else turn * 0
    row = np.array([names.index(name) for name in own["layer_name"]], dtype=float)
    text = [
        f"{name}" + ("" if pd.isna(seed) else f" · seed {named(seed)}")
        for name, seed in zip(own["layer_name"], own["seed"], strict=True)
    ]
    held = [number(own, name) for name in ("step", "magnitude", "score", "phase")]
    marker = jump_marker(direction, size=areas(number(own, size), largest).tolist())
    return go.Scatter(
        x=axis.place(own["step"]),
        y=row + offset,
        customdata=np.stack(held, axis=-1),
        text=text,
        mode="markers",
        marker=marker | {"opacity": 0.8},
        hovertemplate=f"%{{text}}<br>{direction} of %{{customdata[1]:.4g}} {UNIT}<br>step "
        "%{customdata[0]:,.0f} (phase %{customdata[3]:.1%}), score %{customdata[2]:.3g}"
        "<extra></extra>",
        name=f"jump: {direction}",
        meta="jump",
        showlegend=False,
    )


def _legend(rows: Any, grey: set) -> list[go.Scatter]:
    entries = direction_entries(rows["direction"] if len(rows) else [])
    if _parts(rows):
        look = {"color": MUTED, "width": 1, "dash": "dash"}
        name = "10 % and 50 % of training"
        entries.append(go.Scatter(x=[None], y=[None], mode="lines", line=look, name=name))
    if grey:
        name = "not examined"
        marker = swatch(NULL_BAND)
        entries.append(go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name))
    return [entry.update(meta="legend") for entry in entries]


def _note(rows: Any, grey: set, size: Size) -> str:
    values = number(rows, size)
    words = "No jump was found."
    if np.isfinite(values).any():
        unit = f" {UNIT}" if size == "magnitude" else ""
        words = f"Area of a triangle: {size}, largest {np.nanmax(values):.3g}{unit}."
    if len(set(rows["seed"].dropna())) > 1:
        words += " Seeds lie above each other inside a row."
    if grey:
        words += " Grey rows: below the resolution of their data type, or too short."
    return words


def _alt(rows: Any, models: list[str], layers: dict[str, list[str]]) -> str:
    said = []
    for model in models:
        own = rows.loc[rows["model"] == model]
        each = [f"{name} {int((own['layer_name'] == name).sum())}" for name in layers[model]]
        said.append(f"{model or 'all'}: {', '.join(each)}")
    return f"Strips of jumps over training steps, jumps by layer. {'; '.join(said)}."
