"""A quantity of every head before and after a change, such as the removal of RoPE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    quantity_words,
    single_rows,
)
from headspec.plots.palette import AXIS, NULL_MEAN, category
from headspec.plots.panels import Panels

_BASELINES = (
    ("null_mean", "uniform causal attention", "dash"),
    ("window_baseline", "uniform over a window", "dot"),
    ("first_baseline", "the first token alone", "dashdot"),
)
_ARM = ("attention", "ordering")
_SIDE = 0.2
_FIX = "Give rows of one metric of `attention_statistics`, before and after."


def plot_attention_change(
    frame: pd.DataFrame,
    *,
    metric: str,
    change: str = "position",
    before: str = "rope",
    after: str = "drope",
    by: str | Sequence[str] | None = None,
) -> go.Figure:
    """A quantity of every head of every layer before and after a change, baselines behind.

    One panel a condition. In each layer every head is a point on the left (before) and one on the
    right (after), joined by a line. Grey lines: what attention without any content would give for
    the same labels: uniform over the past (of entropy: the most there can be), over a window, and
    the first token alone.

    What it does not show: what the change did to the model. Heads that come to lie on a baseline
    have lost what told them from it; a head far from all may still look by position alone.

    Args:
        frame: tidy rows with `layer`, `metric`, `value` and the column of the change; optional
            `head seed null_mean window_baseline first_baseline`.
        metric: such as `"entropy"`, `"within_topic_mass"`, `"topic_ratio"`.
        change: column that tells before from after.
        before, after: its values.
        by: column, or columns, whose values get a panel each; None: attention and ordering
            together where the frame has them, else one panel.

    Returns:
        A figure with one panel a condition, on one scale.

    Raises:
        InputError: missing columns, no rows of the metric on either side, or several rows for one
            head and seed.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_attention_change
        >>> rows = pd.DataFrame({"layer": [0, 0], "head": [1, 1], "value": [2.0, 4.5]})
        >>> rows = rows.assign(metric="entropy", position=["rope", "drope"])
        >>> [t.y.tolist() for t in plot_attention_change(rows, metric="entropy").data[1:3]]
        [[2.0], [4.5]]
    """
    rows = _rows(frame, metric, change, (before, after), by)
    arms = list(dict.fromkeys(rows["panel"]))
    label, unit = quantity_words(metric)
    panels = Panels(
        titles=[condition_name(arm) or label for arm in arms],
        columns=min(2, len(arms)),
        height=260,
        narrow_height=230,
        gap=62,
        gap_share=0.06,
        legend_lines=1,
        narrow_legend_lines=5,
        share_y=True,
    )
    sides = (condition_name(before), condition_name(after))
    figure = panels.figure(
        title=f"{label}, {sides[0]} and {sides[1]}",
        x_title="layer",
        y_titles=[unit] * len(arms),
        alt=_alt(rows, change, (before, after), label=label, unit=unit),
        note=f"Each point is one head{_seeds(rows)}: left {sides[0]}, right {sides[1]}, joined. "
        "Grey: what attention without content gives for the same labels.",
    )
    span = _span(rows)
    layers = rows["layer"].to_numpy(float)
    ends = [float(layers.min()) - 0.5, float(layers.max()) + 0.5]
    drawn: set[str] = set()
    for i, arm in enumerate(arms):
        part, here = rows.loc[rows["panel"] == arm], panels.names(i)
        behind = _baselines(part, ends)
        drawn |= {str(trace.name) for trace in behind}
        figure.add_traces([trace.update(here) for trace in behind])
        figure.add_trace(_joined(part, change, (before, after)).update(here))
        for side, name in enumerate((before, after)):
            points = _points(part.loc[part[change] == name], sides[side], side, listed=i == 0)
            figure.add_trace(points.update(here))
        axes = {panels.axis("x", i): in_layers(layers), panels.axis("y", i): {"range": span}}
        figure.update_layout(axes)
    return figure.add_traces(_legend(drawn)).update_layout(legend={"tracegroupgap": 0})


def _rows(
    frame: pd.DataFrame,
    metric: str,
    change: str,
    sides: tuple[str, str],
    by: str | Sequence[str] | None,
) -> pd.DataFrame:
    rows = checked_rows(frame, ("layer", "metric", "value", change), fix=_FIX)
    rows = rows.loc[(rows["metric"] == metric) & rows[change].isin(sides)]
    rows = rows.dropna(subset=["layer", "value"])
    absent = [side for side in sides if side not in set(rows[change])]
    if absent:
        raise InputError(
            expected=f"rows of {metric!r} with {change} {sides[0]!r} and {sides[1]!r}",
            got=f"none with {', '.join(map(repr, absent))}",
            fix=f"The frame has the metrics {sorted(set(frame['metric']))}. {_FIX}",
        )
    if by is None and set(_ARM) <= set(rows.columns):
        by = _ARM
    rows = rows.assign(panel="" if by is None else joined_columns(rows, by))
    if "head" not in rows.columns:
        rows = rows.assign(head=np.nan)
    if "seed" not in rows.columns:
        rows = rows.assign(seed=np.nan)
    single_rows(rows, ["panel", change, "layer", "head"], fix=_FIX)
    return rows


def _seeds(rows: pd.DataFrame) -> str:
    return " of one seed" if len(set(rows["seed"].dropna())) > 1 else ""


def _span(rows: pd.DataFrame) -> list[float]:
    """From 0 where the values are near it, to the largest value or baseline."""
    names = ["value", *(name for name, _, _ in _BASELINES if name in rows.columns)]
    every = rows[names].to_numpy(float)
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    low = 0.0 if 0 <= low < 0.5 * high else low
    pad = 0.05 * ((high - low) or abs(high) or 1.0)
    return [low - (pad if low else pad / 2), high + pad]


def _baselines(part: pd.DataFrame, ends: list[float]) -> list[go.Scatter]:
    """Baselines as lines across the layers: they depend on labels alone."""
    traces = []
    for column, words, dash in _BASELINES:
        if not has(part, column):
            continue
        by_layer = pd.DataFrame(part.groupby("layer")[[column]].mean())
        level = by_layer[column].to_numpy(float)
        flat = np.ptp(level) <= 1e-9 * max(1.0, abs(level[0]))
        traces.append(
            go.Scatter(
                x=ends if flat else by_layer.index.to_numpy(float),
                y=[level[0], level[0]] if flat else level,
                mode="lines",
                line={"color": NULL_MEAN, "width": 1.4, "dash": dash},
                hovertemplate=f"{words} %{{y:.3g}}<extra></extra>",
                name=words,
                meta="baseline",
                showlegend=False,
            )
        )
    return traces


def _joined(part: pd.DataFrame, change: str, sides: tuple[str, str]) -> go.Scatter:
    """A line for every head that is there on both sides."""
    keys = ["layer", "head", "seed"]
    one, other = (part.loc[part[change] == side, [*keys, "value"]] for side in sides)
    pairs = one.merge(other, on=keys, suffixes=("_before", "_after"))
    gap = np.full(len(pairs), np.nan)
    layer = pairs["layer"].to_numpy(float)
    ends = pairs["value_before"].to_numpy(float), pairs["value_after"].to_numpy(float)
    return go.Scatter(
        x=np.stack([layer - _SIDE, layer + _SIDE, gap], axis=-1).ravel(),
        y=np.stack([*ends, gap], axis=-1).ravel(),
        mode="lines",
        line={"color": AXIS, "width": 0.8},
        hoverinfo="skip",
        connectgaps=False,
        name="joined",
        meta="joined",
        showlegend=False,
    )


def _points(part: pd.DataFrame, words: str, side: int, *, listed: bool) -> go.Scatter:
    colour, symbol, _ = category(side)
    return go.Scatter(
        x=part["layer"].to_numpy(float) + (_SIDE if side else -_SIDE),
        y=part["value"].to_numpy(float),
        text=[_head(row) for row in part.to_dict("records")],
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 6, "opacity": 0.85},
        hovertemplate=f"%{{text}}<br>{words} %{{y:.4g}}<extra></extra>",
        name=words,
        legendgroup=words,
        meta="before" if side == 0 else "after",
        showlegend=listed,
    )


def _head(row: dict[Any, Any]) -> str:
    words = f"L{int(row['layer'])}" + ("" if row["head"] != row["head"] else f"H{int(row['head'])}")
    return words if row["seed"] != row["seed"] else f"{words}, seed {int(row['seed'])}"


def _legend(drawn: set[str]) -> list[go.Scatter]:
    return [
        go.Scatter(
            x=[None],
            y=[None],
            mode="lines",
            line={"color": NULL_MEAN, "width": 1.4, "dash": dash},
            name=words,
            meta="legend",
        )
        for _, words, dash in _BASELINES
        if words in drawn
    ]


def _alt(rows: pd.DataFrame, change: str, sides: tuple[str, str], *, label: str, unit: str) -> str:
    said = []
    for arm, part in rows.groupby("panel", sort=False):
        ends = [part.loc[part[change] == side, "value"] for side in sides]
        words = ", ".join(
            f"{condition_name(side)} from {values.min():.3g} to {values.max():.3g}"
            for side, values in zip(sides, ends, strict=True)
        )
        if has(part, "null_mean"):
            words += f", uniform causal {part['null_mean'].mean():.3g}"
        said.append(f"{condition_name(str(arm)) or 'all heads'}: {words}")
    return f"Points of {label} ({unit}) of every head by layer. {'; '.join(said)}."
