"""Rows of jumps and of dimensionality for figures: one metric, named layers in model order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from headspec.errors import InputError
from headspec.plots.wording import capability_name

DIMENSIONS: dict[str, str] = {
    "stable_rank": "Stable rank",
    "participation_ratio": "Participation ratio",
    "participation_ratio_sigma": "Participation ratio of singular values",
    "effective_rank": "Effective rank",
    "components_90": "Components of 90 % of the variance",
    "nuclear_ratio": "Nuclear norm over the largest singular value",
    "two_nn": "Intrinsic dimension (two neighbours)",
}
"""Metric name to its title; the unit of all is dimensions."""

UNIT = "dimensions"


@runtime_checkable
class HasFrame(Protocol):
    """A result that gives its numbers as a frame."""

    def to_frame(self) -> pd.DataFrame: ...


Rows = pd.DataFrame | HasFrame
"""What figures of jumps take: a result, or its frame."""


def plain_rows(rows: Rows, columns: Sequence[str], *, fix: str, may_be_empty: bool = False) -> Any:
    """The frame of a result (or a frame) with plain numbers for pandas' nullable ones.

    Raises:
        InputError: for columns that are not there, or a frame without rows.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else rows.to_frame()
    missing = [name for name in columns if name not in frame.columns]
    empty = frame.empty and not may_be_empty
    if empty or (missing and not frame.empty):
        raise InputError(
            expected=f"a frame with rows and the columns {', '.join(columns)}",
            got="an empty frame" if empty else f"no column {', '.join(missing)}",
            fix=fix,
        )
    nullable = [
        name
        for name in frame.columns
        if pd.api.types.is_extension_array_dtype(frame[name].dtype)
        and pd.api.types.is_numeric_dtype(frame[name].dtype)
    ]
    return frame.reset_index(drop=True).astype(dict.fromkeys(nullable, float))


def metric_name(metric: str) -> str:
    """A measure of dimensionality as read by people."""
    words = capability_name(metric)
    return DIMENSIONS.get(metric, words[:1].upper() + words[1:])


def one_metric(frame: Any, metric: str | None) -> tuple[Any, str]:
    """The rows of one metric, and its name.

    Raises:
        InputError: for a metric that is not there, or several metrics and none chosen.
    """
    if "metric" not in frame.columns:
        return frame, metric or "value"
    names = list(dict.fromkeys(frame["metric"].dropna().astype(str)))
    if metric is None and len(names) > 1:
        raise InputError(
            expected="rows of one metric: others have other sizes",
            got=f"the metrics {', '.join(names)}",
            fix=f'Choose one: metric="{names[0]}".',
        )
    chosen = metric or (names[0] if names else "value")
    if names and chosen not in names:
        raise InputError(
            expected=f"a metric out of {', '.join(names)}", got=repr(chosen), fix="Choose one."
        )
    rows = frame.loc[frame["metric"].astype(str) == chosen] if names else frame
    return rows.reset_index(drop=True), chosen


def with_places(frame: Any) -> Any:
    """The frame with text in `model` and `layer_name`, and a number in `layer` and `seed`."""
    rows = frame.copy()
    rows["model"] = rows["model"].fillna("").astype(str) if "model" in rows.columns else ""
    for name in ("layer", "seed"):
        if name not in rows.columns:
            rows[name] = np.nan
    if "layer_name" not in rows.columns:
        rows["layer_name"] = [
            "all layers" if pd.isna(layer) else f"layer {int(layer)}" for layer in rows["layer"]
        ]
    rows["layer_name"] = rows["layer_name"].astype(str)
    return rows


def in_order(rows: Any, column: str = "layer_name") -> list[str]:
    """Names of layers from the first to the last, by `layer` where it is known."""
    first = rows.groupby(column, sort=False)["layer"].min()
    names = [str(name) for name in first.index]
    if first.isna().to_numpy().any():
        return names
    return sorted(names, key=lambda name: float(first[name]))


def named(value: Any) -> str:
    """A seed as read by people: 1 and not 1.0."""
    if isinstance(value, float) and not np.isnan(value):
        return f"{value:g}"
    return str(value)


def number(rows: Any, name: str) -> np.ndarray:
    """A column as numbers; nan where it is not there."""
    if name not in rows.columns:
        return np.full(len(rows), np.nan)
    return rows[name].to_numpy(dtype=float, na_value=np.nan)


def one_row_each(rows: Any, column: str, names: Sequence[str], *, fix: str) -> Any:
    """The rows in the order of `names`; empty ones for names that are not there.

    Raises:
        InputError: several rows for one name.
    """
    doubled = rows.loc[rows[column].duplicated(), column]
    if len(doubled):
        raise InputError(
            expected="one row for each name and panel",
            got=f"several for {doubled.iloc[0]!r}",
            fix=fix,
        )
    return rows.set_index(column).reindex(list(names)).reset_index()


def count(n: int, word: str) -> str:
    """`1 jump`, `2 jumps`."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def short_name(name: str, longest: int = 24) -> str:
    """A module's name without its first parts, or cut in its middle, where it is long."""
    if len(name) <= longest:
        return name
    parts = name.split(".")
    for i in range(1, len(parts)):
        if len(last := ".".join(parts[i:])) < longest:
            return f"…{last}"
    head = (longest - 1) // 3
    return f"{name[:head]}…{name[head + 1 - longest :]}"
