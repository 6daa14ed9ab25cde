"""Rows of correlated rates, checked and put into words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from headspec.errors import InputError
from headspec.plots.frames import number_column
from headspec.plots.wording import capability_name

_NEEDED = ("metric", "capability", "value", "p", "raw_r", "null_q05", "null_q95")
_PLACES = ("model", "layer", "head")


def rate_rows(
    frame: pd.DataFrame, *, lag: int = 0, capabilities: Sequence[str] | None = None
) -> pd.DataFrame:
    """Rows of `RateCorrelations.to_frame()` at one lag, by chosen capability, layer and head.

    A frame without `q` is judged by `p`: its column `q` is then p, and `judged` says so.

    Raises:
        InputError: for missing columns, or a lag or capability that the frame lacks.
    """
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing or frame.empty:
        raise InputError(
            expected=f"rows of `RateCorrelations.to_frame()` with {', '.join(_NEEDED)}",
            got="an empty frame" if frame.empty else f"no column {', '.join(missing)}",
            fix="Give the frame of `correlate_rates(...)`.",
        )
    numbers = {n: float for n in ("layer", "head", "lag", "n") if n in frame.columns}
    rows = frame.astype(numbers)
    if "lag" in rows.columns:
        rows = rows.loc[rows["lag"] == lag]
    found = list(dict.fromkeys(str(name) for name in rows["capability"]))
    names = [capabilities] if isinstance(capabilities, str) else list(capabilities or found)
    unknown = [name for name in names if name not in found]
    if unknown or rows.empty:
        raise InputError(
            expected=f"rows at lag {lag} of {', '.join(unknown) or 'some capability'}",
            got=f"the capabilities {found} and lags {_lags(frame)}",
            fix="Name capabilities and a lag of the frame.",
        )
    judged = "q" if number_column(rows, "q") is not None else "p"
    rows = rows.loc[rows["capability"].isin(names)].assign(judged=judged, q=rows[judged])
    rows = rows.assign(rank=[names.index(name) for name in rows["capability"]])
    keys = ["rank", *(name for name in ("layer", "head") if name in rows.columns)]
    return rows.sort_values(by=keys, kind="stable", ignore_index=True).drop(columns="rank")


def _lags(frame: pd.DataFrame) -> list[int]:
    return sorted({int(lag) for lag in frame["lag"]}) if "lag" in frame.columns else [0]


def place_names(rows: pd.DataFrame, *, most: int = 1) -> pd.Series:
    """Where each row was measured, in words: the model, layer or head in which rows differ.

    Raises:
        InputError: when they differ in more than `most` of these.
    """
    differ = [
        key for key in _PLACES if key in rows.columns and len(rows[key].dropna().unique()) > 1
    ]
    if len(differ) > most:
        raise InputError(
            expected="rows that differ in model, layer or head, one of them",
            got=f"rows that differ in {' and '.join(differ)}",
            fix="Choose one model, one layer, or correlate means over layers.",
        )
    return pd.Series(
        [", ".join(_place(key, row[key]) for key in differ) for row in rows.to_dict("records")],
        index=rows.index,
        dtype=object,
    ).where([any(pd.notna(row[key]) for key in differ) for row in rows.to_dict("records")], "")


def _place(key: str, value: object) -> str:
    if key == "model" or pd.isna(value):  # pyright: ignore[reportGeneralTypeIssues]
        return str(value) if key == "model" else f"no {key}"
    return f"{key} {int(value)}"  # pyright: ignore[reportArgumentType]


def signed(value: float, digits: int = 2) -> str:
    """A correlation with its sign, a true minus: "+0.41", "−0.10"."""
    return "–" if math.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")


def wrapped(name: str, width: int) -> list[str]:
    """A capability's name in lines of at most `width` characters, where its words allow it."""
    lines: list[str] = []
    for word in capability_name(name).split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
