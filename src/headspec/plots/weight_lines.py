"""The lines of a figure of weights: one a layer, a head, a matrix or a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.frames import metric_rows, usable
from headspec.plots.palette import NULL_BAND, category, ordered
from headspec.plots.parity import band
from headspec.plots.steps import StepAxis
from headspec.plots.timeline import null_band
from headspec.plots.weight_wording import (
    MATRICES,
    in_order,
    matrix_label,
    metric_label,
    split_metric,
)

_KEYS = ("model", "layer", "head", "metric")
_MOST_ENTRIES = 8  # of lines in order; the others are told by hovering


@dataclass(frozen=True)
class WeightLine:
    """One line of the figure: its rows, its name and its look.

    Attributes:
        rows: by step.
        name: what distinguishes it from the other lines.
        colour, symbol: its look.
        ordinal: whether the lines are in order (layers, heads).
        listed: whether the legend names it.
    """

    rows: pd.DataFrame
    name: str
    colour: str
    symbol: str
    ordinal: bool
    listed: bool


def chosen_rows(
    frame: pd.DataFrame, metric: str, *, layer: int | None, head: int | None
) -> pd.DataFrame:
    """The rows of a metric, or of a statistic of every matrix (heads apart, unless named)."""
    rows = usable(frame, ("step", "metric", "value"))
    names = rows["metric"].astype(str)
    found = rows.loc[names == metric]
    if found.empty:
        found = rows.loc[[split_metric(name)[1] == metric for name in names]]
        if head is None and "head" in found.columns and found["head"].isna().any():
            found = found.loc[found["head"].isna()]  # circuits of heads are not matrices
    for key, wanted in (("layer", layer), ("head", head)):
        if wanted is not None and key in found.columns:
            found = found.loc[found[key] == wanted]
    if found.empty:
        raise InputError(
            expected=f"rows of the metric or statistic {metric!r} (layer {layer}, head {head})",
            got=f"the metrics {sorted(set(names))[:12]}",
            fix="Name one of these, or leave `layer` and `head` out.",
        )
    return found


def weight_lines(rows: pd.DataFrame) -> list[WeightLine]:
    """One line for each value of the one thing in which the rows differ."""
    keys = [key for key in _KEYS if key in rows.columns]
    differ = [key for key in keys if len(rows[key].drop_duplicates()) > 1]
    if len(differ) > 1:
        raise InputError(
            expected="lines that differ in one of model, layer, head and matrix",
            got=f"rows that differ in {' and '.join(differ)}",
            fix="Choose `layer=` or `head=`, a metric of one matrix, or rows of one model.",
        )
    if not differ:
        name = metric_label(str(rows["metric"].iloc[0]))
        return [_line(rows, name, 0, 1, ordinal=False)]
    key = differ[0]
    values = rows[key].drop_duplicates().tolist()
    if key in ("layer", "head"):
        values = sorted(values)
        names = [f"{key} {int(value)}" if value == value else "no " + key for value in values]
    elif key == "metric":
        by_matrix = {split_metric(str(value))[0]: value for value in values}
        order = in_order(list(by_matrix), MATRICES)
        values, names = [by_matrix[m] for m in order], [matrix_label(m) for m in order]
    else:
        names = [str(value) for value in values]
    return [
        _line(rows.loc[rows[key] == value], name, i, len(values), ordinal=key in ("layer", "head"))
        for i, (value, name) in enumerate(zip(values, names, strict=True))
    ]


def _line(rows: pd.DataFrame, name: str, index: int, count: int, *, ordinal: bool) -> WeightLine:
    rows = metric_rows(rows, str(rows["metric"].iloc[0]))
    if not ordinal:
        colour, symbol, _ = category(index)
        return WeightLine(rows, name, colour, symbol, ordinal=False, listed=True)
    spread = np.linspace(0, count - 1, min(count, _MOST_ENTRIES))
    listed = index in {round(float(place)) for place in spread}
    return WeightLine(rows, name, ordered(index, count), "circle", ordinal=True, listed=listed)


def line_look(line: WeightLine) -> dict:
    """Lines in order have small points; others a symbol each."""
    return {
        "mode": "lines+markers",
        "line": {"color": line.colour, "width": 2},
        "marker": {
            "color": line.colour,
            "symbol": line.symbol,
            "size": 4 if line.ordinal else 7,
        },
        "name": line.name,
        "legendgroup": line.name,
    }


def null_traces(line: WeightLine, axis: StepAxis) -> list[go.Scatter]:
    """The band of a line's null, behind."""
    found = null_band(line.rows)
    if found is None:
        return []
    low, high, _ = found
    there = np.isfinite(low) & np.isfinite(high)
    steps = line.rows["step"].to_numpy()[there]
    return band(steps, low[there], high[there], axis=axis, colour=NULL_BAND, role="null band")
