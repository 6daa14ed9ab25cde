"""How many jumps fall early, in the middle and late, and how many would by chance."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import binomtest

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.jump_rows import (
    EDGES,
    JumpSource,
    jump_rows,
    measured_grid,
    phase_stratum,
    training_length,
)
from headspec.stats import bootstrap_means

Binning = Literal["step", "index", "published"]
Place = Literal["after", "before"]
ShareInterval = Literal["exact", "runs"]
PHASE_NAMES = ("early", "mid", "late")


def phase_shares(
    jumps: JumpSource,
    *,
    by: Binning = "step",
    at: Place = "after",
    n_steps: int | None = None,
    steps: Int[np.ndarray, " step"] | None = None,
    interval: ShareInterval = "exact",
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Shares of early, mid and late jumps, for each model and all, against an even spread.

    Early is a phase up to .1 (0 itself included), late above .5, mid between:

        phase = step / n_steps

    The null is a jump as likely at every measurement: its share of each part is that of the
    measuring intervals there.

    Args:
        jumps: `Jumps` or its frame.
        by: `"step"`; or, to reproduce the study, `"index"`: number of the measurement over
            n_steps, which with a measurement every k updates never exceeds 1 / k; or
            `"published"`: the same, and jumps at index 0 in no part at all.
        at: where a jump counts, at the measurement `"after"` it or the one `"before"` (the
            study's). Index binnings always take the one before.
        n_steps: updates of the training; None for what the jumps imply.
        steps: measured steps; None for every k updates, k the greatest common divisor of all
            steps of the jumps.
        interval: `"exact"` (Clopper-Pearson; takes jumps as independent) or `"runs"` (bootstrap
            of whole runs, (model, seed), which does not; nan for a single run, and too narrow for
            few: of nominal .95, some .9 at 20 runs, .8 at 5 and .5 at 2).
        level: nominal coverage of the interval.
        seed: of the bootstrap.

    Returns:
        Tidy frame, one row a model and part (and `model` = `"all"` where there are several):
        `metric` `jump_share.early` and so on, `value` the share, `null_mean` and `null_sd` under
        the even spread, `p` of the two-sided exact binomial test, `n` jumps; further `part`,
        `count`, `low`, `high`, `by`.

    Raises:
        InputError: no jumps, steps off the measured ones, n_steps neither given nor implied.

    What it does not show: that jumps belong to a part of the training. A detector whose threshold
    follows the whole curve finds its jumps where the curve is steep; and jumps of one run come
    together, so that the exact p and interval claim too much: prefer `interval="runs"`.

    Reference:
        Clopper and Pearson 1934, by `scipy.stats.binomtest`.

    Example:
        >>> import pandas as pd
        >>> from headspec.series.jump_phases import phase_shares
        >>> jumps = pd.DataFrame({"step": [10, 100, 105, 600], "model": "cnn"})
        >>> found = phase_shares(jumps, n_steps=1000)
        >>> found[["part", "count", "value", "null_mean"]].values.tolist()
        [['early', 2, 0.5, 0.1], ['mid', 1, 0.25, 0.4], ['late', 1, 0.25, 0.5]]
    """
    check_choice("by", by, get_args(Binning))
    check_choice("at", at, get_args(Place))
    check_choice("interval", interval, get_args(ShareInterval))
    rows: Any = jump_rows(jumps)
    if not len(rows):
        raise InputError(expected="jumps", got="none", fix="There are no shares of nothing.")
    length = training_length(jumps, rows, n_steps)
    grid = measured_grid(rows, length, steps)
    at_after = by == "step" and at == "after"
    own = _on_grid(rows["step" if at_after else "step_before"].to_numpy(), grid)
    places = np.arange(1, len(grid)) if at_after else np.arange(len(grid) - 1)
    parts = _parts(own, grid, length, by)
    null_parts = _parts(places, grid, length, by)
    expected = [float((null_parts == i).mean()) for i in range(3)]
    names = rows["model"].unique().tolist()
    groups = {name: (rows["model"] == name).to_numpy() for name in names}
    if len(names) > 1:
        groups["all"] = np.ones(len(rows), dtype=bool)
    table = []
    for name, inside in groups.items():
        ends = None
        if interval == "runs":
            ends = _run_intervals(parts[inside], rows["run"].to_numpy()[inside], level, seed)
        for i, part in enumerate(PHASE_NAMES):
            row = _share(int((parts[inside] == i).sum()), int(inside.sum()), expected[i], level)
            if ends is not None:
                row |= {"low": float(ends[0][i]), "high": float(ends[1][i])}
            table.append({"model": name, "metric": f"jump_share.{part}", "part": part} | row)
    return tidy(table, by=by)


def _parts(
    own: Int[np.ndarray, " place"], grid: Int[np.ndarray, " step"], length: int, by: Binning
) -> Int[np.ndarray, " place"]:
    """0 early, 1 mid, 2 late, -1 in no part, of measurements by their number."""
    parts = phase_stratum((grid[own] if by == "step" else own) / length, EDGES)
    return np.where(own == 0, -1, parts) if by == "published" else parts


def _share(count: int, n: int, expected: float, level: float) -> dict[str, Any]:
    test = binomtest(count, n, expected)
    ends = test.proportion_ci(level, method="exact")
    return {
        "value": count / n,
        "null_mean": expected,
        "null_sd": float(np.sqrt(expected * (1 - expected) / n)),
        "p": float(test.pvalue),
        "n": n,
        "count": count,
        "low": float(ends.low),
        "high": float(ends.high),
    }


def _run_intervals(
    parts: np.ndarray, runs: np.ndarray, level: float, seed: int
) -> tuple[Float[np.ndarray, " part"], Float[np.ndarray, " part"]]:
    names = np.unique(runs)
    counts = np.array([[((runs == r) & (parts == i)).sum() for r in names] for i in range(3)])
    sizes = np.array([(runs == r).sum() for r in names])
    found = bootstrap_means(counts, over=sizes, level=level, seed=seed)
    return found.low, found.high


def _on_grid(steps: np.ndarray, grid: np.ndarray) -> Int[np.ndarray, " jump"]:
    """Numbers of the measurements at these steps."""
    found = np.minimum(np.searchsorted(grid, steps), len(grid) - 1)
    if (grid[found] != steps).any():
        raise InputError(
            expected="jumps at measured steps",
            got=f"{steps[grid[found] != steps][:3].tolist()}, not among steps=",
            fix="Pass every step that was measured.",
        )
    return found.astype(np.int64)
