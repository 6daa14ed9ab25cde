"""What the analyses of jumps share: their frame checked, the length of training, the grid."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.errors import InputError

EDGES = (0.1, 0.5)
"""Where early ends and late begins, in shares of the training (the study's)."""

_NUMBERS = ("magnitude", "speed", "phase")


@runtime_checkable
class _HasFrame(Protocol):
    def to_frame(self) -> pd.DataFrame: ...


JumpSource = pd.DataFrame | _HasFrame
"""`Jumps`, or the frame of its `.to_frame()`."""


def jump_rows(jumps: JumpSource, *, needs: tuple[str, ...] = ()) -> pd.DataFrame:
    """One row a jump, with every column the analyses use, in the order of the input.

    Args:
        jumps: `Jumps` or its frame. `step` is the first measurement after the jump.
        needs: columns that must be there and finite besides `step`.

    Returns:
        A copy with index 0, 1, ...; `run` numbers the distinct (model, seed), `layer_name` falls
        back on `layer`, `step_before` on `step`, and `step`, `step_before` are int64.

    Raises:
        InputError: columns missing, steps not whole and from 0 up, numbers not finite.
    """
    frame: Any = jumps if isinstance(jumps, pd.DataFrame) else jumps.to_frame()
    missing = [name for name in ("step", *needs) if name not in frame]
    if missing:
        raise InputError(
            expected=f"jumps with the columns step {' '.join(needs)}".rstrip(),
            got=f"a frame without {', '.join(missing)}",
            fix="Pass what `detect_jumps` returns, or its `.to_frame()`.",
        )
    rows = frame.reset_index(drop=True)
    rows["step"] = _whole(rows["step"])
    known = rows["step_before"] if "step_before" in rows else rows["step"]
    rows["step_before"] = _whole(known.where(known.notna(), rows["step"]))
    backwards = int((rows["step_before"] > rows["step"]).sum())
    if backwards:
        raise InputError(
            expected="step_before at or before step",
            got=f"{backwards} jumps that end before they begin",
            fix="`step` is the first measurement after the jump, `step_before` the last before it.",
        )
    if "layer_name" not in rows:
        names = rows["layer"] if "layer" in rows else pd.Series("", index=rows.index)
        rows["layer_name"] = names.map(lambda name: "" if pd.isna(name) else str(name))
    for name in ("model", "metric"):
        text = rows[name] if name in rows else pd.Series("", index=rows.index)
        rows[name] = text.map(lambda value: "" if pd.isna(value) else str(value))
    rows["seed"] = rows["seed"] if "seed" in rows else pd.Series(pd.NA, index=rows.index)
    rows["run"] = rows.groupby(["model", "seed"], dropna=False, sort=False).ngroup()
    for name in _NUMBERS:
        if name in rows:
            rows[name] = rows[name].astype(float)
        if name in needs and not np.isfinite(rows[name]).all():
            raise InputError(
                expected=f"a finite {name} for every jump",
                got=f"{int((~np.isfinite(rows[name])).sum())} that are not",
                fix="Leave those jumps out, or detect them again.",
            )
    return rows


def training_length(jumps: JumpSource, rows: Any, n_steps: int | None) -> int:
    """Updates of the training: as given, else of the curves, else step / phase of all jumps.

    Raises:
        InputError: not given and not the same for all, or jumps after the end.
    """
    last = int(rows["step"].max()) if len(rows) else 0
    length = n_steps if n_steps is not None else _implied_length(jumps, rows)
    if length < max(1, last):
        raise InputError(
            expected=f"n_steps of at least {max(1, last)}, the last jump",
            got=f"{length}",
            fix="Pass the number of updates of the whole training.",
        )
    return int(length)


def _implied_length(jumps: JumpSource, rows: Any) -> int:
    curves: Any = getattr(jumps, "curves", None)
    found: set[int] = set()
    if curves is not None and "n_steps" in curves:
        found = set(curves["n_steps"].dropna().astype(int))
    elif "phase" in rows:
        known = rows[rows["phase"] > 0]
        found = set((known["step"] / known["phase"]).round().astype(int))
    if len(found) != 1:
        raise InputError(
            expected="n_steps, the length of the training in updates",
            got=f"None, and jumps that imply {sorted(found)[:4] or 'none'}",
            fix="Pass n_steps=.",
        )
    return found.pop()


def measured_grid(
    rows: Any, n_steps: int, steps: Int[np.ndarray, " step"] | None
) -> Int[np.ndarray, " step"]:
    """Steps that were measured: as given, else every k updates from 0, k fitting all jumps.

    k is the greatest common divisor of all steps of the jumps; without jumps it is 1.

    Raises:
        InputError: fewer than two steps, or steps outside 0 to n_steps.
    """
    if steps is None:
        both = rows[["step", "step_before"]].to_numpy(np.int64)
        every = int(np.gcd.reduce(both, axis=None)) if both.size else 1
        return np.arange(0, n_steps + 1, max(1, every))
    grid = np.unique(np.asarray(steps))
    if len(grid) < 2 or grid[0] < 0 or grid[-1] > n_steps:
        raise InputError(
            expected=f"two measured steps or more from 0 to {n_steps}",
            got=f"{grid[:3].tolist()} ... {grid[-1:].tolist()}",
            fix="Pass the steps at which dimensionality was measured.",
        )
    return grid.astype(np.int64)


def phase_stratum(
    phase: Float[np.ndarray, " jump"], edges: tuple[float, ...] = EDGES
) -> Int[np.ndarray, " jump"]:
    """0 for phases up to and with the first edge (0 itself too), 1 up to the second, and so on."""
    return np.digitize(phase, edges, right=True).astype(np.int64)


def _whole(column: Any) -> Any:
    values = pd.Series(pd.to_numeric(column, errors="coerce"), dtype=float)
    if not (np.isfinite(values) & (values >= 0) & (values == np.round(values))).all():
        raise InputError(
            expected=f"whole numbers from 0 up in {column.name!r}",
            got=f"{list(column[:3])}",
            fix="Steps count updates.",
        )
    return values.astype(np.int64)
