"""Steps to compare jumps with: as far into the training, and no jump near."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from headspec.errors import InputError, check_choice
from headspec.series.jump_rows import (
    EDGES,
    JumpSource,
    jump_rows,
    measured_grid,
    phase_stratum,
    training_length,
)

Shortage = Literal["error", "mark"]


def control_steps(
    jumps: JumpSource,
    *,
    n_steps: int | None = None,
    steps: Int[np.ndarray, " step"] | None = None,
    guard: int | None = None,
    edges: tuple[float, ...] = EDGES,
    n_nearest: int = 5,
    reuse: bool = True,
    shortage: Shortage = "error",
    seed: int = 0,
) -> Int[np.ndarray, " jump"]:
    """A step for each jump that matches it in phase and has no jump near in any layer.

    Losses, entropies and weights change throughout a training, and fastest at its beginning,
    where the jumps are as well. What a jump brings is therefore its change less the change across
    a control: a measured step of the same run, in the same stratum of the training, drawn among
    the `n_nearest` whose log(1 + step) is closest, with `guard` updates or more between it and
    every jump of that run, whichever layer or metric jumped.

    Args:
        jumps: `Jumps` or its frame; runs, (model, seed), are matched separately.
        n_steps: updates of the training; None for what the phases imply.
        steps: measured steps; None for every k updates, k the greatest common divisor of all
            steps of the jumps.
        guard: updates free of jumps on either side of a control; None for two measuring
            intervals. Take at least the half width of the windows to be compared.
        edges: shares of the training at which strata end, the end itself belonging to the
            earlier one.
        n_nearest: how many of the nearest steps are drawn from.
        reuse: may jumps at different steps share a control? (Those at the same step may.)
        shortage: `"error"`, or `"mark"` to give -1 to jumps without a control.
        seed: of the draw.

    Returns:
        One step a jump, in the order of the jumps; like `step` of a jump, it is the measurement
        that closes an interval.

    Raises:
        InputError: columns missing, n_steps neither given nor implied, a guard below 0, or, with
            `shortage="error"`, jumps without a control.

    What it does not show: that the control is like the jump in anything but its place. Where
    jumps crowd, the steps without one lie together, and late in the stratum.

    Reference:
        Rosenbaum, "Observational studies" (2002), chapter 10, on matching with a caliper.

    Example:
        >>> import pandas as pd
        >>> from headspec.series.jump_controls import control_steps
        >>> jumps = pd.DataFrame({"step": [100, 600], "step_before": [95, 595]})
        >>> control_steps(jumps, n_steps=1000, n_nearest=1).tolist()
        [85, 615]
    """
    check_choice("shortage", shortage, get_args(Shortage))
    rows = jump_rows(jumps)
    length = training_length(jumps, rows, n_steps)
    grid = measured_grid(rows, length, steps)
    found = np.full(len(rows), -1, dtype=np.int64)
    rng = np.random.default_rng(seed)
    for _, run in rows.groupby("run"):
        found[run.index] = match_controls(
            run["step"].to_numpy(),
            run[["step_before", "step"]].to_numpy(),
            grid,
            n_steps=length,
            guard=guard,
            edges=edges,
            n_nearest=n_nearest,
            reuse=reuse,
            rng=rng,
        )[:, 0]
    lacking = int((found < 0).sum())
    if lacking and shortage == "error":
        raise InputError(
            expected=f"a step without jumps in the stratum of each of {len(rows)} jumps",
            got=f"none for {lacking}",
            fix="Lower guard=, merge strata with edges=, or pass shortage='mark' and leave out "
            "the jumps that get -1.",
        )
    return found


def match_controls(
    targets: Int[np.ndarray, " target"],
    blocked: Int[np.ndarray, "jump 2"],
    grid: Int[np.ndarray, " step"],
    *,
    n_steps: int,
    guard: int | None,
    edges: tuple[float, ...],
    n_controls: int = 1,
    n_nearest: int = 5,
    reuse: bool = True,
    sides: bool = False,
    caliper: float = np.inf,
    apart: int = 0,
    rng: np.random.Generator,
) -> Int[np.ndarray, "target control"]:
    """Controls of one run: of each target `n_controls` distinct steps, -1 where there are none.

    Args:
        targets: steps to be matched.
        blocked: first and last step of every jump of the run.
        grid: measured steps, increasing.
        n_steps, guard, edges, n_nearest, reuse: as in `control_steps`.
        n_controls: controls of each target; drawn among the `max(n_nearest, n_controls)` nearest.
        sides: take the nearest before and after the target in turn, instead of drawing; none
            where there is none on one side.
        caliper: largest |log(1 + control) - log(1 + target)|.
        apart: updates between any two controls at least (without `reuse`).
        rng: of the draw.

    Raises:
        InputError: a guard below 0, n_controls or n_nearest below 1.
    """
    if min(n_controls, n_nearest) < 1 or (guard is not None and guard < 0):
        raise InputError(
            expected="n_nearest and controls of 1 or more, a guard of 0 or more",
            got=f"n_nearest {n_nearest}, controls {n_controls}, guard {guard}",
            fix="Change them.",
        )
    free = free_steps(blocked, grid, guard=guard)
    strata = phase_stratum(free / n_steps, edges)
    out = np.full((len(targets), n_controls), -1, dtype=np.int64)
    taken: dict[int, np.ndarray] = {}
    used = np.zeros(len(free), dtype=bool)
    for i, step in enumerate(targets.tolist()):
        if not reuse and step in taken:
            out[i] = taken[step]
            continue
        there = strata == phase_stratum(np.array([step / n_steps]), edges)[0]
        places = np.flatnonzero(there if reuse else there & ~used)
        away = np.log1p(free[places]) - np.log1p(step)
        places, away = places[np.abs(away) <= caliper], away[np.abs(away) <= caliper]
        if sides and ((away > 0).all() or (away <= 0).all()):
            options = places[:0]
        elif sides:
            options = places[_alternating(away)]
        else:
            nearest = places[np.argsort(np.abs(away), kind="stable")]
            options = rng.permutation(nearest[: max(n_nearest, n_controls)])
        drawn: list[int] = []
        for place in options:
            if len(drawn) == n_controls:
                break
            if all(abs(free[place] - free[other]) >= apart for other in drawn):
                drawn.append(int(place))
        out[i, : len(drawn)] = np.sort(free[drawn])
        for place in drawn:
            used |= np.abs(free - free[place]) < max(1, apart)
        taken[step] = out[i]
    return out


def _alternating(away: Float[np.ndarray, " place"]) -> Int[np.ndarray, " place"]:
    """Order of places: the nearest on either side, the second nearest on either side, ..."""
    order = np.argsort(np.abs(away), kind="stable")
    later = away[order] > 0
    rank = np.where(later, np.cumsum(later), np.cumsum(~later))
    return order[np.argsort(rank, kind="stable")]


def free_steps(
    blocked: Int[np.ndarray, "jump 2"], grid: Int[np.ndarray, " step"], *, guard: int | None
) -> Int[np.ndarray, " free"]:
    """Measured steps whose interval (the step before it, it) is `guard` updates from any jump.

    Args:
        blocked: first and last step of every jump.
        grid: measured steps, increasing.
        guard: in updates; None for two median measuring intervals.
    """
    if guard is None:
        guard = 2 * int(np.median(np.diff(grid)))
    before, after = grid[:-1], grid[1:]
    gaps = np.maximum(before[:, None] - blocked[:, 1], blocked[:, 0] - after[:, None])
    return after[(gaps >= guard).all(axis=1)]
