"""Curves to look for jumps in, out of a frame or an array, each with its resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.errors import InputError, check_choice
from headspec.series.curve import Curve, DType
from headspec.series.curve_table import read_curves

LABELS = ("model", "seed", "layer", "layer_name", "head", "metric")
_UNSTATED = -1.0  # for a missing resolution, which is below every one that is stated
Resolution = float | int | Float[np.ndarray, " curve"] | DType | None


@dataclass(frozen=True)
class JumpCurves:
    """Curves over the same steps.

    Attributes:
        labels: one row a curve, the columns `LABELS`.
        steps: increasing, `step`.
        values: finite, `curve step`.
        resolution: change below which nothing is meant, `curve`.
    """

    labels: pd.DataFrame
    steps: Int[np.ndarray, " step"]
    values: Float[np.ndarray, "curve step"]
    resolution: Float[np.ndarray, " curve"]


def read_jump_curves(
    series: pd.DataFrame | np.ndarray,
    steps: Int[np.ndarray, " step"] | Sequence[int] | None,
    resolution: Resolution,
) -> list[JumpCurves]:
    """All curves of a tidy frame or an array, those over the same steps together.

    Args:
        series: tidy frame, or array `point` or `curve point`.
        steps: of an array's points; 0, 1, 2, ... if None.
        resolution: see `headspec.detect_jumps`.

    Raises:
        InputError: as `headspec.series.curve_table.read_curves`; steps that do not fit an array,
            or steps beside a frame; a resolution below zero.
    """
    if isinstance(resolution, str):
        check_choice("resolution", resolution, get_args(DType))
    if isinstance(series, pd.DataFrame):
        return _from_frame(series, steps, resolution)
    return [_from_array(np.asarray(series), steps, resolution)]


def _from_frame(frame: pd.DataFrame, steps: object, resolution: Resolution) -> list[JumpCurves]:
    if steps is not None:
        raise InputError(
            expected="a frame with its own column step",
            got="a frame and steps=",
            fix="Leave steps= out; it goes with arrays.",
        )
    if isinstance(resolution, np.ndarray):
        raise InputError(
            expected="one resolution, a dtype, or the frame's column resolution",
            got="a frame and an array resolution=",
            fix="Assign it to the frame: frame.assign(resolution=...).",
        )
    by = [name for name in ("seed", "layer_name") if name in frame.columns]
    tables = read_curves(frame, by=by)
    known = None
    if resolution is None and "resolution" in frame.columns:
        stated = np.asarray(pd.to_numeric(frame["resolution"], errors="coerce"), dtype=float)
        _checked(stated[~np.isnan(stated)])
        known = read_curves(frame.assign(value=np.nan_to_num(stated, nan=_UNSTATED)), by=by)
    dtype = _dtype(np.asarray(frame["value"]))
    groups = []
    for i, table in enumerate(tables):
        labels = table.labels.reindex(columns=list(LABELS))
        limits = _limits(table.values, table.steps, dtype if resolution is None else resolution)
        if known is not None:
            own = known[i].values.max(axis=1)
            limits = np.where(own == _UNSTATED, limits, own)
        groups.append(JumpCurves(labels, table.steps, table.values, _checked(limits)))
    return groups


def _from_array(
    array: np.ndarray, steps: Int[np.ndarray, " step"] | Sequence[int] | None, given: Resolution
) -> JumpCurves:
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf" or not array.size:
        raise InputError(
            expected="numbers of shape (point,) or (curve, point)",
            got=f"shape {array.shape}, dtype {array.dtype}",
            fix="Give one row a curve, or a tidy frame.",
        )
    values = np.atleast_2d(array).astype(float)
    if not np.isfinite(values).all():
        curve, point = np.argwhere(~np.isfinite(values))[0].tolist()
        raise InputError(
            expected="finite values",
            got=f"{values[curve, point]} at point {point} of curve {curve}",
            fix="Drop those points on purpose, and their steps with them.",
        )
    at = np.arange(values.shape[1]) if steps is None else np.asarray(steps)
    whole = at.ndim == 1 and len(at) == values.shape[1] and at.dtype.kind in "iu"
    if not whole or (np.diff(at) <= 0).any() or at[0] < 0:
        raise InputError(
            expected=f"{values.shape[1]} increasing whole steps from 0 up",
            got=f"steps of shape {at.shape}: {at[:5].tolist()} ...",
            fix="Give one training step a point.",
        )
    labels = pd.DataFrame({"metric": ["value"] * len(values)}).reindex(columns=list(LABELS))
    at = at.astype(np.int64)
    limits = _limits(values, at, _dtype(array) if given is None else given)
    return JumpCurves(labels, at, values, _checked(limits))


def _dtype(values: np.ndarray) -> DType:
    """The dtype of values, taken to be float32 where they are finer."""
    return "float16" if values.dtype == np.float16 else "float32"


def _limits(values: np.ndarray, steps: np.ndarray, given: Resolution) -> np.ndarray:
    if isinstance(given, str):
        dtype = cast(DType, given)
        return np.array([Curve("", steps, row).resolution(dtype) for row in values])
    limits = np.asarray(given, dtype=float)
    if limits.ndim == 0 or limits.shape == (len(values),):
        return np.broadcast_to(limits, len(values)).copy()
    raise InputError(
        expected=f"a resolution, or {len(values)}, one a curve",
        got=f"shape {limits.shape}",
        fix="Give the change below which nothing is meant, in the unit of the metric.",
    )


def _checked(limits: np.ndarray) -> np.ndarray:
    if not (np.isfinite(limits) & (limits >= 0)).all():
        raise InputError(
            expected="resolutions from 0 up",
            got=f"{limits.min()}",
            fix="Give the change below which nothing is meant, in the unit of the metric.",
        )
    return limits
