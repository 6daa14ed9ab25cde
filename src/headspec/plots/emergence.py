"""One metric in every layer at every step, as a distance from its null."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.frames import metric_rows, number_column, p_column, usable, whose
from headspec.plots.palette import BLANK, INK, PAPER, diverging_axis
from headspec.plots.panels import Panels
from headspec.plots.steps import short_number
from headspec.plots.wording import metric_words

CAP = 10.0
"""Where the colour scale ends: beyond ten standard deviations every cell looks alike."""


def plot_emergence_map(
    frame: pd.DataFrame, *, metric: str = "silhouette", alpha: float = 0.05
) -> go.Figure:
    """Layers by steps: how far a metric lies above or below its null, in the null's sd.

    A cell shows (value - null_mean) / null_sd on a scale centred on 0 that ends at
    ten at most (hover for the number); a dot marks `q` at
    most `alpha` (or `p`, where the frame has no `q`). Cells without a null stay blank. Steps are
    evenly spaced, so that widths say nothing of time.

    What it does not show: nulls are seldom normal, so that 2 standard deviations are no p-value
    (the dots are), and a deviation says nothing of the metric's size.

    Args:
        frame: tidy frame of a sweep with `null_mean` and `null_sd`.
        metric: the layer-level metric to show.
        alpha: level up to which a cell gets its dot.

    Returns:
        A heatmap; `customdata` holds value, null mean and p of each cell.

    Raises:
        InputError: for an unknown metric, or one without a null.
    """
    rows = metric_rows(
        usable(frame, ("step", "layer", "metric", "value")), metric, ("layer", "step")
    )
    mean, sd = number_column(rows, "null_mean"), number_column(rows, "null_sd")
    if mean is None or sd is None:
        raise InputError(
            expected=f"a null of {metric!r} (columns null_mean and null_sd)",
            got="none in the frame",
            fix="Show a metric that has one, or draw this one with `plot_metric_timeline`.",
        )
    which, p = p_column(rows)
    cells = rows[["layer", "step", "value"]].assign(
        excess=(rows["value"].to_numpy(dtype=float) - mean) / np.where(sd > 0, sd, np.nan),
        mean=mean,
        p=np.nan if p is None else p,
    )
    tables = {
        name: cells.pivot(index="layer", columns="step", values=name)  # noqa: PD010
        for name in ("excess", "value", "mean", "p")
    }
    excess = tables["excess"]
    layers = [int(layer) for layer in excess.index]
    steps = [short_number(int(step)) for step in excess.columns]
    title = metric_words(metric)[0]
    panels = Panels(
        titles=[f"● {which} ≤ {alpha:g}"],
        columns=1,
        height=max(120, 34 * len(layers)),
        narrow_height=max(110, 30 * len(layers)),
        legend_lines=0,
        narrow_legend_lines=0,
        footer=78,
        bar=True,
        left=48,
    )
    figure = panels.figure(
        title=f"{title} against its null, every layer{whose(rows)}",
        x_title="training step (evenly spaced)",
        y_titles=["layer"],
        alt=_alt(cells, title=title, alpha=alpha, which=which),
        note="One cell is one layer at one step: the metric minus the mean of its null, in "
        f"standard deviations of the null. A dot marks {which} at most {alpha:g}.",
    )
    largest = float(np.nanmax(np.abs(excess.to_numpy()), initial=0.0)) or 1.0
    limit = min(largest, CAP)
    figure.add_trace(_heatmap(tables, layers=layers, title=title, which=which))
    figure.add_trace(_dots(tables["p"], layers=layers, alpha=alpha))
    figure.update_layout(
        plot_bgcolor=BLANK,
        coloraxis=diverging_axis(
            limit,
            title="standard deviations above the null",
            below=panels.below(),
            capped=largest > CAP,
        ),
        xaxis={
            "tickmode": "array",
            "tickvals": list(range(len(steps))),
            "ticktext": steps,
            "range": [-0.5, len(steps) - 0.5],
            "showgrid": False,
        },
        yaxis={
            "tickmode": "array",
            "tickvals": layers,
            "range": [layers[0] - 0.5, layers[-1] + 0.5],
            "showgrid": False,
        },
    )
    return figure


def _heatmap(
    tables: dict[str, pd.DataFrame], *, layers: list[int], title: str, which: str
) -> go.Heatmap:
    steps = [int(step) for step in tables["excess"].columns]
    data = np.stack(
        [
            np.broadcast_to(np.array(steps, dtype=float), tables["excess"].shape),
            *(tables[name].to_numpy(dtype=float) for name in ("value", "mean", "p")),
        ],
        axis=-1,
    )
    return go.Heatmap(
        z=tables["excess"].to_numpy(dtype=float),
        x=list(range(len(steps))),
        y=layers,
        customdata=data,
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate=f"layer %{{y}}, step %{{customdata[0]}}<br>{title} %{{customdata[1]:.4g}}"
        f"<br>null mean %{{customdata[2]:.4g}}<br>{which} %{{customdata[3]:.3g}}"
        "<br>%{z:.2f} sd above the null<extra></extra>",
        name="excess",
    )


def _dots(p: pd.DataFrame, *, layers: list[int], alpha: float) -> go.Scatter:
    """A dot in every significant cell."""
    row, column = np.nonzero(p.to_numpy(dtype=float) <= alpha)
    return go.Scatter(
        x=column.tolist(),
        y=[layers[i] for i in row],
        mode="markers",
        marker={"color": INK, "size": 6, "line": {"color": PAPER, "width": 1}},
        hoverinfo="skip",
        showlegend=False,
        name="significant",
    )


def _alt(cells: pd.DataFrame, *, title: str, alpha: float, which: str) -> str:
    found = cells.loc[cells["p"] <= alpha]
    words = f"Heatmap of the {title.lower()} against its null, layers by training steps. "
    words += f"{len(found)} of {len(cells)} cells have {which} at most {alpha:g}"
    if len(found):
        firsts = found.sort_values(by=["layer", "step"]).drop_duplicates(subset=["layer"])
        words += "; first in " + ", ".join(
            f"layer {int(layer)} at step {int(step)}"
            for layer, step in firsts[["layer", "step"]].to_numpy()
        )
    known = cells.dropna(subset=["excess"])
    if len(known):
        top = known.loc[known["excess"].idxmax()]
        words += (
            f". The largest excess, {top['excess']:.1f} standard deviations, is in layer "
            f"{int(top['layer'])} at step {int(top['step'])}"
        )
    return words + "."
