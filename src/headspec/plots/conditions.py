"""What figures of conditions share: their names, the units of quantities, means over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from headspec.errors import InputError
from headspec.plots.wording import capability_name

QUANTITIES: dict[str, tuple[str, str]] = {
    "entropy": ("Attention entropy", "nats"),
    "within_topic_mass": ("Attention within the topic", "share of attention"),
    "topic_excess": ("Attention within the topic beyond reach", "share of attention"),
    "head_spread": ("Spread over heads of attention within the topic", "share of attention"),
    "topic_ratio": ("Within over cross topic, relative to uniform", "ratio"),
    "distance": ("Attention distance", "tokens"),
    "sink_mass": ("Attention to the first token", "share of attention"),
    "topic_specialisation": ("Specialisation over topics", "no unit"),
    "accuracy": ("Probe accuracy", "share right"),
    "balanced_accuracy": ("Balanced probe accuracy", "share right"),
    "control_accuracy": ("Accuracy on the control task", "share right"),
    "selectivity": ("Selectivity: accuracy less control", "share right"),
    "log_loss": ("Log loss of the probe", "nats per token"),
    "calibration_error": ("Calibration error of the probe", "share"),
    "validation_loss": ("Validation loss", "nats per token"),
    "probe_accuracy": ("Probe accuracy", "share right"),
    "previous_token": ("Attention to the previous token", "share of attention"),
    "induction": ("Induction attention", "share of attention"),
    "duplicate_token": ("Attention to earlier copies", "share of attention"),
    "first_token": ("Attention to the first token", "share of attention"),
}
"""Metric name to (title of its panel, unit on its axis)."""

_SPELT = {"mha": "MHA", "gqa": "GQA", "rope": "RoPE", "drope": "DroPE", "qk": "QK", "ov": "OV"}


def quantity_words(metric: str) -> tuple[str, str]:
    """The title and unit of a quantity; a readable form of its name where it is not known."""
    if metric in QUANTITIES:
        return QUANTITIES[metric]
    words = capability_name(metric)
    return words[:1].upper() + words[1:], "nats per token" if "loss" in metric else "value"


def condition_name(name: str) -> str:
    """A condition as read by people.

    >>> condition_name("gqa_topic_ordered_drope")
    'GQA topic ordered DroPE'
    """
    return " ".join(_SPELT.get(word, word) for word in str(name).split("_") if word)


def checked_rows(frame: pd.DataFrame, columns: Sequence[str], *, fix: str) -> pd.DataFrame:
    """The frame with plain numbers for pandas' nullable ones.

    Raises:
        InputError: unless the frame has rows and these columns.
    """
    missing = [name for name in columns if name not in frame.columns]
    if missing or frame.empty:
        raise InputError(
            expected=f"a frame with rows and the columns {', '.join(columns)}",
            got="an empty frame" if frame.empty else f"no column {', '.join(missing)}",
            fix=fix,
        )
    numbers = [
        name
        for name in ("layer", "head", "seed", "value", "low", "high", "null_mean")
        if name in frame.columns
    ]
    return frame.reset_index(drop=True).astype(dict.fromkeys(numbers, float))


def has(rows: pd.DataFrame, column: str) -> bool:
    """Whether a column is there and holds anything."""
    return column in rows.columns and not bool(rows[column].isna().to_numpy().all())


def joined_columns(rows: pd.DataFrame, columns: str | Sequence[str]) -> list[str]:
    """One name a row out of one or several columns, as in `mha_shuffled`.

    Raises:
        InputError: for a column that is not there.
    """
    names = [columns] if isinstance(columns, str) else list(columns)
    if missing := [name for name in names if name not in rows.columns]:
        raise InputError(
            expected=f"columns out of {list(rows.columns)}",
            got=f"{missing}",
            fix="Name columns of the frame.",
        )
    return ["_".join(map(str, row)) for row in rows[names].itertuples(index=False)]


def single_rows(rows: pd.DataFrame, keys: Sequence[str], *, fix: str) -> None:
    """Raise unless the keys (and the seed, where there is one) tell all rows apart.

    Raises:
        InputError: several rows for one value of the keys.
    """
    told = [key for key in (*keys, "seed") if key in rows.columns]
    doubled = rows.loc[rows.duplicated(subset=told)]
    if len(doubled):
        where = ", ".join(f"{key} {doubled.iloc[0][key]}" for key in told)
        raise InputError(
            expected=f"one row for each {', '.join(told)}", got=f"several for {where}", fix=fix
        )


def over_seeds(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """One row for each value of the keys, in order; means where there are several seeds.

    `low` and `high` stay where there is one row, and are nan otherwise: intervals of single runs
    are none of their mean.
    """
    numbers = [name for name in rows.columns if name not in keys and rows[name].dtype.kind in "fiu"]
    groups = rows.groupby([*keys], sort=False, dropna=False)
    means = pd.DataFrame(groups[numbers].mean()).reset_index()
    means["n_seeds"] = groups.size().to_numpy()
    for name in ("low", "high"):
        if name not in means.columns:
            means[name] = np.nan
        means.loc[means["n_seeds"] > 1, name] = np.nan
    return means


def in_layers(layers: ArrayLike) -> dict:
    """A layer axis: whole numbers, "emb" for the embeddings (-1), at most about ten labels."""
    found = sorted({int(layer) for layer in np.asarray(layers)})
    shown = [layer for layer in found if layer >= 0]
    shown = shown[:: -(-len(shown) // 12) or 1]
    shown = [-1, *shown] if found[0] < 0 else shown
    return {
        "tickmode": "array",
        "tickvals": shown,
        "ticktext": ["emb" if layer < 0 else str(layer) for layer in shown],
        "range": [found[0] - 0.5, found[-1] + 0.5],
        "showgrid": False,
    }
