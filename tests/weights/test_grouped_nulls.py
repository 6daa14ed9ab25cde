"""The norm-matched null where query heads share key-value heads."""

from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from random_heads import random_heads, rejection_bounds
from scipy.stats import ks_2samp

from headspec import ClusterOptions, HeadWeights, cluster_heads, head_similarity, results
from headspec.weights.cluster_nulls import norm_matched_distances


@pytest.mark.parametrize("feature", ["qk", "ov"])
def test_heads_that_share_keys_are_alike_in_the_null_too(feature):
    """Under grouped-query attention independent directions would be the wrong null."""
    weights = random_heads(8, 16, 4, kv=2)
    similarity = head_similarity(weights, feature=feature)
    found = norm_matched_distances(similarity, n_draws=500, seed=0)
    made = np.array(
        [
            head_similarity(random_heads(8, 16, 4, kv=2, seed=i), feature=feature).cosines
            for i in range(300)
        ]
    )
    norms = np.outer(similarity.norms, similarity.norms)
    squares = similarity.norms[:, None] ** 2 + similarity.norms[None] ** 2
    cosines = (squares - found**2) / (2 * norms)
    for i, j in [(0, 1), (0, 7)]:
        assert np.std(cosines[:, i, j]) == pytest.approx(np.std(made[:, i, j]), rel=0.2)
    assert np.std(cosines[:, 0, 1]) > 1.3 * np.std(cosines[:, 0, 7])


def heads_with_few_directions(seed: int):
    """Grouped-query heads from random frames whose QK product has an uneven spectrum."""
    generator = torch.Generator().manual_seed(seed)
    gains = [torch.exp(0.8 * torch.randn(8, generator=generator)) for _ in range(2)]
    return random_heads(8, 64, 8, kv=2, seed=seed, q_norm=gains[0], k_norm=gains[1])


@pytest.mark.parametrize("unit_norm", [True, False])
def test_p_holds_its_level_with_uneven_heads_under_grouped_queries(unit_norm, monkeypatch):
    """Heads that share a key are the more alike the fewer directions a key has."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # for speed
    quick = ClusterOptions(n_resamples=0)
    trials, found = 60, {"cores": 0, "gaussian": 0}
    for trial in range(trials):
        similarity = head_similarity(
            heads_with_few_directions(trial), feature="qk", unit_norm=unit_norm
        )
        for name, one in {"cores": similarity, "gaussian": replace(similarity, cores=None)}.items():
            p_value = cluster_heads(one, n_null=39, seed=trial, options=quick).p_value
            found[name] += p_value <= 0.05
    low, high = rejection_bounds(trials, 0.05)
    assert low <= found["cores"] <= high
    if unit_norm:
        assert found["gaussian"] > 2 * high  # negative control: Gaussian factors


@pytest.mark.parametrize("feature", ["qk", "ov"])
@pytest.mark.parametrize("d_head", [4, 16, 20])
def test_turned_factors_keep_norms_and_sharing(feature, d_head):
    """Against products built from frames by an explicit QR."""
    weights = random_heads(6, 16, d_head, kv=2)
    W = {name: getattr(weights, name).double() for name in ("W_Q", "W_K", "W_V", "W_O")}
    W = {
        name: w * torch.linspace(0.1, 1, d_head)[:, None]
        if name == "W_O"
        else w * torch.linspace(0.1, 1, d_head)
        for name, w in W.items()
    }
    weights = HeadWeights(**W)
    similarity = head_similarity(weights, feature=feature)
    ours = norm_matched_distances(similarity, n_draws=500, seed=0)
    assert similarity.cores is not None
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(500):
        turn = [torch.randn(16, 16, generator=generator).double() for _ in range(8)]
        turn = torch.stack([torch.linalg.qr(one).Q for one in turn])
        grown = weights.expand_kv()
        rows = torch.arange(6) // 3
        if feature == "qk":
            product = (turn[:6] @ grown.W_Q) @ (turn[6:][rows] @ grown.W_K).mT
        else:
            product = (turn[6:][rows] @ grown.W_V) @ grown.W_O @ turn[:6].mT
        made.append(torch.cdist(product.flatten(1), product.flatten(1)).numpy())
    for i, j in [(0, 1), (0, 5)]:
        assert ks_2samp(ours[:, i, j], np.array(made)[:, i, j]).pvalue > 0.001
    assert head_similarity(random_heads(4), feature=feature).cores is None


def test_saved_and_zero_heads(tmp_path):
    weights = random_heads(4, kv=2)
    similarity = head_similarity(weights, feature="qk")
    loaded = results.load(results.save(similarity, tmp_path / "x.json"))
    np.testing.assert_allclose(loaded.cores, similarity.cores)
    weights.W_Q[1] = 0
    found = norm_matched_distances(head_similarity(weights, feature="qk"), n_draws=19, seed=0)
    assert np.isfinite(found).all()
