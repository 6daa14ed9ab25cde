"""Cosine similarities between heads, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.errors import InputError
from headspec.plots.frames import layer_rows, metric_rows, usable, whose
from headspec.plots.heads import head_table, steady_labels
from headspec.plots.palette import BLANK, INK, diverging_axis
from headspec.plots.panels import Panels
from headspec.plots.steps import choose_steps, short_number


def plot_similarity_heatmaps(
    frame: pd.DataFrame, *, layer: int, steps: Sequence[int] | None = None
) -> go.Figure:
    """Cosine similarity of every pair of heads, one matrix a step, on one colour scale.

    Heads stand in the order of the last step's clusters in every panel, lines part the
    clusters. The scale is symmetric about 0 and ends at the largest similarity of two different
    heads shown; the diagonal (1 by definition) is left blank.

    What it does not show: the order is chosen by the last step, so that its blocks are partly
    the clustering's own doing; only its null says whether they are more than that.

    Args:
        frame: tidy frame with pair rows (`metric` similarity, columns `head` and `head_2`).
        layer: the layer to show.
        steps: one panel each; None for at most six, spread evenly over those in the frame.

    Returns:
        A figure with one heatmap a step, mirrored where the frame holds each pair once.

    Raises:
        InputError: for a layer, step or pairs that the frame lacks.
    """
    rows = layer_rows(usable(frame, ("step", "layer", "metric", "value", "head", "head_2")), layer)
    pairs = metric_rows(rows, "similarity", ("step", "head", "head_2"))
    pairs = pairs.dropna(subset=["head", "head_2"])
    if pairs.empty:
        raise InputError(
            expected="rows of 'similarity' with head and head_2",
            got="rows without a pair of heads",
            fix="Measure pairs in the sweep (`ClusterMeasure` does).",
        )
    shown = choose_steps(pairs["step"].unique().tolist(), steps, most=6)
    order, cuts = _order(rows, sorted(set(pairs["head"]) | set(pairs["head_2"])))
    matrices = {step: _matrix(pairs.loc[pairs["step"] == step], order) for step in shown}
    every = np.concatenate([matrix.ravel() for matrix in matrices.values()])
    limit = float(np.nanmax(np.abs(every))) if np.isfinite(every).any() else 1.0
    panels = Panels(
        titles=[f"step {short_number(step)}" for step in shown],
        columns=3,
        narrow_columns=2,
        height=240,
        narrow_height=132,
        gap=58,
        gap_share=0.08,
        legend_lines=0,
        narrow_legend_lines=0,
        footer=60,
        bar=True,
        share_y=True,
        left=44,
    )
    figure = panels.figure(
        title=f"Cosine similarity of heads, layer {layer}{whose(rows)}",
        x_title="head",
        y_titles=["head"] * len(shown),
        alt=_alt(matrices, layer=layer, order=order),
        note="Heads in the order of the last step's clusters, parted by lines; the diagonal (1 by "
        "definition) is blank. The order favours blocks at the last step: only the null says "
        "whether they are more than that.",
    )
    labels = [str(head) for head in order]
    for i, (step, matrix) in enumerate(matrices.items()):
        figure.add_trace(_heatmap(matrix, order, step=step).update(panels.names(i)))
        ticks = {
            "tickmode": "array",
            "tickvals": list(range(len(order))),
            "ticktext": labels,
            "showgrid": False,
            "ticks": "",
            "tickangle": 0,
            "tickfont": {"size": 9},
            "showline": False,
            "constrain": "domain",
        }
        x, y = panels.axis("x", i), panels.axis("y", i)
        figure.update_layout({x: ticks, y: {**ticks, "autorange": "reversed"}})
        figure.layout[y].scaleanchor = panels.names(i)["xaxis"]
        _part(figure, panels, i, cuts, len(order))
    figure.update_layout(
        plot_bgcolor=BLANK,
        coloraxis=diverging_axis(limit, title="cosine similarity (no unit)", below=panels.below()),
    )
    return figure


def _order(rows: pd.DataFrame, heads: Sequence[float]) -> tuple[list[int], list[int]]:
    """Heads by cluster of the last step, and the places between clusters."""
    plain = [int(head) for head in heads]
    if "cluster" not in set(rows["metric"]):
        return plain, []
    last = steady_labels(head_table(rows, "cluster")).iloc[:, -1].to_dict()
    found = {head: last.get(head, np.nan) for head in plain}
    labels = {head: label if label >= 0 else np.inf for head, label in found.items()}
    order = sorted(plain, key=lambda head: (labels[head], head))
    cuts = [i for i in range(1, len(order)) if labels[order[i]] != labels[order[i - 1]]]
    return order, cuts


def _matrix(pairs: pd.DataFrame, order: list[int]) -> np.ndarray:
    """Pair rows as a symmetric matrix in the given order, the diagonal blank."""
    place = {head: i for i, head in enumerate(order)}
    matrix = np.full((len(order), len(order)), np.nan)
    one = [place[head] for head in pairs["head"].tolist()]
    two = [place[head] for head in pairs["head_2"].tolist()]
    values = pairs["value"].to_numpy(dtype=float)
    matrix[two, one] = values
    matrix[one, two] = values
    np.fill_diagonal(matrix, np.nan)
    return matrix


def _heatmap(matrix: np.ndarray, order: list[int], *, step: int) -> go.Heatmap:
    return go.Heatmap(
        z=matrix,
        x=list(range(len(order))),
        y=list(range(len(order))),
        customdata=[[[row, column] for column in order] for row in order],
        coloraxis="coloraxis",
        hoverongaps=False,
        hovertemplate="heads %{customdata[0]} and %{customdata[1]}<br>cosine %{z:.3f}"
        "<extra></extra>",
        name=f"step {step}",
        meta={"step": step},
    )


def _part(figure: go.Figure, panels: Panels, index: int, cuts: list[int], size: int) -> None:
    """Lines between clusters."""
    names = panels.names(index)
    refs = {"xref": names["xaxis"], "yref": names["yaxis"]}
    look = {"type": "line", "line": {"color": INK, "width": 1}, "name": "cluster border"}
    for cut in cuts:
        figure.add_shape(x0=cut - 0.5, x1=cut - 0.5, y0=-0.5, y1=size - 0.5, **refs, **look)
        figure.add_shape(y0=cut - 0.5, y1=cut - 0.5, x0=-0.5, x1=size - 0.5, **refs, **look)


def _alt(matrices: dict[int, np.ndarray], *, layer: int, order: list[int]) -> str:
    said = []
    for step, matrix in matrices.items():
        values = matrix[np.isfinite(matrix)]
        if len(values):
            said.append(f"step {step} from {values.min():.2f} to {values.max():.2f}")
    return (
        f"Heatmaps of the cosine similarity of the heads of layer {layer}, one a step, heads in "
        f"the order {', '.join(map(str, order))}. Range over pairs: " + "; ".join(said) + "."
    )
