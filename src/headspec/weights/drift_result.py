"""The result of `weight_change`: how one or many matrices moved between two checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from headspec.errors import InputError, check_choice
from headspec.results import tidy
from headspec.weights.batch_frames import batch_frame, spread

MOVES = ("cosine", "relative_change", "norm_growth")
ANGLES = ("left_angle", "left_angle_max", "right_angle", "right_angle_max")
Axis = Literal["step", "log_step"]


@dataclass(frozen=True)
class WeightChange:
    """How A became B.

    Attributes:
        cosine: <A, B> / (|A| |B|), of the matrices read as vectors; nan if one is zero.
        relative_change: |B - A| / |A|; infinite from a matrix of zeros, nan between two.
        norm_growth: ln(|B| / |A|): 0 for none, .01 for one percent. It adds up over intervals.
        left_angle, right_angle: mean principal angle, in radians from 0 to pi/2, between the
            subspaces of the k largest singular values; left in the space of the rows (for x @ W:
            what is read), right in that of the columns (what is written). nan where a subspace is
            not defined: its gap is 0 to the precision of float64 (equal values s_k and s_k+1, or
            a rank below k).
        left_angle_max, right_angle_max: the largest of the k angles.
        gap: (s_k - s_k+1) / s_k, the smaller of before and after; 1 where there is no s_k+1. The
            smaller, the more of an angle is noise.
        left_random, right_random: expected mean angle of two random subspaces of that dimension.
        k: dimension of the subspaces.
        steps: training steps of A and B, or None.
    """

    cosine: Float[np.ndarray, "*batch"]
    relative_change: Float[np.ndarray, "*batch"]
    norm_growth: Float[np.ndarray, "*batch"]
    left_angle: Float[np.ndarray, "*batch"]
    right_angle: Float[np.ndarray, "*batch"]
    left_angle_max: Float[np.ndarray, "*batch"]
    right_angle_max: Float[np.ndarray, "*batch"]
    gap: Float[np.ndarray, "*batch"]
    left_random: float
    right_random: float
    k: int
    steps: tuple[int, int] | None = None

    def rates(self, axis: Axis = "log_step") -> dict[str, np.ndarray]:
        """Changes over the interval's length, in steps or in ln(1 + step).

        On log-spaced checkpoints the two say different things: 2 to 4 and 4,096 to 8,192 are 2
        and 4,096 steps, but .51 and .69 of a log step.

        Args:
            axis: `"step"` or `"log_step"`.

        Returns:
            `1 - cosine`, `relative_change`, `norm_growth`, `left_angle` and `right_angle` (as
            `"cosine_distance"`, ...), each divided by the length. Of near copies 1 - cosine comes
            from the other two, which keep their digits.

        Raises:
            InputError: `weight_change` was not given `steps=`.
        """
        check_choice("axis", axis, get_args(Axis))
        if self.steps is None:
            raise InputError(
                expected="the steps of the two checkpoints",
                got="steps=None",
                fix="weight_change(before, after, steps=(1000, 2000)).",
            )
        first, last = self.steps
        length = last - first if axis == "step" else math.log1p(last) - math.log1p(first)
        changes = {"cosine_distance": self._cosine_distance()}
        names = ("relative_change", "norm_growth", "left_angle", "right_angle")
        changes |= {name: getattr(self, name) for name in names}
        return {name: np.asarray(change / length) for name, change in changes.items()}

    def _cosine_distance(self) -> np.ndarray:
        """1 - cosine; of near copies by |B - A|^2 = (|B| - |A|)^2 + 2 |A| |B| (1 - cosine)."""
        growth = self.norm_growth
        with np.errstate(invalid="ignore", over="ignore"):
            near = (self.relative_change**2 - np.expm1(growth) ** 2) / (2 * np.exp(growth))
        close = np.asarray(self.relative_change) < 1e-3
        return np.where(close, np.maximum(near, 0.0), 1 - self.cosine)

    def to_frame(self, *, dims: Sequence[str] | None = None) -> pd.DataFrame:
        """One row a matrix and measure; with steps also rates (`relative_change_per_step`, ...).

        `step` is the later one, the extra column `step_before` the earlier; `null_mean` of mean
        angles is that of random subspaces.

        Args:
            dims: names of the batch dimensions, as in `SpectralStats.to_frame`.
        """
        values = {name: getattr(self, name) for name in (*MOVES, *ANGLES, "gap")}
        if self.steps is not None:
            for axis in get_args(Axis):
                values |= {f"{name}_per_{axis}": v for name, v in self.rates(axis).items()}
        frame = batch_frame(values, dims)
        nulls = {"left_angle": self.left_random, "right_angle": self.right_random}
        frame["null_mean"] = [nulls.get(metric, np.nan) for metric in frame["metric"]]
        before, after = self.steps or (None, None)
        frame["step_before"] = pd.array([before] * len(frame), dtype="Int64")
        return tidy(frame, step=after)

    def summary(self) -> str:
        """The changes in words: of one matrix its numbers, of many the range."""
        count = self.cosine.size
        start = "One matrix" if count == 1 else f"{count} matrices"
        if self.steps is not None:
            start += f" from step {self.steps[0]} to {self.steps[1]}"
        parts = [f"{name.replace('_', ' ')} {spread(getattr(self, name))}" for name in MOVES]
        left, right = (spread(np.degrees(angle)) for angle in (self.left_angle, self.right_angle))
        randoms = [f"{math.degrees(angle):.3g}" for angle in (self.left_random, self.right_random)]
        near = int((self.gap < 0.01).sum())
        noisy = (
            f"The gap below s_{self.k} is under 1 % in {near} of {count}: there, angles also count "
            "near-equal directions that trade places."
        )
        return (
            f"{start}: {', '.join(parts)}. Subspaces of the {self.k} largest singular values "
            f"turned by {left} degrees on the left (random ones: {randoms[0]}) and {right} on the "
            f"right ({randoms[1]})."
        ) + (f" {noisy}" if near else "")
