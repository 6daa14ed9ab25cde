"""Do layers jump together? Partners in other layers, against layers that do not know each other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.series.jump_rows import JumpSource, jump_rows, measured_grid, training_length
from headspec.stats import NullSummary, summarise_null

CoordinationNull = Literal["windowed_shift", "circular_shift"]
_GROWTH = 0.25  # width of a window, in shares of where it begins
_CHUNK = 2_000_000  # numbers at once


@dataclass(frozen=True, eq=False)
class JumpCoordination:
    """How many jumps have a partner in another layer, and how many would by chance.

    Attributes:
        share: jumps with a partner over all jumps.
        n: jumps.
        expected: the share and its null.
        runs: tidy rows, one a run and metric (column `of`), with a null of their own.
        pairs: frame `first second n value null_mean null_sd p`: of the n jumps of layer `first`,
            the share with a partner in layer `second`, all runs together.
        tolerance: updates between partners at most.
        null: how layers were made independent.
        n_null, seed: draws.
    """

    share: float
    n: int
    expected: NullSummary
    runs: pd.DataFrame
    pairs: pd.DataFrame
    tolerance: int
    null: CoordinationNull
    n_null: int
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows: each run and metric, then, where there are several, `model` = `"all"`."""
        if len(self.runs) == 1:
            return self.runs.copy()
        everything = _null_row(self.expected) | {"model": "all", "n": self.n}
        rows = [*self.runs.to_dict("records"), everything]
        constants = {"metric": "jump_coordination", "seed": self.seed}
        return tidy(rows, **constants, tolerance=self.tolerance, null=self.null)

    def summary(self) -> str:
        """The share, what chance gives, and p."""
        null = self.expected
        return (
            f"{self.share:.1%} of {self.n} jumps have a partner in another "
            f"layer within {self.tolerance} updates; {null.mean:.1%} ± {null.sd:.1%} where layers "
            f"jump independently at the same rates ({self.null}, p = {null.p_value:.2g})."
        )


def jump_coordination(
    jumps: JumpSource,
    *,
    tolerance: int | None = None,
    null: CoordinationNull = "windowed_shift",
    n_steps: int | None = None,
    steps: Int[np.ndarray, " step"] | None = None,
    n_null: int = 999,
    seed: int = 0,
) -> JumpCoordination:
    """Share of jumps with a jump of another layer within a tolerance, against independent layers.

    Partners are jumps of the same run and metric in another layer, `tolerance` updates away or
    less. Independent layers have partners too, and more where all of them jump often: early. The
    null therefore keeps the rate that layers have in common:

    * `"windowed_shift"`: the training is cut into windows, each at least four times as wide as
      the reach of a partner and a quarter as wide as its distance from the beginning. In every
      window, the jumps of every layer are moved along by an own random number of measurements,
      the end joined to the beginning. Keeps, for each layer, the number of jumps in each window
      and (but at the ends) their spacing.
    * `"circular_shift"`: the same with the whole training as one window. Keeps counts and
      spacing, but spreads early jumps over all of the training, and so calls independent layers
      coordinated whenever the rate of jumps falls; for comparison.

    Args:
        jumps: `Jumps` or its frame. Runs, (model, seed), and metrics are taken separately.
        tolerance: in updates; None for one measuring interval (the median).
        null: see above.
        n_steps: updates of the training; None for what the jumps imply.
        steps: measured steps; None for every k updates, k the greatest common divisor of all
            steps of the jumps.
        n_null: draws.
        seed: of the draws.

    Returns:
        A `JumpCoordination`.

    Raises:
        InputError: no run with jumps in two layers, jumps off the measured steps, a tolerance
            below 0.

    What it does not show: that one layer moves another. A step of the optimiser moves all layers
    at once, and the input of a layer is the output of others. Coordination slower than a window
    is taken for a common rate, and a common rate that changes within a window for coordination.

    Reference:
        Amarasingham, Harrison, Hatsopoulos, Geman 2012, "Conditional modeling and the jitter
        method of spike resampling".

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> from headspec.series.jump_partners import jump_coordination
        >>> at = np.array([100, 230, 370, 480, 610, 760, 900])
        >>> two = pd.DataFrame({"step": [*at, *at + 5], "layer_name": ["a"] * 7 + ["b"] * 7})
        >>> found = jump_coordination(two, n_steps=1000, tolerance=5)
        >>> found.share, found.expected.p_value < 0.01
        (1.0, True)
    """
    check_choice("null", null, get_args(CoordinationNull))
    rows: Any = jump_rows(jumps)
    length = training_length(jumps, rows, n_steps)
    grid = measured_grid(rows, length, steps)
    reach = int(np.median(np.diff(grid))) if tolerance is None else tolerance
    layers = sorted(rows["layer_name"].unique())
    _check(rows, grid, reach, n_null)
    windows = _windows(grid, reach) if null == "windowed_shift" else [(1, len(grid))]
    rng = np.random.default_rng(seed)
    table, all_counts, all_pairs, total = [], [], [], 0
    for _, group in rows.groupby(["run", "metric"], sort=False):
        present = np.zeros((len(layers), len(grid)), dtype=bool)
        there = group["layer_name"].map(layers.index).to_numpy()
        present[there, np.searchsorted(grid, group["step"].to_numpy())] = True
        counts, pairs = _draws(present, grid, reach, windows, n_null=n_null, rng=rng)
        n = int(present.sum())
        own = summarise_null(counts[0] / n, counts[1:] / n)
        first = group.iloc[0]
        known = {"model": first["model"], "seed": first["seed"], "of": first["metric"]}
        table.append(_null_row(own) | known | {"n": n})
        all_counts.append(counts)
        all_pairs.append(pairs)
        total += n
    counts = np.sum(all_counts, axis=0) / total
    constants = {"metric": "jump_coordination", "tolerance": reach, "null": null}
    sizes = rows.groupby("layer_name")["step"].size()
    return JumpCoordination(
        share=float(counts[0]),
        n=total,
        expected=summarise_null(float(counts[0]), counts[1:]),
        runs=tidy(table, **constants),
        pairs=_pair_table(np.sum(all_pairs, axis=0), layers, sizes),
        tolerance=reach,
        null=null,
        n_null=n_null,
        seed=seed,
    )


