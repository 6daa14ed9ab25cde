"""Even minus odd beside the same difference of every other split, at single steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import check_choice
from headspec.plots.frames import layer_rows, metric_rows, number_column, p_column, whose
from headspec.plots.palette import BLANK, VALUE
from headspec.plots.panels import Panels
from headspec.plots.parity import SCALES, as_large
from headspec.plots.steps import choose_steps, short_number
from headspec.plots.window import swatch

BINS = 41
MOST = 6


def plot_parity_null(
    frame: pd.DataFrame,
    *,
    layer: int,
    metric: Literal["strength", "graded_strength"] = "strength",
    steps: Sequence[int] | None = None,
) -> go.Figure:
    """Histograms of the strength of all splits, with even minus odd marked, step by step.

    Every split comes up twice, with either half named first, so that a histogram is symmetric
    about 0. Even minus odd is a line in full, odd minus even a dashed one: the p-value is the
    share of splits at or beyond them. Panels have axes of their own.

    What it does not show: which splits lie outside; they differ from step to step.

    Args:
        frame: tidy frame of a sweep with `ParityMeasure`.
        layer: the layer to show.
        metric: `"strength"` (success) or `"graded_strength"`.
        steps: which; None: at most six, evenly spread, the last among them.

    Returns:
        A figure with one panel a step.

    Raises:
        InputError: for a layer, step or metric that the frame lacks.
    """
    check_choice("metric", metric, tuple(scale.strength for scale in SCALES))
    scale = next(scale for scale in SCALES if scale.strength == metric)
    rows = layer_rows(frame, layer)
    observed = metric_rows(rows, scale.strength).set_index("step")
    splits = rows.loc[rows["metric"] == scale.split]
    chosen = choose_steps(splits["step"].tolist(), steps, most=MOST)
    which, _ = p_column(observed)
    panels = Panels(
        titles=[_panel_title(observed.loc[step], step, which) for step in chosen],
        columns=min(3, len(chosen)),
        height=190,
        gap=84,
        gap_share=0.07,
        legend_lines=1,
        narrow_legend_lines=2,
        share_y=True,
    )
    figure = panels.figure(
        title=f"{scale.title}: even minus odd among all splits, layer {layer}{whose(rows)}",
        x_title=f"difference in {scale.unit}",
        y_titles=["sets of heads"] * len(chosen),
        alt=_alt(observed.loc[chosen], layer=layer, unit=scale.unit),
        note="Grey: every set of half the heads, restored, minus the other half restored. Line: "
        "even minus odd; dashed: odd minus even. Panels have axes of their own.",
    )
    for i, step in enumerate(chosen):
        here = splits.loc[splits["step"] == step, "value"].to_numpy(float)
        n = number_column(observed.loc[[step]], "n")
        grid = 1 / n[0] if n is not None and metric == "strength" else None
        counts, edges = histogram(np.concatenate([here, -here]), grid=grid)
        value = float(observed.loc[step, "value"])  # pyright: ignore[reportArgumentType]
        figure.add_trace(_bars(counts, edges).update(panels.names(i)))
        figure.add_traces([t.update(panels.names(i)) for t in _marks(value, float(counts.max()))])
        ends = {"nticks": 5, "range": [1.08 * edges[0], 1.08 * edges[-1]]}
        figure.update_layout({panels.axis("x", i): ends, panels.axis("y", i): {"nticks": 4}})
    figure.add_traces(_legend())
    return figure.update_layout(bargap=0, barmode="overlay")


def histogram(values: np.ndarray, *, grid: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Counts and edges of about `BINS` bins, one of them centred on 0.

    Args:
        values: symmetric about 0.
        grid: values are multiples of this: bins hold equally many of them, or they would alias.
    """
    limit = float(np.abs(values).max()) or 1.0
    width = 2 * limit / (BINS - 1)
    if grid is not None:
        width = max(1, round(width / grid) | 1) * grid  # an odd number of values a bin
    places = np.sign(values) * np.floor(np.abs(values) / width + 0.5 - 1e-9)  # edges inwards
    n = int(np.abs(places).max())
    counts = np.bincount((places + n).astype(int), minlength=2 * n + 1)
    return counts, (np.arange(2 * n + 2) - n - 0.5) * width


def _bars(counts: np.ndarray, edges: np.ndarray) -> go.Bar:
    return go.Bar(
        x=(edges[1:] + edges[:-1]) / 2,
        y=counts,
        width=np.diff(edges),
        marker={"color": BLANK, "line": {"width": 0}},
        hovertemplate="%{x:+.3g}: %{y} sets<extra></extra>",
        name="all splits",
        meta="null",
        showlegend=False,
    )


def _marks(value: float, top: float) -> list[go.Scatter]:
    """Even minus odd as a line, and its mirror image dashed."""
    return [
        go.Scatter(
            x=[x, x],
            y=[0, 1.06 * top],
            mode="lines",
            line={"color": VALUE, "width": width, "dash": dash},
            hovertemplate=f"{words} {x:+.3g}<extra></extra>",
            name=words,
            meta=role,
            showlegend=False,
        )
        for x, words, role, width, dash in (
            (-value, "odd minus even", "mirror", 1.5, "dot"),
            (value, "even minus odd", "value", 3, "solid"),
        )
    ]


def _legend() -> list[go.Scatter]:
    entries: list[dict] = [
        {"mode": "lines", "line": {"color": VALUE, "width": 3}, "name": "even minus odd"},
        {
            "mode": "lines",
            "line": {"color": VALUE, "width": 1.5, "dash": "dot"},
            "name": "odd minus even",
        },
        {"mode": "markers", "marker": swatch(BLANK), "name": "every split, both ways round"},
    ]
    return [go.Scatter(x=[None], y=[None], meta="legend", **entry) for entry in entries]


def _panel_title(row: pd.Series, step: int, which: str) -> str:
    """The step, and how many splits differ as much as even and odd."""
    many = as_large(row)
    return f"Step {short_number(step)}: {many}{', ' * bool(many)}{which} = {row[which]:.2g}"


def _alt(observed: pd.DataFrame, *, layer: int, unit: str) -> str:
    words = f"Histograms of the strengths of all splits of layer {layer}, with even minus odd: "
    each = [
        f"{row['value']:+.3g} ({unit}) at step {int(str(step))}, p = {row['p']:.2g}"
        for step, row in observed.iterrows()
    ]
    return words + "; ".join(each) + "."
