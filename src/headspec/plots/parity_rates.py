"""What restoring even, odd, all and no heads of a layer gives, over training."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from headspec.plots.frames import layer_rows, metric_rows, number_column, whose
from headspec.plots.palette import MUTED, NULL_BAND, NULL_RANGE, category
from headspec.plots.panels import Panels
from headspec.plots.parity import SCALES, Scale, band
from headspec.plots.steps import StepAxis
from headspec.plots.window import swatch

_CONDITIONS = (
    ("clean", "clean run", {"color": MUTED, "width": 1.5, "dash": "dot"}),
    ("full", "all heads", {"color": MUTED, "width": 1.5, "dash": "dash"}),
    ("base", "no heads", {"color": MUTED, "width": 1.5}),
)


def plot_success_rates(frame: pd.DataFrame, *, layer: int) -> go.Figure:
    """What restoring even, odd, all and no heads of a layer gives, over training steps.

    One panel for the share of pairs with the clean answer, one for the graded metric. Behind lie
    the range of any half of the heads and the band that holds 90 % of them (rows `half_success`
    and `graded_half`).

    What it does not show: whether even and odd differ more than other halves do; that is the
    timeline's question. Where all heads together restore little, the answer is made elsewhere.

    Args:
        frame: tidy frame of a sweep with `ParityMeasure`.
        layer: the layer to show.

    Returns:
        A figure with two panels; `customdata` holds the true steps.

    Raises:
        InputError: for a layer or metric that the frame lacks, or several rows for one step.
    """
    rows = layer_rows(frame, layer)
    axis = StepAxis(rows["step"])
    names = [name for name, _, _ in _CONDITIONS] + ["even", "odd"]
    series = {
        scale: {name: metric_rows(rows, scale.rate.format(name)) for name in names}
        for scale in SCALES
    }
    panels = Panels(
        titles=["Pairs with the clean answer", "Clean over corrupt answer, log-probability"],
        height=300,
        narrow_height=240,
        legend_lines=1,
        narrow_legend_lines=5,
    )
    figure = panels.figure(
        title=f"Restored by even, odd, all and no heads, layer {layer}{whose(rows)}",
        x_title=axis.title,
        y_titles=[scale.unit for scale in SCALES],
        alt=_rates_alt(series, layer=layer),
        note="Corrupt runs in which heads of the layer are given what they read in the clean run. "
        "Grey area: any half of the heads, all of them and the inner 90 %. Dotted: the clean run "
        "itself.",
    )
    for i, (scale, curves) in enumerate(series.items()):
        bounded = {"range": [-0.03, 1.03]} if i == 0 else {}
        figure.update_layout({panels.axis("x", i): axis.layout(), panels.axis("y", i): bounded})
        half = rows.loc[rows["metric"] == scale.rate.format("half")].sort_values(by="step")
        steps = half["step"].to_numpy()
        for ends, colour, role in (
            (("null_low", "null_high"), NULL_RANGE, "half range"),
            (("null_q05", "null_q95"), NULL_BAND, "half band"),
        ):
            low, high = (number_column(half, name) for name in ends)
            area = band(steps, low, high, axis=axis, colour=colour, role=role)
            figure.add_traces([trace.update(panels.names(i)) for trace in area])
        for name, words, line in _conditions():
            trace = _curve(curves[name], axis, words, line, unit=scale.unit)
            shown = {"showlegend": i == 0, "legendrank": 1 if "symbol" in line else 2}
            figure.add_trace(trace.update(panels.names(i) | shown))
    areas = (("90 % of all halves", NULL_BAND), ("all halves", NULL_RANGE))
    for words, colour in areas:
        entry = {"name": words, "marker": swatch(colour), "meta": "legend", "legendrank": 3}
        figure.add_scatter(x=[None], y=[None], mode="markers", **entry)
    return figure


def _conditions() -> list[tuple[str, str, dict]]:
    """Name, words and look of each condition; the controls first, below even and odd."""
    sides = [
        (name, f"{name} heads", {"color": category(i)[0], "width": 2, "symbol": category(i)[1]})
        for i, name in enumerate(("even", "odd"))
    ]
    return [*_CONDITIONS, *sides]


def _curve(rows: pd.DataFrame, axis: StepAxis, words: str, look: dict, *, unit: str) -> go.Scatter:
    line = {name: value for name, value in look.items() if name != "symbol"}
    marked = "symbol" in look
    return go.Scatter(
        x=axis.place(rows["step"]),
        y=rows["value"].to_numpy(float),
        customdata=rows["step"].to_numpy(),
        mode="lines+markers" if marked else "lines",
        line=line,
        marker={"color": look["color"], "symbol": look["symbol"], "size": 8} if marked else None,
        hovertemplate=f"step %{{customdata}}<br>{words} %{{y:.3g}} ({unit})<extra></extra>",
        name=words,
        legendgroup=words,
        meta="value" if marked else "control",
    )


def _rates_alt(series: dict[Scale, dict[str, pd.DataFrame]], *, layer: int) -> str:
    said = []
    for scale, curves in series.items():
        last = {name: rows["value"].iloc[-1] for name, rows in curves.items()}
        step = int(curves["even"]["step"].iloc[-1])
        values = ", ".join(f"{name} {value:.3g}" for name, value in last.items())
        said.append(f"{scale.title} at step {step} ({scale.unit}): {values}")
    return f"Line charts of what heads of layer {layer} restore over steps. {'. '.join(said)}."
