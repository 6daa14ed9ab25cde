"""Frames of capabilities: the tidy columns, and the same further ones wherever they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from headspec.results.frames import tidy

_TEXT = ("task", "measure", "version", "file")
_INTEGERS = ("shots", "identical_to")
CAPABILITY_COLUMNS = ("task", "measure", "se", "shots", "chance", "version", "identical_to", "file")


def capability_rows(rows: Iterable[Mapping[str, Any]], **constants: Any) -> pd.DataFrame:
    """A tidy frame whose `metric` is `"{task}.{measure}"`, with `CAPABILITY_COLUMNS` behind it.

    Args:
        rows: with `task`, `measure`, `value`, and whatever else is known.
        **constants: values for all rows, such as `model=`, `step=`.

    Returns:
        Text columns are None, integers `<NA>`, numbers NaN where unknown.

    Example:
        >>> rows = [{"task": "piqa", "measure": "acc", "value": 0.6, "se": 0.01, "chance": 0.5}]
        >>> frame = capability_rows(rows, model="pythia-70m", step=1000)
        >>> frame["metric"].tolist(), frame["chance"].tolist()
        (['piqa.acc'], [0.5])
    """
    listed = [{"metric": f"{row['task']}.{row['measure']}", **row} for row in rows]
    frame = tidy(pd.DataFrame(listed), **constants)
    columns: dict[str, Any] = {}
    for name in CAPABILITY_COLUMNS:
        found = frame[name] if name in frame else pd.Series([None] * len(frame), dtype=object)
        if name in _TEXT:
            column = found.astype(object)
            columns[name] = column.where(column.notna(), None).astype(frame["metric"].dtype)
        elif name in _INTEGERS:
            columns[name] = found.astype("Int64")
        else:
            columns[name] = found.astype(float) if name in frame else np.nan
    return frame.drop(columns=[*columns], errors="ignore").assign(**columns)
