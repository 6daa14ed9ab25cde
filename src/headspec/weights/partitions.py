"""Clustering many small distance matrices at once, in squared distances alone.

Every function takes squared distances `draw point point`: the data are one draw, a null is a
thousand, and both go through the same code. K-means needs no coordinates: the squared distance of
point i to the centroid of cluster a is mean_j d2_ij - sum_jl d2_jl / (2 m_a^2) over j, l in a.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform

Method = Literal["kmeans", "ward", "dbscan"]
EXACT_LIMIT = 13  # two clusters of up to 13 points: all 4,095 partitions are tried
_CHUNK = 3_000_000  # numbers held at a time

Squares = Float[np.ndarray, "draw point point"]
Labels = Int[np.ndarray, "draw point"]


def partition(
    squares: Squares,
    n_clusters: int,
    *,
    method: Method = "kmeans",
    n_init: int = 20,
    eps: float | int | None = None,
    min_samples: int = 2,
    seed: int = 0,
) -> Labels:
    """Cluster labels of every draw, by the same algorithm for all.

    Args:
        squares: squared distances.
        n_clusters: number of clusters (unused by DBSCAN).
        method: `"kmeans"` (the global optimum where two clusters of at most 13 points are asked
            for, else the best of `n_init` k-means++ starts), `"ward"` or `"dbscan"`.
        n_init: starts of k-means.
        eps, min_samples: of DBSCAN, see `dbscan_labels`.
        seed: of the starts.

    Returns:
        Labels, cluster 0 being the largest (ties: the one with the first point); -1 is DBSCAN's
        noise.
    """
    if method == "dbscan":
        labels = dbscan_labels(squares, eps=eps, min_samples=min_samples)
    elif method == "ward":
        labels = ward_labels(squares, n_clusters)
    elif n_clusters == 2 and squares.shape[1] <= EXACT_LIMIT:
        labels = best_two_clusters(squares)
    else:
        labels = kmeans_labels(squares, n_clusters, n_init=n_init, seed=seed)
    return ordered_labels(labels)


def best_two_clusters(squares: Squares) -> Labels:
    """The two clusters with the smallest k-means inertia, among all partitions of the points."""
    draws, points, _ = squares.shape
    codes = np.arange(1, 2 ** (points - 1))
    members = ((codes[:, None] >> np.arange(points)) & 1).astype(float)  # `partition point`
    sizes = members.sum(1)
    pairs = np.einsum("pi,pj->ijp", members, members).reshape(points * points, -1)
    best = np.empty((draws, points), dtype=np.int64)
    step = max(1, _CHUNK // len(codes))
    for start in range(0, draws, step):
        part = squares[start : start + step]
        inside = part.reshape(len(part), -1) @ pairs
        touching = part.sum(2) @ members.T
        outside = part.sum((1, 2))[:, None] - 2 * touching + inside
        inertia = inside / (2 * sizes) + outside / (2 * (points - sizes))
        best[start : start + step] = members[inertia.argmin(1)]
    return best


def kmeans_labels(
    squares: Squares, n_clusters: int, *, n_init: int = 20, seed: int = 0, max_iter: int = 300
) -> Labels:
    """Best of `n_init` Lloyd runs from k-means++ starts (Arthur and Vassilvitskii 2007).

    A local optimum. Its inertia need not be scikit-learn's, whose starts are drawn otherwise: on
    noise (16 points, 4 clusters, 20 starts each) one or the other is lower by up to 5 %, and labels
    then differ. Clear clusters are found alike.
    """
    draws, points, _ = squares.shape
    rng = np.random.default_rng(seed)
    best = np.empty((draws, points), dtype=np.int64)
    step = max(1, _CHUNK // (n_init * points * n_clusters + points * points))
    for start in range(0, draws, step):
        part = squares[start : start + step]
        centres = _plus_plus(part, n_clusters, n_init, rng)
        labels, inertia = lloyd(part, centres, max_iter=max_iter)
        best[start : start + step] = labels[np.arange(len(part)), inertia.argmin(1)]
    return best


def lloyd(
    squares: Squares, centres: Int[np.ndarray, "draw start cluster"], *, max_iter: int = 300
) -> tuple[Int[np.ndarray, "draw start point"], Float[np.ndarray, "draw start"]]:
    """Lloyd's algorithm from the given points as first centres, until labels stand still.

    Returns:
        Labels and inertia of every start. An emptied cluster takes the point farthest from its
        centre, as in scikit-learn.
    """
    draws, starts, clusters = centres.shape
    points = squares.shape[1]
    index = np.arange(draws)[:, None, None]
    to_centres = squares[index, centres].swapaxes(2, 3)  # `draw start point cluster`
    labels = to_centres.argmin(3)
    inertia = np.full((draws, starts), np.inf)
    for _ in range(max_iter):
        members = _one_hot(labels, clusters)
        to_centres, inertia = _to_centroids(squares, members)
        new = to_centres.argmin(3)
        if (members.sum(2) == 0).any():
            new = _fill_empty(to_centres, new, clusters)
        if (new == labels).all():
            break
        labels = new
    return labels.reshape(draws, starts, points), inertia


def ward_labels(squares: Squares, n_clusters: int) -> Labels:
    """Ward's agglomerative clustering, cut into `n_clusters`."""
    distances = np.sqrt(np.maximum(squares, 0))
    trees = (linkage(squareform(one, checks=False), "ward") for one in distances)
    return np.stack([cut_tree(tree, n_clusters)[:, 0] for tree in trees]).astype(np.int64)


