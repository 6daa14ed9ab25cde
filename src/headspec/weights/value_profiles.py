"""Distributions of weight values, head by head, so that relabelling heads costs nothing.

The weights of a cluster are those of its heads together, and heads have equally many: a cluster's
distribution function is the mean of its heads'. Held on one grid, thousands of labellings are
compared by a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from headspec.weights.cluster_metrics import wasserstein
from headspec.weights.features import HeadFactors, coordinates

_GRID_PER_HEAD = 256
_CHUNK = 4_000_000


@dataclass(frozen=True)
class ValueProfiles:
    """Every head's weight values, sorted, and their distribution functions on a common grid.

    Attributes:
        values: sorted values of each head.
        grid: quantiles of all heads, in order.
        cdf: share of each head's values at or below each grid point.
    """

    values: Float[np.ndarray, "head n_features"]
    grid: Float[np.ndarray, " grid"]
    cdf: Float[np.ndarray, "head grid"]

    def cluster_values(self, labels: Int[np.ndarray, " head"], cluster: int) -> np.ndarray:
        """All weights of one cluster's heads."""
        return self.values[labels == cluster].reshape(-1)

    def wasserstein(self, labels: Int[np.ndarray, " head"]) -> float:
        """Largest first Wasserstein distance between two clusters, from all values; nan for one."""
        names = sorted(set(labels[labels >= 0].tolist()))
        pairs = list(combinations(names, 2))
        if not pairs:
            return float("nan")
        pooled = {name: self.cluster_values(labels, name) for name in names}
        return max(wasserstein(pooled[a], pooled[b]) for a, b in pairs)

    def grid_distances(
        self, labels: Int[np.ndarray, "draw head"]
    ) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
        """Largest Wasserstein and Kolmogorov-Smirnov distance between two clusters, per labelling.

        From the grid: within about a percent of the values from all weights. nan where a
        labelling has fewer than two clusters.
        """
        clusters = max(int(labels.max(initial=0)) + 1, 2)
        gaps = np.diff(self.grid)
        area = np.full(len(labels), np.nan)
        height = np.full(len(labels), np.nan)
        step = max(1, _CHUNK // (self.cdf.shape[1] * clusters))
        for start in range(0, len(labels), step):
            part = labels[start : start + step]
            members = (part[:, :, None] == np.arange(clusters)).astype(float)
            sizes = members.sum(1)[:, :, None]
            mixed = members.swapaxes(1, 2) @ self.cdf
            mixed = np.divide(mixed, sizes, out=np.full_like(mixed, np.nan), where=sizes > 0)
            for a, b in combinations(range(clusters), 2):
                difference = np.abs(mixed[:, a] - mixed[:, b])
                where = slice(start, start + step)
                area[where] = np.fmax(area[where], difference[:, :-1] @ gaps)
                height[where] = np.fmax(height[where], difference.max(1))
        return area, height


def value_profiles(factors: HeadFactors) -> ValueProfiles:
    """Sort every head's values and tabulate their distribution functions.

    Holds all values at once: 28 MB for the QK products of 12 heads at d_model 768, 4 bytes times
    heads times d_model^2 in general.
    """
    values = np.sort(coordinates(factors), axis=1)
    picks = np.unique(np.linspace(0, values.shape[1] - 1, _GRID_PER_HEAD).round().astype(int))
    grid = np.unique(values[:, picks])
    cdf = np.stack([np.searchsorted(row, grid, side="right") for row in values])
    return ValueProfiles(values=values, grid=grid.astype(float), cdf=cdf / float(values.shape[1]))
