"""Every metric over training, in front of its null."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.frames import layer_rows, metric_rows, number_column, p_column, whose
from headspec.plots.palette import NULL_BAND, NULL_MEAN, PAPER, VALUE
from headspec.plots.panels import Panels
from headspec.plots.steps import StepAxis
from headspec.plots.window import TransitionLike, shade_window, swatch, window_entry
from headspec.plots.wording import METRICS, metric_words

_BANDS = (
    ("null_low", "null_high", "95 % of the null"),
    ("null_q05", "null_q95", "5 to 95 % of the null"),
)


def plot_metric_timeline(
    frame: pd.DataFrame,
    *,
    layer: int,
    metrics: Sequence[str] | None = None,
    transition: TransitionLike | None = None,
    alpha: float = 0.05,
) -> go.Figure:
    """Small multiples of a layer's metrics over training steps, each in front of its null.

    Behind the values lie the band of the null (`null_low` to `null_high`, 95 %; else `null_q05`
    to `null_q95`; else two standard deviations about `null_mean`) and its mean; the window of
    the transition is shaded. A filled point is significant: `q` at most `alpha` where a metric
    has that column (corrected for the number of tests), else `p`.

    What it does not show: a point outside its band is one of many looked at, and a significant
    silhouette does not say that the clusters do anything.

    Args:
        frame: tidy frame of a sweep, one row for each step, layer and metric.
        layer: the layer to show.
        metrics: which, in this order; None for every layer-level metric of the frame.
        transition: window to shade, from `find_transition`.
        alpha: level up to which a point counts as significant.

    Returns:
        A figure with one panel a metric; its traces hold the frame's numbers, and `customdata`
        the true step (step 0 has no place of its own on a log axis).

    Raises:
        InputError: for a layer or metric that the frame lacks, or several rows for one step.
    """
    rows = layer_rows(frame, layer)
    names = _metrics(rows) if metrics is None else list(metrics)
    if not names:
        raise InputError(
            expected="at least one layer-level metric",
            got=f"the metrics {sorted(set(rows['metric']))}",
            fix="Name the metrics to show in `metrics`.",
        )
    series = {name: metric_rows(rows, name) for name in names}
    axis = StepAxis([step for each in series.values() for step in each["step"]])
    panels = Panels(
        titles=[metric_words(name)[0] for name in names], legend_lines=3, narrow_legend_lines=6
    )
    figure = panels.figure(
        title=f"Cluster metrics over training, layer {layer}{whose(rows)}",
        x_title=axis.title,
        y_titles=[metric_words(name)[1] for name in names],
        alt=_alt(series, layer=layer, alpha=alpha),
        note=_note(series, alpha=alpha, shaded=transition is not None),
    )
    kinds = set()
    for i, (name, each) in enumerate(series.items()):
        figure.update_layout(
            {
                panels.axis("x", i): {**axis.layout(), "matches": "x" if i else None},
                panels.axis("y", i): {"nticks": 5},
            }
        )
        figure.add_traces(
            [trace.update(panels.names(i)) for trace in _null_traces(each, axis, name)]
        )
        trace, kind = _value_trace(each, axis, name, alpha=alpha)
        kinds |= kind
        figure.add_trace(trace.update(panels.names(i)))
        if transition is not None:
            shade_window(figure, panels, i, axis=axis, transition=transition)
    bands = {band[2] for band in map(null_band, series.values()) if band}
    figure.add_traces(_legend(kinds, bands, alpha=alpha))
    if transition is not None:
        figure.add_traces(window_entry(transition))
    figure.update_layout(legend={"itemclick": False, "itemdoubleclick": False})
    return figure


def _metrics(rows: pd.DataFrame) -> list[str]:
    """Layer-level metrics: the known ones in their order, then others without a head."""
    whole = rows[rows["head"].isna()] if "head" in rows.columns else rows
    found = list(dict.fromkeys(str(name) for name in whole["metric"]))
    return [name for name in METRICS if name in found] + [n for n in found if n not in METRICS]


def null_band(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, str] | None:
    """Lower edge, upper edge and name of the band; None where the metric has no null."""
    for lower, upper, words in _BANDS:
        low, high = number_column(rows, lower), number_column(rows, upper)
        if low is not None and high is not None:
            return low, high, words
    mean, sd = number_column(rows, "null_mean"), number_column(rows, "null_sd")
    if mean is None or sd is None:
        return None
    return mean - 2 * sd, mean + 2 * sd, "mean of the null ± 2 sd"


def _null_traces(rows: pd.DataFrame, axis: StepAxis, name: str) -> list[go.Scatter]:
    """The null's band and mean, to be drawn first."""
    mean = number_column(rows, "null_mean")
    band = null_band(rows)
    steps = rows["step"].to_numpy()
    traces = []
    if band is not None:
        low, high, label = band
        there = np.isfinite(low) & np.isfinite(high)
        x = np.array(axis.place(steps[there]))
        traces.append(
            go.Scatter(
                x=np.concatenate([x, x[::-1]]),
                y=np.concatenate([low[there], high[there][::-1]]),
                fill="toself",
                fillcolor=NULL_BAND,
                line={"width": 0, "color": NULL_BAND},
                mode="lines",
                hoverinfo="skip",
                name=f"{name}: {label}",
                meta="null band",
                showlegend=False,
            )
        )
    if mean is not None:
        traces.append(
            go.Scatter(
                x=axis.place(steps),
                y=mean,
                customdata=steps,
                mode="lines",
                line={"color": NULL_MEAN, "width": 1.5, "dash": "dash"},
                hoverinfo="skip",
                name=f"{name}: null mean",
                meta="null mean",
                showlegend=False,
            )
        )
    return traces


