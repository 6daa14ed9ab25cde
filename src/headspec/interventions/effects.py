"""The result of intervening on heads: how a metric changes, per example, with intervals."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.heads import Head
from headspec.results import tidy
from headspec.stats import MeanIntervals, bootstrap_means

Kind = Literal["head", "set", "layer"]
"""What a row of effects stands for."""


class SmallGapWarning(UserWarning):
    """The two runs of a pair do not differ clearly, so effects cannot be given relative to that."""


@dataclass(frozen=True)
class HeadEffects:
    """How a metric changes when heads are intervened on, one row an intervention.

    An effect is metric(intervened) - metric(base run), in the metric's unit, averaged over
    examples. Properties shaped `layer head` (rows of single heads), `set` (sets of heads) or
    `layer` (sites of whole layers), with a leading axis `pos` where positions were taken one by
    one, hold nan where nothing was measured. Intervals are percentile bootstrap intervals over
    *distinct* examples: rows with the same prompts are drawn together, and count once in `n`.

    What an effect does not show: that heads with no effect do nothing (others may stand in for
    them), or that effects of heads add up. With many rows, some intervals exclude 0 by chance.

    Attributes:
        values: the effect in each example.
        base: metric of the base run.
        target: metric of the other run of a pair of prompts; None without a pair.
        heads: heads of each row, `()` for sites of layers. Key-value heads for `k` and `v`.
        layers: layer of each row; None where a set spans several.
        positions: label of the positions of each row: `"all"`, a column, a name.
        kind: what rows stand for.
        by_position: whether positions are an axis of the shaped properties.
        n_layers, n_heads: of the model (`n_heads`: at this site).
        metric, unit: the metric's.
        site, mode: what was replaced, by what (`"denoise"`, `"noise"`, `"mean"`, ...).
        groups: which examples share their prompts, by number; None: every one is distinct.
        level, n_bootstrap, seed: of the intervals; `seed` also of any draws.
        model, step, processing: where the model comes from.
        notes: what a reader should know beside the numbers.
    """

    values: Float[np.ndarray, "row example"]
    base: Float[np.ndarray, " example"]
    target: Float[np.ndarray, " example"] | None
    heads: tuple[tuple[Head, ...], ...]
    layers: tuple[int | None, ...]
    positions: tuple[str, ...]
    kind: Kind
    by_position: bool
    n_layers: int
    n_heads: int
    metric: str
    unit: str
    site: str
    mode: str
    groups: Int[np.ndarray, " example"] | None = None
    level: float = 0.95
    n_bootstrap: int = 2000
    seed: int = 0
    model: str = ""
    step: int | None = None
    processing: str = "none"
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Distinct examples."""
        return len(self.base) if self.groups is None else len(np.unique(self.groups))

    @property
    def effect(self) -> np.ndarray:
        """Mean effect over examples, shaped."""
        return self.shaped(self.values.mean(1))

    @property
    def per_example(self) -> np.ndarray:
        """The effect in each example, shaped, examples last."""
        return self.shaped(self.values)

    @property
    def ci_low(self) -> np.ndarray:
        """Lower ends of the intervals of the effects, shaped; nan with one distinct example."""
        return self.shaped(self.intervals.low)

    @property
    def ci_high(self) -> np.ndarray:
        """Upper ends of the intervals of the effects, shaped."""
        return self.shaped(self.intervals.high)

    @property
    def gap(self) -> np.ndarray:
        """metric(clean) - metric(corrupt) in each example; nan without a pair of prompts."""
        if self.target is None:
            return np.full(len(self.base), np.nan)
        return (self.base - self.target) * (1 if self.mode == "noise" else -1)

    @property
    def normalized(self) -> np.ndarray:
        """Mean effect / mean gap, shaped: 1 when patching in restores the clean run's metric.

        A ratio of means, not a mean of ratios: examples whose gap is near 0 would rule the latter.
        With `mode="noise"`, -1 is the loss of all that tells the prompts apart. All nan, with a
        `SmallGapWarning`, where the interval of the mean gap holds 0; nan without a pair.
        """
        if self.target is not None and not self.gap_is_clear:
            warnings.warn(f"Not normalised: {self._gap_words()}", SmallGapWarning, stacklevel=2)
        return self.shaped(self.normalized_intervals.means)

    @cached_property
    def intervals(self) -> MeanIntervals:
        """Means and intervals of the effects, one for each row."""
        sums, sizes = self._grouped(self.values), self._grouped(np.ones((1, len(self.base))))
        return self._bootstrap(sums, sizes)

    @cached_property
    def normalized_intervals(self) -> MeanIntervals:
        """Normalised effects and their intervals, one for each row; see `normalized`."""
        if not self.gap_is_clear:
            nothing = np.full(len(self.values), np.nan)
            return MeanIntervals(nothing, nothing, nothing, level=self.level, n=self.n)
        return self._bootstrap(self._grouped(self.values), self._grouped(self.gap[None]))

    @cached_property
    def gap_is_clear(self) -> bool:
        """Whether the interval of the mean gap excludes 0 (one example: whether it is not 0)."""
        if self.target is None:
            return False
        found = self._gap_interval
        return bool(found.means[0] != 0 if self.n == 1 else found.low[0] * found.high[0] > 0)

    @cached_property
    def _gap_interval(self) -> MeanIntervals:
        sizes = self._grouped(np.ones((1, len(self.base))))
        return self._bootstrap(self._grouped(self.gap[None]), sizes)

    def _bootstrap(self, sums: np.ndarray, over: np.ndarray) -> MeanIntervals:
        return bootstrap_means(
            sums, over=over, level=self.level, n_resamples=self.n_bootstrap, seed=self.seed
        )

    def _grouped(self, values: np.ndarray) -> np.ndarray:
        """Sums over the examples that share their prompts."""
        if self.groups is None:
            return values
        _, group = np.unique(self.groups, return_inverse=True)
        sums = np.zeros((self.n, len(values)))
        np.add.at(sums, group, values.T)
        return sums.T

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
        normalised = self.normalized_intervals
        rows = {
            "layer": list(self.layers),
            "head": [row[0].index if self.kind == "head" else None for row in self.heads],
            "value": self.values.mean(1),
            "ci_low": self.intervals.low,
            "ci_high": self.intervals.high,
            "normalized": normalised.means,
            "normalized_low": normalised.low,
            "normalized_high": normalised.high,
            "heads": [" ".join(map(str, row)) for row in self.heads],
            "position": list(self.positions),
        }
        return tidy(
            rows,
            model=self.model,
            step=self.step,
            metric=self.metric,
            n=self.n,
            seed=self.seed,
            base=self.base.mean(),
            target=np.nan if self.target is None else self.target.mean(),
            unit=self.unit,
            site=self.site,
            mode=self.mode,
            processing=self.processing,
        )

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
        step = "" if self.step is None else f", step {self.step}"
        start = f"{self.model}{step}: " if self.model else ""
        unit = f" {self.unit}" if self.unit else ""
        means, low, high = self.intervals.means, self.intervals.low, self.intervals.high
        names = self.row_names()
        largest = [
            f"{names[row]} {means[row]:+.3g}{unit} [{low[row]:.3g}, {high[row]:.3g}]"
            for row in np.argsort(-np.abs(means), kind="stable")[:top]
        ]
        lines = [
            f"{start}{self.site} ({self.mode}) of {len(names)} {what}, "
            f"{self.metric} {self.base.mean():.3g}{unit} in the base run, {self.n} distinct "
            "examples.",
            f"Largest effects: {', '.join(largest)}.",
            self._chance_words(low, high),
            self._gap_words() if self.target is not None else "",
            *self.notes,
        ]
        return " ".join(line for line in lines if line)

    def _chance_words(self, low: np.ndarray, high: np.ndarray) -> str:
        if self.n == 1:
            return "One example has no interval: this is an anecdote."
        rounding = 2e-6 * max(1.0, float(np.abs(self.base).max()))  # of float32
        outside = int(((low > rounding) | (high < -rounding)).sum())
        return (
            f"{outside} of {len(low)} intervals ({self.level:.0%}) exclude 0; about "
            f"{(1 - self.level) * len(low):.2g} would by chance."
        )

    def _gap_words(self) -> str:
        found = self._gap_interval
        text = f"clean - corrupt is {found.means[0]:.3g} [{found.low[0]:.3g}, {found.high[0]:.3g}]"
        return text + ("." if self.gap_is_clear else ", not distinguishable from 0.")
