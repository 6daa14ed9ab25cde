"""Figures as they were published beside the same figures computed right, on one model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.conditions import checked_rows, condition_name, has, quantity_words, single_rows
from headspec.plots.palette import INK, NULL_MEAN, NULL_RANGE, PAPER, category
from headspec.plots.panels import Panels
from headspec.plots.row_panels import label_width, mark_level, name_axis, name_rows
from headspec.plots.window import swatch

WAYS = ("published", "corrected")
_LANE = 0.17
_FIX = "Give one row for each metric, condition and way ('published', 'corrected')."


def plot_correction(frame: pd.DataFrame) -> go.Figure:
    """What was published beside what the corrected analysis gives, on the same trained models.

    One panel a quantity, one row a condition: above the published way, below the corrected one.
    The short grey stroke in a lane is that way's own baseline: the value without anything learnt
    (uniform attention under the same mask, the largest class). Beyond the ceiling, where there is
    one, no causal model can be: shaded.

    What it does not show: which of several corrections moved a point; and a point at its baseline
    in the corrected way can still have been trained to be there.

    Args:
        frame: rows with `metric`, `condition`, `way`, `value`; optional `low`, `high`, `null_mean`
            (that way's baseline), `ceiling`. Several seeds: give their means with intervals.

    Returns:
        A figure with one panel a quantity.

    Raises:
        InputError: missing columns, another way, or several rows of one.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_correction
        >>> rows = pd.DataFrame({"way": ["published", "corrected"], "value": [6.2, 4.1]})
        >>> figure = plot_correction(rows.assign(metric="entropy", condition="mha", ceiling=5.246))
        >>> [trace.x.tolist() for trace in figure.data[1:3]]
        [[6.2], [4.1]]
    """
    rows = _rows(frame)
    quantities = list(dict.fromkeys(rows["metric"].astype(str)))
    conditions = list(dict.fromkeys(rows["condition"].astype(str)))
    labels = [condition_name(name) for name in conditions]
    panels = Panels(
        titles=[quantity_words(name)[0] for name in quantities],
        columns=min(2, len(quantities)),
        height=24 + 36 * len(conditions),
        narrow_height=24 + 36 * len(conditions),
        gap=74,
        gap_share=0.06,
        legend_lines=1,
        narrow_legend_lines=4,
        left=label_width(labels),
    )
    figure = panels.figure(
        title="Published and corrected",
        x_title="",
        y_titles=[""] * len(quantities),
        alt=_alt(rows, quantities),
        note="Grey strokes: what each way gives without anything learnt. Shaded: beyond what a "
        "causal model can reach. Panels have axes of their own.",
    )
    for i, quantity in enumerate(quantities):
        part = rows.loc[rows["metric"] == quantity]
        name_rows(figure, panels, labels, index=i, cuts=range(1, len(labels)))
        span = _span(part)
        figure.update_layout({panels.axis("x", i): {"range": span, "nticks": 6}})
        name_axis(figure, panels, quantity_words(quantity)[1], index=i)
        _ceiling(figure, panels, i, part, span)
        figure.add_trace(_baselines(part, conditions).update(panels.names(i)))
        for way in WAYS:
            trace = _points(part, conditions, way, unit=quantity_words(quantity)[1], listed=i == 0)
            figure.add_trace(trace.update(panels.names(i)))
    return figure.add_traces(_legend(rows)).update_layout(legend={"tracegroupgap": 0})


def _rows(frame: pd.DataFrame) -> pd.DataFrame:
    rows = checked_rows(frame, ("metric", "condition", "way", "value"), fix=_FIX)
    unknown = sorted(set(rows["way"].astype(str)) - set(WAYS))
    if unknown:
        raise InputError(expected=f"ways out of {', '.join(WAYS)}", got=f"{unknown}", fix=_FIX)
    rows = rows.drop(columns="seed", errors="ignore")
    single_rows(rows, ["metric", "condition", "way"], fix=_FIX)
    extra = dict.fromkeys(("low", "high", "null_mean", "ceiling"), np.nan)
    return rows.assign(**{name: x for name, x in extra.items() if name not in rows.columns})


def _lane(part: pd.DataFrame, conditions: list[str]) -> np.ndarray:
    """Where the rows of a frame stand: published above, corrected below."""
    row = [conditions.index(str(name)) for name in part["condition"]]
    return np.array(row) + np.where(part["way"] == WAYS[0], -_LANE, _LANE)


def _span(part: pd.DataFrame) -> list[float]:
    every = part[["value", "low", "high", "null_mean", "ceiling"]].to_numpy(float)
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    pad = 0.07 * ((high - low) or abs(high) or 1.0)
    return [low - pad, high + pad]


def _ceiling(
    figure: go.Figure, panels: Panels, index: int, part: pd.DataFrame, span: list[float]
) -> None:
    """The most that a causal model can have, the area beyond it shaded."""
    levels = part["ceiling"].dropna().to_numpy(float)
    if not len(levels):
        return
    at, names = float(levels.max()), panels.names(index)
    at_edge = at > span[0] + 0.7 * (span[1] - span[0])
    look = {"color": INK, "width": 1.2, "dash": "dash"}
    mark_level(figure, panels, index, at=at, look=look, name="ceiling")
    figure.add_shape(
        type="rect",
        xref=names["xaxis"],
        yref=f"{names['yaxis']} domain",
        x0=at,
        x1=span[1],
        y0=0,
        y1=1,
        fillcolor=NULL_RANGE,
        line={"width": 0},
        layer="below",
        name="beyond",
    )
    figure.add_annotation(
        text=f"ceiling {at:.3g}",
        xref=names["xaxis"],
        yref=f"{names['yaxis']} domain",
        x=at,
        y=0,
        xanchor="right" if at_edge else "left",
        yanchor="bottom",
        showarrow=False,
        font={"size": 11, "color": INK},
    )


def _baselines(part: pd.DataFrame, conditions: list[str]) -> go.Scatter:
    """A stroke in the lane of each way at its own baseline."""
    there = part.dropna(subset=["null_mean"])
    y, x = _lane(there, conditions), there["null_mean"].to_numpy(float)
    gap = np.full(len(there), np.nan)
    tall = _LANE - 0.01
    return go.Scatter(
        x=np.stack([x, x, gap], axis=-1).ravel(),
        y=np.stack([y - tall, y + tall, gap], axis=-1).ravel(),
        mode="lines",
        line={"color": NULL_MEAN, "width": 3},
        hovertemplate="baseline %{x:.3g}<extra></extra>",
        connectgaps=False,
        name="baseline",
        meta="baseline",
        showlegend=False,
    )


def _points(
    part: pd.DataFrame, conditions: list[str], way: str, *, unit: str, listed: bool
) -> go.Scatter:
    rows = part.loc[part["way"] == way]
    value, low, high = (rows[name].to_numpy(float) for name in ("value", "low", "high"))
    colour, symbol = _look(way)
    bars = {
        "type": "data",
        "symmetric": False,
        "array": high - value,
        "arrayminus": value - low,
        "color": colour,
        "thickness": 1.4,
        "width": 3,
    }
    return go.Scatter(
        x=value,
        y=_lane(rows, conditions),
        customdata=np.stack([rows["null_mean"].to_numpy(float)], axis=-1),
        text=[condition_name(name) for name in rows["condition"]],
        mode="markers",
        marker={
            "color": PAPER if way == WAYS[0] else colour,
            "symbol": symbol,
            "size": 9,
            "line": {"color": colour, "width": 1.8},
        },
        hovertemplate=f"%{{text}}, {way}<br>%{{x:.4g}} {unit}, baseline %{{customdata[0]:.4g}}"
        "<extra></extra>",
        name=way,
        legendgroup=way,
        meta="value",
        showlegend=listed,
        **({"error_x": bars} if np.isfinite(low).any() else {}),
    )


def _look(way: str) -> tuple[str, str]:
    """Colour and symbol: published hollow and orange, corrected blue."""
    colour, symbol, _ = category(1 if way == WAYS[0] else 0)
    return colour, symbol


def _legend(rows: pd.DataFrame) -> list[go.Scatter]:
    entries = []
    if has(rows, "null_mean"):
        marker = {"symbol": "line-ns", "size": 12, "line": {"color": NULL_MEAN, "width": 3}}
        entries.append((marker, "its baseline, nothing learnt"))
    if has(rows, "ceiling"):
        entries.append((swatch(NULL_RANGE), "beyond any causal model"))
    return [
        go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=words, meta="legend")
        for marker, words in entries
    ]


def _alt(rows: pd.DataFrame, quantities: list[str]) -> str:
    said = []
    for quantity in quantities:
        part = rows.loc[rows["metric"] == quantity]
        each = []
        for name, both in part.groupby("condition", sort=False):
            words = [
                f"{row['way']} {row['value']:.3g}"
                + ("" if np.isnan(row["null_mean"]) else f" (baseline {row['null_mean']:.3g})")
                for row in both.to_dict("records")
            ]
            each.append(f"{condition_name(str(name))} {', '.join(words)}")
        said.append(f"{quantity_words(quantity)[0]}: {'; '.join(each)}")
    return f"Dots as published and as corrected. {'. '.join(said)}."