def _windows(grid: Int[np.ndarray, " step"], reach: int) -> list[tuple[int, int]]:
    """First and behind-last place of each window, over the places 1 ... of the grid."""
    every = float(np.median(np.diff(grid)))
    least = 4 * (2 * int(np.ceil(reach / every)) + 1)
    edges = [1]
    while edges[-1] < len(grid):
        edges.append(edges[-1] + max(least, int(_GROWTH * edges[-1])))
    edges[-1] = len(grid)
    if len(edges) > 2 and edges[-1] - edges[-2] < least:
        edges.pop(-2)  # the rest joins the window before it
    return list(pairwise(edges))


def _draws(
    present: Bool[np.ndarray, "layer place"],
    grid: Int[np.ndarray, " step"],
    reach: int,
    windows: list[tuple[int, int]],
    *,
    n_null: int,
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " draw"], Int[np.ndarray, "draw layer layer"]]:
    """Jumps with a partner, in all and by pair of layers; the data first, then the null."""
    n_layers, n_places = present.shape
    low = np.searchsorted(grid, grid - reach, side="left")
    high = np.searchsorted(grid, grid + reach, side="right")
    totals, pairs = [], []
    size = max(1, _CHUNK // present.size)
    for start in range(-1, n_null, size):
        count = min(size, n_null - start)
        moved = np.repeat(present[None], count, axis=0)
        for first, behind in windows:
            width = behind - first
            shift = rng.integers(0, width, (count, n_layers, 1))
            if start < 0:
                shift[0] = 0
            places = first + (np.arange(width) - shift) % width
            moved[..., first:behind] = np.take_along_axis(
                np.broadcast_to(present, moved.shape), places, axis=-1
            )
        sums = np.zeros((count, n_layers, n_places + 1), dtype=np.int32)
        np.cumsum(moved, axis=-1, out=sums[..., 1:])
        near = sums[..., high] > sums[..., low]
        others = near.sum(axis=1, keepdims=True) - near  # layers but the own
        totals.append((moved & (others > 0)).sum(axis=(1, 2)))
        product = moved.astype(np.float32) @ near.astype(np.float32).swapaxes(1, 2)
        pairs.append(product.round().astype(np.int64))
    return np.concatenate(totals).astype(np.int64), np.concatenate(pairs)


def _pair_table(pairs: Int[np.ndarray, "draw layer layer"], layers: list[str], sizes: Any) -> Any:
    table = []
    for i, first in enumerate(layers):
        n = int(sizes[first])
        for j, second in enumerate(layers):
            if i != j:
                own = summarise_null(float(pairs[0, i, j] / n), pairs[1:, i, j] / n)
                table.append({"first": first, "second": second, "n": n} | _null_row(own))
    return pd.DataFrame(table)


def _null_row(null: NullSummary) -> dict[str, Float[np.ndarray, ""] | float]:
    return {
        "value": null.observed,
        "null_mean": null.mean,
        "null_sd": null.sd,
        "p": null.p_value,
    }


def _check(rows: Any, grid: np.ndarray, reach: int, n_null: int) -> None:
    off = ~np.isin(rows["step"].to_numpy(), grid[1:])
    if off.any():
        raise InputError(
            expected="jumps at measured steps, the first of them excepted",
            got=f"{rows['step'][off][:3].tolist()}",
            fix="Pass every step that was measured.",
        )
    several = rows.groupby(["run", "metric"])["layer_name"].nunique().max() if len(rows) else 0
    if several < 2 or reach < 0 or n_null < 19:
        raise InputError(
            expected="a run with jumps in two layers, a tolerance from 0, n_null from 19",
            got=f"at most {several} layers, tolerance {reach}, n_null {n_null}",
            fix="Layers are told apart by the column layer_name.",
        )
