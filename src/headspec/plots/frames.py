"""Rows out of a tidy frame, checked so that a figure never shows half of what was asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from headspec.errors import InputError

_NUMBERS = ("step", "layer", "head", "head_2", "value")


def usable(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The frame with plain numbers for pandas' nullable ones, which NumPy does not know.

    Raises:
        InputError: unless the frame has rows and these columns.
    """
    missing = [name for name in columns if name not in frame.columns]
    if missing or frame.empty:
        raise InputError(
            expected=f"a frame with rows and the columns {', '.join(columns)}",
            got="an empty frame" if frame.empty else f"no column {', '.join(missing)}",
            fix="Give the tidy frame that `sweep` returns.",
        )
    plain = frame.astype({name: float for name in _NUMBERS if name in frame.columns})
    missing_steps = int(np.isnan(plain["step"].to_numpy()).sum())
    if missing_steps:
        raise InputError(
            expected="a step in every row",
            got=f"{missing_steps} rows without one",
            fix="Drop these rows, or name their step.",
        )
    return plain.astype({"step": "int64"})


def layer_rows(frame: pd.DataFrame, layer: int) -> pd.DataFrame:
    """The rows of one layer.

    Raises:
        InputError: when the frame lacks tidy columns or that layer.
    """
    plain = usable(frame, ("step", "layer", "metric", "value"))
    rows = plain.loc[plain["layer"] == layer]
    if rows.empty:
        have = sorted({int(number) for number in plain["layer"].dropna()})
        raise InputError(
            expected=f"rows of layer {layer}",
            got=f"layers {have}",
            fix="Name one of these layers, or sweep that layer too.",
        )
    return rows


def metric_rows(rows: pd.DataFrame, metric: str, keys: Sequence[str] = ("step",)) -> pd.DataFrame:
    """The rows of one metric, sorted, one row for each value of `keys`.

    Raises:
        InputError: when there are none, or several for one key (two models, seeds or features).
    """
    found = rows.loc[rows["metric"] == metric]
    if found.empty:
        raise InputError(
            expected=f"rows of the metric {metric!r}",
            got=f"the metrics {sorted(set(rows['metric']))}",
            fix="Name one of these, or measure that metric in the sweep.",
        )
    doubled = found.loc[found.duplicated(subset=list(keys))]
    if len(doubled):
        row = doubled.iloc[0]
        where = ", ".join(f"{key} {row[key]}" for key in keys)
        raise InputError(
            expected=f"one row of {metric!r} for each {' and '.join(keys)}",
            got=f"several for {where}",
            fix="Filter the frame to one model, one seed and one feature first.",
        )
    return found.sort_values(by=list(keys), ignore_index=True)


def number_column(rows: pd.DataFrame, name: str) -> np.ndarray | None:
    """A column as floats; None when it is absent or holds nothing."""
    if name not in rows.columns:
        return None
    values = np.asarray(rows[name].astype(float))
    return values if np.isfinite(values).any() else None


def p_column(rows: pd.DataFrame) -> tuple[str, np.ndarray | None]:
    """The p-values to judge by: `q` (corrected for the number of tests) if there, else `p`."""
    q = number_column(rows, "q")
    return ("q", q) if q is not None else ("p", number_column(rows, "p"))


def whose(rows: pd.DataFrame) -> str:
    """The model a frame speaks of, as the end of a title; empty when there is not just one."""
    if "model" not in rows.columns:
        return ""
    models = {str(name) for name in rows["model"].dropna()} - {""}
    return f" · {models.pop()}" if len(models) == 1 else ""
