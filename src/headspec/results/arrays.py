"""Arrays and tensors as readable JSON, exactly: a list of numbers beside its dtype and shape."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from headspec.errors import InputError

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def non_finite_name(value: float) -> str:
    """How JSON files spell NaN and the infinities."""
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def to_list(flat: np.ndarray, where: str) -> list[Any]:
    """A one-dimensional array as JSON numbers; NaN and the infinities become text.

    Raises:
        InputError: for a dtype that JSON numbers cannot hold exactly.
    """
    kind = flat.dtype.kind
    if kind in "biuU":
        return flat.tolist()
    if kind in "mM":
        return flat.view("i8").tolist()
    if kind == "c" and flat.dtype.itemsize <= 16:
        return to_list(flat.view(_part(flat.dtype)), where)
    if kind == "f" and flat.dtype.itemsize <= 8:
        if np.isfinite(flat).all():
            return flat.tolist()
        return [x if math.isfinite(x) else non_finite_name(x) for x in flat.tolist()]
    raise InputError(
        expected="an array of numbers, booleans, text or times",
        got=f"{where} of dtype {flat.dtype}",
        fix="Convert it with `.astype(...)` before saving.",
    )


def from_list(values: list[Any], dtype: np.dtype) -> np.ndarray:
    """The one-dimensional array that `to_list` wrote."""
    if dtype.kind == "c":
        return from_list(values, _part(dtype)).view(dtype)
    if dtype.kind in "mM":
        return np.array(values, dtype="i8").view(dtype)
    if dtype.kind == "f":
        values = [NON_FINITE[x] if isinstance(x, str) else x for x in values]
    return np.array(values, dtype=dtype)


def _part(dtype: np.dtype) -> np.dtype:
    """The dtype of the real and of the imaginary part of a complex dtype."""
    return np.dtype(f"{dtype.byteorder}f{dtype.itemsize // 2}")


def encode_array(value: np.ndarray | np.generic, where: str) -> dict[str, Any]:
    """An array (or NumPy scalar: shape []) as dtype, shape and values."""
    flat = np.ascontiguousarray(value).reshape(-1)
    return {
        "dtype": flat.dtype.str,
        "shape": list(value.shape),
        "values": to_list(flat, where),
    }


def decode_array(data: dict[str, Any]) -> np.ndarray:
    """The array that `encode_array` wrote."""
    return from_list(data["values"], np.dtype(data["dtype"])).reshape(data["shape"])


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor, without loading torch."""
    torch = sys.modules.get("torch")  # no tensor exists before torch is loaded
    return torch is not None and isinstance(value, torch.Tensor)


def encode_tensor(value: Any, where: str) -> dict[str, Any]:
    """A tensor (detached, on the CPU) as dtype, shape and values."""
    flat = value.detach().cpu().reshape(-1)
    dtype = str(flat.dtype).removeprefix("torch.")
    if flat.is_floating_point() and flat.element_size() <= 4:
        flat = flat.float()  # exact for bfloat16, float16 and the 8-bit floats
    values = to_list(flat.resolve_conj().resolve_neg().numpy(), where)
    return {"dtype": dtype, "shape": list(value.shape), "values": values}


def decode_tensor(data: dict[str, Any]) -> Any:
    """The tensor that `encode_tensor` wrote."""
    import torch

    dtype = getattr(torch, data["dtype"])
    narrow = dtype.is_floating_point and dtype.itemsize <= 4
    like = torch.empty(0, dtype=torch.float32 if narrow else dtype).numpy().dtype
    flat = torch.from_numpy(from_list(data["values"], like))
    return flat.to(dtype).reshape(data["shape"])
