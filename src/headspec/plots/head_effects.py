"""Effects of interventions: heads as a heat map, sets of heads as points with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from headspec.interventions.effects import HeadEffects
from headspec.plots.effect_whiskers import plot_effect_whiskers
from headspec.plots.effect_words import EffectNumbers, effect_numbers, said_of
from headspec.plots.palette import BLANK, INK, PAPER, diverging_axis
from headspec.plots.panels import Panels


def plot_head_effects(
    effects: HeadEffects, *, normalized: bool = False, most: int = 40, title: str | None = None
) -> go.Figure:
    """How a metric changes when heads are intervened on.

    Single heads: a map of layers by heads, blue where the metric falls and orange where it rises,
    on one scale that is symmetric about 0. Taken position by position: a panel a layer, heads by
    positions (sites of whole layers: one map, layers by positions). A dot marks an effect whose
    interval excludes 0. Sets of heads, and layers without positions, are points with their
    intervals, one row each, in the order given.

    What it does not show: effects of heads do not add up, and a pale head may be one whose work
    others take over. Of many intervals some exclude 0 by chance; the caption says how many.

    Args:
        effects: of `patch_heads`, `ablate_heads` or any other intervention on heads.
        normalized: show effects as shares of the gap between the runs of a pair of prompts.
        title: what was done, on which task; None: which metric it is.
        most: of sets of heads, how many to show: those with the largest effects.

    Returns:
        A figure; `customdata` of a cell or point holds the ends of its interval.

    Raises:
        InputError: for normalised effects where there is no pair, or no clear gap.
    """
    numbers = effect_numbers(effects, normalized=normalized, title=title)
    if effects.kind == "set" or (effects.kind == "layer" and not effects.by_position):
        return plot_effect_whiskers(effects, numbers, most=most)
    maps = _maps(effects, numbers)
    rows = max(len(each.rows) for each in maps)
    columns = min(2, len(maps))
    panels = Panels(
        titles=[each.title for each in maps],
        columns=columns,
        height=max(110, (34 if rows <= 8 else 24 if columns == 1 else 21) * rows),
        narrow_height=max(110, 20 * rows),
        gap=66,
        gap_share=0.08,
        legend_lines=0,
        narrow_legend_lines=0,
        footer=70,
        bar=True,
        left=48,
        share_y=True,
    )
    figure = panels.figure(
        title=numbers.title,
        x_title=maps[0].x_title,
        y_titles=[each.y_title for each in maps],
        alt=f"Heat map of effects. {said_of(effects, numbers)}",
        note=numbers.note + " " + _dots_words(numbers),
    )
    for i, each in enumerate(maps):
        figure.add_trace(_heatmap(each, numbers).update(panels.names(i)))
        figure.add_trace(_dots(each).update(panels.names(i)))
        figure.update_layout(
            {
                panels.axis("x", i): _ticks(each.columns, most=16),
                panels.axis("y", i): _ticks(each.rows, most=24),
            }
        )
    largest = float(np.nanmax(np.abs(numbers.values), initial=0.0)) or 1.0
    return figure.update_layout(
        plot_bgcolor=BLANK,
        coloraxis=diverging_axis(largest, title=numbers.axis, below=panels.below()),
    )


@dataclass(frozen=True)
class _Map:
    """One panel: values and ends of their intervals, `3 row column`, with labels."""

    numbers: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    names: Sequence[Sequence[str]]
    title: str
    x_title: str
    y_title: str


def _maps(effects: HeadEffects, numbers: EffectNumbers) -> list[_Map]:
    """Layers by heads; a panel a layer of heads by positions; or layers by positions."""
    parts = (numbers.values, numbers.low, numbers.high)
    shaped = np.stack([effects.shaped(each) for each in parts])
    layers = [str(layer) for layer in range(effects.n_layers)]
    heads = [str(head) for head in range(effects.n_heads)]
    places = list(dict.fromkeys(effects.positions))
    dots = "● interval excludes 0"
    if not effects.by_position:
        names = [[f"L{layer}H{head}" for head in heads] for layer in layers]
        title = dots if places == ["all"] else f"{dots} · position: {places[0]}"
        return [_Map(shaped, layers, heads, names, title, "head", "layer")]
    if effects.kind == "layer":
        names = [[f"L{layer} at {place}" for place in places] for layer in layers]
        turned = shaped.transpose(0, 2, 1)
        return [_Map(turned, layers, places, names, dots, "position", "layer")]
    measured = [layer for layer in layers if np.isfinite(shaped[0, :, int(layer)]).any()]
    return [
        _Map(
            numbers=shaped[:, :, int(layer)].transpose(0, 2, 1),
            rows=heads,
            columns=places,
            names=[[f"L{layer}H{head} at {place}" for place in places] for head in heads],
            title=f"Layer {layer}",
            x_title="position",
            y_title="head",
        )
        for layer in measured
    ]


def _heatmap(each: _Map, numbers: EffectNumbers) -> go.Heatmap:
    return go.Heatmap(
        z=each.numbers[0],
        x=list(range(len(each.columns))),
        y=list(range(len(each.rows))),
        customdata=np.stack([*each.numbers[1:]], axis=-1),
        text=each.names,
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate="%{text}<br>%{z:+.3g}" + f" {numbers.unit}" + "<br>interval "
        "%{customdata[0]:.3g} to %{customdata[1]:.3g}<extra></extra>",
        name=each.title,
        meta="effect",
    )


def _dots(each: _Map) -> go.Scatter:
    """A dot in every cell whose interval excludes 0."""
    _, low, high = each.numbers
    row, column = np.nonzero((low > 0) | (high < 0))
    return go.Scatter(
        x=column.tolist(),
        y=row.tolist(),
        mode="markers",
        marker={
            "color": INK,
            "size": 5 if low.size <= 60 else 4,
            "line": {"color": PAPER, "width": 1},
        },
        hoverinfo="skip",
        showlegend=False,
        name="interval excludes 0",
        meta="clear",
    )


def _ticks(labels: Sequence[str], *, most: int) -> dict:
    """Every label, or every second, fifth, ... where there are too many."""
    stride = next(s for s in (1, 2, 5, 10, 20, 50, 100, 500) if len(labels) <= most * s)
    shown = list(range(0, len(labels), stride))
    return {
        "tickmode": "array",
        "tickvals": shown,
        "ticktext": [labels[i] for i in shown],
        "range": [-0.5, len(labels) - 0.5],
        "showgrid": False,
        "ticks": "",
    }


def _dots_words(numbers: EffectNumbers) -> str:
    if not np.isfinite(numbers.low).any():
        return "With a single example there are no intervals."
    n = int(np.isfinite(numbers.values).sum())
    return (
        f"A dot marks an interval ({numbers.level:.0%}) that excludes 0; of {n} intervals about "
        f"{(1 - numbers.level) * n:.2g} would by chance. Grey: not measured."
    )
