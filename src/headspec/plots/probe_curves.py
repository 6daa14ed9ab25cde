"""What probes read from each layer, one line a condition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.conditions import (
    checked_rows,
    condition_name,
    has,
    in_layers,
    joined_columns,
    over_seeds,
    quantity_words,
    single_rows,
)
from headspec.plots.palette import MUTED, NULL_MEAN, category
from headspec.plots.panels import Panels, legend_lines

_METRICS = ("accuracy", "balanced_accuracy", "selectivity", "log_loss", "calibration_error")
_CONTROL = {"accuracy": "control_accuracy"}
_FIX = "Give the frame of `fit_probes` or `probe_model`, of one kind of probe and one site."
_LINE, _PLACE = "line", "panel"
NULL_WORDS = "without activations (accuracy: largest class)"
_NULL = {"color": NULL_MEAN, "width": 1.5, "dash": "dash"}


def plot_probe_curves(
    frame: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    by: str | Sequence[str] | None = None,
    panel: str | None = None,
) -> go.Figure:
    """Probe accuracy and selectivity from layer to layer, one line a condition.

    Behind, dashed and grey, lies what needs no activations: the share of the largest class. Dotted
    in a condition's colour: its control task (shuffled labels). Bars are the intervals of the
    frame (over test groups). With several seeds the line is their mean, and each seed a small dot.

    What it does not show: that the model uses what a probe reads. Where the control is as accurate,
    the probe has learnt the labels and not read them.

    Args:
        frame: tidy rows of probes with `layer` (-1: embeddings), `metric`, `value`; optional
            `low high null_mean seed`.
        metrics: which, a panel each; None: those of accuracy, balanced accuracy, selectivity, log
            loss and calibration error that the frame has.
        by: column that names the lines, or several; None: `condition`, else `model`. Eight lines
            are easier to tell apart as four in two panels: `by=("attention", "ordering")`,
            `panel="position"`.
        panel: column whose values get a panel each; panels of a metric share their scale.

    Returns:
        A figure with a panel for each metric and value of `panel`.

    Raises:
        InputError: missing columns or metrics, or several rows for one line, layer and seed.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_probe_curves
        >>> rows = pd.DataFrame({"layer": [0, 1], "value": [0.5, 0.8], "metric": "accuracy"})
        >>> plot_probe_curves(rows).data[0].y.tolist()
        [0.5, 0.8]
    """
    rows = _rows(frame, by, panel)
    found = list(dict.fromkeys(rows["metric"].astype(str)))
    names = list(metrics) if metrics is not None else [n for n in _METRICS if n in found] or found
    if not names or any(name not in found for name in names):
        raise InputError(expected=f"metrics out of {found}", got=f"{names}", fix=_FIX)
    parts = [(metric, place) for metric in names for place in dict.fromkeys(rows[_PLACE])]
    lines = list(dict.fromkeys(rows.sort_index()[_LINE]))
    legend = [*map(condition_name, lines), "control task", NULL_WORDS]
    panels = Panels(
        titles=[_title(metric, place) for metric, place in parts],
        columns=min(2, len(parts)),
        height=270,
        narrow_height=230,
        gap=66,
        gap_share=0.11,
        legend_lines=legend_lines(legend, width=880),
        narrow_legend_lines=legend_lines(legend, width=290),
    )
    means = over_seeds(rows, [_LINE, "layer", "metric", _PLACE])
    figure = panels.figure(
        title="What probes read, layer by layer",
        x_title="layer",
        y_titles=[quantity_words(metric)[1] for metric, _ in parts],
        alt=_alt(means, parts),
        note=_note(means),
    )
    drawn: set[str] = set()
    for i, (metric, place) in enumerate(parts):
        here = panels.names(i)
        mean, each = (frame.loc[frame[_PLACE] == place] for frame in (means, rows))
        for line in lines:
            own = mean.loc[(mean[_LINE] == line) & (mean["metric"] == metric)]
            figure.add_traces([trace.update(here) for trace in _null(own)])
        for k, line in enumerate(lines):
            mean_rows, seed_rows = (part.loc[part[_LINE] == line] for part in (mean, each))
            shift = 0.07 * (k - (len(lines) - 1) / 2) * (8 / max(8, len(lines)))
            traces = _control(mean_rows, metric, k, shift)
            traces += _seeds(seed_rows, metric, k, shift)
            traces += _line(mean_rows, metric, line, k, shift, listed=i == 0)
            figure.add_traces([trace.update(here) for trace in traces])
            drawn |= {str(trace.meta) for trace in traces}
        first = next(j for j, part in enumerate(parts) if part[0] == metric)
        shared = {"matches": panels.names(first)["yaxis"]} if first < i else {}
        layout = {panels.axis("x", i): in_layers(rows["layer"]), panels.axis("y", i): shared}
        figure.update_layout(layout)
    if has(means, "null_mean"):
        drawn.add("null")
    return figure.add_traces(_legend(drawn)).update_layout(legend={"tracegroupgap": 0})


def _rows(frame: pd.DataFrame, by: str | Sequence[str] | None, panel: str | None) -> pd.DataFrame:
    """Rows of layers with a column that names lines and one that names panels."""
    rows = checked_rows(frame, ("layer", "metric", "value"), fix=_FIX).dropna(subset=["layer"])
    if by is None:
        by = next((name for name in ("condition", "model") if has(rows, name)), None)
    rows[_LINE] = "probe" if by is None else joined_columns(rows, by)
    rows[_PLACE] = "" if panel is None else joined_columns(rows, panel)
    if has(rows, "head"):
        raise InputError(
            expected="probes of whole layers",
            got="rows of heads",
            fix="Choose one: frame.query('head == 3').drop(columns='head').",
        )
    single_rows(rows, [_LINE, "layer", "metric", _PLACE], fix=_FIX)
    return rows.sort_values(by="layer", kind="stable")


def _title(metric: str, place: str) -> str:
    words = quantity_words(metric)[0]
    return f"{words}, {condition_name(place)}" if place else words


def _null(rows: pd.DataFrame) -> list[go.Scatter]:
    """What guessing gives, behind all lines."""
    if not has(rows, "null_mean"):
        return []
    return [
        go.Scatter(
            x=rows["layer"].to_numpy(),
            y=rows["null_mean"].to_numpy(float),
            mode="lines",
            line=_NULL,
            hoverinfo="skip",
            meta="null",
            showlegend=False,
        )
    ]


def _control(rows: pd.DataFrame, metric: str, index: int, shift: float) -> list[go.Scatter]:
    """The control task in the panel of the accuracy it belongs to."""
    part = rows.loc[rows["metric"] == _CONTROL.get(metric)]
    if part.empty:
        return []
    return [
        go.Scatter(
            x=part["layer"].to_numpy() + shift,
            y=part["value"].to_numpy(float),
            mode="lines",
            line={"color": category(index)[0], "width": 1.2, "dash": "dot"},
            hoverinfo="skip",
            meta="control",
            showlegend=False,
        )
    ]


def _seeds(rows: pd.DataFrame, metric: str, index: int, shift: float) -> list[go.Scatter]:
    """Single seeds, where there are several."""
    part = rows.loc[rows["metric"] == metric]
    if not part["layer"].duplicated().to_numpy().any():
        return []
    return [
        go.Scatter(
            x=part["layer"].to_numpy() + shift,
            y=part["value"].to_numpy(float),
            mode="markers",
            marker={"color": category(index)[0], "size": 4, "opacity": 0.6},
            hoverinfo="skip",
            meta="seeds",
            showlegend=False,
        )
    ]


def _line(
    rows: pd.DataFrame, metric: str, line: str, index: int, shift: float, *, listed: bool
) -> list[go.Scatter]:
    part = rows.loc[rows["metric"] == metric]
    colour, symbol, _ = category(index)
    value, low, high = (part[name].to_numpy(float) for name in ("value", "low", "high"))
    bars = {
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": high - value,
            "arrayminus": value - low,
            "thickness": 1,
            "width": 2,
        }
    }
    return [
        go.Scatter(
            x=part["layer"].to_numpy() + shift,
            y=value,
            customdata=np.stack([part["layer"].to_numpy(), low, high], axis=-1),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"color": colour, "symbol": symbol, "size": 7},
            hovertemplate="layer %{customdata[0]}<br>%{y:.3f}"
            + (" (%{customdata[1]:.3f} to %{customdata[2]:.3f})" if np.isfinite(low).any() else "")
            + f"<extra>{condition_name(line)}</extra>",
            name=condition_name(line),
            legendgroup=line,
            meta="value",
            showlegend=listed,
            **(bars if np.isfinite(low).any() else {}),
        )
    ]


def _legend(drawn: set[str]) -> list[go.Scatter]:
    entries = [
        ("null", NULL_WORDS, _NULL),
        ("control", "control task", {"color": MUTED, "width": 1.2, "dash": "dot"}),
    ]
    return [
        go.Scatter(x=[None], y=[None], mode="lines", line=line, name=words, meta="legend")
        for role, words, line in entries
        if role in drawn
    ]


def _note(means: pd.DataFrame) -> str:
    words = "Lines are set apart sideways within a layer."
    if (means["n_seeds"] > 1).to_numpy().any():
        words += " Lines: means over seeds; small dots: single seeds."
    if has(means, "low"):
        words += " Bars: the intervals of the frame, over groups of the test split."
    return words


def _alt(means: pd.DataFrame, parts: list[tuple[str, str]]) -> str:
    said = []
    for metric, place in parts:
        here = means.loc[(means["metric"] == metric) & (means[_PLACE] == place)]
        for line, rows in here.dropna(subset=["value"]).groupby(_LINE, sort=False):
            best = rows.loc[rows["value"].idxmax()]
            said.append(
                f"{_title(metric, place)}, {condition_name(str(line))}: "
                f"{rows['value'].iloc[0]:.3g} at layer {int(rows['layer'].iloc[0])}, "
                f"largest {best['value']:.3g} at layer {int(best['layer'])}"
            )
    return f"Line charts of probes by layer. {'; '.join(said) or 'No value'}."
