"""The result of intervening on heads: how a metric changes, per example, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from headspec.heads import Head
from headspec.interventions.example_effects import ExampleEffects
from headspec.results import tidy

Kind = Literal["head", "set", "layer"]
"""What a row of effects stands for."""


@dataclass(frozen=True, kw_only=True)
class HeadEffects(ExampleEffects):
    """How a metric changes when heads are intervened on, one row an intervention.

    An effect is metric(intervened) - metric(base run), in the metric's unit, averaged over
    examples. Properties shaped `layer head` (rows of single heads), `set` (sets of heads) or
    `layer` (sites of whole layers), with a leading axis `pos` where positions were taken one by
    one, hold nan where nothing was measured. Intervals are percentile bootstrap intervals over
    *distinct* examples: rows with the same prompts are drawn together, and count once in `n`.

    What an effect does not show: that heads with no effect do nothing (others may stand in for
    them), or that effects of heads add up. With many rows, some intervals exclude 0 by chance.

    Attributes:
        heads: heads of each row, `()` for sites of layers. Key-value heads for `k` and `v`.
        layers: layer of each row; None where a set spans several.
        positions: label of the positions of each row: `"all"`, a column, a name.
        kind: what rows stand for.
        by_position: whether positions are an axis of the shaped properties.
        n_layers, n_heads: of the model (`n_heads`: at this site).
        values, base, target, metric, unit, site, mode, groups, level, n_bootstrap, seed, model,
            step, processing, notes: see `ExampleEffects`.
    """

    heads: tuple[tuple[Head, ...], ...]
    layers: tuple[int | None, ...]
    positions: tuple[str, ...]
    kind: Kind
    by_position: bool
    n_layers: int
    n_heads: int

    def shaped(self, per_row: np.ndarray) -> np.ndarray:
        """Numbers of rows (first axis) as `layer head`, `set` or `layer`, after `pos` if any."""
        places = list(dict.fromkeys(self.positions))
        where = np.array([places.index(place) for place in self.positions], dtype=int)
        if self.kind == "head":
            layer, head = np.array([(row[0].layer, row[0].index) for row in self.heads]).T
            index, shape = (where, layer, head), (len(places), self.n_layers, self.n_heads)
        elif self.kind == "layer":
            index, shape = (where, np.array(self.layers)), (len(places), self.n_layers)
        else:
            shape = (len(places), len(self.positions) // max(len(places), 1))
            index = (where, np.arange(len(self.positions)) % max(shape[1], 1))
        out = np.full(shape + per_row.shape[1:], np.nan)
        out[index] = per_row
        return out if self.by_position else out[0]

    def to_frame(self) -> pd.DataFrame:
        """One row an intervention: `value` is the mean effect on `metric`, `n` distinct examples.

        Extra columns: ends of the intervals, effect relative to the gap, base and target metric,
        the row's heads, positions, site, mode, unit, processing.
        """
        rows = {
            "layer": list(self.layers),
            "head": [row[0].index if self.kind == "head" else None for row in self.heads],
            **self.columns(),
            "heads": [" ".join(map(str, row)) for row in self.heads],
            "position": list(self.positions),
        }
        return tidy(rows, **self.constants())

    def row_names(self) -> list[str]:
        """What each row stands for: `"L2H3"`, `"L2H3 L2H5"`, `"L2"`, with `"at ..."` positions."""
        names = [
            f"L{layer}" if self.kind == "layer" else " ".join(map(str, heads)) or "no heads"
            for heads, layer in zip(self.heads, self.layers, strict=True)
        ]
        if not self.by_position:
            return names
        return [f"{name} at {at}" for name, at in zip(names, self.positions, strict=True)]

    def summary(self, *, top: int = 5) -> str:
        """What was done, the largest effects with intervals, and how many chance alone allows."""
        what = {"head": "heads", "set": "sets of heads", "layer": "layers"}[self.kind]
        return self.describe(what, self.row_names(), top=top)
