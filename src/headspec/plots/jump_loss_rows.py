"""Changes of the loss across jumps less those across control steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from headspec.plots.jump_rows import Rows, number, one_row_each, plain_rows, with_places
from headspec.plots.null_rows import RowPart, RowWords, draw_rows, said_rows

_FIX = "Give `loss_around_jumps(...)`, or frames of several with a `model` each."
_LOSSES = {
    "loss_change.difference": ("Change of the loss", "jumps less controls (nats)"),
    "loss_improves.difference": ("How often the loss falls", "jumps less controls (share)"),
}
_PARTS = {"all": "all"}


def plot_loss_around_jumps(losses: Rows) -> go.Figure:
    """Change of the loss across jumps less that across controls, for each part of training.

    Controls are steps of the same run, as far into training, with no jump near. A point is filled
    where its interval excludes 0; grey, behind, is what exchanging jumps and controls gives. With
    the result itself (not its frame), the mean of each seed is a small dot. Both sides of the
    difference are in the hover text.

    What it does not show: cause. A large batch gradient moves loss and dimensionality at once.
    And moments whose controls are missing, because jumps crowd, are not in it.

    Args:
        losses: of `loss_around_jumps`, or rows with `metric part value`; optional `model low high
            null_mean null_sd p n jumps controls`.

    Returns:
        A figure with a panel for the change and one for how often the loss falls.

    Raises:
        InputError: missing columns, no rows, or several for one model, part and metric.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_loss_around_jumps
        >>> rows = pd.DataFrame({"model": "cnn", "part": ["all", "early"], "value": [-0.4, -0.1]})
        >>> rows = rows.assign(metric="loss_change.difference", low=-0.5, high=[-0.3, 0.3])
        >>> list(plot_loss_around_jumps(rows).layout.yaxis.ticktext)
        ['cnn · all', 'cnn · early']
    """
    rows = with_places(plain_rows(losses, ("metric", "part", "value"), fix=_FIX))
    rows["row"] = _names(rows)
    labels = list(dict.fromkeys(rows["row"]))
    metrics = [name for name in _LOSSES if name in set(rows["metric"])]
    metrics += [str(name) for name in dict.fromkeys(rows["metric"]) if name not in _LOSSES]
    dots = _seeds(losses, labels)
    parts = []
    for metric in metrics:
        own = one_row_each(rows.loc[rows["metric"] == metric], "row", labels, fix=_FIX)
        clear = (number(own, "low") > 0) | (number(own, "high") < 0)
        dot, cuts = dots.get(metric), _cuts(rows, labels)
        parts.append(RowPart(rows=own, labels=labels, clear=clear, dots=dot, cuts=cuts))
    spelt = [_LOSSES.get(metric, (metric, "jumps less controls")) for metric in metrics]
    words = RowWords(
        title="Loss at jumps",
        note="Whiskers: the intervals of the frame. Left of 0: the loss falls more at jumps; "
        "falls more often, right of 0.",
        alt="Points with intervals of the loss across jumps less controls. "
        + "; ".join(f"{s[0]}: {said_rows(p)}" for s, p in zip(spelt, parts, strict=True))
        + ".",
        x_titles=[unit for _, unit in spelt],
        panel_titles=[title for title, _ in spelt],
        filled="interval excludes 0",
        hollow="interval holds 0, or none",
        null="jumps and controls exchanged: ± 2 sd",
        extra=("jumps", "controls"),
    )
    return draw_rows(parts, words)


def _cuts(rows: Any, labels: list[str]) -> tuple[int, ...]:
    """Rows with which another model begins."""
    first = rows.drop_duplicates("model")["row"]
    return tuple(labels.index(name) for name in first if labels.index(name))


def _names(rows: Any) -> list[str]:
    """Model and part; a model called "all" stands for all and is not named."""
    return [
        " · ".join(
            word for word in ("" if model == "all" else model, _PARTS.get(part, part)) if word
        )
        for model, part in zip(rows["model"], rows["part"].astype(str), strict=True)
    ]


def _seeds(losses: Rows, labels: list[str]) -> dict[str, pd.DataFrame]:
    """Means of each seed, where the moments are known; by metric."""
    moments: Any = None if isinstance(losses, pd.DataFrame) else getattr(losses, "moments", None)
    if moments is None or not {"seed", "part", "difference"} <= set(moments.columns):
        return {}
    each = moments.assign(often=moments["improves"].astype(float) - moments["controls_improving"])
    both = pd.concat([each.assign(part="all"), each], ignore_index=True)
    if len(set(both["model"])) > 1:
        both["model"] = "all"
    means: Any = both.groupby(["model", "part", "seed"])[["difference", "often"]].mean()
    means = with_places(means.reset_index())
    row = np.array([labels.index(name) if name in labels else -1 for name in _names(means)])
    known = row >= 0
    held = zip(_LOSSES, ("difference", "often"), strict=True)
    return {
        metric: means.loc[known].assign(row=row[known], value=means.loc[known, column])
        for metric, column in held
    }
