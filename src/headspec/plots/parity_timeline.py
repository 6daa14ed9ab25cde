"""Even minus odd heads over training, in front of every other split."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.plots.frames import layer_rows, metric_rows, number_column, p_column, whose
from headspec.plots.palette import NULL_BAND, NULL_MEAN, NULL_RANGE, PAPER, VALUE
from headspec.plots.panels import Panels
from headspec.plots.parity import SCALES, Scale, as_large, band
from headspec.plots.steps import StepAxis
from headspec.plots.window import TransitionLike, shade_window, swatch, window_entry


def plot_parity_timeline(
    frame: pd.DataFrame,
    *,
    layer: int,
    transition: TransitionLike | None = None,
    alpha: float = 0.05,
) -> go.Figure:
    """Even minus odd over training steps, in front of the same difference of every other split.

    One panel for success, one for the graded metric. Behind the values lie the range of all
    splits and the band that holds 90 % of them (`null_q05` to `null_q95`), symmetric about 0,
    since either half can be named first. A filled point is significant: `q` at most `alpha` where
    the frame has that column (corrected for the number of tests), else `p`. Thin bars are 95 %
    intervals over prompt pairs.

    What it does not show: bars speak of other prompts, bands of other splits; a point that leaves
    neither is an arbitrary split of heads that matter. Neighbouring steps are not independent.

    Args:
        frame: tidy frame of a sweep with `ParityMeasure`.
        layer: the layer to show.
        transition: window to shade, from `find_transition`.
        alpha: level up to which a point counts as significant.

    Returns:
        A figure with two panels; `customdata` holds the true steps.

    Raises:
        InputError: for a layer or metric that the frame lacks, or several rows for one step.
    """
    rows = layer_rows(frame, layer)
    series = {scale: metric_rows(rows, scale.strength) for scale in SCALES}
    axis = StepAxis(rows["step"])
    which = p_column(series[SCALES[0]])[0]
    kinds = {bool(each) for rows in series.values() for each in _filled(rows, alpha)}
    panels = Panels(
        titles=[f"{scale.title}: even minus odd" for scale in SCALES],
        height=300,
        narrow_height=240,
        legend_lines=1 if transition is None or len(kinds) == 1 else 2,
        narrow_legend_lines=5,
    )
    note = (
        "Restoring the even heads minus restoring the odd ones. Grey: the same for every split of "
        "the layer into halves, all of them and the inner 90 %; within, they can lie at both ends. "
        "Bars: 95 % over prompt pairs. "
        f"A filled point has {which} at most {alpha:g} among the splits"
    )
    figure = panels.figure(
        title=f"Even against odd heads over training, layer {layer}{whose(rows)}",
        x_title=axis.title,
        y_titles=["difference in share of pairs", "difference in nats"],
        alt=_timeline_alt(series, layer=layer, alpha=alpha),
        note=note + (", corrected for all tests." if which == "q" else ", not corrected."),
    )
    for i, (scale, each) in enumerate(series.items()):
        figure.update_layout({panels.axis("x", i): axis.layout()})
        figure.add_traces([trace.update(panels.names(i)) for trace in _null(each, axis)])
        trace = _strength(each, axis, scale, alpha=alpha)
        figure.add_trace(trace.update(panels.names(i)))
        if transition is not None:
            shade_window(figure, panels, i, axis=axis, transition=transition)
    figure.add_traces(_timeline_legend(kinds, alpha=alpha, which=which))
    if transition is not None:
        figure.add_trace(window_entry(transition))
    return figure.update_layout(legend={"itemclick": False, "itemdoubleclick": False})


def _null(rows: pd.DataFrame, axis: StepAxis) -> list[go.Scatter]:
    steps, strongest = rows["step"].to_numpy(), number_column(rows, "strongest")
    low, high = number_column(rows, "null_q05"), number_column(rows, "null_q95")
    outer = None if strongest is None else -strongest
    zero = go.Scatter(
        x=axis.place(steps),
        y=np.zeros(len(steps)),
        mode="lines",
        line={"color": NULL_MEAN, "width": 1, "dash": "dash"},
        hoverinfo="skip",
        meta="null mean",
        name="no difference",
        showlegend=False,
    )
    return [
        *band(steps, outer, strongest, axis=axis, colour=NULL_RANGE, role="null range"),
        *band(steps, low, high, axis=axis, colour=NULL_BAND, role="null band"),
        zero,
    ]


def _strength(rows: pd.DataFrame, axis: StepAxis, scale: Scale, *, alpha: float) -> go.Scatter:
    """Even minus odd with its intervals."""
    which, p = p_column(rows)
    p = np.full(len(rows), np.nan) if p is None else p
    values = rows["value"].to_numpy(float)
    many = [as_large(row) for _, row in rows.iterrows()]
    low, high = number_column(rows, "ci_low"), number_column(rows, "ci_high")
    bars = {}
    if low is not None and high is not None:
        ends = {"array": high - values, "arrayminus": values - low}
        bars = {"error_y": {"type": "data", "thickness": 1, "width": 0, "color": VALUE, **ends}}
    return go.Scatter(
        x=axis.place(rows["step"]),
        y=values,
        customdata=rows["step"].to_numpy(),
        text=[f"{words}<br>{which} = {each:.3g}" for words, each in zip(many, p, strict=True)],
        mode="lines+markers",
        line={"color": VALUE, "width": 2},
        marker=_marker(_filled(rows, alpha)),
        hovertemplate="step %{customdata}<br>even minus odd %{y:+.3g} "
        f"({scale.unit})<br>%{{text}}<extra></extra>",
        name=scale.strength,
        meta="value",
        showlegend=False,
        **bars,
    )


def _filled(rows: pd.DataFrame, alpha: float) -> list[bool]:
    """Which points are significant."""
    _, p = p_column(rows)
    return [False] * len(rows) if p is None else (p <= alpha).tolist()


def _marker(filled: list[bool]) -> dict:
    return {
        "color": [VALUE if yes else PAPER for yes in filled],
        "size": 8,
        "line": {"color": VALUE, "width": 1.6},
        "opacity": 1,
    }


def _timeline_legend(kinds: set[bool], *, alpha: float, which: str) -> list[go.Scatter]:
    words = {True: f"{which} ≤ {alpha:g}", False: "like an arbitrary split"}
    entries: list[dict] = [
        {
            "mode": "lines+markers",
            "marker": _marker([kind]),
            "line": {"color": VALUE},
            "name": f"even minus odd, {text}",
        }
        for kind, text in words.items()
        if kind in kinds
    ]
    entries += [
        {"mode": "markers", "marker": swatch(NULL_BAND), "name": "90 % of all splits"},
        {"mode": "markers", "marker": swatch(NULL_RANGE), "name": "all splits"},
    ]
    return [go.Scatter(x=[None], y=[None], meta="legend", **entry) for entry in entries]


def _timeline_alt(series: dict[Scale, pd.DataFrame], *, layer: int, alpha: float) -> str:
    said = []
    for scale, rows in series.items():
        _, p = p_column(rows)
        last = rows.iloc[-1]
        clear = 0 if p is None else int(np.sum(p <= alpha))
        said.append(
            f"{scale.title}: {last['value']:+.3g} ({scale.unit}) at step {int(last['step'])}, "
            f"significant at {clear} of {len(rows)} steps"
        )
    return f"Line charts of even minus odd heads of layer {layer} over steps. {'. '.join(said)}."
