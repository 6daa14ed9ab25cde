"""The result of looking for jumps: one entry a jump, and every curve that was examined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from headspec.results import tidy

Method = Literal["calibrated", "study", "trailing_window", "changepoints"]
Verdict = Literal["examined", "below resolution", "too short"]


@dataclass(frozen=True, eq=False)
class Jumps:
    """Jumps of one curve or many, and what became of each curve.

    Attributes:
        table: one row a jump, what `to_frame` gives.
        curves: one row a curve, also those without jumps: `model`, `seed`, `layer`,
            `layer_name`, `head`, `metric`, `n` points, `n_steps` of the training, `noise_sd` of a
            value, `resolution`, `threshold` (what a score has to reach, NaN where the rule has
            none), `n_jumps` and `verdict`: `"examined"`, `"below resolution"` (all variation is
            rounding: no jump is looked for) or `"too short"`.
        method: the rule.
        false_positives: accepted rate of the calibrated rule, per 1,000 points; None for others.

    What it does not show: one jump of many curves is no finding by itself. Compare how many there
    are with how many the accepted rate gives (`summary`), or correct `p` for the number of curves.
    """

    table: pd.DataFrame
    curves: pd.DataFrame
    method: Method
    false_positives: float | None = None

    def __len__(self) -> int:
        """How many jumps."""
        return len(self.table)

    def to_frame(self) -> pd.DataFrame:
        """One tidy row a jump: `step` is the first measurement after it.

        `value` is the signed change in the unit of the metric, `n` the points of its curve, `p`
        the chance that a curve without jumps holds so high a score (NaN where the rule has none).
        Further columns: `layer_name`; `step_before`, the last measurement before the jump;
        `magnitude`, the size of the change; `direction`, `"increase"` or `"decrease"`; `phase`,
        `step` over the length of the training; `speed`, magnitude over the updates from
        `step_before` to `step`; `score`, in units of the rule;
        `curve`, its row in `curves`.
        """
        return tidy(self.table)

    def summary(self) -> str:
        """How many curves were examined, refused or too short, and how many jumps were found."""
        curves = self.curves
        verdict = curves["verdict"].to_numpy(dtype=str)
        n_points, n_jumps = (curves[name].to_numpy(dtype=int) for name in ("n", "n_jumps"))
        examined, refused = verdict == "examined", verdict == "below resolution"
        points = int(n_points[examined].sum())
        rate = "" if not points else f", {1000 * len(self) / points:.2f} per 1,000 points"
        lines = [
            f"{len(self)} jumps by the rule {self.method!r} in {(n_jumps > 0).sum()} of "
            f"{examined.sum()} curves examined ({points} points{rate})."
        ]
        if self.false_positives is not None:
            lines.append(
                f"Curves without jumps give at most {self.false_positives:g} per 1,000 points: "
                f"{self.false_positives * points / 1000:.1f} here."
            )
        if refused.any():
            metrics = ", ".join(sorted(set(curves["metric"].to_numpy(dtype=str)[refused])))
            lines.append(
                f"{refused.sum()} curves were refused: all their variation is below the "
                f"resolution of their numbers ({metrics})."
            )
        if short := int((verdict == "too short").sum()):
            lines.append(f"{short} curves are too short to examine.")
        if len(self):
            up = int((self.table["direction"].to_numpy(dtype=str) == "increase").sum())
            phase = self.table["phase"].to_numpy(dtype=float)
            lines.append(
                f"{up} increases and {len(self) - up} decreases, phases "
                f"{phase.min():.3f} to {phase.max():.3f}, median {np.median(phase):.3f}."
            )
        return "\n".join(lines)
