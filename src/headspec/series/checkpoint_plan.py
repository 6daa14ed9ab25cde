"""Checkpoints around jumps: where to stop a second training, so as to look inside it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Int

from headspec.errors import InputError, check_choice
from headspec.series.checkpoint_plan_result import CheckpointPlan, moments_frame
from headspec.series.checkpoint_plan_selection import select_as_study, select_by_coverage
from headspec.series.jump_controls import match_controls
from headspec.series.jump_rows import EDGES, JumpSource, jump_rows, measured_grid, training_length
from headspec.series.jump_types import classify_jumps

_PLACE = ["model", "seed", "layer_name", "metric"]
_KEPT = [*_PLACE, "phase", "magnitude", "type"]
Select = Literal["coverage", "study"]


def plan_checkpoints(
    jumps: JumpSource,
    *,
    n_steps: int | None = None,
    per_jump: int = 3,
    n_jumps: int = 5,
    select: Select = "coverage",
    spacing: int | None = None,
    controls: int = 0,
    landmarks: Sequence[float | int] = (0.5, 0.75, 1.0),
    candidates: Sequence[int] = (),
    types: Int[np.ndarray, " jump"] | None = None,
    steps: Int[np.ndarray, " step"] | None = None,
    checkpoint_bytes: int | None = None,
    seed: int = 0,
) -> CheckpointPlan:
    """Choose jumps, and the steps before, during and after each, for a run with checkpoints.

    The jumps of a first training are found in what it logged; the same training, run again from
    the same seed with `checkpoints=plan.steps`, then holds the model on either side of them.
    `during` is the middle of the measuring interval in which the jump fell; `before` and `after`
    lie `spacing` updates away on either side, clipped to 0 and n_steps. Steps that several
    moments share are kept once; moments keep their own.

    Args:
        jumps: `Jumps` of one run, or its frame; may be empty.
        n_steps: updates of the training; None for what the jumps imply.
        per_jump: checkpoints of a jump: 2 (before, after), 3, or more, evenly from before to
            after (`during` is then the one nearest the middle); fewer where they are clipped.
        n_jumps: how many jumps at most.
        select: `"coverage"` (layers, phases and magnitudes, see `select_by_coverage`) or
            `"study"` (2 of the early type of largest magnitude, 2 of the late one, 1 between, see
            `select_as_study`).
        spacing: updates from `during` to `before` and `after`; None for two measuring intervals,
            and at least one beyond where the jump lies.
        controls: control moments beside each jump and candidate: windows of the same width in
            the same part of the training that hold no jump of any layer. Without anything to
            match, controls x n_jumps windows spread evenly over log(1 + step).
        landmarks: shares of the training at which one checkpoint is kept.
        candidates: further steps to look at, whatever was detected there, as moments of the kind
            `"candidate"`; `during` is the step itself.
        types: type of each jump for `select="study"`; None for the column `type`, or else
            `classify_jumps`.
        steps: measured steps; None for every k updates, k the greatest common divisor of all
            steps of the jumps (1 without jumps: pass them, or `n_measured` is every update).
        checkpoint_bytes: size of a checkpoint, for the estimate of the storage.
        seed: of the controls and the types.

    Returns:
        A `CheckpointPlan`; what could not be had as asked stands in its `notes`.

    Raises:
        InputError: jumps of several runs, per_jump below 2, n_steps neither given nor implied,
            shares or candidates outside the training.

    What it does not show: that the second run is the first one again. Compare their losses; and a
    jump chosen for its size is smaller when measured anew (regression to the mean).

    Example:
        >>> import pandas as pd
        >>> from headspec.series.checkpoint_plan import plan_checkpoints
        >>> jumps = pd.DataFrame({"step": [40], "step_before": [35], "magnitude": [0.5]})
        >>> plan = plan_checkpoints(jumps, n_steps=100, landmarks=(1.0,))
        >>> plan.steps
        (27, 37, 47, 100)
        >>> plan.moments[["kind", "before", "during", "after"]].values.tolist()
        [['jump', 27, 37, 47], ['landmark', <NA>, 100, <NA>]]
    """
    check_choice("select", select, get_args(Select))
    rows: Any = jump_rows(jumps, needs=("magnitude",))
    length = training_length(jumps, rows, n_steps)
    counts = {"per_jump": (per_jump, 2), "n_jumps": (n_jumps, 0), "controls": (controls, 0)}
    places = [*candidates, *(share * length for share in landmarks)]
    _check(rows, length, counts=counts, spacing=spacing, places=places)
    grid = measured_grid(rows, length, steps)
    interval = int(np.median(np.diff(grid)))
    reach = 2 * interval if spacing is None else int(spacing)
    rows["phase"] = rows["step"] / length
    chosen, notes = _choose(rows, n_jumps, select, types, seed)

    draft = _Draft(length, per_jump, reach)
    for _, row in rows.iloc[chosen].sort_values("step", kind="stable").iterrows():
        first, last = int(row["step_before"]), int(row["step"])
        outside = (last - first + 1) // 2 + interval
        own_reach = max(reach, outside) if spacing is None else reach
        draft.add("jump", (first + last) // 2, own_reach, **row[_KEPT])
    for step in sorted({int(step) for step in candidates}):
        draft.add("candidate", step, reach)
    if controls:
        notes += _add_controls(draft, rows, grid, controls=controls, n_jumps=n_jumps, seed=seed)
    for step in sorted({round(share * length) for share in landmarks}):
        draft.add("landmark", step, 0)
    return CheckpointPlan(
        steps=tuple(sorted({step for own in draft.steps for step in own})),
        moments=moments_frame(draft.moments),
        moment_steps=tuple(draft.steps),
        n_steps=length,
        n_measured=len(grid),
        checkpoint_bytes=None if checkpoint_bytes is None else int(checkpoint_bytes),
        select=select,
        notes=tuple(notes),
    )


@dataclass
class _Draft:
    """Moments as they are added: rows of the frame, and the steps of each."""

    length: int
    per_jump: int
    reach: int
    moments: list[dict[str, Any]] = field(default_factory=list)
    steps: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, kind: str, middle: int, reach: int, **more: Any) -> None:
        """A moment around `middle`; without a reach, its only step."""
        row: dict[str, Any] = {"moment": len(self.moments), "kind": kind}
        first, last = max(0, middle - reach), min(self.length, middle + reach)
        inner = [middle]
        if reach:
            row |= {"before": first, "after": last}
            if self.per_jump != 3:
                even = np.linspace(middle - reach, middle + reach, self.per_jump)[1:-1].round()
                inner = even.clip(first, last).astype(int).tolist()
        if inner:
            row["during"] = min(inner, key=lambda step: abs(step - middle))
        self.moments.append(row | {"phase": middle / self.length} | more)
        self.steps.append(tuple(sorted({first, *inner, last})))


def _choose(
    rows: Any, n_jumps: int, select: Select, types: np.ndarray | None, seed: int
) -> tuple[list[int], list[str]]:
    """Positions of the chosen rows, and notes; puts the types into the rows."""
    if types is not None:
        if len(types) != len(rows):
            raise InputError(
                expected=f"a type for each of {len(rows)} jumps",
                got=f"{len(types)}",
                fix="Pass `classify_jumps(jumps).labels` of the same jumps.",
            )
        rows["type"] = types
    elif "type" not in rows:
        needed = select == "study" and len(rows) > 0
        rows["type"] = classify_jumps(rows, seed=seed).labels if needed else None
    _check_types(rows["type"], all_needed=select == "study")
    notes = [f"{len(rows)} jumps, {n_jumps} asked for"] if len(rows) < n_jumps else []
    if select == "coverage" or not len(rows):
        return select_by_coverage(rows, n_jumps), notes
    chosen, more = select_as_study(rows, rows["type"].to_numpy(np.int64), min(n_jumps, len(rows)))
    return chosen, notes + more


def _check_types(types: Any, *, all_needed: bool) -> None:
    """Raises for types that are not whole numbers; some may be missing where not all are needed."""
    number = pd.Series(pd.to_numeric(types, errors="coerce"), dtype=float)
    wrong = (number != number.round()) & (types.notna() | all_needed)
    if wrong.any():
        raise InputError(
            expected="types that are whole numbers",
            got=f"{types[wrong].tolist()[:3]}",
            fix="Pass types=, such as `classify_jumps(jumps).labels`, or drop the column type.",
        )


def _add_controls(
    draft: _Draft, rows: Any, grid: np.ndarray, *, controls: int, n_jumps: int, seed: int
) -> list[str]:
    """Adds the controls of all moments so far; notes on what there is no place for."""
    before = {int(after): int(first) for first, after in pairwise(grid)}
    moments = list(draft.moments)
    middles = np.array([round(row["phase"] * draft.length) for row in moments], dtype=np.int64)
    if not moments:
        ends = np.log1p([grid[1], grid[-1]])
        even = np.expm1(np.linspace(ends[0], ends[1], controls * n_jumps + 2)[1:-1])
        nearest = np.abs(grid[1:, None] - even).argmin(axis=0)
        for after in sorted(set(grid[1:][nearest].tolist())):
            draft.add("control", (before[after] + after) // 2, draft.reach)
        return []
    reach = [max(row["after"] - row["before"], 2) // 2 for row in moments]
    asked = [[m, m] for m, row in zip(middles, moments, strict=True) if row["kind"] == "candidate"]
    blocked = [*rows[["step_before", "step"]].to_numpy().tolist(), *asked]
    found = match_controls(
        middles,
        np.array(blocked, dtype=np.int64).reshape(-1, 2),
        grid,
        n_steps=draft.length,
        guard=max(reach),
        edges=EDGES,
        n_controls=controls,
        reuse=False,
        rng=np.random.default_rng(seed),
    )
    for row, own_reach, own in zip(moments, reach, found, strict=True):
        for after in own[own >= 0].tolist():
            middle = (before[after] + after) // 2
            place = {name: row.get(name) for name in _PLACE}
            draft.add("control", middle, own_reach, matched=row["moment"], **place)
    lacking = int((found < 0).sum())
    gone = (
        f"{lacking} of {found.size} controls have no place free of jumps in their part of training"
    )
    return [gone] if lacking else []


def _check(
    rows: Any,
    length: int,
    *,
    counts: dict[str, tuple[int, int]],
    spacing: int | None,
    places: list[float | int],
) -> None:
    """Raises for arguments out of range."""
    if (rows["run"] > 0).any():
        raise InputError(
            expected="jumps of one run",
            got=f"{rows['run'].nunique()} pairs of model and seed",
            fix="Make a plan for each: `frame[(frame.model == ...) & (frame.seed == ...)]`.",
        )
    counts = counts | {"spacing": (1 if spacing is None else spacing, 1)}
    for name, (value, least) in counts.items():
        if value < least:
            raise InputError(
                expected=f"{name} of {least} or more", got=f"{value}", fix=f"Pass another {name}=."
            )
    outside = [place for place in places if not 0 <= place <= length]
    if outside:
        raise InputError(
            expected=f"landmarks from 0 to 1 and candidates from 0 to {length}",
            got=f"places {outside[:4]}",
            fix="Landmarks are shares of the training, candidates steps.",
        )
