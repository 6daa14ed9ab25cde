"""Numbers and frames as text for tables."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

MISSING = "–"
_P_COLUMNS = ("p", "q", "p_value", "q_value")
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def number_text(value: Any, *, column: str = "", spec: str | None = None) -> str:
    """A value as a table shows it: three significant digits, a true minus, – where missing.

    >>> [number_text(v) for v in (143000, 0.12345, -2.0, 1.5e-7, None, True, "qk")]
    ['143 000', '0.123', '−2', '1.5×10⁻⁷', '–', 'yes', 'qk']
    >>> number_text(0.0001, column="p")
    '<0.001'
    """
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, numbers.Real):
        return str(value)
    number = float(value)
    if spec is not None:
        text = format(value, spec)
    elif column in _P_COLUMNS:
        text = "<0.001" if number < 0.001 else f"{number:.3f}"
    elif number.is_integer() and abs(number) < 1e15:
        text = f"{int(number):,}".replace(",", " ")
    else:
        text = _significant(number)
    return text.replace("-", "−") if "×" not in text else "−" * (text[0] == "-") + text.lstrip("-")


def _significant(value: float) -> str:
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞"
    text = f"{value:.3g}"
    if "e" not in text:
        return text
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}".replace(",", " ")
    digits, exponent = text.split("e")
    return f"{digits}×10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def _common_spec(values: pd.Series, column: str) -> str | None:
    """As many decimals as give the largest number three digits, if that leaves the smallest one.

    None where each number is better written by itself: whole numbers, p-values, wide ranges.
    """
    sizes = [abs(float(x)) for x in values.dropna() if x != 0 and math.isfinite(x)]
    if column in _P_COLUMNS or not sizes or all(x.is_integer() for x in sizes):
        return None
    largest = max(sizes)
    decimals = max(0, 2 - math.floor(math.log10(largest)))
    if largest >= 1000 or min(sizes) < 10.0**-decimals:
        return None
    while decimals > 1 and all(abs(round(x, decimals - 1) - x) < 1e-9 for x in sizes):
        decimals -= 1
    return f".{decimals}f"


def table_cells(frame: pd.DataFrame, formats: Mapping[str, str]) -> dict[str, Any]:
    """A frame as text: column names, whether each holds numbers, and rows of cells."""
    columns = [str(name) for name in frame.columns]
    numeric = [
        bool(pd.api.types.is_numeric_dtype(dtype)) and not pd.api.types.is_bool_dtype(dtype)
        for dtype in frame.dtypes
    ]
    specs = [
        formats.get(name) or _common_spec(frame.iloc[:, i], name) if numeric[i] else None
        for i, name in enumerate(columns)
    ]
    rows = [
        [
            number_text(value, column=name, spec=spec)
            for value, name, spec in zip(row, columns, specs, strict=True)
        ]
        for row in frame.itertuples(index=False, name=None)
    ]
    words = [name.replace("_", " ") for name in columns]
    return {"columns": list(zip(words, numeric, strict=True)), "rows": rows}


def flat_rows(values: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested provenance as rows of name and text; names of inner keys follow a comma."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}, {key}" if prefix else str(key).replace("_", " ")
        if isinstance(value, Mapping):
            rows += flat_rows(value, name)
        elif isinstance(value, list | tuple | set):
            rows.append((name, ", ".join(str(item) for item in value) or MISSING))
        else:
            rows.append((name, MISSING if value is None or value == "" else str(value)))
    return rows
