"""What a power-law fit gives back: exponent, tail, goodness of fit, and the Gaussian null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.results import tidy
from headspec.weights.batch_frames import batch_frame

FITTED = "fitted"
TOO_FEW = "too few values"
ALL_EQUAL = "no two values differ"
_METRICS = ("alpha", "weighted_alpha", "log_spectral_norm", "xmin", "ks", "n_tail")


@dataclass(frozen=True)
class PowerLawFit:
    """A power law p(x) ~ x^-alpha above xmin, for each spectrum of a batch.

    Attributes:
        alpha: exponent of the density; nan where `status` says why.
        xmin: lower end of the tail.
        ks: Kolmogorov-Smirnov distance of the tail from the fitted law.
        n_tail: values in the tail.
        se: standard error (alpha - 1) / sqrt(n_tail), as if xmin had been known.
        p_value: goodness of fit by bootstrap: small where the tail is no power law; nan where not
            asked for.
        n: values fitted on; `n_dropped`: values left out as zeros.
        largest: the largest value (of a matrix: sigma_max^2).
        null_mean, null_sd, null_p: alpha of Gaussian matrices of the same shape, and the
            two-sided p-value of alpha among them; nan where not asked for.
        status: `"fitted"`, `"too few values"` or `"no two values differ"`.
        min_tail, n_bootstrap, null, shape, n_null, seed: what was asked.
    """

    alpha: Float[np.ndarray, "*batch"]
    xmin: Float[np.ndarray, "*batch"]
    ks: Float[np.ndarray, "*batch"]
    n_tail: Int[np.ndarray, "*batch"]
    se: Float[np.ndarray, "*batch"]
    p_value: Float[np.ndarray, "*batch"]
    n: Int[np.ndarray, "*batch"]
    n_dropped: Int[np.ndarray, "*batch"]
    largest: Float[np.ndarray, "*batch"]
    null_mean: Float[np.ndarray, "*batch"]
    null_sd: Float[np.ndarray, "*batch"]
    null_p: Float[np.ndarray, "*batch"]
    status: np.ndarray
    min_tail: int
    n_bootstrap: int
    null: str | None
    shape: tuple[int, int] | None
    n_null: int
    seed: int

    @property
    def log_spectral_norm(self) -> Float[np.ndarray, "*batch"]:
        """log10 of the largest value: weightwatcher's name for log10 sigma_max^2."""
        positive = np.where(self.largest > 0, self.largest, np.nan)
        return np.asarray(np.log10(positive))

    @property
    def weighted_alpha(self) -> Float[np.ndarray, "*batch"]:
        """alpha-hat = alpha log10(largest value) (Martin, Peng and Mahoney 2021).

        weightwatcher's `alpha_weighted`.

        It mixes the shape of the tail with the scale of the weights and changes sign with the
        unit: below 1 the logarithm is negative.
        """
        return np.asarray(self.alpha * self.log_spectral_norm)

    def to_frame(self, *, dims: Sequence[str] | None = None) -> pd.DataFrame:
        """Six rows a spectrum: alpha, weighted_alpha, log_spectral_norm, xmin, ks, n_tail.

        Of `alpha`, `p` is its place among Gaussian matrices and `se` its standard error; of `ks`,
        `p` is the goodness of fit. `n` counts the values in the tail.

        Args:
            dims: names of the batch's dimensions, which become columns, such as
                `("layer", "head")`; None: `index`, or `index_0`, `index_1`, ... of several.
        """
        values = {name: np.asarray(getattr(self, name), dtype=float) for name in _METRICS}
        counts = {"n": self.n_tail, "n_values": self.n, "n_dropped": self.n_dropped}
        frame = batch_frame(values, dims, **counts, status=self.status)
        of_alpha, of_ks = (frame["metric"] == name for name in ("alpha", "ks"))
        beside = {
            "p": self.null_p,
            "null_mean": self.null_mean,
            "null_sd": self.null_sd,
            "se": self.se,
        }
        for name, numbers in beside.items():
            frame[name] = np.nan
            frame.loc[of_alpha, name] = numbers.ravel()
        frame.loc[of_ks, "p"] = self.p_value.ravel()
        return tidy(frame, seed=self.seed)

    def summary(self) -> str:
        """A few plain sentences."""
        fitted = self.status == FITTED
        if self.alpha.size != 1:
            return self._batch_words(fitted)
        if not fitted.all():
            return f"No power law fitted: {self.status.item()} ({self.n.item()} values)."
        text = (
            f"alpha = {self.alpha.item():.3f} (standard error {self.se.item():.3f}, xmin taken as "
            f"known) on the {self.n_tail.item()} largest of {self.n.item()} values; KS distance "
            f"{self.ks.item():.3f}."
        )
        if self.n_dropped.item():
            text += f" {self.n_dropped.item()} values left out as zero."
        if self.n_bootstrap:
            text += f" Goodness of fit: p = {self.p_value.item():.2g}"
            text += f" ({self.n_bootstrap} draws from the fitted law)."
        if self.null is not None:
            text += (
                f" Gaussian matrices of that shape: alpha {self.null_mean.item():.3g} on average "
                f"(sd {self.null_sd.item():.2g}), p = {self.null_p.item():.2g}."
            )
        return text

    def _batch_words(self, fitted: np.ndarray) -> str:
        text = f"{int(fitted.sum())} of {fitted.size} spectra fitted."
        if not fitted.any():
            return text
        alpha, tail = self.alpha[fitted], self.n_tail[fitted]
        text += (
            f" alpha: median {np.median(alpha):.3f}, {alpha.min():.3f} to {alpha.max():.3f}; "
            f"tails of {tail.min()} to {tail.max()} values."
        )
        if self.n_bootstrap:
            rejected = int((self.p_value[fitted] < 0.1).sum())
            text += f" Goodness of fit below .1 in {rejected} of them."
        if self.null is not None:
            text += (
                f" Gaussian matrices of that shape: alpha {self.null_mean[fitted].flat[0]:.3g} "
                f"on average (sd {self.null_sd[fitted].flat[0]:.2g})."
            )
        return text
