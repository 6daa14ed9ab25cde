"""Rules for jumps side by side: false positives on curves without jumps, recall on planted ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.conditions import condition_name
from headspec.plots.jump_rows import number, one_row_each, plain_rows
from headspec.plots.null_rows import fit_names
from headspec.plots.palette import MUTED, PAPER, category
from headspec.plots.panels import Panels, legend_lines
from headspec.plots.row_panels import label_width, mark_level, name_axis, name_rows

_FIX = "Give the frames of `score_detector(...)`, one for each rule, joined, with `method`."
FLOOR = 0.1
"""False positives per 1,000 points below this are drawn at it: a log axis has no place for 0."""

_RATE = "per 1,000 points (log scale)"
_PANELS = {
    ("false_positives", "null"): ("False positives, no jumps", _RATE),
    ("false_positives", "hard"): ("False positives, debatable", _RATE),
    ("false_positives", "planted"): ("False positives, with jumps", _RATE),
    ("recall", "planted"): ("Recall", "share of planted jumps found"),
}
"""Metric and kind of curve to the title of the panel and of its axis."""


def plot_detector_battery(frame: pd.DataFrame, *, accepted: float | int = 2.0) -> go.Figure:
    """False positives of each rule on each kind of curve without jumps, and its recall.

    A row a curve, a colour and symbol a rule; curves without jumps, curves of which it is a matter
    of words whether they jump, and curves with jumps have panels of their own. The dashed line is
    the rate that a calibrated rule accepts, 2 per 1,000 points unless said otherwise; filled points
    are at most that (recall: all are filled). Rates below 0.1 are drawn at the left edge.

    What it does not show: which rule is right on real curves, whose noise may be of no kind here.

    Args:
        frame: rows with `method`, `series` (kind of curve), `metric` ("false_positives" or
            "recall") and `value`; optional `low high n`, and `kind` ("null", "hard", "planted").
        accepted: where the line stands.

    Returns:
        A figure of at most two panels; `value` traces hold rates, true ones in `customdata`.

    Raises:
        InputError: missing columns or no rows.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_detector_battery
        >>> rows = pd.DataFrame({"method": ["study", "calibrated"], "value": [45.0, 1.1]})
        >>> figure = plot_detector_battery(rows.assign(series="drift", metric="false_positives"))
        >>> [trace.name for trace in figure.data if trace.meta == "value"]
        ['study', 'calibrated']
    """
    rows = plain_rows(frame, ("method", "series", "metric", "value"), fix=_FIX)
    methods = list(dict.fromkeys(rows["method"].astype(str)))
    if "kind" not in rows.columns:
        rows["kind"] = np.where(rows["metric"] == "recall", "planted", "null")
    of = {key: (rows["metric"] == key[0]) & (rows["kind"] == key[1]) for key in _PANELS}
    own = {key: rows.loc[chosen] for key, chosen in of.items() if chosen.any()}
    shown = list(own)
    if not shown:
        raise InputError(
            expected='rows of "false_positives" or "recall"',
            got=f"{sorted(set(rows['metric']))}",
            fix=_FIX,
        )
    kinds = {name: list(dict.fromkeys(own[name]["series"].astype(str))) for name in shown}
    labels = {name: [condition_name(kind) for kind in kinds[name]] for name in shown}
    entries = _legend(methods, accepted)
    said = [str(entry.name) for entry in entries]
    slot = max(24, 13 * len(methods) + 8)
    heights = [slot * len(kinds[name]) + 16 for name in shown]
    left = label_width([label for each in labels.values() for label in each])
    panels = Panels(
        titles=[_PANELS[name][0] for name in shown],
        columns=1,
        height=max(heights),
        narrow_height=max(heights),
        shares=[height / max(heights) for height in heights],
        gap=76,
        legend_lines=legend_lines(said, width=900 - left),
        narrow_legend_lines=legend_lines(said, width=230),
        left=left,
    )
    figure = panels.figure(
        title="Rules for jumps, tested",
        x_title="",
        y_titles=[""] * len(shown),
        alt=_alt(own, methods, accepted),
        note=f"Filled: at most {accepted:g} false positives per 1,000 points. "
        f"Rates below {FLOOR:g} are drawn at {FLOOR:g}; true values are in the hover text.",
    )
    for i, name in enumerate(shown):
        cuts = range(1, len(kinds[name]))
        name_rows(figure, panels, labels[name], index=i, cuts=tuple(cuts))
        name_axis(figure, panels, _PANELS[name][1], index=i)
        figure.update_layout({panels.axis("x", i): _axis(rows, name[0], accepted)})
        if name[0] == "false_positives":
            look = {"color": MUTED, "width": 1.5, "dash": "dash"}
            mark_level(figure, panels, i, at=float(accepted), look=look, name="accepted")
        for j, method in enumerate(methods):
            offset = (j - (len(methods) - 1) / 2) * 0.76 / max(len(methods), 1)
            trace = _points(own[name], method, j, kinds[name], name[0], offset, accepted)
            figure.add_trace(trace.update(panels.names(i)))
    fit_names(figure)
    return figure.add_traces(entries)


def _points(
    own: Any,
    method: str,
    index: int,
    kinds: list[str],
    name: str,
    offset: float | int,
    accepted: float | int,
) -> go.Scatter:
    part = own.loc[own["method"].astype(str) == method]
    part = one_row_each(part.assign(series=part["series"].astype(str)), "series", kinds, fix=_FIX)
    value, low, high = (number(part, column) for column in ("value", "low", "high"))
    is_rate = name == "false_positives"
    colour, symbol, _ = category(index)
    filled = (value <= accepted) | (not is_rate)
    x = np.maximum(value, FLOOR) if is_rate else value
    ends: dict[str, Any] = {}
    if np.isfinite(low).any():
        least = np.maximum(low, FLOOR) if is_rate else low
        ends["error_x"] = {
            "type": "data",
            "symmetric": False,
            "array": np.nan_to_num(np.maximum(high, x) - x),
            "arrayminus": np.nan_to_num(x - least),
            "color": colour,
            "thickness": 1.2,
            "width": 3,
        }
    unit = "per 1,000 points" if is_rate else "found"
    return go.Scatter(
        x=x,
        y=np.arange(len(kinds)) + offset,
        customdata=value,
        text=[f"{condition_name(method)} on {condition_name(kind)}" for kind in kinds],
        mode="markers",
        marker={
            "symbol": symbol,
            "size": 8,
            "color": [colour if each else PAPER for each in filled],
            "line": {"color": colour, "width": 1.6},
        },
        hovertemplate=f"%{{text}}<br>%{{customdata:.3g}} {unit}<extra></extra>",
        name=method,
        meta="value",
        showlegend=False,
        **ends,
    )


def _axis(rows: Any, name: str, accepted: float | int) -> dict:
    """The axis of a panel; those of rates are alike, so that the line stands in one place."""
    if name == "recall":
        return {"range": [-0.03, 1.03], "nticks": 6}
    rates = rows.loc[rows["metric"] == name]
    top = max(10.0, 2 * accepted, 1.3 * float(np.nanmax([*rates["value"], *number(rates, "high")])))
    ticks = [FLOOR, 0.3, 1, 3, 10, 30, 100, 300, 1000]
    shown = [tick for tick in ticks if tick <= top]
    return {
        "type": "log",
        "range": [float(np.log10(FLOOR)) - 0.06, float(np.log10(top))],
        "tickmode": "array",
        "tickvals": shown,
        "ticktext": [f"≤ {FLOOR:g}", *(f"{tick:g}" for tick in shown[1:])],
    }


def _legend(methods: list[str], accepted: float | int) -> list[go.Scatter]:
    entries: list[dict] = []
    for i, method in enumerate(methods):
        colour, symbol, _ = category(i)
        marker = {"symbol": symbol, "size": 8, "color": colour}
        entries.append({"mode": "markers", "marker": marker, "name": condition_name(method)})
    look = {"color": MUTED, "width": 1.5, "dash": "dash"}
    entries.append({"mode": "lines", "line": look, "name": f"accepted: {accepted:g}"})
    return [go.Scatter(x=[None], y=[None], meta="legend", **entry) for entry in entries]


def _alt(own: dict[tuple[str, str], Any], methods: list[str], accepted: float | int) -> str:
    said = []
    for method in methods:
        words = []
        for (metric, _), rows in own.items():
            value = rows.loc[rows["method"].astype(str) == method, "value"].dropna()
            if len(value):
                kind = "recall" if metric == "recall" else "false positives on such"
                words.append(f"{kind} {value.min():.3g} to {value.max():.3g}")
        said.append(f"{condition_name(method)}: {', '.join(words) or 'no value'}")
    panels = ", ".join(_PANELS[key][0].lower() for key in own)
    return (
        f"Points of {panels}, with a line at {accepted:g} false positives per 1,000 points. "
        f"{'; '.join(said)}."
    )
