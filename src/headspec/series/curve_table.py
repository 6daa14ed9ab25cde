"""Many curves of a tidy frame at once, read without a loop over curves and steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.errors import InputError
from headspec.series.curve import axis_positions

_KEYS = ("model", "layer", "head", "metric")


@dataclass(frozen=True)
class CurveTable:
    """Curves that were measured at the same steps.

    Attributes:
        labels: one row a curve: `model`, `layer`, `head`, `metric` and the columns of `by`.
        steps: increasing training steps, `step`.
        values: `curve step`, finite.
    """

    labels: pd.DataFrame
    steps: Int[np.ndarray, " step"]
    values: Float[np.ndarray, "curve step"]

    def at(self, steps: Int[np.ndarray, " grid"], *, interpolate: bool) -> CurveTable:
        """The curves at other steps: those they hold, or by straight lines on log(1 + step).

        Raises:
            InputError: if a step lies outside of what was measured, which is never guessed.
        """
        if steps[0] < self.steps[0] or steps[-1] > self.steps[-1]:
            raise InputError(
                expected=f"steps from {self.steps[0]} to {self.steps[-1]}, which were measured",
                got=f"{steps[0]} to {steps[-1]} for {self.labels['metric'].iloc[0]!r}",
                fix="Curves are never extrapolated: choose steps that all of them reach.",
            )
        if not interpolate:
            values = self.values[:, np.searchsorted(self.steps, steps)]
            return CurveTable(self.labels, steps, values)
        old, new = axis_positions(self.steps, "log_step"), axis_positions(steps, "log_step")
        right = np.clip(np.searchsorted(old, new), 1, len(old) - 1)
        share = (new - old[right - 1]) / (old[right] - old[right - 1])
        values = self.values[:, right - 1] * (1 - share) + self.values[:, right] * share
        return CurveTable(self.labels, steps, values)


def read_curves(frame: pd.DataFrame, *, by: Sequence[str] = ()) -> list[CurveTable]:
    """All curves of a tidy frame, those with the same steps together.

    Args:
        frame: columns `step`, `metric`, `value`; a curve is what has one `model`, `layer`,
            `head` and `metric`.
        by: further columns that tell curves apart, such as `rank`; kept as labels.

    Raises:
        InputError: if columns are missing, values are not finite, or a curve has two values at
            one step.
    """
    needed = ("step", "metric", "value", *by)
    if missing := [name for name in needed if name not in frame.columns]:
        raise InputError(
            expected=f"a tidy frame with the columns {', '.join(needed)}",
            got=f"columns {list(frame.columns)}, without {missing}",
            fix="Reshape a wide frame with frame.melt('step', var_name='metric').",
        )
    if frame.empty:
        raise InputError(expected="at least one curve", got="no rows", fix="Check the selection.")
    labels = pd.DataFrame(
        {name: frame[name] if name in frame.columns else None for name in (*_KEYS, *by)}
    ).reset_index(drop=True)
    values, steps = (
        np.asarray(pd.to_numeric(frame[name], errors="coerce"), dtype=float)
        for name in ("value", "step")
    )
    _check_numbers(labels, steps, values)
    steps = steps.astype(np.int64)
    curve = labels.groupby(list(labels.columns), dropna=False, sort=False).ngroup().to_numpy()
    order = np.lexsort((steps, curve))
    curve, steps, values = curve[order], steps[order], values[order]
    twice = np.flatnonzero((np.diff(curve) == 0) & (np.diff(steps) == 0))
    if len(twice):
        _refuse_repeats(frame, labels, order[twice[0] : twice[0] + 2])
    starts = np.r_[0, np.flatnonzero(np.diff(curve)) + 1]
    together: dict[tuple[int, ...], list[int]] = {}
    ends = np.r_[starts[1:], len(curve)]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        together.setdefault(tuple(steps[start:end].tolist()), []).append(start)
    return [
        CurveTable(
            labels.iloc[order[first]].reset_index(drop=True),
            np.array(at, dtype=np.int64),
            np.stack([values[start : start + len(at)] for start in first]),
        )
        for at, first in together.items()
    ]


def _check_numbers(labels: pd.DataFrame, steps: np.ndarray, values: np.ndarray) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            expected="finite values",
            got=f"{values[at]} of {labels['metric'].iloc[at]!r} at step {steps[at]:g}",
            fix="Drop those steps on purpose: frame.dropna(subset='value').",
        )
    bad = ~np.isfinite(steps) | (steps < 0) | (steps != np.round(steps))
    if bad.any():
        raise InputError(
            expected="steps that are whole numbers from 0 up",
            got=f"{steps[bad][:3].tolist()}",
            fix="Give the number of optimiser steps.",
        )


def _refuse_repeats(frame: pd.DataFrame, labels: pd.DataFrame, rows: np.ndarray) -> None:
    pair = frame.iloc[rows]
    others = [name for name in frame.columns if name not in (*labels.columns, "step", "value")]
    varying = [name for name in others if len(pair[name].drop_duplicates()) > 1]
    fix = f"Tell the curves apart with by={varying}." if varying else "Drop the repeated rows."
    raise InputError(
        expected="one value a step in each curve (model, layer, head, metric)",
        got=f"several of {pair['metric'].iloc[0]!r} at step {pair['step'].iloc[0]}",
        fix=fix,
    )


def common_steps(tables: Sequence[CurveTable]) -> Int[np.ndarray, " step"]:
    """The steps that all curves hold."""
    shared = set.intersection(*(set(table.steps.tolist()) for table in tables))
    return np.array(sorted(shared), dtype=np.int64)
