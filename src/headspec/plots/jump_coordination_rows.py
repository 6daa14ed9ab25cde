"""Do layers jump together: the share of jumps with a partner, against chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from headspec.plots.jump_rows import (
    Rows,
    named,
    number,
    one_row_each,
    plain_rows,
    short_name,
    with_places,
)
from headspec.plots.null_rows import RowPart, RowWords, draw_rows, null_ends, said_rows
from headspec.plots.wording import capability_name

_COORDINATION = {
    "jump_coordination": ("Jumps with a partner", "share of jumps"),
}


def plot_jump_coordination(
    coordination: Rows, *, by: str | Sequence[str] = ("model", "seed"), alpha: float | int = 0.05
) -> go.Figure:
    """Share of jumps with a partner in another layer, in front of layers shifted in time.

    Grey, behind: mean and two standard deviations of the null. A point is filled where p is at
    most `alpha` (q where the frame has it).

    What it does not show: that one layer moves another: a common cause (a large batch gradient,
    the learning rate) does the same, and a null that keeps each layer's density of jumps is
    needed for jumps that crowd early in training.

    Args:
        coordination: of `jump_coordination`, or rows with `value null_mean null_sd`; optional
            `metric p q low high n`.
        by: columns that name the rows, of those that the frame has.
        alpha: level up to which a point is filled.

    Returns:
        A figure with a panel a metric.

    Raises:
        InputError: missing columns or no rows.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_jump_coordination
        >>> rows = pd.DataFrame({"model": ["cnn"], "value": [0.6], "null_mean": [0.2], "p": [0.01]})
        >>> figure = plot_jump_coordination(rows.assign(null_sd=0.05, metric="jump_coordination"))
        >>> figure.layout.xaxis.title.text
        'share of jumps'
    """
    fix = "Give `jump_coordination(...)` or its frame."
    rows = plain_rows(coordination, ("value", "null_mean"), fix=fix)
    wanted = [by] if isinstance(by, str) else list(by)
    names = [_row_name(row, wanted) for row in rows.to_dict("records")]
    rows = with_places(rows).assign(row=names)
    if "metric" not in rows.columns:
        rows["metric"] = next(iter(_COORDINATION))
    labels = list(dict.fromkeys(names))
    metrics = list(dict.fromkeys(rows["metric"].astype(str)))
    parts = []
    for metric in metrics:
        own = rows.loc[rows["metric"] == metric]
        own = one_row_each(own, "row", labels, fix="Name all columns that tell rows apart in `by`.")
        low, high = null_ends(own)
        own = own.assign(null_low=np.maximum(low, 0), null_high=np.minimum(high, 1))
        parts.append(RowPart(rows=own, labels=labels, clear=_clear(own, alpha)))
    spelt = [_COORDINATION.get(metric, (_sentence(metric), "share of jumps")) for metric in metrics]
    words = RowWords(
        title="Do layers jump together?",
        note="Grey: the null, its mean marked. Panels have axes of their own.",
        alt="Points of the coordination of jumps over layers, one row a run. "
        + "; ".join(f"{s[0]}: {said_rows(p)}" for s, p in zip(spelt, parts, strict=True))
        + ".",
        x_titles=[unit for _, unit in spelt],
        panel_titles=[words for words, _ in spelt],
        filled=f"differs from the null ({alpha:g} level)",
        hollow="does not differ",
        null="layers apart: mean ± 2 sd",
    )
    return draw_rows(parts, words, level=None)


def _row_name(row: dict, columns: Sequence[str]) -> str:
    words = []
    pooled = row.get("model") == "all"
    for column in [each for each in columns if each != "seed" or not pooled]:
        value = row.get(column)
        if value is None or value != value or value == "":
            continue
        words.append(f"seed\u00a0{named(value)}" if column == "seed" else short_name(named(value)))
    return " · ".join(words) or "all"


def _sentence(metric: str) -> str:
    words = capability_name(metric)
    return words[:1].upper() + words[1:]


def _clear(rows: Any, alpha: float | int) -> np.ndarray:
    """Significant by q where known, else by p, else by two standard deviations of the null."""
    q, p = number(rows, "q"), number(rows, "p")
    judged = np.where(np.isnan(q), p, q)
    far = np.abs(number(rows, "value") - number(rows, "null_mean")) > 2 * number(rows, "null_sd")
    return np.where(np.isnan(judged), far, judged <= alpha)
