"""Do two curves change at the same time? Rates of change against circular shifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from headspec.series.curve import read_curve
from headspec.series.surrogates import surrogates
from headspec.stats import permutation_p


@dataclass(frozen=True)
class RateAlignment:
    """How well the rates of change of two curves agree, interval by interval.

    Attributes:
        name: of the second curve.
        r: Pearson correlation of the rates; NaN where one of them is constant.
        p: share of circular shifts with r at least as large, the curves as they are among them.
        least_p: the smallest p that so many intervals allow.
        r_needed: that 95 % of the other shifts stay at or below: a smaller correlation is unseen.
        n: number of intervals between steps that both curves have.
    """

    name: str
    r: float
    p: float
    least_p: float
    r_needed: float
    n: int

    def words(self) -> str:
        """The numbers in brackets, for a sentence."""
        name = self.name.replace("_", " ")
        if np.isnan(self.r):
            return f"{name}: no correlation is defined, one curve is constant"
        return f"{name}: r = {self.r:.2f}, p = {self.p:.2g}, {self.n} intervals"


def align_rates(
    frame: pd.DataFrame, other: pd.DataFrame, *, metrics: tuple[str, str]
) -> RateAlignment:
    """Correlate the rates of change of two curves, and test it by circular shifts.

    Everything changes during training, and most of it early: two curves that have nothing to do
    with each other are correlated, and so are their changes. The null shifts the rates of one
    curve along the other's, the end joined to the beginning, which keeps how they are spread over
    neighbouring intervals; all shifts are tried, so that p is at least 1 / intervals.

    Args:
        frame, other: tidy frames, each with one curve of its metric.
        metrics: which metric of either. Rates are per log(1 + step), over the steps in both.

    Returns:
        A `RateAlignment`, one-sided: whether the curves rise together. Turn the sign of a loss.

    What it does not show: cause, or independence where nothing was found. Shifts take the rates to
    be stationary along log step; a run of training is one observation, whatever its checkpoints.
    `correlate_rates` has nulls that hold on uneven steps, and corrects for what was tried.
    """
    first, second = read_curve(frame, metrics[0]), read_curve(other, metrics[1])
    steps, here, there = np.intersect1d(first.steps, second.steps, return_indices=True)
    widths = np.diff(np.log1p(steps))
    rates = np.diff(first.values[here]) / widths, np.diff(second.values[there]) / widths
    n = len(widths)
    constant = n < 2 or any(np.ptp(each) <= 1e-12 * (1 + np.abs(each).max()) for each in rates)
    if constant:
        return RateAlignment(metrics[1], np.nan, 1.0, 1 / max(n, 1), np.nan, n)
    shifts = surrogates(rates[1], null="circular_shift")
    shifted = np.array([np.corrcoef(rates[0], each)[0, 1] for each in shifts])
    p = permutation_p(float(shifted[0]), shifted, exact=True)
    needed = float(np.quantile(shifted[1:], 0.95, method="higher"))
    return RateAlignment(metrics[1], float(shifted[0]), p, 1 / n, needed, n)
