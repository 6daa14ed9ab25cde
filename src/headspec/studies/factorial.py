"""Main effects and interactions of a 2 x 2 x ... design that was run with several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import t as student

from headspec.errors import InputError
from headspec.stats import false_discovery_rate
from headspec.studies.factorial_result import FactorialEffects

_ROUNDING = 1e-12


def factorial_effects(
    frame: pd.DataFrame,
    *,
    factors: Sequence[str] = ("attention", "ordering", "position"),
    value: str = "value",
    block: str = "seed",
    by: Sequence[str] = (),
    levels: Mapping[str, tuple[str, str]] | None = None,
    level: float | int = 0.95,
) -> FactorialEffects:
    """Main effects and all interactions of a full two-level design, with intervals over blocks.

    With levels coded c = -1 and +1, the effect of a set of factors in one block (a seed, say) is

        effect = 2^(1 - k) sum over the 2^k cells of value(cell) prod over the set of c

    For one factor that is the mean of the cells at its upper level minus the mean at its lower.
    For two it is half of how much the effect of one differs between the levels of the other, and
    so on (Yates 1937). Every effect is computed inside each block and then treated as one number
    a block: mean, standard error and t with n_blocks - 1 degrees of freedom. What the cells of a
    block share (data, initial weights, or that one model *is* the other with its positions
    dropped) cancels in the contrast, and factors between and within runs need no error terms of
    their own.

    **Blocks are the unit.** Heads, layers and sequences of one model are not independent of each
    other: values of them must be averaged, or named in `by`, first; more than one row for a cell is
    an error. With one block there is no interval and no p, whatever the number of heads.

    Args:
        frame: one row for each block, cell and outcome.
        factors: columns with two levels each; one factor or more.
        value: the column of numbers.
        block: the column of independent repetitions.
        by: columns that name outcomes, such as `("metric", "layer")`; each is analysed by itself,
            and all of them count in `q`.
        levels: of a factor, the levels coded -1 and +1; in the order of a categorical column, else
            sorted, where a factor is not named.
        level: coverage of the intervals.

    Returns:
        A `FactorialEffects`; main effects first, then interactions of two, of three, ...

    Raises:
        InputError: missing columns; a factor without exactly two levels; a cell that is missing,
            there twice, or not finite in some block.

    References:
        Yates 1937, "The design and analysis of factorial experiments". Box, Hunter and Hunter
        2005, "Statistics for experimenters", chapter 5.

    Example:
        >>> import pandas as pd
        >>> cells = [("a", "c", 1.0), ("b", "c", 3.0), ("a", "d", 2.0), ("b", "d", 8.0)]
        >>> rows = [(f, g, y + s * 0.1, s) for s in range(3) for f, g, y in cells]
        >>> frame = pd.DataFrame(rows, columns=["first", "second", "value", "seed"])
        >>> factorial_effects(frame, factors=("first", "second")).value.round(6).tolist()
        [[4.0, 3.0, 2.0]]

    **What it does not show.** Effects beyond these levels, data and sizes: blocks that share a
    data set say nothing of another. With three blocks an interval is 4.3 standard errors to each
    side; the t distribution is exact only if contrasts are normal, which three cannot show.
    """
    named = tuple(factors)
    _check_columns(frame, (*named, value, block, *by), named)
    coded = tuple(_levels(frame, name, (levels or {}).get(name)) for name in named)
    values, outcomes, blocks = _arrange(frame, coded, (named, tuple(by), block, value))
    effects = tuple(
        chosen for size in range(1, len(named) + 1) for chosen in combinations(named, size)
    )
    contrasts = np.einsum("obc,ec->oeb", values, _signs(effects, named))
    return _result(
        contrasts / 2 ** (len(named) - 1),
        scale=np.abs(values).max(axis=(1, 2)),
        effects=effects,
        outcomes=outcomes,
        factors=named,
        levels=coded,
        blocks=blocks,
        by=tuple(by),
        measured=value,
        level=float(level),
    )


def _check_columns(frame: pd.DataFrame, needed: Sequence[str], factors: Sequence[str]) -> None:
    missing = [name for name in needed if name not in frame]
    if missing or not factors or not len(frame):
        raise InputError(
            expected=f"rows with the columns {', '.join(needed)}, one factor at least",
            got=f"{len(frame)} rows, {len(factors)} factors, missing {missing}",
            fix="Name the columns: factors=, value=, block=, by=.",
        )


def _levels(rows: pd.DataFrame, name: str, given: tuple[str, str] | None) -> tuple[str, str]:
    column = rows[name]
    found = sorted(column.astype(object).unique().tolist())
    if isinstance(column.dtype, pd.CategoricalDtype):
        found = [each for each in column.cat.categories if each in set(found)]
    if len(found) != 2 or (given is not None and set(given) != set(found)):
        raise InputError(
            expected=f"two levels of {name!r}" + (f", {given[0]} and {given[1]}" if given else ""),
            got=f"{', '.join(map(str, found))}",
            fix="Leave a factor with one level out of factors=, and choose two of several.",
        )
    return (given[0], given[1]) if given else (found[0], found[1])


def _arrange(
    frame: pd.DataFrame, coded: Sequence[tuple[str, str]], names: tuple[Any, ...]
) -> tuple[Float[np.ndarray, "outcome block cell"], tuple[tuple[Any, ...], ...], tuple[Any, ...]]:
    """Values by outcome, block and cell (in `product` order), with outcomes and blocks."""
    factors, by, block, value = names
    cells = {cell: i for i, cell in enumerate(product(*coded))}
    outcomes = {key: i for i, key in enumerate(dict.fromkeys(_keys(frame, by)))}
    blocks = {key: i for i, key in enumerate(sorted({key[0] for key in _keys(frame, (block,))}))}
    values = np.full((len(outcomes), len(blocks), len(cells)), np.nan)
    taken: set[tuple[int, int, int]] = set()
    for outcome, (one,), cell, number in zip(
        _keys(frame, by),
        _keys(frame, (block,)),
        _keys(frame, factors),
        frame[value].to_numpy(float, na_value=np.nan),
        strict=True,
    ):
        place = outcomes[outcome], blocks[one], cells[cell]
        if place in taken:
            raise InputError(
                expected="one value for each cell, block and outcome",
                got=f"two of {' '.join(map(str, (*outcome, *cell)))} in {block} {one}",
                fix="Average over heads, layers and sequences first, or name their columns in "
                "by=: they are not independent repetitions.",
            )
        taken.add(place)
        values[place] = number
    gaps = np.argwhere(~np.isfinite(values))
    if len(gaps):
        i, j, k = gaps[0]
        what = " ".join(map(str, (*list(outcomes)[i], *list(cells)[k])))
        raise InputError(
            expected="a finite value of every cell in every block",
            got=f"{len(gaps)} missing, such as {what} in {block} {list(blocks)[j]}",
            fix="Run what is missing, or leave that block out altogether.",
        )
    return values, tuple(outcomes), tuple(blocks)


def _keys(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows' values in these columns; None where one is missing."""
    columns = [frame[name].astype(object).where(frame[name].notna(), None) for name in names]
    return list(zip(*columns, strict=True)) if columns else [()] * len(frame)


