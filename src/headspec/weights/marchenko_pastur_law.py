"""The law of Marchenko and Pastur and the Tracy-Widom allowance at its edge."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.stats import gamma

from headspec.weights.gaussian_spectra import middle_and_top

# Tracy-Widom of order 1 as a shifted gamma variable (Chiani 2014)
_TRACY_WIDOM = gamma(46.44604884387, scale=0.18605402228279347, loc=-9.848007781128567)
_DRAWS = 500


def spike_threshold(shape: tuple[int, int], level: float, *, estimated: bool) -> float:
    """Largest singular value that a Gaussian matrix exceeds with probability `level`, over sigma.

    The square of the largest is mu + s t, with mu = (a + b)^2, s = (a + b) (1/a + 1/b)^(1/3),
    a = sqrt(m - 1/2), b = sqrt(n - 1/2) and t a Tracy-Widom variable (Johnstone 2001, Ma 2012).
    With sigma estimated by the median the same scale holds the error of the median: t then has the
    mean and standard deviation of 500 simulated matrices (seeded, kept for the next call).

    Args:
        shape: of the matrix.
        level: probability.
        estimated: whether singular values are divided by the median's estimate of sigma.
    """
    mean, sd = _scaled_top(max(shape), min(shape)) if estimated else _TRACY_WIDOM.stats("mv")
    sd = sd if estimated else np.sqrt(sd)
    centre, spread = _TRACY_WIDOM.mean(), _TRACY_WIDOM.std()
    quantile = mean + sd * (_TRACY_WIDOM.isf(level) - centre) / spread
    middle, scale = _edge_scales(shape)
    return float(np.sqrt(max(middle + scale * quantile, 0.0)))


def _edge_scales(shape: tuple[int, int]) -> tuple[float, float]:
    a, b = np.sqrt(max(shape) - 0.5), np.sqrt(min(shape) - 0.5)
    return float((a + b) ** 2), float((a + b) * (1 / a + 1 / b) ** (1 / 3))


@lru_cache(maxsize=256)
def _scaled_top(large: int, small: int) -> tuple[float, float]:
    """Mean and standard deviation of t with sigma estimated by the median."""
    median, top = middle_and_top((large, small), n_draws=_DRAWS)
    middle, scale = _edge_scales((large, small))
    t = ((top / median * median_singular_value((large, small))) ** 2 - middle) / scale
    return float(t.mean()), float(t.std(ddof=1))


@lru_cache(maxsize=4096)
def median_singular_value(shape: tuple[int, int]) -> float:
    """Median singular value of noise of variance 1 by the law (Gavish and Donoho 2014)."""
    large, small = max(shape), min(shape)
    beta = small / large
    angle: Any = brentq(lambda x: _survival(x, beta) - 0.5, 0.0, np.pi)
    return float(np.sqrt(large * (1 + beta + 2 * np.sqrt(beta) * np.cos(angle))))


def _survival(angle: Any, beta: float) -> Any:
    """Share of the law above x = 1 + beta + 2 sqrt(beta) cos(angle), in closed form."""
    root = np.sqrt(beta)
    turned = np.arctan((1 - root) / (1 + root) * np.tan(np.minimum(angle, np.pi - 1e-12) / 2))
    area = (1 + beta) * angle - 2 * root * np.sin(angle) - 2 * (1 - beta) * turned
    return area / (2 * np.pi * beta)


def bulk_distance(
    squares: np.ndarray, spikes: np.ndarray, scale: np.ndarray, shape: tuple[int, int]
) -> Float[np.ndarray, " row"]:
    """KS distance of the squares but the largest `spikes` from the law, of each row.

    nan where the scale is 0 or nothing is left.
    """
    found = np.full(len(squares), np.nan)
    for row in np.flatnonzero((scale > 0) & (spikes < squares.shape[1])):
        bulk = squares[row, : len(squares[row]) - spikes[row]]
        large, small = (side - spikes[row] for side in shape)
        beta, n = small / large, len(bulk)
        cosine = (bulk / scale[row] ** 2 / large - 1 - beta) / (2 * np.sqrt(beta))
        below = 1 - _survival(np.arccos(np.clip(cosine, -1.0, 1.0)), beta)
        steps = np.arange(n + 1) / n
        found[row] = max(np.abs(below - steps[1:]).max(), np.abs(below - steps[:-1]).max())
    return found
