"""One curve out of a tidy frame: steps in order, one finite number each, and what it is of."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.errors import InputError

Axis = Literal["log_step", "step"]
DType = Literal["float16", "bfloat16", "float32", "float64"]

_EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
_LABELS = ("model", "layer", "head")


@dataclass(frozen=True)
class Curve:
    """Values of one metric over training steps.

    Attributes:
        metric: its name.
        steps: increasing training steps, `step`.
        values: the metric at each step, finite, `step`.
        noise_sd: known standard deviation of the measurement noise at each step, or None.
        model, layer, head: what it was measured on, where the frame says so.
    """

    metric: str
    steps: Int[np.ndarray, " step"]
    values: Float[np.ndarray, " step"]
    noise_sd: Float[np.ndarray, " step"] | None = None
    model: str | None = None
    layer: int | None = None
    head: int | None = None

    def axis(self, name: Axis) -> Float[np.ndarray, " step"]:
        """Positions of the steps: log(1 + step), or the steps themselves."""
        return axis_positions(self.steps, name)

    def resolution(self, dtype: DType) -> float:
        """The smallest difference of values of this size that `dtype` can be trusted with."""
        return 4 * _EPSILON[dtype] * float(np.abs(self.values).max())


def axis_positions(steps: Int[np.ndarray, " step"], name: Axis) -> Float[np.ndarray, " step"]:
    """log(1 + step), which keeps step 0, or the step as a float."""
    return np.log1p(steps) if name == "log_step" else steps.astype(float)


def read_curve(
    frame: pd.DataFrame,
    metric: str,
    *,
    noise_sd: float | int | str | None = None,
    min_points: int = 3,
) -> Curve:
    """Take one metric out of a tidy frame.

    Args:
        frame: columns `step`, `metric`, `value`; rows in any order; `model`, `layer`, `head`
            are kept as labels where they have one value.
        metric: which metric.
        noise_sd: known noise, one number or the name of a column.
        min_points: fewer points than this are an error.

    Raises:
        InputError: if columns or the metric are missing, steps repeat, numbers are not finite,
            or there are too few points.
    """
    if missing := [name for name in ("step", "metric", "value") if name not in frame.columns]:
        raise InputError(
            expected="a tidy frame with the columns step, metric and value",
            got=f"columns {list(frame.columns)}, without {missing}",
            fix="Reshape a wide frame with frame.melt('step', var_name='metric').",
        )
    rows = frame.loc[(frame["metric"] == metric).to_numpy(dtype=bool)]
    if rows.empty:
        known = sorted({str(name) for name in frame["metric"]})
        near = difflib.get_close_matches(metric, known, n=3) or known[:8]
        raise InputError(
            expected="a metric of the frame", got=repr(metric), fix=f"Did you mean one of {near}?"
        )
    _refuse_repeats(rows, metric)
    rows = rows.sort_values(by="step")
    steps = _numbers(rows, "step", metric)
    if (steps < 0).any() or (steps != np.round(steps)).any():
        raise InputError(
            expected="steps that are whole numbers from 0 up",
            got=f"{steps[(steps < 0) | (steps != np.round(steps))][:3].tolist()}",
            fix="Give the number of optimiser steps.",
        )
    if len(rows) < min_points:
        raise InputError(
            expected=f"at least {min_points} steps of {metric!r}",
            got=f"{len(rows)}: {steps.astype(int).tolist()}",
            fix="Measure more checkpoints.",
        )
    model, layer, head = (_label(rows, name) for name in _LABELS)
    return Curve(
        metric=metric,
        steps=steps.astype(np.int64),
        values=_numbers(rows, "value", metric),
        noise_sd=_noise(rows, noise_sd, metric),
        model=None if model is None else str(model),
        layer=None if layer is None else int(layer),
        head=None if head is None else int(head),
    )


def _refuse_repeats(rows: pd.DataFrame, metric: str) -> None:
    steps = rows["step"].tolist()
    repeated = [step for step in dict.fromkeys(steps) if steps.count(step) > 1]
    if not repeated:
        return
    others = [name for name in rows.columns if name not in ("step", "metric", "value")]
    varying = [name for name in others if len(rows[name].drop_duplicates()) > 1]
    labels = [name for name in varying if name in _LABELS] or varying
    fix = "Average or drop the repeated rows."
    if labels:
        fix = f"Select one series, or treat each apart: find_transitions(..., by={labels})."
    raise InputError(
        expected=f"one value of {metric!r} a step", got=f"several at step {repeated[0]}", fix=fix
    )


def _numbers(rows: pd.DataFrame, column: str, metric: str) -> Float[np.ndarray, " step"]:
    values = np.array([_number(value) for value in rows[column]], dtype=float)
    if not np.isfinite(values).all():
        at = int(np.argmin(np.isfinite(values)))
        raise InputError(
            expected=f"finite numbers in column {column!r} of {metric!r}",
            got=f"{rows[column].tolist()[at]!r} at step {rows['step'].tolist()[at]}",
            fix="Drop those steps on purpose: frame.dropna(subset='value').",
        )
    return values


def _number(value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):  # None, pd.NA, text
        return float("nan")


def _noise(
    rows: pd.DataFrame, noise_sd: float | int | str | None, metric: str
) -> Float[np.ndarray, " step"] | None:
    if noise_sd is None:
        return None
    if isinstance(noise_sd, str):
        if noise_sd not in rows.columns:
            raise InputError(
                expected="a number or the name of a column",
                got=f"{noise_sd!r}, and columns {list(rows.columns)}",
                fix="Name the column that holds the standard errors.",
            )
        sds = _numbers(rows, noise_sd, metric)
    else:
        sds = np.full(len(rows), float(noise_sd))
    if not np.isfinite(sds).all() or (sds < 0).any():
        raise InputError(
            expected="standard errors from 0 up", got=f"{sds.min()}", fix="Check the column."
        )
    return sds


def _label(rows: pd.DataFrame, name: str):
    """The value of a column that has one value, else None."""
    values = rows[name].drop_duplicates().tolist() if name in rows.columns else []
    return None if len(values) != 1 or pd.isna(values[0]) else values[0]
