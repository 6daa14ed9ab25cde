"""The result of `spectral_stats`: one number a matrix and statistic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.results import tidy
from headspec.weights.batch_frames import batch_frame, spread

Statistic = Literal[
    "spectral_norm",
    "frobenius_norm",
    "nuclear_norm",
    "stable_rank",
    "effective_rank",
    "participation_ratio",
    "participation_ratio_sigma",
    "condition_number",
    "decay_rate",
    "top_variance",
]
SCALARS: tuple[Statistic, ...] = get_args(Statistic)[:-1]
"""Statistics with one number a matrix; `top_variance` has one for each of `top_k`."""


@dataclass(frozen=True)
class SpectralStats:
    """Statistics of the singular values s_1 >= s_2 >= ... of one or many matrices.

    Statistics that were not asked for are nan (`computed` lists those that were). Of a matrix of
    zeros the norms are 0 and everything else is nan.

    Attributes:
        spectral_norm: s_1, in units of the weights.
        frobenius_norm: sqrt(sum s^2), the length of the matrix read as a vector.
        nuclear_norm: sum s.
        stable_rank: sum s^2 / s_1^2, from 1 to the rank.
        effective_rank: exp of the entropy of s / sum s, from 1 to the rank (Roy and Vetterli).
        participation_ratio: (sum s^2)^2 / sum s^4, that of the eigenvalues s^2 of W^T W.
        participation_ratio_sigma: (sum s)^2 / sum s^2, that of the singular values themselves.
            At least as large as the other; the two are often confused.
        top_variance: share of sum s^2 in the k largest, for each k of `top_k`.
        condition_number: s_1 / s_rank; infinite where s_rank is not above max(rows, cols) times
            2e-16 of s_1, which is where float64 cannot tell it from 0.
        decay_rate: minus the slope of ln s_r against ln r (least squares) over the upper half of
            the ranks, 1 <= r <= ceil(rank / 2): a for s_r = r^-a, 0 for equal values. The lower
            half is left out since square matrices dive towards 0 there. nan where the upper half
            is a single value or holds a 0.
        n_values: number of singular values of each matrix, min(rows, cols).
        top_k: the k of `top_variance`.
        computed: names of the statistics that were asked for.
        singular_values: what they come from, descending; None where no statistic needed them all.
            For a list of matrices of different shapes shorter ones end in nan.
        null_mean, null_sd: name (as in `named`) to mean and standard deviation (`*batch`) over
            Gaussian matrices of the same shape and Frobenius norm; empty without a null. The
            condition number has none: its mean is infinite for square matrices.
        n_null, seed: draws of the null (0: none) and their seed.
    """

    spectral_norm: Float[np.ndarray, "*batch"]
    frobenius_norm: Float[np.ndarray, "*batch"]
    nuclear_norm: Float[np.ndarray, "*batch"]
    stable_rank: Float[np.ndarray, "*batch"]
    effective_rank: Float[np.ndarray, "*batch"]
    participation_ratio: Float[np.ndarray, "*batch"]
    participation_ratio_sigma: Float[np.ndarray, "*batch"]
    top_variance: Float[np.ndarray, "*batch k"]
    condition_number: Float[np.ndarray, "*batch"]
    decay_rate: Float[np.ndarray, "*batch"]
    n_values: Int[np.ndarray, "*batch"]
    top_k: tuple[int, ...]
    computed: tuple[str, ...]
    singular_values: Float[np.ndarray, "*batch rank"] | None = None
    null_mean: dict[str, np.ndarray] = field(default_factory=dict)
    null_sd: dict[str, np.ndarray] = field(default_factory=dict)
    n_null: int = 0
    seed: int = 0

    def named(self) -> dict[str, np.ndarray]:
        """Name to numbers (`*batch`) of what was computed, with `top_1_variance` and so on."""
        found = {name: getattr(self, name) for name in SCALARS if name in self.computed}
        if "top_variance" in self.computed:
            for place, k in enumerate(self.top_k):
                found[f"top_{k}_variance"] = np.asarray(self.top_variance[..., place])
        return found

    def to_frame(self, *, dims: Sequence[str] | None = None) -> pd.DataFrame:
        """One row a matrix and statistic; `n` is the number of singular values.

        Args:
            dims: names of the batch dimensions, which become columns: `("head",)` for
                `spectral_stats(weights.W_Q)`, `("layer", "head")` for a stack of layers. None:
                `index`, or `index_0`, `index_1`, ...

        Raises:
            InputError: not one name a dimension.
        """
        values = self.named()
        frame = batch_frame(values, dims, n=self.n_values)
        if self.n_null:
            blank = np.full(self.n_values.shape, np.nan)
            for kind in ("null_mean", "null_sd"):
                known = [getattr(self, kind).get(name, blank).ravel() for name in values]
                frame[kind] = np.concatenate(known)
            frame = frame.assign(n_null=self.n_null, seed=self.seed)
        return tidy(frame)

    def summary(self) -> str:
        """The statistics in words: of one matrix its numbers, of many the range."""
        count = self.n_values.size
        what = "One matrix" if count == 1 else f"{count} matrices"
        ranks = sorted({int(n) for n in self.n_values.ravel()})
        of = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        parts = []
        for name, numbers in self.named().items():
            null = f" (random: {spread(self.null_mean[name])})" if name in self.null_mean else ""
            parts.append(f"{name.replace('_', ' ')} {spread(numbers)}{null}")
        return f"{what} of {of} singular values: {', '.join(parts)}."
