"""Python values to JSON and back, exactly: the codec behind `results.save` and `results.load`.

Numbers stay readable: arrays and tensors are lists beside their dtype and shape, and a decimal
that names a float64 exactly gives every float16, bfloat16, float32 and float64 back as it was.
What JSON does not have is tagged: `{"$tuple": [...]}`, `{"$tensor": {...}}`, `{"$class": {...}}`.
Classes are looked up inside headspec only: a file can never make Python import anything else.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd

from headspec.errors import CheckpointError, InputError
from headspec.results import arrays


def encode(value: Any, where: str = "result") -> Any:
    """A value as plain JSON: dictionaries with text keys, lists, text, numbers, booleans, None.

    Args:
        value: numbers, text, None, tuples, lists, dictionaries, sets, NumPy arrays and scalars,
            tensors (they come back on the CPU, detached), pandas frames and headspec dataclasses,
            nested as deep as one likes.
        where: how messages name the value.

    Raises:
        InputError: for a value of another kind, named by its place.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": arrays.non_finite_name(value)}
    if kind is complex:
        return {"$complex": [encode(value.real), encode(value.imag)]}
    if kind is list:
        return [encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if kind in (tuple, set, frozenset):
        items = value if kind is tuple else sorted(value, key=repr)
        return {f"${kind.__name__}": [encode(x, f"{where}[{i}]") for i, x in enumerate(items)]}
    if isinstance(value, Mapping):
        return _encode_mapping(value, where)
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        items = [encode(item, f"{where}[{i}]") for i, item in enumerate(value.reshape(-1))]
        return {"$objects": {"shape": list(value.shape), "values": items}}
    if isinstance(value, np.ndarray):
        return {"$array": arrays.encode_array(value, where)}
    if isinstance(value, np.generic):
        return {"$scalar": arrays.encode_array(value, where)}
    if arrays.is_tensor(value):
        return {"$tensor": arrays.encode_tensor(value, where)}
    if isinstance(value, pd.DataFrame):
        return {"$frame": _encode_frame(value, where)}
    if is_dataclass(value) and not isinstance(value, type):
        return _encode_dataclass(value, where)
    raise InputError(
        expected="numbers, text, containers, arrays, tensors, frames and headspec dataclasses",
        got=f"{where} of type {kind.__module__}.{kind.__qualname__}",
        fix="Keep such objects out of results, or save `result.to_frame()` instead.",
    )


def decode(data: Any) -> Any:
    """The value that `encode` wrote.

    Raises:
        CheckpointError: where the data name a class outside headspec, or one that has changed.
    """
    if isinstance(data, list):
        return [decode(item) for item in data]
    if not isinstance(data, dict):
        return data
    tag = next(iter(data), "")
    if tag.startswith("$"):
        if tag not in _DECODERS:
            raise _unreadable(f"the unknown tag {tag!r}")
        return _DECODERS[tag](data[tag])
    return {key: decode(item) for key, item in data.items()}


def _unreadable(got: str) -> CheckpointError:
    return CheckpointError(
        expected="a results file written by this or an older release of headspec",
        got=got,
        fix="Compute the result again, or load it with the release that wrote it.",
    )


def _encode_mapping(value: Mapping[Any, Any], where: str) -> Any:
    if all(type(key) is str for key in value) and not next(iter(value), "").startswith("$"):
        return {key: encode(item, f"{where}[{key!r}]") for key, item in value.items()}
    pairs = [[encode(k, where), encode(v, f"{where}[{k!r}]")] for k, v in value.items()]
    return {"$dict": pairs}


def _decode_objects(data: dict[str, Any]) -> np.ndarray:
    out = np.empty(len(data["values"]), dtype=object)
    for i, item in enumerate(data["values"]):
        out[i] = decode(item)
    return out.reshape(data["shape"])


# --- frames ----------------------------------------------------------------------------------


def _encode_frame(frame: pd.DataFrame, where: str) -> dict[str, Any]:
    if frame.index.nlevels > 1 or frame.columns.nlevels > 1 or not frame.columns.is_unique:
        raise InputError(
            expected="a frame with one level of index and distinct column names",
            got=f"{where} with columns {list(frame.columns)[:12]}",
            fix="Call `.reset_index()` and rename the columns before saving.",
        )
    counted = isinstance(frame.index, pd.RangeIndex) and frame.index.name is None
    counted = counted and frame.index.equals(pd.RangeIndex(len(frame)))
    index = None if counted else _encode_column(frame.index.to_series(), f"index of {where}")
    columns = [_encode_column(c, f"{where}[{name!r}]") for name, c in frame.items()]
    return {"rows": len(frame), "columns": columns, "index": index}


def _holds_objects(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind == "O"


def _encode_column(column: pd.Series, where: str) -> dict[str, Any]:
    dtype = column.dtype
    head = {"name": encode(column.name, where), "dtype": str(dtype)}
    if isinstance(dtype, pd.CategoricalDtype):
        categories = _encode_column(pd.Series(dtype.categories), where)
        codes = column.cat.codes.tolist()
        return head | {"categories": categories, "ordered": bool(dtype.ordered), "values": codes}
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return head | {"values": arrays.to_list(column.to_numpy(), where)}
    if isinstance(dtype, np.dtype | pd.StringDtype) or pd.api.types.is_numeric_dtype(dtype):
        items = column.to_numpy(dtype=object)
        if not _holds_objects(dtype):  # each pandas dtype has one way of saying "missing"
            gaps = column.isna()
            items = [None if gap else x for x, gap in zip(items, gaps, strict=True)]
        return head | {"values": [encode(x, f"{where}[{i}]") for i, x in enumerate(items)]}
    raise InputError(
        expected="columns of numbers, text, booleans, categories or times",
        got=f"{where} of dtype {dtype}",
        fix="Convert the column with `.astype(...)` before saving.",
    )


def _decode_column(data: dict[str, Any]) -> pd.Series:
    name, values = decode(data["name"]), data["values"]
    if "categories" in data:
        categories = pd.Index(_decode_column(data["categories"]))
        kind = pd.CategoricalDtype(categories, ordered=data["ordered"])
        return pd.Series(pd.Categorical.from_codes(values, dtype=kind), name=name)
    dtype = pd.api.types.pandas_dtype(data["dtype"])
    if _holds_objects(dtype):
        return pd.Series(_decode_objects(data | {"shape": -1}), dtype=object, name=name)
    if isinstance(dtype, np.dtype) and dtype.kind != "U":
        return pd.Series(arrays.from_list(values, dtype), dtype=dtype, name=name)
    return pd.Series(pd.array([decode(item) for item in values], dtype=dtype), name=name)


def _decode_frame(data: dict[str, Any]) -> pd.DataFrame:
    columns = [_decode_column(column) for column in data["columns"]]
    frame = pd.DataFrame(dict(enumerate(columns)), index=pd.RangeIndex(data["rows"]))
    frame.columns = pd.Index([column.name for column in columns])
    if data["index"] is not None:
        frame.index = pd.Index(_decode_column(data["index"]))
    return frame


# --- dataclasses -----------------------------------------------------------------------------


def _encode_dataclass(value: Any, where: str) -> Any:
    kind = type(value)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if not name.startswith("headspec.") or "<locals>" in name:
        raise InputError(
            expected="a result class of headspec",
            got=f"{where} of class {name}",
            fix="Save `result.to_frame()`: files never name classes outside headspec.",
        )
    inner = {f.name: encode(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)}
    return {"$class": {"name": name, "fields": inner}}


def _decode_dataclass(data: dict[str, Any]) -> Any:
    kind = _result_class(data["name"])
    values = {name: decode(item) for name, item in data["fields"].items()}
    computed = {f.name for f in fields(kind) if not f.init} & values.keys()
    try:
        result = kind(**{name: item for name, item in values.items() if name not in computed})
    except (TypeError, ValueError) as error:
        raise _unreadable(f"fields that {data['name']} does not take: {error}") from error
    for name in computed:
        object.__setattr__(result, name, values[name])
    return result


def _result_class(name: str) -> Any:
    """The dataclass called `headspec.module:Name`; nothing else is looked up or imported."""
    module_name, _, qualname = name.partition(":")
    found: Any = None
    if module_name.startswith("headspec."):
        try:
            found = importlib.import_module(module_name)
        except ImportError as error:
            raise _unreadable(f"the class {name}, which this release does not have") from error
        for part in qualname.split("."):
            found = vars(found).get(part)
            if not (isinstance(found, type) and found.__module__ == module_name):
                raise _unreadable(f"the class {name}, which this release does not have")
    if not is_dataclass(found):
        raise _unreadable(f"the class {name}, which is no result class of headspec")
    return found


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "$float": arrays.NON_FINITE.__getitem__,
    "$complex": lambda parts: complex(*(decode(part) for part in parts)),
    "$tuple": lambda items: tuple(decode(item) for item in items),
    "$set": lambda items: {decode(item) for item in items},
    "$frozenset": lambda items: frozenset(decode(item) for item in items),
    "$dict": lambda pairs: {decode(key): decode(item) for key, item in pairs},
    "$objects": _decode_objects,
    "$array": arrays.decode_array,
    "$scalar": lambda data: arrays.decode_array(data)[()],
    "$tensor": arrays.decode_tensor,
    "$frame": _decode_frame,
    "$class": _decode_dataclass,
}
