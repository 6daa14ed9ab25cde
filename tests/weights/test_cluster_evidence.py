"""Numbers beside a clustering: stability, the previous checkpoint, Wasserstein distance."""

import numpy as np
import pytest
import torch
from random_heads import heads_from_rows, long_head_rows, planted_rows, random_heads
from sklearn.metrics import adjusted_rand_score

from headspec import cluster_heads, head_similarity


def test_stability_tells_clusters_from_noise():
    planted = cluster_heads(heads_from_rows(planted_rows(12, 200, gap=2, seed=0)), feature="q")
    noise = cluster_heads(heads_from_rows(planted_rows(12, 200, gap=0, seed=0)), feature="q")
    assert planted.metrics["stability"].observed == 1
    assert planted.metrics["stability"].p_value < 0.05
    assert noise.metrics["stability"].observed < 0.9
    assert noise.metrics["stability"].p_value > 0.01


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
    assert found.p_value > 0.9  # all null draws single out the same long head
    assert np.isnan(
        cluster_heads(head_similarity(random_heads(5), feature="q")).metrics["wasserstein"].observed
    )