def _signs(
    effects: Sequence[tuple[str, ...]], factors: Sequence[str]
) -> Int[np.ndarray, "effect cell"]:
    """Product of the codes of each effect's factors in each cell, cells in `product` order."""
    codes = np.array(list(product((-1, 1), repeat=len(factors))))
    chosen = [[factors.index(name) for name in effect] for effect in effects]
    return np.stack([codes[:, columns].prod(axis=1) for columns in chosen])


def _result(
    contrasts: np.ndarray, *, scale: np.ndarray, level: float, **given: Any
) -> FactorialEffects:
    n = contrasts.shape[-1]
    value, notes = contrasts.mean(-1), []
    se = np.full(value.shape, np.nan)
    low, high, p = se.copy(), se.copy(), se.copy()
    if n == 1:
        notes.append("One block: no interval and no p. Whether it would repeat is not known.")
    else:
        deviation = contrasts.std(-1, ddof=1)
        alike = deviation <= _ROUNDING * scale[:, None]
        se = np.where(alike, 0.0, deviation / np.sqrt(n))
        half = student.ppf((1 + level) / 2, n - 1) * se
        low, high = value - half, value + half
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * student.sf(np.abs(value / se), n - 1)
        nothing = alike & (np.abs(value) <= _ROUNDING * scale[:, None])
        p = np.where(nothing, 1.0, np.where(alike, np.nan, p))
        same = alike & ~nothing
        low, high = np.where(same, np.nan, low), np.where(same, np.nan, high)
        if same.any():
            notes.append(
                f"{int(same.sum())} effects are the same in every block to the last digit: no "
                "independent repetitions, hence no interval."
            )
    q = false_discovery_rate(p)
    numbers = {"value": value, "se": se, "low": low, "high": high, "p": p, "q": q}
    return FactorialEffects(
        contrasts=contrasts, **numbers, level=level, notes=tuple(notes), **given
    )
