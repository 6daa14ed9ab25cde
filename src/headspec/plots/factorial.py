"""Main effects and interactions of a factorial design, with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.conditions import checked_rows, condition_name, has, quantity_words, single_rows
from headspec.plots.palette import AXIS, NULL_BAND, PAPER, VALUE
from headspec.plots.panels import Panels
from headspec.plots.row_panels import (
    interval_points,
    label_width,
    mark_level,
    name_axis,
    name_rows,
)
from headspec.plots.window import swatch

_FIX = "Give the frame of `factorial_effects(...)`, one row for each quantity and effect."


def plot_factorial_effects(frame: pd.DataFrame) -> go.Figure:
    """Effects of the factors of a design and of their combinations, one panel a quantity.

    Rows: main effects, then interactions of two, three, ... factors. A point is filled where its
    interval excludes 0. Where the frame has a null (`null_mean`, `null_sd`), two of its standard
    deviations lie behind. Panels have axes of their own.

    What it does not show: effects in the presence of an interaction are means over the other
    factor; with few seeds an interval is wide, and one that holds 0 is not evidence of no effect.

    Args:
        frame: rows with `effect` (factors joined by `:`), `value`, `low`, `high`; optional `metric`
            (the quantity), `contrast` (what less what), `p`, `q`, `null_mean`, `null_sd`.

    Returns:
        A figure with one panel a quantity.

    Raises:
        InputError: missing columns, or several rows of one effect.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_factorial_effects
        >>> rows = pd.DataFrame({"effect": ["ordering", "ordering:position"], "value": [0.2, 0.1]})
        >>> figure = plot_factorial_effects(rows.assign(low=[0.1, -0.1], high=[0.3, 0.3]))
        >>> list(figure.layout.yaxis.ticktext)
        ['ordering', 'ordering × position']
    """
    rows = checked_rows(frame, ("effect", "value", "low", "high"), fix=_FIX)
    if "metric" not in rows.columns:
        rows = rows.assign(metric="effect")
    single_rows(rows, ["metric", "effect"], fix=_FIX)
    if not has(rows, "value"):
        raise InputError(expected="effects", got="values that are all missing", fix=_FIX)
    quantities = list(dict.fromkeys(rows["metric"].astype(str)))
    effects = sorted(dict.fromkeys(rows["effect"].astype(str)), key=lambda name: name.count(":"))
    labels = [_effect_name(effect, rows) for effect in effects]
    has_null = has(rows, "null_mean") and has(rows, "null_sd")
    panels = Panels(
        titles=[quantity_words(name)[0] for name in quantities],
        columns=min(2, len(quantities)),
        height=20 + 26 * len(effects),
        narrow_height=20 + 42 * len(effects),
        gap=74,
        gap_share=0.06,
        legend_lines=1,
        narrow_legend_lines=3,
        left=label_width(labels),
    )
    figure = panels.figure(
        title="Main effects and interactions",
        x_title="",
        y_titles=[""] * len(quantities),
        alt=_alt(rows, quantities, effects),
        note=_note(rows, has_null=has_null),
    )
    cuts = [i for i in range(1, len(effects)) if effects[i].count(":") > effects[i - 1].count(":")]
    for i, quantity in enumerate(quantities):
        part = rows.loc[rows["metric"] == quantity].set_index("effect").reindex(effects)
        name_rows(figure, panels, labels, index=i, cuts=cuts)
        mark_level(figure, panels, i, at=0.0, look={"color": AXIS, "width": 1.5}, name="zero")
        unit = quantity_words(quantity)[1]
        figure.update_layout({panels.axis("x", i): {"nticks": 6}})
        name_axis(figure, panels, f"effect ({unit})", index=i)
        if has_null:
            figure.add_trace(_null(part).update(panels.names(i)))
        figure.add_trace(_points(part, labels, unit).update(panels.names(i)))
    return figure.add_traces(_legend(has_null, whiskers=has(rows, "low")))


def _effect_name(effect: str, rows: pd.DataFrame) -> str:
    """`ordering × position`, or what is compared with what where the frame says so."""
    words = " × ".join(condition_name(factor) for factor in effect.split(":"))
    if "contrast" not in rows.columns or ":" in effect:
        return words
    said = rows.loc[rows["effect"] == effect, "contrast"].dropna()
    return f"{words}: {condition_name(said.iloc[0]).replace(' - ', ' − ')}" if len(said) else words


def _null(part: pd.DataFrame) -> go.Scatter:
    mean, sd = (part[name].to_numpy(float) for name in ("null_mean", "null_sd"))
    gap = np.full(len(part), np.nan)
    return go.Scatter(
        x=np.stack([mean - 2 * sd, mean + 2 * sd, gap], axis=-1).ravel(),
        y=np.repeat(np.arange(len(part), dtype=float), 3),
        mode="lines",
        line={"color": NULL_BAND, "width": 14},
        hoverinfo="skip",
        connectgaps=False,
        name="null",
        meta="null band",
        showlegend=False,
    )


def _points(part: pd.DataFrame, labels: list[str], unit: str) -> go.Scatter:
    value, low, high = (part[name].to_numpy(float) for name in ("value", "low", "high"))
    p = {name: part[name].to_numpy(float) for name in ("p", "q") if has(part, name)}
    text = [
        label + "".join(f"<br>{name} = {each[i]:.3g}" for name, each in p.items())
        for i, label in enumerate(labels)
    ]
    return interval_points(
        value,
        low,
        high,
        text=text,
        hovertemplate=f"%{{text}}<br>%{{x:+.3g}} {unit} (%{{customdata[0]:+.3g}} to "
        "%{customdata[1]:+.3g})<extra></extra>",
    )


def _legend(has_null: bool, *, whiskers: bool) -> list[go.Scatter]:
    line = {"color": VALUE, "width": 1.6}
    filled, hollow = ({"color": color, "size": 9, "line": line} for color in (VALUE, PAPER))
    entries = [(filled, "interval excludes 0"), (hollow, "interval holds 0")]
    if not whiskers:
        entries = [(hollow, "effect without an interval")]
    if has_null:
        entries.append((swatch(NULL_BAND), "null: mean ± 2 sd"))
    return [
        go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=words, meta="legend")
        for marker, words in entries
    ]


def _note(rows: pd.DataFrame, *, has_null: bool) -> str:
    words = "Whiskers: the intervals of the frame, over seeds."
    if not has(rows, "low"):
        return "One seed: effects have no intervals. Panels have axes of their own."
    n = {int(n) for n in rows["n"].dropna()} if "n" in rows.columns else set()
    if len(n) == 1:
        words = f"Whiskers: the intervals of the frame, over {n.pop()} seeds."
    return words + " Grey: the null." * has_null + " Panels have axes of their own."


def _alt(rows: pd.DataFrame, quantities: list[str], effects: list[str]) -> str:
    said = []
    for quantity in quantities:
        part = rows.loc[rows["metric"] == quantity].set_index("effect").reindex(effects)
        each = [
            f"{effect.replace(':', ' by ')} {row['value']:+.3g} "
            + ("" if pd.isna(row["low"]) else f"({row['low']:+.3g} to {row['high']:+.3g})")
            for effect, row in part.dropna(subset=["value"]).iterrows()
        ]
        said.append(f"{quantity_words(quantity)[0]}: {', '.join(each) or 'no value'}")
    return f"Points with intervals of main effects and interactions. {'; '.join(said)}."
