"""Attention entropy of every head over training, against the uniform pattern."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.plots.conditions import single_rows
from headspec.plots.frames import whose
from headspec.plots.jump_rows import (
    Rows,
    count,
    in_order,
    named,
    number,
    plain_rows,
    short_name,
    with_places,
)
from headspec.plots.jump_steps import (
    LinearSteps,
    StepScale,
    check_directions,
    direction_entries,
    marks_above,
    step_axis,
)
from headspec.plots.palette import NULL_MEAN, category
from headspec.plots.panels import Panels, legend_lines
from headspec.plots.steps import StepAxis

_FIX = "Give rows with `step layer head metric value`, metric `entropy`, of one model."
_CEILING = "uniform over all keys"


def plot_entropy_evolution(
    frame: pd.DataFrame,
    jumps: Rows | None = None,
    *,
    n_keys: int | None = None,
    scale: StepScale = "linear",
) -> go.Figure:
    """Entropy of the attention of each head over training, a panel a layer, jumps as marks.

    Behind, dashed, lies the entropy of a head that looks at all keys alike: ln(n_keys), or the
    frame's `null_mean` (a causal model has a lower one: the mean of ln(t + 1)). Heads keep their
    colour over panels; several seeds are lines of one colour. Triangles at the top of a panel are
    jumps of dimensionality: of the same layer where both frames name it, else of any.

    What it does not show: cause. Entropies fall during training with and without jumps; compare
    changes at jumps with changes at control steps (`plot_jump_effects`).

    Args:
        frame: rows with `step head value`, and `layer` or `layer_name`; optional `metric` (rows of
            "entropy" are taken), `null_mean`, `seed`, `model`. Values in nats.
        jumps: of `detect_jumps`, or its frame with `step direction`.
        n_keys: keys that a query can see; None: the frame's `null_mean`.
        scale: of the steps, "linear" or "log".

    Returns:
        A figure whose `value` traces hold the entropies.

    Raises:
        InputError: missing columns, or several rows for one step of a head.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_entropy_evolution
        >>> rows = pd.DataFrame({"step": [0, 10], "layer": 0, "head": 0, "value": [2.8, 1.9]})
        >>> figure = plot_entropy_evolution(rows, n_keys=17)
        >>> uniform = next(trace for trace in figure.data if trace.meta == "null mean")
        >>> round(float(uniform.y[0]), 3)
        2.833
    """
    rows = plain_rows(frame, ("step", "head", "value"), fix=_FIX)
    if "metric" in rows.columns and (rows["metric"] == "entropy").any():
        rows = rows.loc[rows["metric"] == "entropy"]
    rows = with_places(rows)
    single_rows(rows, ["model", "layer_name", "head", "step"], fix=_FIX)
    if n_keys is not None:
        rows = rows.assign(null_mean=float(np.log(n_keys)))
    marks = with_places(pd.DataFrame({"step": [], "direction": []}))
    if jumps is not None:
        fix = "Give `detect_jumps(...)`."
        marks = plain_rows(jumps, ("step", "direction"), fix=fix, may_be_empty=True)
        by_name = "layer_name" in frame.columns and "layer_name" in marks.columns
        marks = with_places(marks)
        check_directions(marks["direction"] if len(marks) else [])
        if not (by_name and set(marks["layer_name"]) & set(rows["layer_name"])):
            marks["layer_name"] = None
    axis = step_axis(rows["step"], scale)
    layers = in_order(rows)
    heads = sorted(rows["head"].dropna().unique().tolist())
    entries = _legend(heads, marks, has_ceiling=bool(np.isfinite(number(rows, "null_mean")).any()))
    said = [str(entry.name) for entry in entries]
    panels = Panels(
        titles=[short_name(name) for name in layers],
        columns=min(3, len(layers)) if len(layers) != 4 else 2,
        height=240 if len(layers) < 5 else 170,
        narrow_height=190,
        gap_share=0.06,
        legend_lines=legend_lines(said, width=900),
        narrow_legend_lines=legend_lines(said, width=320),
        share_y=True,
    )
    figure = panels.figure(
        title=f"Entropy of heads{whose(frame)}",
        x_title=axis.title,
        y_titles=["entropy (nats)"] * len(layers),
        alt=_alt(rows, layers),
        note=_note(rows, marks, asked=jumps is not None),
    )
    every = np.array([*rows["value"], *number(rows, "null_mean")], dtype=float)
    low, high = np.nanmin(every), np.nanmax(every)
    apart = (high - low) or 1.0
    top = float(high + 0.12 * apart)
    span = (max(-0.02 * apart, low - 0.08 * apart), top + 0.08 * apart)
    for i, name in enumerate(layers):
        part = rows.loc[rows["layer_name"] == name]
        x = {**axis.layout(), "matches": "x" if i else None}
        y = {"nticks": 5, "range": list(span), "matches": "y" if i else None}
        figure.update_layout({panels.axis("x", i): x, panels.axis("y", i): y})
        traces = [_ceiling(part, axis)]
        for (head, _), curve in part.groupby(["head", "seed"], sort=True, dropna=False):
            traces.append(_line(curve.sort_values("step"), axis, head, heads.index(head)))
        own = marks.loc[marks["layer_name"].isna() | (marks["layer_name"] == name)]
        traces += _marks(own, axis, at=top)
        figure.add_traces([trace.update(panels.names(i)) for trace in traces if trace is not None])
    return figure.add_traces(entries)


def _ceiling(part: Any, axis: StepAxis | LinearSteps) -> go.Scatter | None:
    """The entropy of a pattern that looks at all keys alike."""
    level = part.assign(level=number(part, "null_mean")).groupby("step")["level"].mean().dropna()
    if level.empty:
        return None
    return go.Scatter(
        x=axis.place(level.index),
        y=level.to_numpy(float),
        mode="lines",
        line={"color": NULL_MEAN, "width": 1.5, "dash": "dash"},
        hovertemplate=f"{_CEILING}: %{{y:.3f}} nats<extra></extra>",
        name=_CEILING,
        meta="null mean",
        showlegend=False,
    )


def _line(curve: Any, axis: StepAxis | LinearSteps, head: float | int, index: int) -> go.Scatter:
    colour, symbol, _ = category(index)
    seed = curve["seed"].iloc[0]
    words = f"head {named(head)}" + ("" if pd.isna(seed) else f" · seed {named(seed)}")
    few = len(curve) <= 40
    return go.Scatter(
        x=axis.place(curve["step"]),
        y=curve["value"].to_numpy(float),
        customdata=curve["step"].to_numpy(float),
        mode="lines+markers" if few else "lines",
        line={"color": colour, "width": 1.5},
        marker={"color": colour, "symbol": symbol, "size": 5},
        hovertemplate=f"{words}<br>step %{{customdata:,.0f}}<br>%{{y:.3f}} nats<extra></extra>",
        name=words,
        meta="value",
        showlegend=False,
    )


def _marks(own: Any, axis: StepAxis | LinearSteps, *, at: float | int) -> list[go.Scatter]:
    """Jumps above the curves of a panel."""
    seeds = ["" if pd.isna(seed) else f" · seed {named(seed)}" for seed in own["seed"]]
    return marks_above(own, axis, at=at, words=seeds)


def _legend(heads: list[Any], marks: Any, *, has_ceiling: bool) -> list[go.Scatter]:
    entries = []
    for i, head in enumerate(heads):
        colour, symbol, _ = category(i)
        marker = {"color": colour, "symbol": symbol, "size": 6}
        line = {"color": colour, "width": 2}
        name = f"head {named(head)}"
        entries.append({"mode": "lines+markers", "marker": marker, "line": line, "name": name})
    if has_ceiling:
        look = {"color": NULL_MEAN, "width": 1.5, "dash": "dash"}
        entries.append({"mode": "lines", "line": look, "name": _CEILING})
    lines = [go.Scatter(x=[None], y=[None], meta="legend", **entry) for entry in entries]
    return lines + direction_entries(marks["direction"])


def _note(rows: Any, marks: Any, *, asked: bool) -> str:
    words = f"Dashed: {_CEILING}." if np.isfinite(number(rows, "null_mean")).any() else ""
    if asked:
        anywhere = bool(marks["layer_name"].isna().to_numpy().all())
        where = "of any layer" if anywhere else "of the layer"
        words += f" Triangles: {count(len(marks), 'jump')} {where}."
    if len(set(rows["seed"].dropna())) > 1:
        words += f" {rows['seed'].nunique()} seeds, one line each."
    return words.strip() or "Panels share their axes."


def _alt(rows: Any, layers: list[str]) -> str:
    said = []
    for name in layers:
        part = rows.loc[rows["layer_name"] == name].dropna(subset=["value"])
        if part.empty:
            continue
        means = part.groupby("step")["value"].mean()
        words = f"from {means.iloc[0]:.3g} to {means.iloc[-1]:.3g} nats"
        said.append(f"{name}: mean over heads {words}")
    return f"Line charts of attention entropy over training steps. {'; '.join(said)}."
