"""Clustering heads and its nulls, against scikit-learn on raw vectors.

    .venv/bin/python benchmarks/bench_clustering.py

Twelve heads whose QK products have 768 x 768 = 589,824 coordinates, in three planted groups and
noise. The raw way forms the products; time starts from the weights on both sides.
"""

from __future__ import annotations

import numpy as np
import torch
from harness import compare, print_header
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

from headspec import HeadWeights, head_similarity
from headspec.weights.cluster_metrics import silhouette
from headspec.weights.cluster_nulls import norm_matched_distances, permuted_distances
from headspec.weights.features import head_factors
from headspec.weights.partitions import partition

HEADS, D_MODEL, D_HEAD, NULLS = 12, 768, 64, 1000
COUNTS = range(2, 7)
THREADS = f"{torch.get_num_threads()} threads"


def grouped_heads() -> HeadWeights:
    """Six pairs of related heads, of which some are related again: clusters at every k."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> torch.Tensor:
        return torch.randn(count, D_MODEL, D_HEAD, generator=generator)

    pairs, threes = draw(6).repeat_interleave(2, 0), draw(3).repeat_interleave(4, 0)
    W_Q = 0.02 * (draw(HEADS) + 2 * pairs * torch.linspace(1, 2, HEADS)[:, None, None] + threes)
    W_K = 0.02 * (draw(HEADS) + 2 * pairs + threes)
    return HeadWeights(W_Q=W_Q, W_K=W_K, W_V=W_K, W_O=W_Q.mT)


WEIGHTS = grouped_heads()
SIMILARITY = head_similarity(WEIGHTS, feature="qk")
RAW = (WEIGHTS.W_Q @ WEIGHTS.W_K.mT).flatten(1).numpy()


def cluster(distances: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Labels and silhouettes for k = 2 .. 6, of one matrix of distances."""
    found = []
    for count in COUNTS:
        labels = partition(distances[None] ** 2, count)
        found.append((labels[0], float(silhouette(distances[None], labels)[0])))
    return found


def cluster_raw(rows: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """The same by scikit-learn."""
    found = []
    for count in COUNTS:
        labels = KMeans(count, n_init=10, random_state=0).fit(rows).labels_
        found.append((labels, float(silhouette_score(rows, labels))))
    return found


def same_partitions(ours, raw) -> None:
    """Equal partitions and silhouettes at every k."""
    for (labels, score), (raw_labels, raw_score) in zip(ours, raw, strict=True):
        assert adjusted_rand_score(labels, raw_labels) == 1, (labels, raw_labels)
        np.testing.assert_allclose(score, raw_score, rtol=1e-4)


def null_silhouettes(distances: np.ndarray) -> np.ndarray:
    """Silhouettes of two clusters in every draw."""
    return silhouette(distances, partition(distances**2, 2))


def raw_null(draw, count: int) -> np.ndarray:
    """Silhouettes of two clusters found by scikit-learn in so many raw draws."""
    found = []
    for _ in range(count):
        rows = draw()
        found.append(silhouette_score(rows, KMeans(2, n_init=10, random_state=0).fit_predict(rows)))
    return np.array(found)


def same_distribution(ours: np.ndarray, raw: np.ndarray) -> None:
    """Means within five standard errors of each other."""
    error = np.sqrt(ours.var(ddof=1) / len(ours) + max(raw.var(ddof=1), ours.var()) / len(raw))
    assert abs(ours.mean() - raw.mean()) < 5 * error, (ours.mean(), raw.mean(), error)


def gaussian_rows(rng: np.random.Generator) -> np.ndarray:
    """Random directions with the heads' norms, as raw vectors."""
    rows = rng.standard_normal(RAW.shape, dtype=np.float32)
    return rows * (SIMILARITY.norms / np.linalg.norm(rows, axis=1))[:, None].astype(np.float32)


def bench_kmeans() -> None:
    """Rows of the table on one clustering."""
    compare(
        "KMeans k = 2..6 with silhouettes, 12 heads of 589,824 dims, from the weights",
        lambda: cluster(head_similarity(WEIGHTS, feature="qk").distances),
        lambda: cluster_raw((WEIGHTS.W_Q @ WEIGHTS.W_K.mT).flatten(1).numpy()),
        agree=same_partitions,
        note=THREADS,
    )
    compare(
        "the same, from vectors already formed (Gram matrix included)",
        lambda: cluster(raw_distances()),
        lambda: cluster_raw(RAW),
        agree=same_partitions,
        note=THREADS,
    )


def bench_nulls() -> None:
    """Rows of the table on nulls; the raw way makes two draws and is extrapolated."""
    rng = np.random.default_rng(0)
    compare(
        "1,000 Gaussian nulls of two clusters, 12 x 589,824",
        lambda: null_silhouettes(norm_matched_distances(SIMILARITY, n_draws=NULLS, seed=0)),
        lambda: raw_null(lambda: gaussian_rows(rng), 2),
        agree=same_distribution,
        peer_scale=NULLS / 2,
        note=THREADS,
    )
    factors = head_factors(WEIGHTS, "qk")
    compare(
        "10 permutation nulls of two clusters, 12 x 589,824",
        lambda: null_silhouettes(
            permuted_distances(
                (block.numpy() for block in factors.blocks()), unit_norm=False, n_draws=10, seed=0
            )
        ),
        lambda: raw_null(lambda: rng.permuted(RAW, axis=0), 2),
        agree=same_distribution,
        peer_scale=5,
        note=THREADS,
    )


def raw_distances() -> np.ndarray:
    """Distances through the Gram matrix of the formed vectors."""
    gram = (RAW @ RAW.T).astype(np.float64)
    squares = np.diag(gram)
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * gram, 0))


if __name__ == "__main__":
    print_header()
    bench_kmeans()
    bench_nulls()
