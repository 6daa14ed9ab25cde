"""What a Marchenko-Pastur fit gives back: edge, spikes, and how well the law holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.results import tidy
from headspec.weights.batch_frames import batch_frame


@dataclass(frozen=True)
class MarchenkoPastur:
    """The bulk of a random matrix fitted to each spectrum of a batch, and what lies outside.

    Singular values throughout, not their squares.

    Attributes:
        sigma: standard deviation of the noise entries, estimated or given.
        edge: upper end of the bulk of a large matrix, sigma (sqrt(m) + sqrt(n)); its square is
            the lambda_plus of W^T W.
        lower_edge: lower end, sigma |sqrt(m) - sqrt(n)|.
        threshold: singular values above it are spikes: `edge` with the Tracy-Widom allowance.
        n_spikes: how many.
        spike_variance: their share of the sum of squares (nan for a matrix of zeros).
        bulk_ks: KS distance of the squares of the others from the law of Marchenko and Pastur;
            2 / n to 3 / n where that law holds. Large: sigma and edge describe no bulk. nan where
            sigma is 0 or all are spikes.
        detection_limit: sigma (m n)^(1/4): a signal of smaller singular value leaves no spike, and
            one a fifth above it seldom does (in 1 of 4 matrices of 200 x 100).
        largest: the largest singular value.
        level: probability that a Gaussian matrix has a spike.
        shape: rows and columns of the matrices.
    """

    sigma: Float[np.ndarray, "*batch"]
    edge: Float[np.ndarray, "*batch"]
    lower_edge: Float[np.ndarray, "*batch"]
    threshold: Float[np.ndarray, "*batch"]
    n_spikes: Int[np.ndarray, "*batch"]
    spike_variance: Float[np.ndarray, "*batch"]
    bulk_ks: Float[np.ndarray, "*batch"]
    detection_limit: Float[np.ndarray, "*batch"]
    largest: Float[np.ndarray, "*batch"]
    level: float
    shape: tuple[int, int]

    def to_frame(self, *, dims: Sequence[str] | None = None) -> pd.DataFrame:
        """Five rows a matrix: n_spikes, spike_variance, mp_sigma, mp_edge, mp_bulk_ks.

        `n` counts the singular values.

        Args:
            dims: names of the batch's dimensions, which become columns, such as
                `("layer", "head")`; None: `index`, or `index_0`, `index_1`, ... of several.
        """
        values = {
            "n_spikes": self.n_spikes.astype(float),
            "spike_variance": self.spike_variance,
            "mp_sigma": self.sigma,
            "mp_edge": self.edge,
            "mp_bulk_ks": self.bulk_ks,
        }
        return tidy(batch_frame(values, dims), n=min(self.shape))

    def summary(self) -> str:
        """One or two plain sentences."""
        rows, columns = self.shape
        share = np.nanmedian(self.spike_variance) if np.isfinite(self.spike_variance).any() else 0
        if self.sigma.size == 1:
            return (
                f"{rows} x {columns}: {self.n_spikes.item()} singular values above "
                f"{self.threshold.item():.4g} hold {share:.1%} of the variance; noise of standard "
                f"deviation {self.sigma.item():.3g} has any with probability {self.level:.2g}. "
                f"Distance of the others from the Marchenko-Pastur law: {self.bulk_ks.item():.3f}."
            )
        low, high = int(self.n_spikes.min()), int(self.n_spikes.max())
        return (
            f"{self.sigma.size} matrices of {rows} x {columns}: {low} to {high} spikes (median "
            f"{np.median(self.n_spikes):.4g}), holding {share:.1%} of the variance in the median; "
            f"median distance of the bulk from the Marchenko-Pastur law "
            f"{np.nanmedian(self.bulk_ks):.3f}."
        )
