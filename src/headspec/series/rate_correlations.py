"""The result of correlating rates of change: each number beside its null and its raw twin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.results import tidy
from headspec.series.curve import Axis
from headspec.series.surrogates import Null


@dataclass(frozen=True)
class RateGroup:
    """The rates of one model over one set of steps, as they were correlated.

    Attributes:
        model: whose rates, or None.
        steps: training steps, `step`.
        statistics, capabilities: labels of the curves, one row each.
        statistic_rates: weighted, without what was partialled out, `curve interval`.
        capability_rates: the same of the capabilities, `capability interval`.
        design: what was partialled out, weighted, `interval column`.
        spread_widths: the widths of intervals that surrogates follow in size, `interval`.
    """

    model: str | None
    steps: Int[np.ndarray, " step"]
    statistics: pd.DataFrame
    capabilities: pd.DataFrame
    statistic_rates: Float[np.ndarray, "curve interval"]
    capability_rates: Float[np.ndarray, "capability interval"]
    design: Float[np.ndarray, "interval column"]
    spread_widths: Float[np.ndarray, " interval"]


@dataclass(frozen=True)
class RateCorrelations:
    """Correlations of rates of change, one a statistic curve, capability and lag.

    Attributes:
        table: what `to_frame` gives.
        groups: the rates behind it, from which `pool_models` draws the same null again.
        null, n_null, seed: how the null was drawn.
        lags: in intervals; a positive one means that the statistic comes first.
        axis: rates are changes per log(1 + step) or per step.
        weights: whether an interval counts by its width on the axis.
        method: `"pearson"` or `"spearman"`.
        leave_out: share of the intervals in the stretch that a link must survive without.
        partial, trend_degree: what was partialled out of the rates, and the degree of the
            polynomial of log(1 + step).
        interpolated: whether the steps are a grid that was asked for.
    """

    table: pd.DataFrame
    groups: tuple[RateGroup, ...]
    null: Null
    n_null: int
    seed: int
    lags: tuple[int, ...]
    axis: Axis
    weights: str
    method: str
    leave_out: float
    partial: tuple[str, ...]
    trend_degree: int
    interpolated: bool

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows: `metric` the statistic, `value` its r, `p` two-sided, `n` intervals.

        Further columns: `capability`; `lag`; `q`, p adjusted over all rows (Benjamini and
        Hochberg); `null_q05`, `null_q95` of r under the null; `raw_r` of the values themselves
        and `plain_r` of the rates with nothing partialled out, both without a null and for
        comparison only; `least_p`, the smallest p that this null can give; `null`.
        """
        return tidy(self.table)

    def summary(self, *, alpha: float = 0.05, n_rows: int = 5) -> str:
        """What was tried, what is left after correction, and what raw correlation would say."""
        table = self.to_frame()
        p, q, size, raw, least = (
            np.asarray(table[name], dtype=float) for name in ("p", "q", "value", "raw_r", "least_p")
        )
        tried, found = int(np.isfinite(p).sum()), int((q <= alpha).sum())
        kind = "Partial correlations" if self.partial else "Correlations"
        lines = [
            f"{kind} of rates per {'log(1 + step)' if self.axis == 'log_step' else 'step'} "
            f"({self.method}, null {self.null}): {tried} tests of "
            f"{table['metric'].nunique()} statistics and {table['capability'].nunique()} "
            f"capabilities; {found} with q <= {alpha:g}."
        ]
        if not tried:
            return lines[0]
        lines.append(
            f"Median size of r: {np.nanmedian(np.abs(size)):.2f} of the rates, "
            f"{np.nanmedian(np.abs(raw)):.2f} of the raw values, which is no evidence."
        )
        if least.min() * tried > alpha * max(found, 1):
            lines.append(
                f"One test alone cannot reach q <= {alpha:g}: p is {least.min():.2g} at least, "
                f"and {tried} were tried."
            )
        best = np.argsort(p, kind="stable")[: min(found, n_rows)]
        for row in table.iloc[best].to_dict("records"):
            place = "".join(f", {x} {row[x]}" for x in ("layer", "head") if not pd.isna(row[x]))
            lines.append(
                f"{row['metric']}{place} with {row['capability']}, lag {row['lag']}: "
                f"r = {row['value']:.2f}, p = {row['p']:.2g}, q = {row['q']:.2g}, "
                f"{row['n']} intervals."
            )
        return "\n".join(lines)
