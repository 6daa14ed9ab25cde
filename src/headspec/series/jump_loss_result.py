"""Changes of the loss across jumps beside those across their controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

Unit = Literal["episode", "run"]


@dataclass(frozen=True, eq=False)
class LossAroundJumps:
    """Changes of the loss across jumps beside those across matched controls.

    Attributes:
        moments: one row a moment, that is a run and step at which any layer jumped: `model seed
            step step_before n_layers part`, `change` of the loss, `control_change` (mean of its
            controls, interpolated), `difference` (change less control_change), `improves` (change
            below 0), `controls_improving` (share of its controls), `n_controls`, `episode`
            (moments whose windows overlap).
        parts: tidy rows for all moments and for each part of the training; see `to_frame`.
        n_left_out: moments without controls, or without a loss on either side.
        window: updates averaged on either side.
        unit: what intervals and p-values take as independent.
        column: which loss.
        seed: of controls and flips.
    """

    moments: pd.DataFrame
    parts: pd.DataFrame
    n_left_out: int
    window: int
    unit: Unit
    column: str
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows by `part` (`"all"`, early, mid, late).

        Metrics: `loss_change.difference` (mean of jump less controls), `loss_improves.difference`
        (share of jumps with improving loss less that of controls), each with `low`, `high`,
        `jumps` and `controls` (both sides of the difference), `p` two-sided, `null_mean` 0 and
        `null_sd` over sign flips; `n` units, `n_moments`.
        """
        return self.parts.copy()

    def summary(self) -> str:
        """The shares that improve, and the mean difference with its interval and p."""
        rows = self.parts[self.parts["part"] == "all"].set_index("metric")
        change: Any = rows.loc["loss_change.difference"]
        share: Any = rows.loc["loss_improves.difference"]
        return (
            f"{self.column} improves across {share['jumps']:.1%} of {change['n_moments']} moments "
            f"with jumps and {share['controls']:.1%} of matched controls (p = {share['p']:.2g}). "
            f"Change {change['jumps']:+.3g} against {change['controls']:+.3g}: difference "
            f"{change['value']:+.3g} ({change['low']:+.3g} to {change['high']:+.3g}, "
            f"p = {change['p']:.2g}; {change['n']} {self.unit}s; {self.n_left_out} moments left "
            "out for want of controls or losses)."
        )
