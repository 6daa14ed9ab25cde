"""Singular values against rank, over training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.frames import metric_rows, number_column, usable, whose
from headspec.plots.palette import NULL_BAND, NULL_MEAN, ordered
from headspec.plots.panels import Panels, legend_lines
from headspec.plots.steps import choose_steps, short_number
from headspec.plots.weight_wording import MATRICES, in_order, matrix_label

STATISTIC = "singular_value"
_SMALLEST = 1e-6  # of the largest: rounding lies below


def plot_spectra(
    frame: pd.DataFrame,
    *,
    matrix: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    steps: Sequence[int] | None = None,
) -> go.Figure:
    """Singular values against their rank, both on log scales, one line a training step.

    One panel a layer of one matrix, or one a matrix of one layer, all on the same scale. Behind,
    in grey, lies the spectrum of the first step of the frame: at step 0 that of the initialisation,
    which for random weights is that of Marchenko and Pastur. A band of the null, where the frame
    has one (`null_mean`, `null_sd`), is that of the last step shown.

    What it does not show: a straight stretch is no power law (`fit_power_law` and `compare_tails`
    test that). Values below a millionth of the largest are rounding and off the axis.

    Args:
        frame: tidy frame of a sweep with `WeightMeasure`: rows of the statistic `singular_value`
            with a column `rank`.
        matrix: which, such as `"q"`; None for all.
        layer, head: which; None for all.
        steps: which; None for at most seven, evenly spread in rank, and the first.

    Returns:
        A figure with one panel a matrix or layer.

    Raises:
        InputError: without such rows, or when both matrices and layers differ.
    """
    rows = _spectrum_rows(frame, matrix=matrix, layer=layer, head=head)
    parts = _parts(rows)
    chosen = choose_steps(rows["step"].unique().tolist(), steps, most=7)
    first = int(rows["step"].to_numpy().min())
    shown = [step for step in chosen if step != first] or chosen
    names = [_first_name(first), *(f"step {short_number(step)}" for step in shown)]
    panels = Panels(
        titles=list(parts),
        columns=2 if len(parts) in (2, 4) else min(3, len(parts)),
        share_y=True,
        height=240,
        narrow_height=220,
        gap=62,
        gap_share=0.08,
        legend_lines=legend_lines(names, width=900),
        narrow_legend_lines=legend_lines(names, width=290),
        left=60,
    )
    where = "" if layer is None else f", layer {layer}"
    where += "" if head is None else f", head {head}"
    where += "" if matrix is None else f" of {matrix_label(matrix)}"
    figure = panels.figure(
        title=f"Singular values{where}{whose(rows)}",
        x_title="rank (log scale)",
        y_titles=["singular value (log scale)"] * len(parts),
        alt=_alt(parts, first=first, last=shown[-1]),
        note="One line is one training step, later ones darker (on a dark page, lighter). Grey: "
        f"{_first_name(first)}.",
    )
    span = rows["value"].to_numpy(float)
    top = float(np.nanmax(span))
    low = max(float(span[span > 0].min(initial=top)), _SMALLEST * top)
    rank = float(rows["rank"].to_numpy().max())
    for i, part in enumerate(parts.values()):
        figure.update_layout(
            {
                panels.axis("x", i): _log_axis(1.0, max(rank, 2.0)),
                panels.axis("y", i): _log_axis(low, top),
            }
        )
        traces = _null(part, first=first, last=shown[-1], listed=i == 0)
        traces += [
            _line(part, step, ordered(k, len(shown)), listed=i == 0) for k, step in enumerate(shown)
        ]
        figure.add_traces([trace.update(panels.names(i)) for trace in traces])
    return figure


def _log_axis(low: float, high: float) -> dict:
    """A log axis with ticks at powers of ten, and between them where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    parts = (1,) if len(powers) > 4 else (1, 3) if high / low > 30 else (1, 2, 5)
    ticks = [part * 10.0**power for power in powers for part in parts]
    ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    pad = 0.04 * max(math.log10(high / low), 0.1)
    return {
        "type": "log",
        "range": [math.log10(low) - pad, math.log10(high) + pad],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _first_name(step: int) -> str:
    return "step 0, the initialisation" if step == 0 else f"step {short_number(step)}, the first"


def _spectrum_rows(
    frame: pd.DataFrame, *, matrix: str | None, layer: int | None, head: int | None
) -> pd.DataFrame:
    rows = usable(frame, ("step", "metric", "value", "rank"))
    rows = rows.loc[[str(name).endswith(f".{STATISTIC}") for name in rows["metric"]]]
    for key, wanted in (
        ("metric", None if matrix is None else f"{matrix}.{STATISTIC}"),
        ("layer", layer),
        ("head", head),
    ):
        if wanted is not None and key in rows.columns:
            rows = rows.loc[rows[key] == wanted]
    if rows.empty:
        raise InputError(
            expected=f"singular values of matrix {matrix}, layer {layer}, head {head}",
            got="none in the frame",
            fix="Sweep `WeightMeasure(spectra=True)`, or choose others.",
        )
    if not (rows["value"].to_numpy(float) > 0).any():
        raise InputError(
            expected="singular values above 0, to be drawn on a log scale",
            got="none",
            fix="Look at a matrix that is not zero.",
        )
    return rows.astype({"rank": float})


def _parts(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each panel by its title."""
    keys = [key for key in ("model", "metric", "layer", "head") if key in rows.columns]
    differ = [key for key in keys if len(rows[key].drop_duplicates()) > 1]
    if len(differ) > 1:
        raise InputError(
            expected="spectra that differ in model, matrix, layer or head, one of them",
            got=f"rows that differ in {' and '.join(differ)}",
            fix="Choose `matrix=`, `layer=` or `head=`, or rows of one model.",
        )
    if not differ:
        metric = str(rows["metric"].iloc[0])
        return {matrix_label(metric.removesuffix(f".{STATISTIC}")): rows}
    key = differ[0]
    values = rows[key].drop_duplicates().tolist()
    if key == "metric":
        order = in_order([str(v).removesuffix(f".{STATISTIC}") for v in values], MATRICES)
        return {matrix_label(m): rows.loc[rows[key] == f"{m}.{STATISTIC}"] for m in order}
    if key == "model":
        return {str(value): rows.loc[rows[key] == value] for value in values}
    return {f"{key.capitalize()} {int(v)}": rows.loc[rows[key] == v] for v in sorted(values)}


def _of_step(part: pd.DataFrame, step: int) -> pd.DataFrame:
    """One spectrum by rank, refused when there are several."""
    here = part.loc[part["step"] == step]
    return metric_rows(here, str(part["metric"].iloc[0]), ("rank",)) if len(here) else here


def _null(part: pd.DataFrame, *, first: int, last: int, listed: bool) -> list[go.Scatter]:
    """The null's band at the last step, if there is one, and the first spectrum."""
    traces = []
    end = _of_step(part, last)
    mean, sd = number_column(end, "null_mean"), number_column(end, "null_sd")
    if mean is not None and sd is not None:
        x, low, high = end["rank"].to_numpy(), np.maximum(mean - 2 * sd, 1e-300), mean + 2 * sd
        area = {"fill": "toself", "fillcolor": NULL_BAND, "line": {"width": 0, "color": NULL_BAND}}
        traces.append(
            go.Scatter(
                x=np.concatenate([x, x[::-1]]),
                y=np.concatenate([low, high[::-1]]),
                mode="lines",
                hoverinfo="skip",
                name="mean of the null ± 2 sd",
                meta="null band",
                showlegend=listed,
                **area,
            )
        )
    start = _of_step(part, first)
    traces.append(
        go.Scatter(
            x=start["rank"].to_numpy(),
            y=start["value"].to_numpy(float),
            mode="lines",
            line={"color": NULL_MEAN, "width": 5},
            opacity=0.55,
            hovertemplate=f"{_first_name(first)}<br>rank %{{x}}: %{{y:.4g}}<extra></extra>",
            name=_first_name(first),
            legendgroup="first",
            meta="null",
            showlegend=listed,
        )
    )
    return traces


def _line(part: pd.DataFrame, step: int, colour: str, *, listed: bool) -> go.Scatter:
    rows = _of_step(part, step)
    return go.Scatter(
        x=rows["rank"].to_numpy(float),
        y=rows["value"].to_numpy(float),
        mode="lines+markers",
        line={"color": colour, "width": 1.6},
        marker={"color": colour, "size": 3.5},
        hovertemplate=f"step {step}<br>rank %{{x}}: %{{y:.4g}}<extra></extra>",
        name=f"step {short_number(step)}",
        legendgroup=str(step),
        meta="value",
        showlegend=listed,
    )


def _alt(parts: dict[str, pd.DataFrame], *, first: int, last: int) -> str:
    said = []
    for name, part in parts.items():
        ends = [_of_step(part, step)["value"].max() for step in (first, last)]
        said.append(f"{name} {ends[0]:.3g} to {ends[1]:.3g}")
    return (
        f"Singular values against rank, steps {first} to {last}. The largest goes from "
        f"{'; '.join(said)}."
    )
