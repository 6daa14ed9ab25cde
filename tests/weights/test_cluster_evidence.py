"""Numbers beside a clustering: stability, the previous checkpoint, Wasserstein distance."""

import numpy as np
import pytest
import torch
from random_heads import heads_from_rows, long_head_rows, planted_rows, random_heads
from sklearn.metrics import adjusted_rand_score

from headspec import ClusterOptions, cluster_heads, head_similarity


def test_stability_tells_clusters_from_noise():
    planted = cluster_heads(heads_from_rows(planted_rows(12, 200, gap=2, seed=0)), feature="q")
    noise = cluster_heads(heads_from_rows(planted_rows(12, 200, gap=0, seed=0)), feature="q")
    assert planted.metrics["stability"].observed == 1
    assert planted.metrics["stability"].p_value < 0.05
    assert noise.metrics["stability"].observed < 0.9
    assert noise.metrics["stability"].p_value > 0.01


def test_stability_needs_two_clusters_and_four_heads():
    """One cluster agrees with itself, and three heads split one way: neither is stable."""
    rows = planted_rows(8, 50, gap=0, seed=0)
    for eps in (1e6, 1e-6):
        found = cluster_heads(
            heads_from_rows(rows),
            feature="q",
            method="dbscan",
            options=ClusterOptions(eps=eps),
            n_null=19,
        ).metrics["stability"]
        assert np.isnan(found.observed)
        assert found.p_value == 1
    three = cluster_heads(heads_from_rows(rows[:3]), feature="q", n_null=19).metrics["stability"]
    assert np.isnan([three.observed, three.p_value, three.mean]).all()
    four = cluster_heads(heads_from_rows(rows[:4]), feature="q", n_null=19).metrics["stability"]
    assert np.isfinite([four.observed, four.p_value]).all()


def grouped_rows(seed: int) -> np.ndarray:
    """Two groups of six heads with cosine .7 inside, and log norms of any size with sd .15."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.standard_normal((2, 400)), 6, axis=0)
    rows = np.sqrt(0.7) * shared + np.sqrt(0.3) * rng.standard_normal((12, 400))
    return rows * np.exp(0.15 * rng.standard_normal(12))[:, None]


def test_only_metrics_that_see_clusters_have_p_values():
    """The others say nothing of planted clusters: the null's long heads lie further apart."""
    silent = {"inter_cluster_distance", "within_cluster_variance", "separation_ratio"}
    silhouettes, misled = [], []
    for seed in range(8):
        found = cluster_heads(heads_from_rows(grouped_rows(seed)), feature="q", n_null=99)
        with_p = {name for name, one in found.metrics.items() if not np.isnan(one.p_value)}
        assert with_p == {"silhouette", "stability"}
        for name in (*silent, "separation_dimensionless", "wasserstein"):
            one = found.metrics[name]
            assert np.isfinite([one.mean, one.sd, one.q05, one.q95]).all()
        silhouettes.append(found.p_value)
        moved = found.metrics["wasserstein"]
        misled.append(moved.observed < moved.q95)
        unit = cluster_heads(
            heads_from_rows(grouped_rows(seed)), feature="q", n_null=99, unit_norm=True
        )
        assert unit.metrics["separation_dimensionless"].p_value == 0.01
        assert unit.metrics["silhouette"].p_value == 0.01
        assert np.isnan([unit.metrics[name].p_value for name in silent]).all()
    assert max(silhouettes) < 0.05
    assert sum(misled) >= 7  # negative control: a p of theirs would find nothing


def test_scale_has_no_p_under_the_initialisation_null():
    """Weights that merely grew differ from the null in every metric with a unit."""
    grown = random_heads(8)
    grown = random_heads(8, W_Q=3 * grown.W_Q)
    found = cluster_heads(grown, feature="q", null="initialisation", reference=1.0, n_null=99)
    distance = found.metrics["inter_cluster_distance"]
    assert distance.observed > 2 * distance.q95
    assert np.isnan(distance.p_value)
    assert found.p_value > 0.01


def test_against_the_previous_checkpoint():
    before = random_heads(8, seed=0)
    noise = random_heads(8, seed=1)
    after = random_heads(8, W_Q=before.W_Q + 0.1 * noise.W_Q)
    found = cluster_heads(after, previous=before, n_null=19)
    change = (after.W_Q - before.W_Q) @ before.W_K.mT
    base = before.W_Q @ before.W_K.mT
    norms = torch.linalg.matrix_norm(base)
    relative = torch.linalg.matrix_norm(change) / norms
    np.testing.assert_allclose(found.head_divergence, relative, rtol=1e-5)
    total = float(change.norm() / base.norm())
    assert found.metrics["weight_divergence"].observed == pytest.approx(total, rel=1e-5)
    old = cluster_heads(before, n_null=19)
    agreement = adjusted_rand_score(old.labels, found.labels)
    assert found.metrics["ari_previous"].observed == pytest.approx(agreement)
    same = cluster_heads(before, previous=before, n_null=19)
    assert same.metrics["weight_divergence"].observed < 1e-12
    assert same.metrics["ari_previous"].observed == 1


def test_divergence_of_products_does_not_see_the_gauge():
    before = random_heads(5, dtype=torch.float64)
    A = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = random_heads(5, W_Q=before.W_Q @ A, W_K=before.W_K @ torch.linalg.inv(A).mT)
    before = random_heads(5, W_Q=before.W_Q, W_K=before.W_K)
    product = cluster_heads(turned, previous=before, n_null=19)
    assert product.metrics["weight_divergence"].observed < 1e-10
    raw = cluster_heads(turned, feature="q", previous=before, n_null=19)
    assert raw.metrics["weight_divergence"].observed > 0.3


def test_wasserstein_of_all_values_and_its_null():
    rows = long_head_rows(4.0)
    found = cluster_heads(heads_from_rows(rows), feature="q").metrics["wasserstein"]
    scale = np.sqrt(2 / np.pi / 3000)
    assert found.observed == pytest.approx(3 * scale, rel=0.05)
    assert found.mean == pytest.approx(found.observed, rel=0.02)  # the null's long head is this one
    assert np.isnan(found.p_value)
    assert np.isnan(
        cluster_heads(head_similarity(random_heads(5), feature="q")).metrics["wasserstein"].observed
    )
