"""Values with intervals, one row each, in front of what their null gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go

from headspec.plots.jump_rows import named, number
from headspec.plots.palette import AXIS, MUTED, NULL_BAND, NULL_MEAN, PAPER, VALUE
from headspec.plots.panels import Panels, legend_lines
from headspec.plots.row_panels import (
    interval_points,
    label_width,
    mark_level,
    name_axis,
    name_rows,
)
from headspec.plots.window import swatch

_ROW, _GAP = 26, 16


@dataclass(frozen=True)
class RowWords:
    """What a figure of rows says.

    Attributes:
        title: of the figure.
        note: how to read it, sentences that end with a full stop.
        alt: what kind of figure it is, a sentence.
        x_titles: name and unit of each panel's axis.
        panel_titles: of each panel.
        filled, hollow: legend entries of points whose row is clear, and of the others.
        null: legend entry of the band behind.
        level: legend entry of the line down the panels.
        unit: after values in hover texts.
        extra: columns that hover texts name too.
    """

    title: str
    note: str
    alt: str
    x_titles: Sequence[str]
    panel_titles: Sequence[str]
    filled: str = "interval excludes 0"
    hollow: str = "interval holds 0"
    null: str = "null"
    level: str = ""
    unit: str = ""
    extra: Sequence[str] = ()


@dataclass(frozen=True)
class RowPart:
    """The rows of one panel.

    Attributes:
        rows: with `value`, optional `low high null_mean null_sd null_low null_high p n`.
        labels: name of each row.
        clear: whether each row's point is filled.
        dots: rows of single seeds, with `row` (place) and `value`.
        cuts: rows before which a thin line lies.
    """

    rows: Any
    labels: Sequence[str]
    clear: np.ndarray
    dots: Any = None
    cuts: Sequence[int] = field(default_factory=tuple)


def draw_rows(
    parts: Sequence[RowPart],
    words: RowWords,
    *,
    level: float | int | None = 0.0,
    stacked: bool = False,
    span: tuple[Any, Any] | None = None,
) -> go.Figure:
    """Points with intervals, one row a name, nulls behind.

    Args:
        parts: the panels.
        words: titles and legend.
        level: where a line goes down every panel; None: nowhere.
        stacked: whether panels have rows of their own and lie below each other; else they share
            the names of the rows and lie side by side.
        span: ends of the axes; None: of all that a panel has.
    """
    every = [label for part in parts for label in part.labels]
    heights = [_ROW * len(part.labels) + _GAP for part in parts]
    columns = 1 if stacked else min(3 if len(parts) in (3, 5, 6) else 2, len(parts))
    entries = _legend(parts, words, level)
    said = [str(entry.name) for entry in entries]
    panels = Panels(
        titles=words.panel_titles,
        columns=columns,
        height=max(heights),
        narrow_height=round(1.25 * max(heights)),
        shares=[height / max(heights) for height in heights] if stacked else None,
        gap=72,
        gap_share=0.05,
        legend_lines=legend_lines(said, width=900 - label_width(every)),
        narrow_legend_lines=legend_lines(said, width=230),
        left=label_width(every),
    )
    figure = panels.figure(
        title=words.title,
        x_title="",
        y_titles=[""] * len(parts),
        alt=words.alt,
        note=words.note,
    )
    for i, part in enumerate(parts):
        name_rows(figure, panels, part.labels, index=i, cuts=part.cuts)
        name_axis(figure, panels, words.x_titles[i], index=i)
        ends = _span(part, level) if span is None else span
        look = {"nticks": 6, "tickangle": 0, "range": list(ends)}
        figure.update_layout({panels.axis("x", i): look})
        if level is not None:
            dashed = "dash" if words.level else "solid"
            line = {"color": MUTED if words.level else AXIS, "width": 1.5, "dash": dashed}
            mark_level(figure, panels, i, at=float(level), look=line, name="level")
        traces = [*_null(part), *_dots(part), _points(part, words)]
        figure.add_traces([trace.update(panels.names(i)) for trace in traces])
    fit_names(figure)
    return figure.add_traces(entries)


def fit_names(figure: go.Figure) -> None:
    """Room for the names of all rows on a phone, where the panels have rows of their own."""
    layout: Any = figure.layout
    narrow = layout["meta"]["headspec"]["narrow"]
    axes = [part for key, part in narrow.items() if key.startswith("yaxis")]
    names = [text for axis in axes for text in axis.get("ticktext", ())]
    lines = [line for name in names for line in name.split("<br>")]
    narrow["margin"]["l"] = label_width(lines)


def _span(part: RowPart, level: float | int | None) -> tuple[float, float]:
    """Ends of an axis with room around all that is drawn."""
    drawn = [number(part.rows, name) for name in ("value", "low", "high", "null_mean")]
    drawn += [*null_ends(part.rows), np.array([np.nan if level is None else level])]
    if part.dots is not None:
        drawn.append(part.dots["value"].to_numpy(float))
    every = np.concatenate(drawn)
    every = every[np.isfinite(every)]
    low, high = (every.min(), every.max()) if every.size else (0.0, 1.0)
    pad = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    return float(low - pad), float(high + pad)


def null_ends(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Ends of each row's null: `null_low` and `null_high`, else two sd about `null_mean`."""
    low, high = number(rows, "null_low"), number(rows, "null_high")
    mean, sd = number(rows, "null_mean"), number(rows, "null_sd")
    return np.where(np.isnan(low), mean - 2 * sd, low), np.where(
        np.isnan(high), mean + 2 * sd, high
    )


