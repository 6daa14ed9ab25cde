"""Changes of a metric in each example, with bootstrap intervals over distinct examples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from headspec.stats import MeanIntervals, bootstrap_means


class SmallGapWarning(UserWarning):
    """The two runs of a pair do not differ clearly, so effects cannot be given relative to that."""


@dataclass(frozen=True, kw_only=True)
class ExampleEffects:
    """metric(intervened) - metric(base run), for each intervention and example.

    Intervals are percentile bootstrap intervals over *distinct* examples: those with the same
    prompts are drawn together, and count once in `n`.

    Attributes:
        values: the effects.
        base: metric of the base run.
        target: metric of the other run of a pair of prompts; None without a pair.
        metric, unit: the metric's.
        site, mode: what was replaced, by what (`"denoise"`, `"noise"`, `"mean"`, ...).
        groups: which examples share their prompts, by number; None: every one is distinct.
        level, n_bootstrap, seed: of the intervals; `seed` also of any draws.
        model, step, processing: where the model comes from.
        resolution: relative rounding of the model's arithmetic; smaller effects are nothing.
        notes: what a reader should know beside the numbers.
    """

    values: Float[np.ndarray, "row example"]
    base: Float[np.ndarray, " example"]
    target: Float[np.ndarray, " example"] | None
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
    resolution: float = 2e-6
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
    def normalized(self) -> np.ndarray:
        """Mean effect / mean gap, shaped: 1 when patching in restores the clean run's metric.

        A ratio of means, not a mean of ratios: examples whose gap is near 0 would rule the latter.
        With `mode="noise"`, -1 is the loss of all that tells the prompts apart. All nan, with a
        `SmallGapWarning`, where the interval of the mean gap holds 0; nan without a pair.
        """
        return self.shaped(self.normalized_means())

    def shaped(self, per_row: np.ndarray) -> np.ndarray:
        """Numbers of rows (first axis), arranged by what the rows stand for."""
        return per_row

    @property
    def gap(self) -> np.ndarray:
        """metric(clean) - metric(corrupt) in each example; nan without a pair of prompts."""
        if self.target is None:
            return np.full(len(self.base), np.nan)
        return (self.base - self.target) * (1 if self.mode == "noise" else -1)

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

    @property
    def rounding(self) -> float:
        """What rounding can make of no change at all."""
        return self.resolution * max(1.0, float(np.abs(self.base).max()))

    @cached_property
    def gap_is_clear(self) -> bool:
        """Whether the interval of the mean gap excludes 0 (one example: is not 0)."""
        if self.target is None or abs(self._gap_interval.means[0]) <= self.rounding:
            return False
        found = self._gap_interval
        return bool(self.n == 1 or found.low[0] * found.high[0] > 0)

    def normalized_means(self) -> np.ndarray:
        """Mean effect / mean gap, one for each row, with a warning where the gap is not clear."""
        if self.target is not None and not self.gap_is_clear:
            warnings.warn(f"Not normalised: {self.gap_words()}", SmallGapWarning, stacklevel=3)
        return self.normalized_intervals.means

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of frames: means, interval ends, and the same relative to the gap."""
        normalised = self.normalized_intervals
        return {
            "value": self.intervals.means,
            "ci_low": self.intervals.low,
            "ci_high": self.intervals.high,
            "normalized": normalised.means,
            "normalized_low": normalised.low,
            "normalized_high": normalised.high,
        }

    def constants(self) -> dict[str, Any]:
        """What all rows of a frame have in common."""
        return {
            "model": self.model,
            "step": self.step,
            "metric": self.metric,
            "n": self.n,
            "seed": self.seed,
            "base": self.base.mean(),
            "target": np.nan if self.target is None else self.target.mean(),
            "unit": self.unit,
            "site": self.site,
            "mode": self.mode,
            "processing": self.processing,
        }

    def describe(self, what: str, names: Sequence[str], *, top: int) -> str:
        """A summary in words: what was done, the largest effects, what chance alone allows."""
        step = "" if self.step is None else f", step {self.step}"
        start = f"{self.model}{step}: " if self.model else ""
        unit = f" {self.unit}" if self.unit else ""
        found = self.intervals
        largest = [
            f"{names[row]} {found.means[row]:+.3g}{unit}"
            + ("" if self.n == 1 else f" [{found.low[row]:.3g}, {found.high[row]:.3g}]")
            for row in np.argsort(-np.abs(found.means), kind="stable")[:top]
        ]
        lines = [
            f"{start}{self.site} ({self.mode}) of {len(names)} {what}, {self.metric} "
            f"{self.base.mean():.3g}{unit} in the base run, {self.n} distinct examples.",
            f"Largest effects: {', '.join(largest)}.",
            self.chance_words(),
            self.gap_words() if self.target is not None else "",
            *self.notes,
        ]
        return " ".join(line for line in lines if line)

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

    def chance_words(self) -> str:
        """How many intervals exclude 0, beside how many would by chance."""
        if self.n == 1:
            return "One example has no interval: this is an anecdote."
        low, high = self.intervals.low, self.intervals.high
        outside = int(((low > self.rounding) | (high < -self.rounding)).sum())
        return (
            f"{outside} of {len(low)} intervals ({self.level:.0%}) exclude 0; about "
            f"{(1 - self.level) * len(low):.2g} would by chance."
        )

    def gap_words(self) -> str:
        """The mean gap, and whether it can be told from 0."""
        found = self._gap_interval
        text = f"clean - corrupt is {found.means[0]:.3g}"
        text += "" if self.n == 1 else f" [{found.low[0]:.3g}, {found.high[0]:.3g}]"
        return text + ("." if self.gap_is_clear else ", not distinguishable from 0.")
