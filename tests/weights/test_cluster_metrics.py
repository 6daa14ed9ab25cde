"""Silhouette, separation, Rand index, Wasserstein: by hand and against scikit-learn and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.stats import wasserstein_distance
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.metrics import silhouette_samples as sklearn_samples

from headspec.weights.cluster_metrics import (
    adjusted_rand,
    long_head_silhouette,
    partition_metrics,
    silhouette,
    silhouette_samples,
    wasserstein,
)


def distances(rows: np.ndarray) -> np.ndarray:
    return squareform(pdist(rows))[None]


def study_metrics(rows: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Distance, variance and their ratio from raw vectors, as the study's code computes them."""
    groups = [rows[labels == label] for label in np.unique(labels)]
    centres = np.stack([group.mean(0) for group in groups])
    inter = cdist(centres, centres).max()
    within = float(np.mean([group.var(0).mean() for group in groups]))
    return inter, within, inter / within


@given(st.integers(0, 2**31), st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_equal_to_scikit_learn_and_to_the_raw_vectors(seed, clusters):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((9, 5))
    labels = np.concatenate([np.arange(clusters), rng.integers(0, clusters, 9 - clusters)])
    found = partition_metrics(distances(rows), labels[None], n_features=5)
    assert found["silhouette"][0] == pytest.approx(silhouette_score(rows, labels))
    samples = silhouette_samples(distances(rows), labels[None])[0]
    np.testing.assert_allclose(samples, sklearn_samples(rows, labels), atol=1e-12)
    inter, within, ratio = study_metrics(rows, labels)
    assert found["inter_cluster_distance"][0] == pytest.approx(inter)
    assert found["within_cluster_variance"][0] == pytest.approx(within)
    assert found["separation_ratio"][0] == pytest.approx(ratio)
    squares = sum(((rows[labels == x] - rows[labels == x].mean(0)) ** 2).sum() for x in set(labels))
    pooled = np.sqrt(squares / (9 - clusters))
    assert found["separation_dimensionless"][0] == pytest.approx(inter / pooled)


@pytest.mark.parametrize(("norm", "value"), [(1, 0.002), (2, 0.337), (3, 0.507), (4, 0.602)])
def test_silhouette_of_one_long_head(norm, value):
    """The closed form for orthogonal heads of which one is longer."""
    rows = np.eye(12)
    rows[6] *= norm
    labels = (np.arange(12) == 6).astype(int)[None]
    true = 11 / 12 * (1 - np.sqrt(2) / np.sqrt(1 + norm**2))
    assert silhouette(distances(rows), labels)[0] == pytest.approx(true, abs=1e-12)
    assert long_head_silhouette(norm, 12) == pytest.approx(true)
    assert true == pytest.approx(value, abs=0.002 if norm == 1 else 0.0005)


def test_separation_ratio_has_no_scale():
    """In other units or more coordinates the study's ratio is anything."""
    labels = np.array([[0] * 6 + [1] * 6])
    found = []
    for features, unit in [(1000, 1.0), (1000, 0.01), (50_000, 0.01)]:
        rows = unit * np.random.default_rng(0).standard_normal((12, features))
        metrics = partition_metrics(distances(rows), labels, n_features=features)
        found.append({name: float(value[0]) for name, value in metrics.items()})
    ratios = [one["separation_ratio"] for one in found]
    assert ratios[1] == pytest.approx(100 * ratios[0])
    assert ratios[2] > 10_000  # "well separated" for the study
    assert found[2]["silhouette"] < 0.01
    for one in found:
        assert one["separation_dimensionless"] == pytest.approx(np.sqrt(1 / 3), rel=0.05)


def test_singletons_noise_and_single_clusters():
    rows = np.array([[0.0], [1.0], [10.0], [30.0]])
    labels = np.array([[0, 0, 1, -1]])
    samples = silhouette_samples(distances(rows), labels)[0]
    np.testing.assert_allclose(samples, [0.9, 8 / 9, 0, np.nan])
    assert silhouette(distances(rows), labels)[0] == pytest.approx((0.9 + 8 / 9) / 3)
    for labels in ([[0, 0, 0, 0]], [[-1, -1, -1, -1]], [[0, 0, -1, -1]]):
        found = partition_metrics(distances(rows), np.array(labels), n_features=1)
        assert all(np.isnan(value[0]) for value in found.values())


def test_identical_points_have_silhouette_zero():
    labels = np.array([[0, 0, 1, 1]])
    rows = np.ones((4, 3))
    assert silhouette(distances(rows), labels)[0] == silhouette_score(rows, labels[0]) == 0
    found = partition_metrics(distances(rows), labels, n_features=3)
    assert np.isnan(found["separation_ratio"][0])


def test_labellings_of_a_batch_do_not_mix():
    rng = np.random.default_rng(0)
    batch = np.concatenate([distances(rng.standard_normal((6, 3))) for _ in range(3)])
    labels = np.array([[0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 0, 1], [0, 0, 0, 0, 0, 0]])
    together = partition_metrics(batch, labels, n_features=3)
    for i in range(3):
        alone = partition_metrics(batch[i : i + 1], labels[i : i + 1], n_features=3)
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][i], value[0])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12))
@settings(max_examples=60, deadline=None)
def test_adjusted_rand_is_scikit_learns(pairs):
    one, other = (np.array(x) for x in zip(*pairs, strict=True))
    found = float(adjusted_rand(one, other))
    assert found == pytest.approx(adjusted_rand_score(one, other), abs=1e-12)


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_wasserstein_is_scipys(seed, size, other_size):
    rng = np.random.default_rng(seed)
    one = rng.standard_normal(size).round(1)  # rounded: with ties
    other = rng.standard_normal(other_size).round(1) * 2
    assert wasserstein(one, other) == pytest.approx(wasserstein_distance(one, other), abs=1e-12)
    single = wasserstein(one.astype(np.float32), other.astype(np.float32))
    assert single == pytest.approx(wasserstein_distance(one, other), abs=1e-6)


def test_wasserstein_uses_all_values():
    """Samples of 1,000 of the weights give another number in every run."""
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal(200_000), 1.02 * rng.standard_normal(200_000)
    true = 0.02 * np.sqrt(2 / np.pi)
    naive = [wasserstein(rng.choice(one, 1000), rng.choice(other, 1000)) for _ in range(5)]
    assert max(naive) - min(naive) > true  # noise above the effect
    assert wasserstein(one, other) == wasserstein(one, other) == pytest.approx(true, rel=0.25)