def _null(part: RowPart) -> list[go.Scatter]:
    low, high = null_ends(part.rows)
    mean = number(part.rows, "null_mean")
    place = np.arange(len(part.rows), dtype=float)
    gap = np.full(len(mean), np.nan)
    traces = []
    if np.isfinite(low).any():
        traces.append(
            go.Scatter(
                x=np.stack([low, high, gap], axis=-1).ravel(),
                y=np.repeat(place, 3),
                mode="lines",
                line={"color": NULL_BAND, "width": 15},
                hoverinfo="skip",
                connectgaps=False,
                name="null",
                meta="null band",
                showlegend=False,
            )
        )
    if np.isfinite(mean).any():
        traces.append(
            go.Scatter(
                x=mean,
                y=place,
                mode="markers",
                marker={
                    "symbol": "line-ns-open",
                    "size": 15,
                    "color": NULL_MEAN,
                    "line": {"width": 2, "color": NULL_MEAN},
                },
                text=list(part.labels),
                hovertemplate="%{text}<br>null: %{x:.3g}<extra></extra>",
                name="null mean",
                meta="null mean",
                showlegend=False,
            )
        )
    return traces


def _dots(part: RowPart) -> list[go.Scatter]:
    """Single seeds, small and behind."""
    if part.dots is None or part.dots.empty:
        return []
    row = part.dots["row"].to_numpy(float)
    seeds = [named(seed) for seed in part.dots["seed"]]
    return [
        go.Scatter(
            x=part.dots["value"].to_numpy(float),
            y=row,
            text=[f"{part.labels[int(r)]} · seed {s}" for r, s in zip(row, seeds, strict=True)],
            mode="markers",
            marker={"color": MUTED, "size": 5, "opacity": 0.7},
            hovertemplate="%{text}<br>%{x:.3g}<extra></extra>",
            name="one seed",
            meta="seed",
            showlegend=False,
        )
    ]


def _points(part: RowPart, words: RowWords) -> go.Scatter:
    rows = part.rows
    held = {name: number(rows, name) for name in (*words.extra, "p", "q")}
    n = number(rows, "n")
    text = [
        label
        + "".join(f"<br>{name} = {v[i]:.3g}" for name, v in held.items() if np.isfinite(v[i]))
        + (f"<br>n = {n[i]:,.0f}" if np.isfinite(n[i]) else "")
        for i, label in enumerate(part.labels)
    ]
    low, high = number(rows, "low"), number(rows, "high")
    interval = " (%{customdata[0]:.3g} to %{customdata[1]:.3g})" if np.isfinite(low).any() else ""
    trace = interval_points(
        number(rows, "value"),
        low,
        high,
        text=text,
        hovertemplate=f"%{{text}}<br>%{{x:.3g}} {words.unit}{interval}<extra></extra>",
    )
    colours = [VALUE if each else PAPER for each in part.clear]
    return trace.update(marker={"color": colours}, name="value", meta="value")


def _legend(
    parts: Sequence[RowPart], words: RowWords, level: float | int | None
) -> list[go.Scatter]:
    line = {"color": VALUE, "width": 1.6}
    filled, hollow = ({"color": colour, "size": 9, "line": line} for colour in (VALUE, PAPER))
    known = [np.isfinite(number(part.rows, "value")) for part in parts]
    entries = []
    if any((part.clear & there).any() for part, there in zip(parts, known, strict=True)):
        entries.append({"mode": "markers", "marker": filled, "name": words.filled})
    if any((~part.clear & there).any() for part, there in zip(parts, known, strict=True)):
        entries.append({"mode": "markers", "marker": hollow, "name": words.hollow})
    if any(part.dots is not None and len(part.dots) for part in parts):
        dot = {"color": MUTED, "size": 5}
        entries.append({"mode": "markers", "marker": dot, "name": "one seed"})
    if any(np.isfinite(null_ends(part.rows)[0]).any() for part in parts):
        entries.append({"mode": "markers", "marker": swatch(NULL_BAND), "name": words.null})
    elif any(np.isfinite(number(part.rows, "null_mean")).any() for part in parts):
        mark = {"symbol": "line-ns-open", "size": 12, "color": NULL_MEAN}
        mark["line"] = {"width": 2, "color": NULL_MEAN}
        entries.append({"mode": "markers", "marker": mark, "name": words.null})
    if words.level and level is not None:
        dashed = {"color": MUTED, "width": 1.5, "dash": "dash"}
        entries.append({"mode": "lines", "line": dashed, "name": words.level})
    return [go.Scatter(x=[None], y=[None], meta="legend", **entry) for entry in entries]


def said_rows(part: RowPart) -> str:
    """Rows in words: `conv 1.2 (0.8 to 1.6) against 0.5`."""
    rows = part.rows
    value, low, high = (number(rows, name) for name in ("value", "low", "high"))
    null = number(rows, "null_mean")
    said = []
    for i, label in enumerate(part.labels):
        if not np.isfinite(value[i]):
            continue
        words = f"{label} {value[i]:.3g}"
        if np.isfinite(low[i]):
            words += f" ({low[i]:.3g} to {high[i]:.3g})"
        said.append(words + (f" against {null[i]:.3g}" if np.isfinite(null[i]) else ""))
    return ", ".join(said) or "no value"
