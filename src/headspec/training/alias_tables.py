"""Walker's alias tables, one for each row of probabilities, packed for one memory access a draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt32


@dataclass(frozen=True)
class AliasTables:
    """Tables from which a value of any row is drawn in constant time.

    Entry j of a row holds a threshold t_j and an alias a_j: a column j is drawn uniformly and kept
    with probability t_j, else replaced by a_j. Both share 32 bits, the alias as many as it needs,
    so that a draw reads one number. The threshold is rounded to the bits left (20 for 4,096
    columns): no probability is off by more than 2^-20 / columns for each entry that names it.

    Attributes:
        packed: `row column`, threshold in the upper bits and alias in the lower ones.
        alias_bits: how many lower bits there are.
    """

    packed: UInt32[np.ndarray, "row column"]
    alias_bits: int

    def draw(
        self, rows: Int[np.ndarray, " draw"], rng: np.random.Generator
    ) -> Int[np.ndarray, " draw"]:
        """One column for each row named, independently.

        Args:
            rows: which row's probabilities hold for each draw.
            rng: one number is taken from it for each draw.

        Returns:
            Columns.
        """
        n_columns = self.packed.shape[1]
        position = rng.random(len(rows))
        position *= n_columns
        columns = position.astype(np.int64)
        position -= columns
        position *= 1 << (32 - self.alias_bits)
        entries = self.packed.ravel().take(rows * n_columns + columns)
        kept = position < (entries >> self.alias_bits)
        aliases = entries & ((1 << self.alias_bits) - 1)
        return np.where(kept, columns, aliases)

    def probabilities(self) -> Float[np.ndarray, "row column"]:
        """The probabilities with which `draw` gives each column, rounding included."""
        n_rows, n_columns = self.packed.shape
        kept = (self.packed >> self.alias_bits) / (1 << (32 - self.alias_bits))
        aliases = (self.packed & ((1 << self.alias_bits) - 1)).astype(np.int64)
        places = aliases + n_columns * np.arange(n_rows)[:, None]
        moved = np.bincount(
            places.ravel(), weights=(1 - kept).ravel(), minlength=n_rows * n_columns
        )
        return (kept + moved.reshape(n_rows, n_columns)) / n_columns


def build_alias_tables(probabilities: Float[np.ndarray, "row column"]) -> AliasTables:
    """Alias tables of many rows by prefix sums, without a loop over columns.

    Columns below the mean (light) lack 1 - n p, the others (heavy) have n p - 1 too much. Both are
    summed up in order: a light column takes from the heavy one whose running excess first passes
    the shortfall before it, and a heavy column that gives more than it has takes the rest from
    the next.

    Args:
        probabilities: rows of non-negative numbers; they are normalised.

    Returns:
        Tables that give these probabilities but for the rounding described in `AliasTables`.

    References:
        Walker 1977; Hübschle-Schneider and Sanders 2022, "Parallel Weighted Random Sampling".

    Example:
        >>> tables = build_alias_tables(np.array([[0.5, 0.25, 0.25]]))
        >>> tables.probabilities().round(3).tolist()
        [[0.5, 0.25, 0.25]]
    """
    n_rows, n_columns = probabilities.shape
    alias_bits = max(1, (n_columns - 1).bit_length())
    scale = 1 << (32 - alias_bits)
    packed = np.empty((n_rows, n_columns), np.uint32)
    for row in range(n_rows):
        kept, alias = _alias_row(probabilities[row].astype(np.float64))
        whole = np.rint(kept * scale)
        own = whole >= scale  # always kept: the alias is the column itself, the threshold is free
        alias[own] = np.flatnonzero(own)
        packed[row] = (np.minimum(whole, scale - 1).astype(np.uint32) << alias_bits) | alias
    return AliasTables(packed, alias_bits)


def _alias_row(
    weights: Float[np.ndarray, " column"],
) -> tuple[Float[np.ndarray, " column"], UInt32[np.ndarray, " column"]]:
    """Threshold and alias of each column of one row."""
    n_columns = len(weights)
    scaled = weights * (n_columns / weights.sum())
    light, heavy = np.flatnonzero(scaled < 1), np.flatnonzero(scaled >= 1)
    kept, alias = np.ones(n_columns), np.arange(n_columns, dtype=np.uint32)
    if len(light) == 0 or len(heavy) == 0:  # no heavy one: all equal but for rounding
        return kept, alias
    lacking, spare = np.cumsum(1 - scaled[light]), np.cumsum(scaled[heavy] - 1)
    before = np.concatenate([[0.0], lacking[:-1]])  # the very numbers of `lacking`: ties stay ties
    giver = np.searchsorted(spare, before, side="right")
    kept[light] = scaled[light]
    alias[light] = heavy[np.minimum(giver, len(heavy) - 1)]
    last = np.searchsorted(lacking, spare[:-1], side="left")
    overdrawn = (last < len(light)) & (spare[:-1] > 0)  # len(light): only by rounding
    kept[heavy[:-1][overdrawn]] = np.clip(
        1 + spare[:-1][overdrawn] - lacking[last[overdrawn]], 0, 1
    )
    alias[heavy[:-1][overdrawn]] = heavy[1:][overdrawn]
    return kept, alias