def dbscan_labels(
    squares: Squares, *, eps: float | int | None = None, min_samples: int = 2
) -> Labels:
    """DBSCAN (Ester et al. 1996); -1 marks noise.

    Args:
        squares: squared distances.
        eps: neighbourhood radius in units of the weights; None takes for every draw the median
            over points of the distance to the nearest other point, times 1.2.
        min_samples: points within `eps`, the point itself included, that make a core point.
    """
    distances = np.sqrt(np.maximum(squares, 0))
    if eps is None:
        nearest = np.partition(distances, 1, axis=2)[:, :, 1]
        radius = 1.2 * np.median(nearest, axis=1)[:, None, None]
    else:
        radius = float(eps)
    reach = distances <= radius
    core = reach.sum(2) >= min_samples
    points = core.shape[1]
    linked = reach & core[:, None, :]  # `draw point core`
    found = np.where(core, np.arange(points), points)
    while True:  # the first core point that can be reached through core points
        near = np.where(linked, found[:, None, :], points).min(2)
        if (near[core] == found[core]).all():
            break
        found = np.where(core, near, points)
    number = np.cumsum(core & (found == np.arange(points)), axis=1) - 1
    labels = np.take_along_axis(number, np.minimum(near, points - 1), axis=1)
    return np.where(near < points, labels, -1)


def ordered_labels(labels: Labels) -> Labels:
    """Labels renumbered by size, the largest cluster 0, ties by first point; noise stays -1."""
    clusters = max(int(labels.max()) + 1, 1)
    members = labels[:, :, None] == np.arange(clusters)
    sizes = members.sum(1)
    first = np.where(sizes > 0, members.argmax(1), labels.shape[1])
    order = np.argsort(-sizes * (labels.shape[1] + 1) + first, axis=1, kind="stable")
    rank = np.argsort(order, axis=1)
    renumbered = np.take_along_axis(rank, np.maximum(labels, 0), axis=1)
    return np.where(labels < 0, -1, renumbered)


def _one_hot(labels: np.ndarray, clusters: int) -> np.ndarray:
    return (labels[..., None] == np.arange(clusters)).astype(float)


def _to_centroids(squares: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances `draw start point cluster` to centroids (inf: empty), and inertia."""
    draws, starts, points, clusters = members.shape
    flat = members.transpose(0, 2, 1, 3).reshape(draws, points, starts * clusters)
    sums = (squares @ flat).reshape(draws, points, starts, clusters).transpose(0, 2, 1, 3)
    sizes = members.sum(2)
    safe = np.maximum(sizes, 1)
    scatter = (members * sums).sum(2) / (2 * safe)
    to_centres = sums / safe[:, :, None, :] - (scatter / safe)[:, :, None, :]
    to_centres = np.where(sizes[:, :, None, :] > 0, to_centres, np.inf)
    return to_centres, scatter.sum(2)


def _fill_empty(to_centres: np.ndarray, labels: np.ndarray, clusters: int) -> np.ndarray:
    """Give every emptied cluster the point farthest from its centre."""
    labels = labels.copy()
    empty = _one_hot(labels, clusters).sum(2) == 0
    for draw, start in np.argwhere(empty.any(2)):
        own = to_centres[draw, start].min(1).copy()
        for cluster in np.flatnonzero(empty[draw, start]):
            far = int(own.argmax())
            labels[draw, start, far] = cluster
            own[far] = -np.inf
    return labels


def _plus_plus(
    squares: np.ndarray, clusters: int, starts: int, rng: np.random.Generator
) -> np.ndarray:
    """First centres `draw start cluster`: each next with chance proportional to d2."""
    draws, points, _ = squares.shape
    rows = np.arange(draws)[:, None]
    chosen = [rng.integers(points, size=(draws, starts))]
    nearest = np.maximum(squares[rows, chosen[0]], 0)  # `draw start point`
    for _ in range(1, clusters):
        free = np.ones_like(nearest)
        for one in chosen:
            np.put_along_axis(free, one[:, :, None], 0, axis=2)
        weight = np.where(nearest.sum(2, keepdims=True) > 0, nearest, 1) * free
        weight = np.where(weight.sum(2, keepdims=True) > 0, weight, free)
        total = weight.cumsum(2)
        level = rng.random((draws, starts, 1)) * total[:, :, -1:]
        chosen.append(np.minimum((total <= level).sum(2), points - 1))
        nearest = np.minimum(nearest, np.maximum(squares[rows, chosen[-1]], 0))
    return np.stack(chosen, axis=2)
