"""How often jumps happen: per 1,000 points, by architecture and layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.plots.jump_rows import in_order, number, plain_rows, short_name, with_places
from headspec.plots.null_rows import RowPart, RowWords, draw_rows, said_rows

_FIX = "Give one row for each model and layer with `value` in jumps per 1,000 points."
_UNIT = "jumps per 1,000 points"


def plot_jump_rates(frame: pd.DataFrame, *, accepted: float | int | None = None) -> go.Figure:
    """Jumps per 1,000 points examined: a panel a model, a row a layer.

    The dashed line is the rate that the detector accepts from curves without jumps; a point is
    filled where its interval lies above it (without a line: above `null_mean`). Rows with a
    `seed` are small dots behind where the same layer also has a row without one.

    What it does not show: that architectures differ. Layers of one network jump together, so
    compare architectures over seeds, and by rate: their numbers of layers and points differ.

    Args:
        frame: rows with `value`, and `model`, `layer_name` (or `layer`); optional `low high
            null_mean n seed`. A row without a layer stands for all layers of its model.
        accepted: false positives per 1,000 points that the detector accepts.

    Returns:
        A figure with a panel a model; `value` traces hold rates.

    Raises:
        InputError: no rows or no `value`.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_jump_rates
        >>> rows = pd.DataFrame({"model": "cnn", "layer_name": ["conv", "fc"], "value": [4.0, 1.0]})
        >>> figure = plot_jump_rates(rows.assign(low=[3.0, 0.1], high=[5.0, 2.5]), accepted=2)
        >>> figure.layout.xaxis.title.text
        'jumps per 1,000 points'
    """
    rows = plain_rows(frame, ("value",), fix=_FIX)
    if "layer_name" in rows.columns:
        rows["layer_name"] = (
            rows["layer_name"].astype(object).where(rows["layer_name"].notna(), "all layers")
        )
    rows = with_places(rows)
    models = list(dict.fromkeys(rows["model"]))
    parts = [_part(rows.loc[rows["model"] == model], accepted) for model in models]
    has_level = accepted is not None
    words = RowWords(
        title="Jump rates",
        note="Whiskers: the intervals of the frame. Rates are per measurement, not per training.",
        alt="Points with intervals of jump rates. "
        + "; ".join(f"{m or 'all'}: {said_rows(p)}" for m, p in zip(models, parts, strict=True))
        + f", {_UNIT}.",
        x_titles=[_UNIT] * len(parts),
        panel_titles=[model or "all models" for model in models],
        filled="more than the detector accepts" if has_level else "interval above the null",
        hollow="not clearly more, or no interval",
        null="null",
        level=f"accepted of curves without jumps: {accepted:g}" if has_level else "",
        unit=_UNIT,
    )
    figure = draw_rows(
        parts, words, level=accepted if has_level else 0.0, stacked=True, span=_span(rows, accepted)
    )
    return figure.update_xaxes(matches="x")


def _part(rows: Any, accepted: float | int | None) -> RowPart:
    """Rows of one model: pooled ones as points, single seeds as dots."""
    names = in_order(rows)
    names = [n for n in names if n != "all layers"] + [n for n in names if n == "all layers"]
    pooled = rows.loc[rows["seed"].isna()]
    dots = None
    if pooled["layer_name"].nunique() < len(names):
        pooled = rows
    elif len(pooled) < len(rows):
        single = rows.loc[rows["seed"].notna()]
        dots = single.assign(row=[names.index(name) for name in single["layer_name"]])
    shown = pooled.drop_duplicates("layer_name").set_index("layer_name").reindex(names)
    if len(pooled) > len(shown):
        dots = pooled.assign(row=[names.index(name) for name in pooled["layer_name"]])
        means = pooled.groupby("layer_name")["value"].mean()
        shown = pd.DataFrame({"value": means.reindex(names)})
    shown = shown.reset_index()
    level = accepted if accepted is not None else np.nan_to_num(number(shown, "null_mean"))
    low = number(shown, "low")
    cut = (len(names) - 1,) if names[-1] == "all layers" and len(names) > 1 else ()
    labels = [short_name(name) for name in names]
    return RowPart(rows=shown, labels=labels, clear=low > level, dots=dots, cuts=cut)


def _span(rows: Any, accepted: float | int | None) -> tuple[float, float]:
    top = np.nanmax([*rows["value"], *number(rows, "high"), accepted or 0.0, 1e-9])
    return -0.02 * float(top), 1.05 * float(top)
