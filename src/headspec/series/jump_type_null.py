"""Is there more than one type of jump? Silhouettes against points of a single hump."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import pdist, squareform

from headspec.weights.cluster_metrics import silhouette
from headspec.weights.partitions import partition

_BINS = 30
_STARTS = 4


def kmeans_silhouettes(
    points: Float[np.ndarray, "draw point feature"], *, counts: tuple[int, ...], seed: int
) -> Float[np.ndarray, "count draw"]:
    """Mean silhouette (Rousseeuw 1987) of K-means for each number of clusters and draw."""
    distances = np.stack([squareform(pdist(draw)) for draw in points])
    squares = distances**2
    return np.array(
        [
            silhouette(distances, partition(squares, count, n_init=_STARTS, seed=seed))
            for count in counts
        ]
    ).reshape(len(counts), len(points))


def single_hump_draws(
    points: Float[np.ndarray, "point feature"], *, n_draws: int, seed: int
) -> Float[np.ndarray, "draw point feature"]:
    """Points as spread and as correlated as these, but with one hump along every feature.

    Each feature gets the unimodal distribution closest to its own (histogram of 30 bins, least
    squares, every bin tried as the mode), so that skewed features, such as phases crowded at the
    beginning, stay skewed. The features are joined by a normal copula with the rank correlations
    of the points.

    Args:
        points: `point feature`.
        n_draws: how many.
        seed: of the draws.
    """
    from scipy.stats import norm, rankdata

    rng = np.random.default_rng(seed)
    n, features = points.shape
    scores = norm.ppf(rankdata(points, axis=0) / (n + 1))
    correlation = np.atleast_2d(np.corrcoef(scores, rowvar=False))
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0))
    normal = rng.standard_normal((n_draws, n, features)) @ root.T
    uniform = norm.cdf(normal)
    drawn = np.empty_like(uniform)
    for j in range(features):
        edges = np.linspace(points[:, j].min(), points[:, j].max(), _BINS + 1)
        heights = unimodal_fit(np.histogram(points[:, j], edges)[0].astype(float))
        shares = np.concatenate([[0.0], np.cumsum(heights)]) / heights.sum()
        drawn[..., j] = np.interp(uniform[..., j], shares, edges)
    return drawn


def unimodal_fit(heights: Float[np.ndarray, " bin"]) -> Float[np.ndarray, " bin"]:
    """The closest heights, by least squares, that rise to one bin and fall from there."""
    from scipy.optimize import isotonic_regression

    best, least = heights, np.inf
    for top in range(len(heights)):
        rise = isotonic_regression(heights[: top + 1]).x
        fall = (
            isotonic_regression(heights[top + 1 :], increasing=False).x
            if top + 1 < len(heights)
            else np.empty(0)
        )
        fit = np.concatenate([rise, fall])
        distance = float(((fit - heights) ** 2).sum())
        if distance < least - 1e-12:
            best, least = fit, distance
    return best


def bootstrap_rand(
    points: Float[np.ndarray, "point feature"],
    labels: Int[np.ndarray, " point"],
    *,
    count: int,
    n_resamples: int,
    seed: int,
) -> Float[np.ndarray, " resample"]:
    """Adjusted Rand index of the clusters with those of K-means fitted to each bootstrap sample.

    Clusters of a sample are extended to all points by the nearest centre (Hennig 2007).
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(seed)
    found = np.full(n_resamples, np.nan)
    for i in range(n_resamples):
        sample = points[rng.integers(0, len(points), len(points))]
        if len(np.unique(sample, axis=0)) >= count:
            fitted = KMeans(count, n_init=_STARTS, random_state=seed + i).fit(sample)  # pyright: ignore[reportArgumentType]
            found[i] = adjusted_rand_score(labels, fitted.predict(points))
    return found