def _value_trace(
    rows: pd.DataFrame, axis: StepAxis, name: str, *, alpha: float
) -> tuple[go.Scatter, set[str]]:
    """The metric itself, and which kinds of points it has."""
    which, p = p_column(rows)
    p = np.full(len(rows), np.nan) if p is None else p
    kinds = np.where(np.isnan(p), "untested", np.where(p <= alpha, "significant", "not"))
    text = [f"<br>{which} = {each:.3g}" if np.isfinite(each) else "" for each in p]
    trace = go.Scatter(
        x=axis.place(rows["step"]),
        y=rows["value"].to_numpy(dtype=float),
        customdata=rows["step"].to_numpy(),
        text=text,
        mode="lines+markers",
        line={"color": VALUE, "width": 2},
        marker=_marker(list(kinds)),
        hovertemplate=f"step %{{customdata}}<br>{metric_words(name)[0]} %{{y:.4g}}%{{text}}"
        "<extra></extra>",
        name=name,
        meta="value",
        showlegend=False,
    )
    return trace, set(kinds.tolist())


def _marker(kinds: list[str]) -> dict:
    """Filled where significant, hollow where not, a small dot where nothing was tested."""
    return {
        "color": [PAPER if kind == "not" else VALUE for kind in kinds],
        "size": [4 if kind == "untested" else 8 for kind in kinds],
        "line": {"color": VALUE, "width": [0 if kind == "untested" else 1.6 for kind in kinds]},
        "opacity": 1,
    }


def _legend(kinds: set[str], bands: set[str], *, alpha: float) -> list[go.Scatter]:
    """Entries that stand for all panels at once; they hold no data."""
    words = {
        "significant": f"significant ({alpha:g} level)",
        "not": "not significant",
        "untested": "not tested",
    }
    entries: list[dict] = [
        {"mode": "lines+markers", "marker": _marker([kind]), "line": {"color": VALUE}, "name": text}
        for kind, text in words.items()
        if kind in kinds
    ]
    if bands:
        dashed = {"color": NULL_MEAN, "width": 1.5, "dash": "dash"}
        entries.append({"mode": "lines", "line": dashed, "name": "mean of the null"})
    entries += [
        {"mode": "markers", "marker": swatch(NULL_BAND), "name": band} for band in sorted(bands)
    ]
    return [go.Scatter(x=[None], y=[None], meta="legend", **entry) for entry in entries]


def _note(series: dict[str, pd.DataFrame], *, alpha: float, shaded: bool) -> str:
    """How to read the figure: which p-values fill its points."""
    judged = {name: p_column(rows) for name, rows in series.items()}
    by = {
        which: [
            metric_words(name)[0] for name, (w, p) in judged.items() if w == which and p is not None
        ]
        for which in ("q", "p")
    }
    words = "Grey: what the null gives, its mean dashed. " if by["q"] or by["p"] else ""
    if by["q"] and by["p"]:
        words += (
            f"A filled point is significant at the {alpha:g} level: by q, corrected for all tests, "
            f"in {', '.join(by['q'])}; by p, not corrected, in the other panels. "
        )
    elif by["q"]:
        words += f"A filled point has q, corrected for all tests, of at most {alpha:g}. "
    elif by["p"]:
        words += (
            f"A filled point has p, not corrected for the number of tests, of at most {alpha:g}. "
        )
    return (words + "Shaded: the window of largest change." * shaded).strip() or "No null."


def _alt(series: dict[str, pd.DataFrame], *, layer: int, alpha: float) -> str:
    """The figure in words: the first and last value of each metric and what is significant."""
    said = []
    for name, rows in series.items():
        values = rows.dropna(subset=["value"])
        if values.empty:
            continue
        first, last = values.iloc[0], values.iloc[-1]
        words = (
            f"{metric_words(name)[0]} goes from {first['value']:.3g} at step {int(first['step'])} "
            f"to {last['value']:.3g} at step {int(last['step'])}"
        )
        which, p = p_column(rows)
        if p is not None:
            words += f", {which} at most {alpha:g} at {int(np.sum(p <= alpha))} of {len(p)} steps"
        said.append(words)
    return f"Line charts of metrics of layer {layer} over training steps. " + ". ".join(said) + "."
