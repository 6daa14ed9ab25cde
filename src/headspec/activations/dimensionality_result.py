"""The result of `dimensionality_stats`: a number a matrix and measure, and its resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.results import tidy
from headspec.weights.batch_frames import batch_frame, spread

DimensionalityMetric = Literal[
    "stable_rank",
    "participation_ratio",
    "participation_ratio_sigma",
    "effective_rank",
    "components_90",
    "nuclear_ratio",
]
METRICS: tuple[DimensionalityMetric, ...] = get_args(DimensionalityMetric)


@dataclass(frozen=True)
class DimensionalityStats:
    """How many directions the rows of one or many matrices take up.

    With s_1 >= s_2 >= ... the singular values of the matrix of samples (about their mean where
    `centred`). Measures that were not asked for are nan (`metrics` lists those that were), and so
    is everything of a matrix without spread: all zero, or centred and constant.

    Attributes:
        stable_rank: sum s^2 / s_1^2.
        participation_ratio: (sum s^2)^2 / sum s^4, that of the eigenvalues of the covariance.
        participation_ratio_sigma: (sum s)^2 / sum s^2, that of the singular values (ndtracker's).
        effective_rank: exp of the entropy of s / sum s.
        components_90: directions that hold 90 % of sum s^2.
        nuclear_ratio: sum s / s_1.
        resolution: measure to numbers (`*batch`): two measurements that lie less than this apart
            do not differ, see `dimensionality_stats`. nan where it was left out.
        n_samples, n_features: of each matrix.
        centred: whether the mean sample was taken out.
        dtype: what the entries were rounded to, such as `"float32"`.
        roundings: error of an entry, in roundings to `dtype`.
        metrics: measures that were asked for.
        layer_names: names of the matrices, where a mapping was passed.
    """

    stable_rank: Float[np.ndarray, "*batch"]
    participation_ratio: Float[np.ndarray, "*batch"]
    participation_ratio_sigma: Float[np.ndarray, "*batch"]
    effective_rank: Float[np.ndarray, "*batch"]
    components_90: Float[np.ndarray, "*batch"]
    nuclear_ratio: Float[np.ndarray, "*batch"]
    resolution: dict[str, np.ndarray]
    n_samples: Int[np.ndarray, "*batch"]
    n_features: Int[np.ndarray, "*batch"]
    centred: bool
    dtype: str
    roundings: float
    metrics: tuple[str, ...] = METRICS
    layer_names: tuple[str, ...] = ()

    def named(self) -> dict[str, np.ndarray]:
        """Measure to numbers (`*batch`) of what was asked for."""
        return {name: getattr(self, name) for name in self.metrics}

    def to_frame(self, *, dims: Sequence[str] | None = None, **constants: Any) -> pd.DataFrame:
        """One row a matrix and measure; `n` is the number of samples.

        Args:
            dims: names of the batch dimensions, which become columns; None: `layer` (with
                `layer_name`) where a mapping was passed, else `index`, or `index_0`, ...
            **constants: of every row, such as `model=`, `step=`, `seed=`.

        Returns:
            Tidy columns, then `layer_name` (where there are names), `resolution` and `centred`.

        Raises:
            InputError: not one name a dimension.
        """
        values = self.named()
        if dims is None and self.layer_names:
            dims = ("layer",)
        extra = {"layer_name": np.array(self.layer_names)} if self.layer_names else {}
        frame = batch_frame(values, dims, n=self.n_samples, **extra)
        limits = [self.resolution[name].ravel() for name in values]
        frame["resolution"] = np.concatenate(limits)
        frame["centred"] = self.centred
        return tidy(frame, **constants)

    def summary(self) -> str:
        """The measures in words: of one matrix its numbers, of many the range."""
        count = self.n_samples.size
        what = "One matrix" if count == 1 else f"{count} matrices"
        about = "about the mean sample" if self.centred else "not centred"
        size = f"{spread(self.n_samples)} samples and {spread(self.n_features)} features"
        parts = [
            f"{name.replace('_', ' ')} {spread(numbers)} (resolution {spread(limit)})"
            for name, numbers in self.named().items()
            for limit in [self.resolution[name]]
        ]
        return f"{what} of {size} in {self.dtype}, {about}: {', '.join(parts)}."
