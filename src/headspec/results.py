"""Results: tidy frames, and files that give them back exactly, with where they come from.

Two formats, chosen by the suffix. `.json` is text that any tool reads. `.parquet` holds the tidy
frame as a table (of a result object: its `to_frame()`), and the object itself in the file's
metadata. Both carry a `Provenance` and checksums, and are written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headspec.errors import CheckpointError, InputError
from headspec.provenance import Provenance
from headspec.result_files import FORMATS, FileFormat, write_atomically

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


def save(result: Any, path: str | Path, *, provenance: Provenance | None = None) -> Path:
    """Write a tidy frame or a headspec result to a file that `load` gives back exactly.

    The file appears whole or not at all: it is written beside its place, flushed to the disk and
    moved there.

    Args:
        result: a pandas frame, or a frozen dataclass of headspec whose fields hold numbers, text,
            arrays, tensors, containers, None or further such dataclasses.
        path: a file ending in `.json` or `.parquet`; missing folders are made.
        provenance: where the result comes from, see `Provenance.collect`.

    Returns:
        The path written.

    Raises:
        InputError: for another suffix, or for values that the file could not hold exactly.
    """
    path = Path(path)
    if not isinstance(result, pd.DataFrame) and (
        isinstance(result, type) or not is_dataclass(result)
    ):
        raise InputError(
            expected="a pandas frame or a result of headspec (a frozen dataclass)",
            got=f"an object of type {type(result).__name__}",
            fix="Turn it into a frame first, for instance with `results.tidy(...)`.",
        )
    write_atomically(path, _format_of(path).dumps(result, provenance))
    return path


def load(path: str | Path) -> Any:
    """Read what `save` wrote: the same frame, or an equal object of the same class.

    Raises:
        InputError: when there is no such file, or its suffix is not `.json` or `.parquet`.
        CheckpointError: when the file is damaged or was not written by `save`.
    """
    return _read(Path(path), _format_of(Path(path)).loads)


def load_provenance(path: str | Path) -> Provenance | None:
    """Read where the result in a file comes from; None if it was saved without provenance.

    Raises:
        InputError: when there is no such file, or its suffix is not `.json` or `.parquet`.
        CheckpointError: when the file is damaged or was not written by `save`.
    """
    return _read(Path(path), _format_of(Path(path)).loads_provenance)


def _format_of(path: Path) -> FileFormat:
    if path.suffix not in FORMATS:
        raise InputError(
            expected="a file name ending in .json or .parquet",
            got=f"{path.name!r}",
            fix=f"Call it {path.name + '.json'!r}, for instance.",
        )
    return FORMATS[path.suffix]


def _read(path: Path, reader: Callable[[bytes], Any]) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            expected="a results file",
            got=f"{path}, which cannot be read ({error.strerror})",
            fix="Check the path; `results.save` returns the one it wrote.",
        ) from error
    try:
        return reader(content)
    except CheckpointError as error:
        raise CheckpointError(
            expected=error.expected, got=f"in {path}: {error.got}", fix=error.fix
        ) from error
    except Exception as error:  # whatever a damaged file makes the parsers do
        raise CheckpointError(
            expected="a whole file that `results.save` wrote",
            got=f"{path}, which is damaged or something else ({type(error).__name__}: {error})",
            fix="Delete it and compute the result again.",
        ) from error
