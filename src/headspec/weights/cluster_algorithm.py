"""One clustering algorithm with its options, applied alike to data, null draws and subsets."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, islice
from math import comb
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from headspec.errors import InputError
from headspec.weights.cluster_metrics import adjusted_rand, silhouette
from headspec.weights.partitions import Method, partition

SMALLEST_FOR_STABILITY = 4  # three points have one partition but for their names: 2 and 1


@dataclass(frozen=True)
class ClusterOptions:
    """Settings of a clustering that seldom need a change.

    Attributes:
        max_clusters: largest number of clusters tried by `n_clusters="silhouette"`; None for
            n - 1, at most 10.
        n_init: k-means++ starts (two clusters of at most 13 points are solved exactly instead;
            all else is the best local optimum of the starts, see `partitions.kmeans_labels`).
        eps, min_samples: of DBSCAN, see `partitions.dbscan_labels`.
        n_resamples: subsets for `stability`; 0 leaves it out.
    """

    max_clusters: int | None = None
    n_init: int = 20
    eps: float | int | None = None
    min_samples: int = 2
    n_resamples: int = 20


@dataclass(frozen=True)
class ClusterAlgorithm:
    """How to cluster. `counts` are the numbers of clusters to choose from by silhouette."""

    method: Method
    counts: tuple[int, ...]
    options: ClusterOptions
    seed: int

    @property
    def chosen(self) -> str:
        """How the number of clusters comes about."""
        if self.method == "dbscan":
            return "density"
        return "given" if len(self.counts) == 1 else "silhouette"

    def labels(self, distances: Float[np.ndarray, "draw p p"]) -> Int[np.ndarray, "draw p"]:
        """Cluster labels of every draw; of several numbers of clusters the best by silhouette."""
        best = self._with(distances, self.counts[0])
        score = silhouette(distances, best)
        for count in self.counts[1:]:
            labels = self._with(distances, count)
            new = silhouette(distances, labels)
            better = new > score
            best, score = np.where(better[:, None], labels, best), np.where(better, new, score)
        return best

    def stability(
        self, distances: Float[np.ndarray, "draw p p"], labels: Int[np.ndarray, "draw p"]
    ) -> Float[np.ndarray, " draw"]:
        """Mean adjusted Rand index between clusters of all points and of all but a sixth of them.

        The subsets are the same for every draw. One long head against the rest is stable but for
        the subsets without it: high stability is no evidence without its null. nan with fewer than
        two clusters (whatever is in one cluster agrees), and for three points, of which every
        pair can only be split one way.
        """
        points = labels.shape[1]
        scores = np.full(len(labels), np.nan)
        counts = labels.max(1) + 1
        possible = counts[counts >= 2] if points >= SMALLEST_FOR_STABILITY else counts[:0]
        for count in np.unique(possible):
            rows = np.flatnonzero(counts == count)
            kept = self._subsets(points, int(count))
            part = distances[rows][:, kept[:, :, None], kept[:, None, :]]
            flat = part.reshape(-1, *part.shape[2:])
            again = self._with(flat, int(count)).reshape(len(rows), len(kept), -1)
            scores[rows] = adjusted_rand(labels[rows][:, kept], again).mean(1)
        return scores

    def _with(self, distances: np.ndarray, count: int) -> np.ndarray:
        options = self.options
        return partition(
            distances**2,
            count,
            method=self.method,
            n_init=options.n_init,
            eps=options.eps,
            min_samples=options.min_samples,
            seed=self.seed,
        )

    def _subsets(self, points: int, count: int) -> np.ndarray:
        """Which points are kept, `subset kept`: every choice where there are few, else random."""
        left_out = max(1, min(points // 6, points - count))
        wanted, keep = self.options.n_resamples, points - left_out
        if comb(points, left_out) <= wanted:
            return np.array(list(combinations(range(points), keep)))
        rng = np.random.default_rng(self.seed)
        draws = (tuple(sorted(rng.permutation(points)[:keep])) for _ in iter(int, 1))
        return np.array(list(islice(draws, wanted)))


def cluster_algorithm(
    points: int,
    n_clusters: int | Literal["silhouette"],
    *,
    method: Method,
    options: ClusterOptions | None,
    seed: int,
) -> ClusterAlgorithm:
    """The algorithm for so many points.

    Raises:
        InputError: an unknown method, fewer than three points, or a number of clusters outside
            2 to points - 1.
    """
    if method not in ("kmeans", "ward", "dbscan"):
        raise InputError(
            expected="method 'kmeans', 'ward' or 'dbscan'",
            got=repr(method),
            fix="For other algorithms pass `head_similarity(...).distances` to scikit-learn.",
        )
    if points < 3:
        raise InputError(
            expected="at least 3 to cluster",
            got=f"{points}",
            fix="Two heads are compared by `head_similarity(...).distances`.",
        )
    options = options or ClusterOptions()
    counts: tuple[int, ...] = (2,)
    if n_clusters == "silhouette":
        largest = min(points - 1, 10 if options.max_clusters is None else options.max_clusters)
        counts = tuple(range(2, largest + 1))
    elif not isinstance(n_clusters, str):
        counts = (int(n_clusters),)
    wrong_word = isinstance(n_clusters, str) and n_clusters != "silhouette"
    if wrong_word or not counts or not 2 <= counts[0] <= counts[-1] <= points - 1:
        raise InputError(
            expected=f"n_clusters from 2 to {points - 1} for {points}, or 'silhouette'",
            got=f"n_clusters={n_clusters!r}, max_clusters={options.max_clusters}",
            fix="A silhouette needs two clusters, and one of them with two members.",
        )
    return ClusterAlgorithm(method=method, counts=counts, options=options, seed=seed)
