"""The result of `fit_gabor`: how well a Gabor function describes each filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from headspec.results import tidy
from headspec.stats import NullSummary, false_discovery_rate
from headspec.weights.batch_frames import spread

Colour = Literal["sum", "first_component"]
COLOURS: tuple[Colour, ...] = get_args(Colour)
Noise = Literal["white", "smooth"]
NOISES: tuple[Noise, ...] = get_args(Noise)
DESCRIBED = (
    "r_squared", "orientation", "frequency", "width_across", "width_along", "phase", "amplitude"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GaborFits:
    """A Gabor function fitted to each filter, beside fits of noise of the same size.

    Pixels are counted from the middle of the filter, x to the right and y down. All are nan for
    a filter that is constant.

    Attributes:
        r_squared: 1 - residual / variance of the filter's values, 0 to 1.
        p: share of noise filters that are fitted at least as well, this one among them; nan
            without a null.
        null_r_squared: R^2 of Gaussian noise filters of that size, fitted alike.
        centre: x, y of the envelope's middle, pixels.
        orientation: direction across the stripes, radians from x towards y, 0 to pi.
        frequency: cycles a pixel, half a cycle over the filter's side to .5.
        width_across, width_along: standard deviations of the envelope across and along the
            stripes, pixels.
        phase: of the wave at the centre, radians: 0 or pi even, +-pi/2 odd.
        amplitude, offset: in units of the weights.
        fits: the fitted functions.
        overall: mean of `r_squared` beside means of as many noise filters drawn from the null,
            widened by what the null's own mean is off.
        size: height and width of the filters.
        colour: how channels became one (`"sum"`, `"first_component"`); None without channels.
        colour_share: share of a filter's squared weights in what was fitted; 1 without channels.
        noise: `"white"` or `"smooth"`.
        noise_correlation: of adjacent pixels of the noise; 0 for white noise.
        n_null, seed: noise filters and their seed.
    """

    r_squared: Float[np.ndarray, " filter"]
    p: Float[np.ndarray, " filter"]
    null_r_squared: Float[np.ndarray, " draw"]
    centre: Float[np.ndarray, "filter 2"]
    orientation: Float[np.ndarray, " filter"]
    frequency: Float[np.ndarray, " filter"]
    width_across: Float[np.ndarray, " filter"]
    width_along: Float[np.ndarray, " filter"]
    phase: Float[np.ndarray, " filter"]
    amplitude: Float[np.ndarray, " filter"]
    offset: Float[np.ndarray, " filter"]
    fits: Float[np.ndarray, "filter height width"]
    overall: NullSummary
    size: tuple[int, int]
    colour: Colour | None
    colour_share: Float[np.ndarray, " filter"]
    noise: Noise
    noise_correlation: float
    n_null: int
    seed: int

    @property
    def p_fdr(self) -> Float[np.ndarray, " filter"]:
        """`p` adjusted over the filters (Benjamini-Hochberg)."""
        return false_discovery_rate(self.p)

    def to_frame(self) -> pd.DataFrame:
        """One row a filter and metric (`gabor_r_squared`, `gabor_orientation`, ...), then the mean.

        `null_mean`, `null_sd`, `p` and the extra column `p_fdr` go with R^2; `filter` is its
        number, missing for `gabor_r_squared_mean`; `noise` is the null. `n` counts the values
        of a filter.
        """
        numbers = np.arange(len(self.r_squared))
        frames = [
            pd.DataFrame({"filter": numbers, "metric": f"gabor_{name}",
                          "value": getattr(self, name)})
            for name in DESCRIBED
        ]  # fmt: skip
        if self.n_null:
            frames[0]["null_mean"] = self.null_r_squared.mean()
            sd = self.null_r_squared.std(ddof=1) if self.n_null > 1 else np.nan
            frames[0]["null_sd"] = sd
            frames[0]["p"], frames[0]["p_fdr"] = self.p, self.p_fdr
        mean = {
            "metric": "gabor_r_squared_mean",
            "value": self.overall.observed,
            "null_mean": self.overall.mean,
            "null_sd": self.overall.sd,
            "p": self.overall.p_value,
        }
        frame = pd.concat([*frames, pd.DataFrame([mean])], ignore_index=True)
        frame = frame.astype({"filter": "Int64"})
        n = self.size[0] * self.size[1]
        return tidy(frame, n=n, seed=self.seed if self.n_null else None).assign(noise=self.noise)

    def summary(self) -> str:
        """The fits in words, beside noise."""
        head = (
            f"{len(self.r_squared)} filters of {self.size[0]} x {self.size[1]}: Gabor R^2 "
            f"{spread(self.r_squared)}"
        )
        if self.n_null:
            better = int((self.p_fdr <= 0.05).sum())
            head += (
                f" ({self.noise} noise of that size: {spread(self.null_r_squared)}); {better} "
                "better than noise at a false discovery rate of .05, mean "
                f"{self.overall.observed:.3f} (noise {self.overall.mean:.3f}, "
                f"p {self.overall.p_value:.3g})"
            )
        constant = int(np.isnan(self.r_squared).sum())
        return head + "." + (f" {constant} constant." if constant else "")
