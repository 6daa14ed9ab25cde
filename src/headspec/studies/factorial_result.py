"""The result of a two-level design: every effect with its interval over blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from headspec.results import tidy


@dataclass(frozen=True)
class FactorialEffects:
    """Effects of the factors of a two-level design on one or more outcomes, over blocks.

    Attributes:
        effects: the factors of each effect: `("ordering",)`, `("attention", "ordering")`, ...
        outcomes: what each row is about: the values of the columns `by`; one empty tuple without.
        contrasts: the effect in each block; all else follows from it.
        value: mean over blocks.
        se: standard error over blocks; nan with one block.
        low, high: ends of the interval, t with n_blocks - 1 degrees of freedom; nan with one block.
        p: two-sided, against no effect; nan with one block.
        q: p adjusted for all effects on all outcomes (Benjamini-Hochberg).
        factors: their names.
        levels: of each factor, the one coded -1 and the one coded +1.
        blocks: names of the blocks, such as seeds.
        by, measured: the columns that name outcomes, and the column of values.
        level: coverage of the intervals.
        notes: what could not be computed, and why.
    """

    effects: tuple[tuple[str, ...], ...]
    outcomes: tuple[tuple[Any, ...], ...]
    contrasts: Float[np.ndarray, "outcome effect block"]
    value: Float[np.ndarray, "outcome effect"]
    se: Float[np.ndarray, "outcome effect"]
    low: Float[np.ndarray, "outcome effect"]
    high: Float[np.ndarray, "outcome effect"]
    p: Float[np.ndarray, "outcome effect"]
    q: Float[np.ndarray, "outcome effect"]
    factors: tuple[str, ...]
    levels: tuple[tuple[str, str], ...]
    blocks: tuple[Any, ...]
    by: tuple[str, ...] = ()
    measured: str = "value"
    level: float = 0.95
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row an effect and outcome; `metric` is the outcome where no `by` column has it.

        Extra columns: `effect` ("ordering", "attention:ordering"), `order` (1 for main effects),
        `contrast` (of a main effect, the levels: "topic_ordered - shuffled"), `low high se q`, and
        the columns `by`. `null_mean` is 0, `n` the number of blocks.
        """
        rows = []
        for i, outcome in enumerate(self.outcomes):
            for j, effect in enumerate(self.effects):
                low, high = self.levels[self.factors.index(effect[0])]
                rows.append(
                    {"metric": self.measured, **dict(zip(self.by, outcome, strict=True))}
                    | {"effect": ":".join(effect), "order": len(effect)}
                    | {"contrast": f"{high} - {low}" if len(effect) == 1 else ""}
                    | {name: float(getattr(self, name)[i, j]) for name in ("value", "se", "p")}
                    | {name: float(getattr(self, name)[i, j]) for name in ("low", "high", "q")}
                )
        return tidy(rows, null_mean=0.0, n=len(self.blocks))

    def summary(self, *, alpha: float = 0.05) -> str:
        """The effects that pass, in words, after what was tried."""
        tried = int(np.isfinite(self.q).sum())
        if len(self.blocks) < 2:
            return " ".join(self.notes)
        found = []
        for i, j in np.argwhere(self.q <= alpha):
            what = " ".join(map(str, self.outcomes[i])) or self.measured
            found.append(
                f"{':'.join(self.effects[j])} on {what} {self.value[i, j]:+.3g} "
                f"[{self.low[i, j]:.3g}, {self.high[i, j]:.3g}], q = {self.q[i, j]:.2g}"
            )
        said = f"{len(found)} of {tried} effects pass at a false discovery rate of {alpha:g}"
        said += f" ({len(self.blocks)} blocks)"
        return " ".join([said + (": " + "; ".join(found) if found else "") + ".", *self.notes])
