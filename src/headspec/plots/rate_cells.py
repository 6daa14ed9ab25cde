"""The cells of one matrix: statistics down, capabilities across, layers side by side in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.plots.palette import BLANK, INK, MUTED, PAPER
from headspec.plots.panels import Panels
from headspec.plots.rate_frames import wrapped
from headspec.plots.weight_wording import STATISTICS, in_order, metric_label, statistic_words
from headspec.plots.wording import capability_name

ROW = 17  # pixels
LEFT = 122  # room for the names of statistics
WIDTH = 890  # of all panels together, on a wide page


@dataclass(frozen=True)
class CellGrid:
    """What the columns of every panel are, and the size of their cells.

    Attributes:
        capabilities: one group of columns each.
        columns: panels side by side.
        cell: pixels from one column to the next, in panels with every place.
        labels: names of the groups, broken into lines.
        upright: whether they stand upright.
    """

    capabilities: list[str]
    columns: int
    cell: float
    labels: list[str]
    upright: bool

    @property
    def label_height(self) -> int:
        """Pixels that the names take below a panel."""
        lines = [label.split("<br>") for label in self.labels]
        if self.upright:
            return 14 + round(5.8 * max(len(line) for label in lines for line in label))
        return 12 + 13 * max(map(len, lines))


def cell_grid(rows: pd.DataFrame) -> CellGrid:
    """How wide cells are and how names are written, so that they fit."""
    capabilities = list(dict.fromkeys(rows["capability"]))
    n_places = max(len(set(part["place"])) for _, part in rows.groupby("matrix"))
    columns = 3 if len(capabilities) * n_places <= 24 else 2
    width = (WIDTH - (columns - 1) * (LEFT + 8)) / columns
    group = width / len(capabilities)
    fits = int(group / 6)
    lines = [wrapped(name, max(fits, 8)) for name in capabilities]
    upright = max(len(line) for label in lines for line in label) > fits
    if upright:
        lines = [wrapped(name, 16) for name in capabilities]
    return CellGrid(
        capabilities=capabilities,
        columns=columns,
        cell=group / n_places,
        labels=["<br>".join(label) for label in lines],
        upright=upright,
    )


def draw_cells(
    figure: go.Figure,
    panels: Panels,
    index: int,
    part: pd.DataFrame,
    *,
    grid: CellGrid,
    alpha: float,
) -> list[dict]:
    """One matrix: its cells and dots; the grey behind and the lines between are returned.

    (Shapes are added to a figure all at once: one by one takes plotly a second.)
    """
    names = panels.names(index)
    statistics = in_order(list(dict.fromkeys(part["statistic"])), STATISTICS)
    places = list(dict.fromkeys(part["place"]))
    shape = (len(statistics), len(grid.capabilities) * len(places))
    cells = np.full((*shape, 7), np.nan)
    words = np.full(shape, "", dtype=object)
    for row in part.to_dict("records"):
        at = (
            statistics.index(row["statistic"]),
            grid.capabilities.index(row["capability"]) * len(places) + places.index(row["place"]),
        )
        n = row.get("n", np.nan)
        cells[at] = [row[k] for k in ("value", "p", "q", "null_q05", "null_q95", "raw_r")] + [n]
        where = f", {row['place']}" if row["place"] else ""
        words[at] = f"{metric_label(row['metric'])}{where}<br>{capability_name(row['capability'])}"
    figure.add_trace(_cells(cells, words, gap=int(grid.cell > 6)).update(names))
    figure.add_trace(
        _dots(cells, alpha=alpha, size=min(7.0, max(3.0, 0.6 * grid.cell))).update(names)
    )
    plain = {"showgrid": False, "showline": False, "ticks": "", "tickmode": "array"}
    small = {"size": 10, "color": MUTED}
    figure.update_layout(
        {
            panels.axis("x", index): {
                **plain,
                "tickvals": [
                    (group + 0.5) * len(places) - 0.5 for group in range(len(grid.capabilities))
                ],
                "ticktext": grid.labels,
                "tickangle": -90 if grid.upright else 0,
                "tickfont": small,
                "range": [-0.5, shape[1] - 0.5],
            },
            panels.axis("y", index): {
                **plain,
                "tickvals": list(range(shape[0])),
                "ticktext": [statistic_words(name)[0] for name in statistics],
                "tickfont": small,
                "range": [shape[0] - 0.5, -0.5],
            },
        }
    )
    return _shapes(names, shape, n_places=len(places))


def _shapes(names: dict[str, str], shape: tuple[int, int], *, n_places: int) -> list[dict]:
    """Grey behind the cells, for those without a correlation; paper between capabilities."""
    refs = {"xref": names["xaxis"], "yref": names["yaxis"], "y0": -0.5, "y1": shape[0] - 0.5}
    grey = {
        "type": "rect",
        "x0": -0.5,
        "x1": shape[1] - 0.5,
        "fillcolor": BLANK,
        "line": {"width": 0},
        "layer": "below",
        "name": "no correlation",
    }
    line = {"type": "line", "line": {"color": PAPER, "width": 4}, "name": "separator"}
    edges = [x - 0.5 for x in range(n_places, shape[1], n_places)]
    return [refs | grey, *(refs | line | {"x0": x, "x1": x} for x in edges)]


def _cells(cells: np.ndarray, words: np.ndarray, *, gap: int) -> go.Heatmap:
    return go.Heatmap(
        z=cells[..., 0],
        x=list(range(cells.shape[1])),
        y=list(range(cells.shape[0])),
        customdata=cells[..., 1:],
        text=words.tolist(),
        coloraxis="coloraxis",
        xgap=gap,
        ygap=1,
        hoverongaps=False,
        hovertemplate="%{text}<br>r of rates %{z:+.2f}, 90 % of the null %{customdata[2]:+.2f} to "
        "%{customdata[3]:+.2f}<br>p = %{customdata[0]:.3g}, q = %{customdata[1]:.3g}, "
        "%{customdata[5]} intervals<br>r of raw values %{customdata[4]:+.2f}<extra></extra>",
        name="r of rates",
        meta="cells",
    )


def _dots(cells: np.ndarray, *, alpha: float, size: float) -> go.Scatter:
    row, column = np.nonzero(cells[..., 2] <= alpha)
    return go.Scatter(
        x=column.tolist(),
        y=row.tolist(),
        mode="markers",
        marker={"color": INK, "size": size, "line": {"color": PAPER, "width": 1}},
        hoverinfo="skip",
        name="significant",
        meta="significant",
        showlegend=False,
    )
