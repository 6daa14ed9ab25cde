"""Early and late: shares of jumps in parts of the training, against the share of time."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from headspec.plots.jump_rows import number, one_row_each, plain_rows, with_places
from headspec.plots.null_rows import RowPart, RowWords, draw_rows, said_rows

_FIX = "Give the frame of `phase_shares(...)`, one row for each model, binning and part."
_PARTS = ("early", "mid", "late")
_BINNINGS = {
    "step": "By training step",
    "index": "By index of the measurement",
    "published": "As published",
}


def plot_early_late(shares: pd.DataFrame) -> go.Figure:
    """Share of the jumps in each part of training: a panel a binning, a row a model and part.

    Grey, behind: the share that jumps spread evenly over training would have (with its spread
    where the frame has one). A point is filled where its interval excludes that. The study divided
    the index of a measurement by the number of updates (one measurement every five), so that no
    jump could be late; drawn beside the phase by steps, both binnings can be compared.

    What it does not show: how often layers jump (`plot_jump_rates`), or that parts differ between
    models: intervals are of single shares.

    Args:
        shares: of `phase_shares`: rows with `part` ("early", "mid", "late") and `value`; optional
            `model`, `by` (how parts were told: "step", "index", "published"), `low high null_mean
            null_sd p n`.

    Returns:
        A figure with a panel a binning; `value` traces hold shares.

    Raises:
        InputError: missing columns or no rows.

    Example:
        >>> import pandas as pd
        >>> from headspec.plots import plot_early_late
        >>> rows = pd.DataFrame({"part": ["early", "mid", "late"], "value": [0.6, 0.2, 0.2]})
        >>> figure = plot_early_late(rows.assign(model="cnn", null_mean=[0.1, 0.4, 0.5]))
        >>> figure.layout.yaxis.ticktext[0]
        'cnn · early'
    """
    rows = with_places(plain_rows(shares, ("part", "value"), fix=_FIX))
    if "by" not in rows.columns:
        rows["by"] = "step"
    models = list(dict.fromkeys(rows["model"]))
    order = [part for part in _PARTS if part in set(rows["part"])]
    order += [str(part) for part in dict.fromkeys(rows["part"]) if part not in _PARTS]
    keys = [(model, part) for model in models for part in order]
    labels = [_name(*key) for key in keys]
    binnings = list(dict.fromkeys(rows["by"].astype(str)))
    parts = []
    for name in binnings:
        own = rows.loc[rows["by"] == name]
        own = one_row_each(own.assign(row=_names(own)), "row", labels, fix=_FIX)
        null = number(own, "null_mean")
        clear = (number(own, "low") > null) | (number(own, "high") < null)
        cuts = range(len(order), len(keys), len(order))
        parts.append(RowPart(rows=own, labels=labels, clear=clear, cuts=tuple(cuts)))
    titles = [str(_BINNINGS.get(name, name)) for name in binnings]
    words = RowWords(
        title="Early and late jumps",
        note=_note(binnings),
        alt="Points with intervals of shares of jumps in parts of training. "
        + "; ".join(f"{t}: {said_rows(p)}" for t, p in zip(titles, parts, strict=True))
        + ".",
        x_titles=["share of jumps"] * len(parts),
        panel_titles=titles,
        filled="differs from even",
        hollow="holds what is even",
        null="spread evenly over training",
    )
    return draw_rows(parts, words, level=None, span=(-0.03, 1.03))


def _note(binnings: list[str]) -> str:
    words = "Early: up to 10 % of training; late: beyond 50 %. Grey: jumps spread evenly over it."
    if {"index", "published"} & set(binnings):
        words += " Divided by updates, the index of a measurement cannot be late."
    return words


def _names(rows: Any) -> list[str]:
    return [_name(model, part) for model, part in zip(rows["model"], rows["part"], strict=True)]


def _name(model: str, part: str) -> str:
    return " · ".join(word for word in (model, part) if word)
