"""Tidy frames of arrays with one entry a matrix of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from headspec.errors import InputError


def batch_frame(
    values: Mapping[str, np.ndarray], dims: Sequence[str] | None, **columns: np.ndarray
) -> pd.DataFrame:
    """One row a matrix and metric.

    Args:
        values: metric to numbers, all of the batch's shape.
        dims: names of the batch's dimensions, which become columns of indices; None: `index`, or
            `index_0`, `index_1`, ... of several.
        **columns: further columns, of the batch's shape.

    Raises:
        InputError: not one name a dimension.
    """
    shape = next(iter(values.values())).shape
    if dims is None:
        dims = ("index",) if len(shape) == 1 else tuple(f"index_{i}" for i in range(len(shape)))
    if isinstance(dims, str) or len(dims) != len(shape):
        raise InputError(
            expected=f"{len(shape)} names of batch dimensions",
            got=f"dims={dims!r}",
            fix='One name a dimension, such as dims=("layer", "head").',
        )
    places = np.indices(shape).reshape(len(shape), int(np.prod(shape)))
    every = {dim: places[axis] for axis, dim in enumerate(dims)}
    every |= {name: column.ravel() for name, column in columns.items()}
    frames = [
        pd.DataFrame({**every, "metric": name, "value": numbers.ravel()})
        for name, numbers in values.items()
    ]
    return pd.concat(frames, ignore_index=True)


def spread(values: np.ndarray | float) -> str:
    """Range and median of the numbers that are not nan, in words."""
    known = np.ravel(values)[~np.isnan(np.ravel(values))]
    if not known.size:
        return "not defined"
    low, middle, high = np.min(known), np.median(known), np.max(known)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g} (median {middle:.4g})"
