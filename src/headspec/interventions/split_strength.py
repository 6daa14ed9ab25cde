"""One metric of a parity test: even against odd beside the strengths of all other splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from headspec.lens.logits import Metric
from headspec.stats import bootstrap_interval

_COUNTED = 1e-6
"""Relative rounding of shares of pairs: they are counted, whatever the model computes in."""


@dataclass(frozen=True)
class SplitStrength:
    """One metric of a parity test.

    Attributes:
        metric, unit: what was measured.
        even, odd: of each pair with the even or the odd heads replaced.
        full: with all heads of the layer replaced.
        base: of the run that was patched, untouched.
        clean: of the clean run.
        set_means: mean over pairs with each set replaced, in the order of `ParityTest.sets`.
        strength: mean of even minus mean of odd.
        ci_low, ci_high: 95 % bootstrap interval of the strength over pairs: how it would vary
            with other prompts. It says nothing about whether parity is special; `p` does.
        null: m(S) - m(complement of S) for every set S; symmetric about 0, the observed first.
        null_q: its quantiles at .025, .05, .5, .95 and .975.
        p: share of splits whose |strength| is at least the observed one.
        rank: 1 + the number of splits with a larger |strength|, out of `n_splits`.
        has_effect: whether any set of heads changes the metric of any pair, beyond rounding.
    """

    metric: str
    unit: str
    even: Float[np.ndarray, " pair"]
    odd: Float[np.ndarray, " pair"]
    full: Float[np.ndarray, " pair"]
    base: Float[np.ndarray, " pair"]
    clean: Float[np.ndarray, " pair"]
    set_means: Float[np.ndarray, " set"]
    strength: float
    ci_low: float
    ci_high: float
    null: Float[np.ndarray, " set"]
    null_q: tuple[float, float, float, float, float]
    p: float
    rank: int
    has_effect: bool

    @property
    def n_splits(self) -> int:
        """Splits compared, each once."""
        return len(self.null) // 2


def split_strength(
    metric: Metric,
    *,
    sets: Float[np.ndarray, "set pair"],
    full: Float[np.ndarray, " pair"],
    base: Float[np.ndarray, " pair"],
    clean: Float[np.ndarray, " pair"],
    seed: int,
    resolution: float = 2e-6,
) -> SplitStrength:
    """Strength, null and p of one metric.

    Args:
        metric: gives name and unit.
        sets: the metric with each set replaced; row 0 even, row i + (rows / 2) the complement of
            row i.
        full, base, clean: as in `SplitStrength`.
        seed: of the bootstrap.
        resolution: relative rounding of the model's arithmetic: smaller differences are ties. A
            metric of 0, 1/2 and 1 alone is counted, and has none.
    """
    n_splits = len(sets) // 2
    means = sets.mean(1)
    null = means - np.roll(means, n_splits)
    rounding = _rounding(sets, base, resolution)
    sizes = np.abs(null[:n_splits])
    differences = sets[0] - sets[n_splits]
    low = high = float("nan")
    if differences.size > 1:
        interval = bootstrap_interval(differences, seed=seed)
        low, high = interval.low, interval.high
    largest = max(np.abs(sets - base).max(), np.abs(full - base).max())
    return SplitStrength(
        metric=metric.name,
        unit=metric.unit,
        even=sets[0],
        odd=sets[n_splits],
        full=full,
        base=base,
        clean=clean,
        set_means=means,
        strength=float(null[0]),
        ci_low=low,
        ci_high=high,
        null=null,
        null_q=tuple(np.quantile(null, [0.025, 0.05, 0.5, 0.95, 0.975]).tolist()),
        p=np.count_nonzero(sizes >= sizes[0] - rounding) / n_splits,
        rank=1 + int(np.count_nonzero(sizes > sizes[0] + rounding)),
        has_effect=bool(largest > rounding),
    )


def _rounding(
    sets: Float[np.ndarray, "set pair"], base: Float[np.ndarray, " pair"], resolution: float
) -> float:
    """What rounding can make of no change at all, as in `ExampleEffects`."""
    counted = np.isin(sets, (0.0, 0.5, 1.0)).all() and np.isin(base, (0.0, 0.5, 1.0)).all()
    return (_COUNTED if counted else resolution) * max(1.0, float(np.abs(base).max()))
