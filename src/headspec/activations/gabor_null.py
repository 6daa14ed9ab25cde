"""Noise as the null of Gabor fits: white, or as smooth as the filters."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from headspec.activations.gabor_model import fit_image

_CORRELATIONS = np.arange(20) / 20  # a grid, so that sets of filters share a null


def neighbour_correlation(images: Float[np.ndarray, "filter height width"]) -> float:
    """Correlation of adjacent pixels, all filters counting alike, to the next .05 from 0 to .95.

    About 0 and not about each filter's mean, which would make noise look negatively correlated.
    Dividing each filter by its norm makes smooth noise look less smooth than it is (.65 for .7),
    so it is the correlation whose noise, read in the same way, looks like the filters.
    """
    found = _as_read(images)
    expected = _expected(*images.shape[1:])
    return float(_CORRELATIONS[np.abs(expected - found).argmin()])


def _as_read(images: np.ndarray) -> float:
    """Mean product of adjacent pixels over the mean square, of filters of unit norm."""
    norms = np.sqrt(np.square(images).sum((1, 2)))
    units = images[norms > 0] / norms[norms > 0, None, None]
    if not len(units):
        return 0.0
    beside, below = units[:, :, 1:] * units[:, :, :-1], units[:, 1:] * units[:, :-1]
    pairs = np.concatenate([beside.ravel(), below.ravel()])
    return float(pairs.mean() / np.square(units).mean())


@lru_cache(maxsize=16)
def _expected(height: int, width: int) -> np.ndarray:
    """`_as_read` of noise of each correlation, mean of 4,000 seeded draws."""
    draws = np.random.default_rng(0).standard_normal((4000, height, width))
    return np.array([_as_read(_smoothed(draws, c)) for c in _CORRELATIONS])


@lru_cache(maxsize=16)
def noise_fits(
    height: int, width: int, *, correlation: float, n_null: int, seed: int
) -> Float[np.ndarray, " draw"]:
    """R^2 of the Gabor fits of Gaussian noise.

    The covariance of two pixels is correlation^(squared distance): white noise for 0, else noise
    blurred by a Gaussian. The first component of white noise in several channels, and their sum,
    are white noise up to a factor, since it looks the same after every rotation.
    """
    draws = np.random.default_rng(seed).standard_normal((n_null, height, width))
    return np.array([fit_image(image)[1] for image in _smoothed(draws, correlation)])


def _smoothed(draws: np.ndarray, correlation: float) -> np.ndarray:
    """White noise given its covariance."""
    rows, columns = (_root(correlation, n) for n in draws.shape[1:])
    return rows @ draws @ columns.T


def _root(correlation: float, n: int) -> np.ndarray:
    """A square root of the covariance along one axis; the identity for white noise."""
    if correlation == 0:
        return np.eye(n)
    at = np.arange(n)
    values, vectors = np.linalg.eigh(correlation ** np.square(at[:, None] - at).astype(float))
    return vectors * np.sqrt(np.clip(values, 0, None))
