"""Accuracy of each class over training, jumps as marks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.conditions import single_rows
from headspec.plots.frames import whose
from headspec.plots.jump_rows import Rows, count, named, number, plain_rows, with_places
from headspec.plots.jump_steps import (
    LinearSteps,
    StepScale,
    check_directions,
    direction_entries,
    marks_above,
    step_axis,
)
from headspec.plots.palette import INK, NULL_MEAN, category
from headspec.plots.panels import Panels, legend_lines
from headspec.plots.steps import StepAxis

_FIX = "Give `VisionRun.accuracy`, rows with `step class value`; of several runs with `model seed`."
_DASHES = ("solid", "dash", "dot", "dashdot")
_MOST = 32


def plot_class_accuracy(
    frame: pd.DataFrame,
    jumps: Rows | None = None,
    *,
    scale: StepScale = "linear",
) -> go.Figure:
    """Share of each class that is named rightly over training: a panel a run, a line a class.

    The thick line is the mean over classes; the dashed one behind is chance, one over the number
    of classes. Triangles above are jumps of dimensionality, where given.

    What it does not show: that a class was acquired at a jump; classes rise with and without
    jumps. A line has the sampling error of the images behind it: with 50 images of a class, half
    an accuracy moves by 0.07 from one draw of images to another.

    Args:
        frame: rows with `step class value`; optional `model seed n`.
        jumps: of `detect_jumps`, or its frame with `step direction`.
        scale: of the steps, "linear" or "log".

    Returns:
        A figure whose `value` traces hold accuracies.

    Raises:
        InputError: missing columns, several rows for one step of a class, more than 32 classes.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_class_accuracy
        >>> rows = pd.DataFrame({"step": [0, 10] * 2, "class": [0, 0, 1, 1], "value": [0, 1, 0, 0]})
        >>> figure = plot_class_accuracy(rows)
        >>> [float(y) for y in next(t for t in figure.data if t.meta == "mean").y]
        [0.0, 0.5]
    """
    rows = with_places(plain_rows(frame, ("step", "class", "value"), fix=_FIX))
    single_rows(rows, ["model", "class", "step"], fix=_FIX)
    classes = sorted(rows["class"].unique().tolist())
    if len(classes) > _MOST:
        raise InputError(
            expected=f"at most {_MOST} classes", got=f"{len(classes)}", fix="Choose some of them."
        )
    marks = with_places(pd.DataFrame({"step": [], "direction": []}))
    if jumps is not None:
        fix = "Give `detect_jumps(...)`."
        marks = plain_rows(jumps, ("step", "direction"), fix=fix, may_be_empty=True)
        marks = with_places(marks)
        check_directions(marks["direction"] if len(marks) else [])
    axis = step_axis(rows["step"], scale)
    groups = list(rows.groupby(["model", "seed"], sort=False, dropna=False))
    entries = [*_legend(classes), *direction_entries(marks["direction"])]
    said = [str(entry.name) for entry in entries]
    panels = Panels(
        titles=[_title(str(model), seed) for (model, seed), _ in groups],
        columns=min(3, len(groups)) if len(groups) != 4 else 2,
        height=300 if len(groups) < 4 else 210,
        narrow_height=240,
        gap_share=0.05,
        legend_lines=legend_lines(said, width=900),
        narrow_legend_lines=legend_lines(said, width=320),
        share_y=True,
    )
    figure = panels.figure(
        title=f"Accuracy of each class{whose(frame)}",
        x_title=axis.title,
        y_titles=["accuracy (share right)"] * len(groups),
        alt=_alt(groups),
        note=f"Dashed: chance, one of {len(classes)}."
        + (f" Triangles: {count(len(marks), 'jump')} of dimensionality." if len(marks) else ""),
    )
    for i, ((model, seed), part) in enumerate(groups):
        y = {"range": [-0.03, 1.12 if len(marks) else 1.03], "tickvals": [0, 0.25, 0.5, 0.75, 1]}
        x = {**axis.layout(), "matches": "x" if i else None}
        figure.update_layout({panels.axis("x", i): x, panels.axis("y", i): y})
        traces = [_chance(part, axis, len(classes))]
        traces += [
            _line(part.loc[part["class"] == name].sort_values("step"), axis, name, j)
            for j, name in enumerate(classes)
        ]
        traces += [_mean(part, axis), *_marks(marks, axis, str(model), seed)]
        figure.add_traces([trace.update(panels.names(i)) for trace in traces])
    return figure.add_traces(entries)


def _title(model: str, seed: float | int) -> str:
    words = [model] if model else []
    return " · ".join([*words, *([] if pd.isna(seed) else [f"seed {named(seed)}"])]) or "all images"


def _look(index: int) -> dict:
    """Ten classes and more: colours of the palette, then the same dashed."""
    return {"color": category(index)[0], "width": 1.3, "dash": _DASHES[index // 8 % len(_DASHES)]}


def _line(part: Any, axis: StepAxis | LinearSteps, name: object, index: int) -> go.Scatter:
    n = number(part, "n")
    images = "" if np.isnan(n).all() else f" of {np.nanmax(n):,.0f} images"
    return go.Scatter(
        x=axis.place(part["step"]),
        y=part["value"].to_numpy(float),
        customdata=part["step"].to_numpy(float),
        mode="lines",
        line=_look(index),
        hovertemplate=f"class {named(name)}<br>step %{{customdata:,.0f}}<br>%{{y:.1%}}{images}"
        "<extra></extra>",
        name=f"class {named(name)}",
        meta="value",
        showlegend=False,
    )


def _mean(part: Any, axis: StepAxis | LinearSteps) -> go.Scatter:
    means = part.groupby("step")["value"].mean()
    return go.Scatter(
        x=axis.place(means.index),
        y=means.to_numpy(float),
        customdata=means.index.to_numpy(float),
        mode="lines",
        line={"color": INK, "width": 2.6},
        hovertemplate="mean over classes<br>step %{customdata:,.0f}<br>%{y:.1%}<extra></extra>",
        name="mean over classes",
        meta="mean",
        showlegend=False,
    )


def _chance(part: Any, axis: StepAxis | LinearSteps, n: int) -> go.Scatter:
    return go.Scatter(
        x=axis.place([part["step"].min(), part["step"].max()]),
        y=[1 / n, 1 / n],
        mode="lines",
        line={"color": NULL_MEAN, "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
        name="chance",
        meta="chance",
        showlegend=False,
    )


def _marks(
    marks: Any, axis: StepAxis | LinearSteps, model: str, seed: float | int
) -> list[go.Scatter]:
    """Jumps of this run, above its curves."""
    own = marks.loc[(marks["model"] == model) | (marks["model"] == "") | (model == "")]
    own = own.loc[own["seed"].isna() | (own["seed"] == seed) | pd.isna(seed)]
    return marks_above(own, axis, at=1.06, words=[f", {name}" for name in own["layer_name"]])


def _legend(classes: list) -> list[go.Scatter]:
    looks = [(f"{named(name)}", _look(i)) for i, name in enumerate(classes)]
    looks += [("mean", {"color": INK, "width": 2.6})]
    looks += [("chance", {"color": NULL_MEAN, "width": 1.5, "dash": "dash"})]
    return [
        go.Scatter(x=[None], y=[None], mode="lines", line=look, name=name, meta="legend")
        for name, look in looks
    ]


def _alt(groups: list) -> str:
    said = []
    for (model, seed), part in groups:
        last = part.loc[part["step"] == part["step"].max()].dropna(subset=["value"])
        if len(last):
            ends = last.sort_values("value")["class"].tolist()
            said.append(
                f"{_title(str(model), seed)}: at the end {last['value'].mean():.1%} on average, "
                f"class {named(ends[0])} lowest with {last['value'].min():.1%}"
            )
    return f"Line charts of the accuracy of each class over training steps. {'; '.join(said)}."
