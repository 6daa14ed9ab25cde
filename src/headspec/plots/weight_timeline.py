"""A statistic of weights over training, its rate of change, and when capabilities emerge."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.plots.capabilities import chance_traces, curve_trace
from headspec.plots.emergence_strip import (
    EmergenceMarks,
    emergence_rows,
    shade_windows,
    strip_axis,
    strip_traces,
)
from headspec.plots.frames import metric_rows, usable, whose
from headspec.plots.palette import NULL_BAND, NULL_MEAN
from headspec.plots.panels import Panels, legend_lines
from headspec.plots.steps import StepAxis
from headspec.plots.timeline import null_band
from headspec.plots.weight_lines import (
    WeightLine,
    chosen_rows,
    line_look,
    null_traces,
    weight_lines,
)
from headspec.plots.weight_wording import (
    metric_label,
    split_metric,
    statistic_words,
)
from headspec.plots.window import swatch
from headspec.plots.wording import capability_unit
from headspec.series.curve import axis_positions


def plot_weight_timeline(
    frame: pd.DataFrame,
    *,
    metric: str,
    layer: int | None = None,
    head: int | None = None,
    capabilities: pd.DataFrame | None = None,
    emergence: pd.DataFrame | None = None,
) -> go.Figure:
    """A statistic and its rate of change over training, with the emergence of capabilities.

    From top to bottom: when each capability emerged (bars from the last step at chance to the first
    above it, or where a continuous measure rises most), the statistic, its rate, and the
    capabilities with standard errors. The rate of an interval is the difference of its ends over
    that of log(1 + step), drawn in the middle of the interval. Windows of emergence are shaded
    behind every panel; the null of a statistic, where it has one, lies behind its line.

    What it does not show: that a change within a window has to do with it. Most statistics change
    most at the same time, when the learning rate is high; `correlate_rates` asks whether they
    coincide more than such curves do anyway.

    Args:
        frame: tidy frame of a sweep with `WeightMeasure`, or any with `step`, `metric`, `value`.
        metric: `"q.stable_rank"` for one line a layer, or a statistic, `"stable_rank"`, for one
            line a matrix; lines may differ in one of model, layer, head and matrix.
        layer, head: rows of one layer, of one head; None for all.
        capabilities: curves to show below: `step`, `metric`, `value`; optional `se`, `chance`.
        emergence: rows of `Emergence.to_frame()`, one a capability; rows with the status
            `"rises_most"` have the window of the largest rise in `step_before` and `step`.

    Returns:
        A figure; `customdata` holds true steps, traces the frame's numbers.

    Raises:
        InputError: for a metric the frame lacks, or lines that differ in more than one thing.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_weight_timeline
        >>> rows = pd.DataFrame({"step": [0, 10, 100], "value": [9.0, 8.0, 5.0]})
        >>> rows["metric"] = "q.stable_rank"
        >>> figure = plot_weight_timeline(rows, metric="q.stable_rank")
        >>> figure.data[-1].y.round(3).tolist()  # per unit of log(1 + step)
        [-0.417, -1.353]
    """
    lines = weight_lines(chosen_rows(frame, metric, layer=layer, head=head))
    curves = _curves(capabilities)
    marks = emergence_rows(emergence)
    axis = _axis(lines, curves, marks)
    shown = list(dict.fromkeys(capability_unit(name, rows) for name, rows in curves.items()))
    where = "" if layer is None else f", layer {layer}"
    where += "" if head is None else f", head {head}"
    label, unit = statistic_words(split_metric(metric)[1])
    panels = _panels(lines, curves, marks, statistic=label, units=shown)
    name = metric_label(metric)
    figure = panels.figure(
        title=f"{name[:1].upper()}{name[1:]} and its rate{where}{_whose(lines)}",
        x_title=axis.title,
        y_titles=["capability"] * bool(marks.names) + [unit, _rate_unit(unit), *shown],
        alt=_alt(lines, marks.said, label=name),
        note=_note(marks, bars=bool(curves)),
    )
    at = int(bool(marks.names))
    for i in range(len(panels.titles)):
        look = {**axis.layout(), "matches": "x" if i else None}
        figure.update_layout({panels.axis("x", i): look})
        if i >= at:
            figure.update_layout({panels.axis("y", i): {"nticks": 5}})
            shade_windows(figure, panels, i, axis=axis, marks=marks)
    nulls = [trace for line in lines for trace in null_traces(line, axis)]
    figure.add_traces([trace.update(panels.names(at)) for trace in nulls])
    figure.add_trace(_zero(axis).update(panels.names(at + 1)))
    figure.add_traces([_value(line, axis, label).update(panels.names(at)) for line in lines])
    figure.add_traces([_rate(line, axis).update(panels.names(at + 1)) for line in lines])
    if nulls:
        figure.add_trace(_null_entry(lines))
    # Categories of lines come first: a capability has no line's colour and symbol.
    taken = 0 if lines[0].ordinal else len(lines)
    indices = {n: taken + i for i, n in enumerate(dict.fromkeys([*curves, *marks.names]))}
    if marks.names:
        figure.update_layout({panels.axis("y", 0): strip_axis(marks)})
        strip = strip_traces(marks, axis=axis, indices=indices)
        figure.add_traces([trace.update(panels.names(0)) for trace in strip])
    for name, rows in curves.items():
        place = panels.names(at + 2 + shown.index(capability_unit(name, rows)))
        chance = chance_traces(rows, axis, name, indices[name])
        curve = curve_trace(rows, axis, name, indices[name])
        figure.add_traces([trace.update(place) for trace in [*chance, curve]])
    return figure


def _axis(
    lines: list[WeightLine], curves: dict[str, pd.DataFrame], marks: EmergenceMarks
) -> StepAxis:
    every = [line.rows for line in lines] + list(curves.values())
    return StepAxis([step for rows in every for step in rows["step"]] + marks.steps)


def _panels(
    lines: list[WeightLine],
    curves: dict[str, pd.DataFrame],
    marks: EmergenceMarks,
    *,
    statistic: str,
    units: list[str],
) -> Panels:
    """One below the other: emergence, the statistic, its rate, capabilities by unit."""
    legend = [line.name for line in lines if line.listed] + list(curves)
    legend += [found[2] for line in lines[:1] if (found := null_band(line.rows))]
    titles = [f"{statistic[:1].upper()}{statistic[1:]}", "Its rate of change"]
    titles += [f"Capabilities: {unit}" for unit in units]
    shares = [1.0] * len(titles)
    if marks.names:
        titles.insert(0, "Capabilities emerge")
        shares.insert(0, 0.06 + 0.145 * len(marks.names))
    return Panels(
        titles=titles,
        columns=1,
        height=210,
        narrow_height=180,
        gap=58,
        legend_lines=legend_lines(legend, width=900),
        narrow_legend_lines=legend_lines(legend, width=290),
        shares=shares,
    )


def _curves(capabilities: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    if capabilities is None:
        return {}
    rows = usable(capabilities, ("step", "metric", "value"))
    names = dict.fromkeys(str(name) for name in rows["metric"])
    return {name: metric_rows(rows, name) for name in names}


def _rate_unit(unit: str) -> str:
    """The unit of a rate, short enough for the height of a panel."""
    return f"{unit if len(unit) <= 13 else 'change'} per log(1 + step)"


def _whose(lines: list[WeightLine]) -> str:
    return whose(pd.concat([line.rows for line in lines]))


def _null_entry(lines: list[WeightLine]) -> go.Scatter:
    """The legend's entry of the bands of nulls."""
    names = {found[2] for line in lines if (found := null_band(line.rows))}
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker=swatch(NULL_BAND),
        name=", ".join(names),
        meta="legend",
    )


