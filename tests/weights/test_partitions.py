"""Clustering from squared distances: against scikit-learn on the raw vectors, and by hand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_heads import planted_rows
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans

from headspec.weights.cluster_metrics import adjusted_rand
from headspec.weights.partitions import (
    best_two_clusters,
    dbscan_labels,
    kmeans_labels,
    lloyd,
    ordered_labels,
    partition,
)


def squares(rows: np.ndarray) -> np.ndarray:
    return squareform(pdist(rows, "sqeuclidean"))[None]


def inertia(rows: np.ndarray, labels: np.ndarray) -> float:
    groups = (rows[labels == label] for label in np.unique(labels))
    return float(sum(((group - group.mean(0)) ** 2).sum() for group in groups))


def test_two_pairs_by_hand():
    rows = np.array([[0.0], [5.0], [1.0], [6.0], [0.5]])
    for method, clusters in product(("kmeans", "ward"), (2,)):
        assert partition(squares(rows), clusters, method=method).tolist() == [[0, 1, 0, 1, 0]]
    found = partition(squares(rows), 2, method="dbscan", eps=1.1)
    assert found.tolist() == [[0, 1, 0, 1, 0]]


@given(st.integers(0, 2**31), st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_lloyd_takes_the_same_steps_as_scikit_learn(seed, clusters):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((12, 30)) * rng.uniform(0.5, 3, (12, 1))
    first = rng.permutation(12)[:clusters]
    labels, cost = lloyd(squares(rows), first[None, None])
    oracle = KMeans(clusters, init=rows[first], n_init=1, tol=0).fit(rows)
    assert (labels[0, 0] == oracle.labels_).all()
    assert cost[0, 0] == pytest.approx(oracle.inertia_)


@given(st.integers(0, 2**31), st.integers(3, 9))
@settings(max_examples=15, deadline=None)
def test_two_clusters_are_the_best_of_all_partitions(seed, points):
    rows = np.random.default_rng(seed).standard_normal((points, 4))
    found = best_two_clusters(squares(rows))[0]
    everything = (np.array(x) for x in product((0, 1), repeat=points) if 0 < sum(x) < points)
    best = min(inertia(rows, labels) for labels in everything)
    assert inertia(rows, found) == pytest.approx(best)


@pytest.mark.parametrize("clusters", [2, 3, 4, 6, 11])
def test_kmeans_is_about_as_good_as_scikit_learn(clusters):
    for seed in range(5):
        rows = np.random.default_rng(seed).standard_normal((12, 40))
        ours = partition(squares(rows), clusters, seed=seed)[0]
        oracle = KMeans(clusters, n_init=10, random_state=seed).fit(rows)
        assert len(np.unique(ours)) == clusters
        assert inertia(rows, ours) <= oracle.inertia_ * 1.02


@pytest.mark.parametrize("method", ["kmeans", "ward", "dbscan"])
def test_planted_clusters_are_found(method):
    rows = planted_rows(14, 200, gap=3, seed=0)
    assert partition(squares(rows), 2, method=method)[0].tolist() == [0] * 7 + [1] * 7


@given(st.integers(0, 2**31), st.integers(2, 7))
@settings(max_examples=20, deadline=None)
def test_ward_is_scikit_learns(seed, clusters):
    rows = np.random.default_rng(seed).standard_normal((10, 6))
    ours = partition(squares(rows), clusters, method="ward")[0]
    oracle = AgglomerativeClustering(clusters, linkage="ward").fit_predict(rows)
    assert adjusted_rand(ours, oracle) == 1


def test_dbscan_is_scikit_learns_and_marks_noise():
    rows = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [50.0]])
    found = dbscan_labels(squares(rows), eps=0.5, min_samples=2)[0]
    assert found.tolist() == DBSCAN(eps=0.5, min_samples=2).fit_predict(rows).tolist()
    assert found.tolist() == [0, 0, 0, 1, 1, -1]
    assert (dbscan_labels(squares(rows), eps=0.01)[0] == -1).all()
    assert (dbscan_labels(squares(rows), eps=100.0)[0] == 0).all()


@given(st.integers(0, 2**31), st.integers(1, 4), st.floats(0.2, 2))
@settings(max_examples=60, deadline=None)
def test_dbscan_is_scikit_learns_on_random_points(seed, min_samples, eps):
    rows = np.random.default_rng(seed).standard_normal((14, 2))
    ours = dbscan_labels(squares(rows), eps=eps, min_samples=min_samples)[0]
    oracle = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(rows)
    assert ((ours == -1) == (oracle == -1)).all()
    assert adjusted_rand(ours, oracle) == 1


def test_draws_do_not_influence_each_other():
    rng = np.random.default_rng(0)
    batch = np.concatenate([squares(rng.standard_normal((9, 20))) for _ in range(7)])
    for clusters, method in [(2, "kmeans"), (3, "ward"), (2, "dbscan")]:
        together = partition(batch, clusters, method=method)
        alone = np.concatenate([partition(one[None], clusters, method=method) for one in batch])
        assert (together == alone).all()


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    batch = np.concatenate([squares(rng.standard_normal((9, 20))) for _ in range(7)])
    whole = best_two_clusters(batch)
    monkeypatch.setattr("headspec.weights.partitions._CHUNK", 300)
    assert (best_two_clusters(batch) == whole).all()
    assert kmeans_labels(batch, 3).shape == (7, 9)


def test_labels_are_ordered_by_size():
    assert ordered_labels(np.array([[2, 0, 0, 1, 1, 1]])).tolist() == [[2, 1, 1, 0, 0, 0]]
    assert ordered_labels(np.array([[1, 1, 0, 0]])).tolist() == [[0, 0, 1, 1]]
    assert ordered_labels(np.array([[-1, -1, 3, -1]])).tolist() == [[-1, -1, 0, -1]]
    assert ordered_labels(np.array([[-1, -1]])).tolist() == [[-1, -1]]


def test_identical_points():
    nothing = np.zeros((1, 6, 6))
    for clusters in (2, 3, 5):
        assert set(partition(nothing, clusters, method="ward")[0]) == set(range(clusters))
        assert set(partition(nothing, clusters)[0]) <= set(range(clusters))
    assert partition(nothing, 2, method="dbscan")[0].tolist() == [0] * 6
