"""Tidy frames: one row a number, the same columns in every result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from headspec.errors import InputError

TIDY_COLUMNS = (
    "model",
    "step",
    "layer",
    "head",
    "metric",
    "value",
    "null_mean",
    "null_sd",
    "p",
    "n",
    "seed",
)
_TEXT_COLUMNS = ("model", "metric")
_INTEGER_COLUMNS = ("step", "layer", "head", "n", "seed")


def tidy(
    rows: pd.DataFrame | Mapping[str, Any] | Iterable[Mapping[str, Any]], **constants: Any
) -> pd.DataFrame:
    """A frame with the tidy columns, in order and with fixed dtypes, whatever the rows leave out.

    Args:
        rows: a frame, a mapping of column names to values of equal length (numbers alone are
            repeated), or an iterable of rows.
        **constants: values for every row that does not have its own, such as `model=`, `step=`.

    Returns:
        `TIDY_COLUMNS` first: model and metric as text, step, layer, head, n and seed as `Int64`
        (missing: `<NA>`), the others as float64 (missing: NaN). Extra columns follow as given.

    Raises:
        InputError: for fractions in an integer column or text in a number column.

    Example:
        >>> frame = tidy([{"head": 3, "metric": "norm", "value": 1.5}], model="micro", step=8)
        >>> frame[["model", "step", "head", "metric", "value"]].to_dict("records")
        [{'model': 'micro', 'step': 8, 'head': 3, 'metric': 'norm', 'value': 1.5}]
    """
    if isinstance(rows, pd.DataFrame):
        frame = rows.reset_index(drop=True)
    elif isinstance(rows, Mapping):
        columns = {name: _plain(value) for name, value in rows.items()}
        alone = all(np.ndim(value) == 0 for value in columns.values())
        frame = pd.DataFrame(columns, index=pd.RangeIndex(1) if columns and alone else None)
    else:
        listed = [{name: _plain(value) for name, value in row.items()} for row in rows]
        frame = pd.DataFrame(listed)
    columns: dict[Any, Any] = {name: frame[name] for name in frame.columns}
    for name, constant in constants.items():
        column = pd.Series([_plain(constant)] * len(frame), dtype=object)
        if name in columns:
            column = columns[name].astype(object).where(columns[name].notna(), column)
        columns[name] = column.infer_objects()
    standard = {
        name: _tidy_column(name, columns.pop(name)) if name in columns else _missing(name, frame)
        for name in TIDY_COLUMNS
    }
    return pd.DataFrame({**standard, **columns}, index=pd.RangeIndex(len(frame)))


def _plain(value: Any) -> Any:
    """Tensors as NumPy values: pandas would otherwise keep them as objects."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _missing(name: str, frame: pd.DataFrame) -> pd.Series:
    if name in _TEXT_COLUMNS or name in _INTEGER_COLUMNS:
        return pd.Series([None] * len(frame), dtype=_tidy_dtype(name))
    return pd.Series(np.full(len(frame), np.nan))


def _tidy_dtype(name: str) -> Any:
    if name in _TEXT_COLUMNS:
        return pd.Series(["a"]).dtype  # str from pandas 3 on, object before
    return pd.Int64Dtype() if name in _INTEGER_COLUMNS else np.dtype("float64")


def _tidy_column(name: str, column: pd.Series) -> pd.Series:
    dtype = _tidy_dtype(name)
    if column.dtype == dtype and dtype != np.dtype(object):
        return column
    if not (isinstance(column.dtype, np.dtype) and column.dtype.kind in "biu"):
        column = column.astype(object).where(column.notna(), None)
    try:
        return column.astype(dtype)
    except (TypeError, ValueError) as error:
        kind = "whole numbers" if name in _INTEGER_COLUMNS else "numbers"
        raise InputError(
            expected=f"{kind} in the column {name!r}",
            got=f"{[item for item in column if item is not None][:3]}",
            fix="Give other values an extra column of their own.",
        ) from error