def _zero(axis: StepAxis) -> go.Scatter:
    ends = [axis.steps[0], axis.steps[-1]]
    return go.Scatter(
        x=axis.place(ends),
        y=[0.0, 0.0],
        mode="lines",
        line={"color": NULL_MEAN, "width": 1, "dash": "dash"},
        hoverinfo="skip",
        name="no change",
        meta="zero",
        showlegend=False,
    )


def _value(line: WeightLine, axis: StepAxis, label: str) -> go.Scatter:
    return go.Scatter(
        x=axis.place(line.rows["step"]),
        y=line.rows["value"].to_numpy(dtype=float),
        customdata=line.rows["step"].to_numpy(),
        hovertemplate=f"step %{{customdata}}<br>{label} %{{y:.4g}}<extra>{line.name}</extra>",
        meta="value",
        showlegend=line.listed,
        **line_look(line),
    )


def _rate(line: WeightLine, axis: StepAxis) -> go.Scatter:
    """Differences over those of log(1 + step), in the middle of each interval as drawn."""
    rows = line.rows.dropna(subset=["value"])
    steps = rows["step"].to_numpy()
    rates = np.diff(rows["value"].to_numpy(dtype=float)) / np.diff(
        axis_positions(steps, "log_step")
    )
    places = np.array(axis.place(steps))
    return go.Scatter(
        x=np.sqrt(places[1:] * places[:-1]),
        y=rates,
        customdata=np.stack([steps[:-1], steps[1:]], axis=-1),
        hovertemplate="steps %{customdata[0]} to %{customdata[1]}<br>%{y:+.4g} per log(1 + step)"
        f"<extra>{line.name}</extra>",
        meta="rate",
        showlegend=False,
        **line_look(line),
    )


def _note(marks: EmergenceMarks, *, bars: bool) -> str:
    words = ["Rates are differences over those of log(1 + step), drawn in mid-interval."]
    if marks.names:
        window = "Shaded: a capability emerges, from the last step at chance to the first above it"
        graded = "; of a continuous measure, the interval in which it rises most"
        words.append(f"{window}{graded * ('rises_most' in marks.status)}.")
    if bars:
        words.append("Bars on capabilities: one standard error over test items.")
    return " ".join(words)


def _alt(lines: list[WeightLine], emergence: list[str], *, label: str) -> str:
    """First and last value of at most eight lines, and when capabilities emerge."""
    said = []
    for line in (line for line in lines if line.listed):
        values = line.rows.dropna(subset=["value"])
        if len(values):
            first, last = values.iloc[0], values.iloc[-1]
            said.append(
                f"{line.name} from {first['value']:.3g} at step {int(first['step'])} to "
                f"{last['value']:.3g} at step {int(last['step'])}"
            )
    words = f"Line charts of {label} and its rate of change over training steps: "
    words += "; ".join(said) or "no value"
    return words + ("." if not emergence else f". Capabilities: {'; '.join(emergence)}.")
