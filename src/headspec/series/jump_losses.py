"""Does the loss change at jumps more than at other steps of the same part of training?"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import t as student

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.jump_controls import match_controls
from headspec.series.jump_loss_result import LossAroundJumps, Unit
from headspec.series.jump_phases import PHASE_NAMES
from headspec.series.jump_rows import (
    EDGES,
    JumpSource,
    jump_rows,
    measured_grid,
    phase_stratum,
    training_length,
)
from headspec.stats import permutation_p

_CALIPER = 1.5  # largest ratio of the steps of a jump and its controls


def loss_around_jumps(
    jumps: JumpSource,
    losses: pd.DataFrame,
    *,
    column: str = "loss",
    window: int | None = None,
    n_controls: int = 2,
    unit: Unit = "episode",
    n_steps: int | None = None,
    steps: Int[np.ndarray, " step"] | None = None,
    n_null: int = 1999,
    level: float = 0.95,
    seed: int = 0,
) -> LossAroundJumps:
    """Change of the loss across jumps, beside the change across steps where nothing jumped.

        change = mean loss over [step, step + window] - mean loss over
                 [step_before - window, step_before]

    Losses fall anyway, so most jumps "coincide with improvement", and so does any other step.
    Controls are steps of the same run whose windows hold no jump of any layer, the nearest in
    log(1 + step) on either side in turn, `window` updates apart, none of them for two moments.
    Their mean is weighted to lie at the log(1 + step) of the jump. A moment is left out where
    there is no control on one side by a factor of 1.5 in step, or a window is cut by the end of
    the losses. Jumps of several layers at one step are one moment; moments whose windows overlap
    are one episode, of which the mean counts once. p is that of flipping the sign of each unit's
    difference.

    Args:
        jumps: `Jumps` or its frame.
        losses: frame with `step` and `column`, and, for several runs, `model` and `seed` as the
            jumps have them.
        column: which loss, such as `"validation_loss"`.
        window: updates on either side; None for four median measuring intervals.
        n_controls: controls of a moment.
        unit: `"episode"`, or `"run"` for the mean of each run: fewer, and independent.
        n_steps: updates of the training; None for what the jumps imply.
        steps: measured steps; None for every k updates, k the greatest common divisor of all
            steps of the jumps.
        n_null: sign flips.
        level: coverage of the intervals, Student's t over units (a bootstrap of ten units or
            fewer is too narrow, and would exclude 0 where p does not).
        seed: of controls and flips.

    Returns:
        A `LossAroundJumps`.

    Raises:
        InputError: columns missing, losses of several runs not told apart, or no jumps.

    What it does not show: what moves what: a large batch gradient changes loss and dimensionality
    at once. Where jumps crowd, moments without controls are left out (`n_left_out`), and the rest
    is not a sample of all jumps.

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> from headspec.series.jump_losses import loss_around_jumps
        >>> step = np.arange(0, 1001, 5)
        >>> loss = 2 - 0.001 * step - 0.2 * (step >= 500)
        >>> jumps = pd.DataFrame({"step": [500], "step_before": [495]})
        >>> losses = pd.DataFrame({"step": step, "loss": loss})
        >>> found = loss_around_jumps(jumps, losses, n_steps=1000)
        >>> found.moments[["change", "control_change"]].round(3).values.tolist()
        [[-0.225, -0.025]]
    """
    check_choice("unit", unit, get_args(Unit))
    rows: Any = jump_rows(jumps)
    _check(losses, column, rows, level)
    length = training_length(jumps, rows, n_steps)
    grid = measured_grid(rows, length, steps)
    width = 4 * int(np.median(np.diff(grid))) if window is None else window
    tables = []
    several = bool((rows["run"] > 0).any())
    for _, run in rows.groupby("run"):
        loss = _loss_of(losses, column, run, several=several)
        table = _moments(run)
        targets = table["step"].to_numpy()
        table["part"] = [PHASE_NAMES[i] for i in phase_stratum(targets / length, EDGES)]
        table["episode"] = _episodes(table, width)
        found = match_controls(
            targets,
            run[["step_before", "step"]].to_numpy(),
            grid,
            n_steps=length,
            guard=width,
            edges=(),
            n_controls=n_controls,
            reuse=False,
            sides=True,
            caliper=float(np.log(_CALIPER)),
            apart=width,
            rng=np.random.default_rng(seed),
        )
        table["change"] = _change(loss, table["step_before"].to_numpy(), targets, width)
        previous = grid[np.maximum(0, np.searchsorted(grid, found) - 1)]
        changes = _change(loss, previous.ravel(), found.ravel(), width).reshape(found.shape)
        weights = _interpolating(targets, np.where(np.isfinite(changes), found, -1))
        table["n_controls"] = (weights > 0).sum(axis=1)
        table["control_change"] = (weights * np.nan_to_num(changes)).sum(axis=1)
        table["controls_improving"] = (weights * (changes < 0)).sum(axis=1)
        tables.append(table)
    moments: Any = pd.concat(tables, ignore_index=True)
    usable = np.isfinite(moments["change"]) & (moments["n_controls"] > 0)
    left_out = int((~usable).sum())
    moments = moments[usable].reset_index(drop=True)
    moments["difference"] = moments["change"] - moments["control_change"]
    moments["improves"] = moments["change"] < 0
    return LossAroundJumps(
        moments=moments,
        parts=_parts(moments, unit, n_null=n_null, level=level, seed=seed),
        n_left_out=left_out,
        window=width,
        unit=unit,
        column=column,
        seed=seed,
    )


def _moments(run: Any) -> Any:
    """One row a distinct step at which any layer of a run jumped."""
    table = run.groupby("step", as_index=False).agg(
        step_before=("step_before", "min"), n_layers=("layer_name", "nunique")
    )
    table.insert(0, "model", run["model"].iloc[0])
    table.insert(1, "seed", run["seed"].iloc[0])
    return table.sort_values("step", ignore_index=True)


def _episodes(table: Any, width: int) -> Int[np.ndarray, " moment"]:
    """Number of the episode of each moment: a new one where the windows no longer overlap."""
    gaps = table["step_before"].to_numpy()[1:] - table["step"].to_numpy()[:-1]
    return np.concatenate([[0], np.cumsum(gaps > 2 * width)]).astype(np.int64)


def _loss_of(losses: Any, column: str, run: Any, *, several: bool) -> Any:
    """Loss by step, increasing, of one run."""
    own = losses
    for name in ("model", "seed") if several else ():
        own = own[own[name].astype(object) == run[name].iloc[0]]
    own = own[["step", column]].dropna().sort_values("step")
    if own["step"].duplicated().any() or not len(own):
        raise InputError(
            expected="one loss at each step of each run",
            got=f"{len(own)} of model {run['model'].iloc[0]!r}, seed {run['seed'].iloc[0]}, "
            f"{int(own['step'].duplicated().sum())} of them at a step again",
            fix="Give losses the columns model and seed as the jumps have them.",
        )
    return own.set_index("step")[column].astype(float)


def _change(
    loss: Any, before: Int[np.ndarray, " place"], after: Int[np.ndarray, " place"], width: int
) -> Float[np.ndarray, " place"]:
    """Mean loss behind less mean loss ahead of each place; nan where either window is cut."""
    at, values = loss.index.to_numpy(), loss.to_numpy()
    sums = np.concatenate([[0.0], np.cumsum(values - values.mean())])

    def mean(first: np.ndarray, last: np.ndarray) -> np.ndarray:
        low, high = np.searchsorted(at, first, "left"), np.searchsorted(at, last, "right")
        n = np.maximum(high - low, 0)
        return np.where(n > 0, (sums[high] - sums[low]) / np.maximum(n, 1), np.nan)

    change = mean(after, after + width) - mean(before - width, before)
    whole = (before - width >= at[0]) & (after + width <= at[-1])
    return np.where(whole, change, np.nan)


def _interpolating(
    targets: Int[np.ndarray, " moment"], controls: Int[np.ndarray, "moment control"]
) -> Float[np.ndarray, "moment control"]:
    """Weights of the controls, of sum 1: their mean log(1 + step) is that of the moment.

    All 0 where there are not some on both sides.
    """
    away = np.log1p(np.maximum(controls, 0)) - np.log1p(targets)[:, None]
    there = controls >= 0
    sides = [there & (away <= 0), there & (away > 0)]
    means = [np.where(s, away, 0).sum(1) / np.maximum(1, s.sum(1)) for s in sides]
    both = sides[0].any(1) & sides[1].any(1)
    share = -means[0] / np.where(both, means[1] - means[0], 1)
    weights = np.zeros(controls.shape)
    for side, part in zip(sides, (1 - share, share), strict=True):
        weights += side * (both * part / np.maximum(1, side.sum(1)))[:, None]
    return weights


def _parts(moments: Any, unit: Unit, *, n_null: int, level: float, seed: int) -> pd.DataFrame:
    """Tidy rows of both metrics, for all moments and each part of the training."""
    table = []
    for part in ("all", *PHASE_NAMES):
        own = moments if part == "all" else moments[moments["part"] == part]
        keys = ["model", "seed"] if unit == "run" else ["model", "seed", "episode"]
        columns = ["change", "control_change", "improves", "controls_improving"]
        units = own.groupby(keys, dropna=False)[columns].mean()
        for metric, jumps, controls in (
            ("loss_change", "change", "control_change"),
            ("loss_improves", "improves", "controls_improving"),
        ):
            values = (units[jumps] - units[controls]).to_numpy(float)
            found = _test(values, n_null=n_null, level=level, seed=seed)
            sides = {"jumps": float(units[jumps].mean()), "controls": float(units[controls].mean())}
            row = {"metric": f"{metric}.difference", "part": part, "n_moments": len(own)}
            table.append(row | found | sides)
    models = moments["model"].unique()
    return tidy(table, model=models[0] if len(models) == 1 else "all")


def _test(values: Float[np.ndarray, " unit"], *, n_null: int, level: float, seed: int) -> dict:
    """Mean, interval of Student's t and sign-flip p of the differences of the units."""
    n = len(values)
    value = float(values.mean()) if n else np.nan
    if n < 2:
        return {"value": value, "low": np.nan, "high": np.nan, "p": np.nan, "n": n}
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (n_null, n))
    null = signs @ values / n
    reach = float(student.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return {
        "value": value,
        "low": value - reach,
        "high": value + reach,
        "null_mean": 0.0,
        "null_sd": float(null.std()),
        "p": permutation_p(abs(value), np.abs(null)),
        "n": n,
    }


def _check(losses: pd.DataFrame, column: str, rows: Any, level: float) -> None:
    if not 0 < level < 1:
        raise InputError(expected="a level between 0 and 1", got=f"{level}", fix="0.95 is usual.")
    needed = ["step", column, *(("model", "seed") if (rows["run"] > 0).any() else ())]
    missing = [name for name in needed if name not in losses]
    if missing or not len(rows):
        raise InputError(
            expected=f"jumps, and losses with the columns {' '.join(needed)}",
            got=f"{len(rows)} jumps, losses without {', '.join(missing) or 'nothing'}",
            fix="Pass the log of the training, with model and seed where there are several runs.",
        )
