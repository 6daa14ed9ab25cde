"""Nulls: their distributions against raw draws, and p-values that hold their level."""

from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from random_heads import heads_from_rows, planted_rows, random_heads, rejection_bounds
from scipy.stats import ks_2samp

from headspec import ClusterOptions, cluster_heads, head_similarity
from headspec.errors import InputError
from headspec.stats import permutation_p
from headspec.weights.cluster_nulls import (
    initialisation_distances,
    norm_matched_distances,
    permuted_distances,
)

QUICK = ClusterOptions(n_resamples=0)


def pair(distances: np.ndarray, i: int = 0, j: int = 1) -> np.ndarray:
    return distances[:, i, j]


@pytest.mark.parametrize("features", [3, 5, 40])
def test_norm_matched_is_as_drawn_raw(features):
    """Also with fewer coordinates than heads, where Bartlett's decomposition does not apply."""
    rng = np.random.default_rng(0)
    norms = np.array([1.0, 2, 3, 4, 5])
    rows = rng.standard_normal((5, features))
    rows *= (norms / np.linalg.norm(rows, axis=1))[:, None]
    similarity = head_similarity(heads_from_rows(rows), feature="q")
    ours = norm_matched_distances(similarity, n_draws=2000, seed=1)
    raw = rng.standard_normal((2000, 5, features))
    raw *= (norms / np.linalg.norm(raw, axis=2))[:, :, None]
    naive = np.linalg.norm(raw[:, :, None] - raw[:, None], axis=-1)
    for i, j in [(0, 1), (0, 4), (3, 4)]:
        assert ks_2samp(pair(ours, i, j), pair(naive, i, j)).pvalue > 0.001
    spread_ours, spread_naive = ours.sum((1, 2)), naive.sum((1, 2))
    assert ks_2samp(spread_ours, spread_naive).pvalue > 0.001
    assert (ours.diagonal(axis1=1, axis2=2) == 0).all()


@pytest.mark.parametrize("feature", ["qk", "ov"])
def test_norm_matched_products_have_the_cosines_of_random_products(feature):
    """d_model^2 dimensions are right for products of rank d_head, too."""
    drawn = [
        head_similarity(random_heads(6, 16, 2, seed=i), feature=feature).cosines[0, 1:]
        for i in range(400)
    ]
    similarity = head_similarity(random_heads(6, 16, 2), feature=feature, unit_norm=True)
    distances = norm_matched_distances(similarity, n_draws=2000, seed=0)
    cosines = 1 - distances[:, 0, 1:] ** 2 / 2
    assert np.std(drawn) == pytest.approx(1 / 16, rel=0.06)
    assert np.std(cosines) == pytest.approx(1 / 16, rel=0.03)


@pytest.mark.parametrize(("feature", "kv"), [("q", 5), ("k", 3), ("qk", 5), ("qk", 3), ("ov", 5)])
@pytest.mark.parametrize("unit_norm", [False, True])
def test_initialisation_is_as_initialised(feature, kv, unit_norm):
    heads = 6 if kv == 3 else 5
    made = [
        head_similarity(
            random_heads(heads, 12, 3, kv=kv, seed=i), feature=feature, unit_norm=unit_norm
        ).distances
        for i in range(250)
    ]
    similarity = head_similarity(
        random_heads(heads, 12, 3, kv=kv), feature=feature, unit_norm=unit_norm
    )
    ours = initialisation_distances(similarity, n_draws=2000, seed=1, reference=1.0)
    assert ks_2samp(pair(ours), pair(np.array(made))).pvalue > 0.001
    scaled = initialisation_distances(similarity, n_draws=50, seed=1, reference=2.0)
    factor = 1 if unit_norm else 4 if feature in ("qk", "ov") else 2
    np.testing.assert_allclose(pair(scaled)[:50], factor * pair(ours[:50]), rtol=0.5)


def test_initialisation_from_reference_heads():
    weights = random_heads(5)
    reference = random_heads(5, W_Q=3 * weights.W_Q, W_K=weights.W_K / 3)
    for feature, std in [("q", 3.0), ("k", 1 / 3), ("qk", 1.0)]:
        similarity = head_similarity(weights, feature=feature)
        found = initialisation_distances(similarity, n_draws=400, seed=0, reference=reference)
        plain = initialisation_distances(similarity, n_draws=400, seed=0, reference=std)
        assert found.mean() == pytest.approx(plain.mean(), rel=0.1)


def test_permuted_keeps_every_coordinate(monkeypatch):
    kept = []

    def spy(gram, **_):
        kept.append(gram)
        return gram

    monkeypatch.setattr("headspec.weights.cluster_nulls.gram_to_distances", spy)
    rows = np.random.default_rng(0).standard_normal((4, 1)) * np.ones((1, 3))
    permuted_distances([rows], unit_norm=False, n_draws=600, seed=0)
    gram = kept[0]
    np.testing.assert_allclose(np.trace(gram, axis1=1, axis2=2), (rows**2).sum())
    total = rows.sum(0) @ rows.sum(0)
    np.testing.assert_allclose(gram.sum((1, 2)), total)  # column sums are kept
    assert np.std(gram[:, 0, 0]) > 0
    everywhere = gram.mean(0)[~np.eye(4, dtype=bool)]  # no place is preferred
    assert np.ptp(everywhere) < 0.15 * (rows**2).sum()


def test_permutations_are_uniform():
    rows = np.arange(3.0)[:, None] * np.ones((1, 2000))
    from headspec.weights.cluster_nulls import _permute_columns

    _permute_columns(rows, np.random.default_rng(0))
    codes, counts = np.unique(rows, axis=1, return_counts=True)
    assert codes.shape[1] == 6
    assert counts.min() > 333 - 4 * np.sqrt(333)
    assert counts.max() < 333 + 4 * np.sqrt(333)


def test_draws_are_seeded():
    similarity = head_similarity(random_heads(5), feature="qk")
    one = norm_matched_distances(similarity, n_draws=20, seed=3)
    assert (one == norm_matched_distances(similarity, n_draws=20, seed=3)).all()
    assert (one != norm_matched_distances(similarity, n_draws=20, seed=4)).any()


def test_draws_of_every_layer_are_kept_for_the_next_step():
    from headspec.weights.cluster_nulls import _product_grams

    _product_grams.cache_clear()
    similarity = head_similarity(random_heads(5), feature="qk")
    for _ in range(3):
        for layer in range(12):
            initialisation_distances(similarity, n_draws=3, seed=layer, reference=1.0)
    assert _product_grams.cache_info().misses == 12
    many = replace(similarity, groups=tuple(range(40)))
    initialisation_distances(many, n_draws=700, seed=0, reference=1.0)
    assert _product_grams.cache_info().currsize == 12  # large ones are not kept


@pytest.fixture
def fast(monkeypatch):
    """Without shape checks, which take most of the time of hundreds of small clusterings."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def rejections(make, trials: int, **arguments) -> int:
    count = 0
    for trial in range(trials):
        found = cluster_heads(
            make(trial), n_null=39, seed=10_000 + trial, options=QUICK, **arguments
        )
        count += found.p_value <= 0.05
    return count


def rows_of_any_norm(seed: int):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((6, 30))
    norms = rng.uniform(0.5, 4, 6) / np.linalg.norm(rows, axis=1)
    return heads_from_rows(rows * norms[:, None])


def columns_of_any_scale(seed: int):
    rng = np.random.default_rng(seed)
    return heads_from_rows(rng.standard_t(3, (6, 30)) * rng.exponential(size=30))


def initial_heads(seed: int):
    return random_heads(6, 12, 3, seed=seed)


def initial_heads_grouped(seed: int):
    return random_heads(6, 12, 3, kv=2, seed=seed)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (rows_of_any_norm, {"feature": "q", "null": "norm_matched"}),
        (rows_of_any_norm, {"feature": "q", "null": "norm_matched", "n_clusters": "silhouette"}),
        (rows_of_any_norm, {"feature": "q", "null": "norm_matched", "unit_norm": True}),
        (columns_of_any_scale, {"feature": "q", "null": "permuted"}),
        (initial_heads, {"feature": "q", "null": "initialisation", "reference": 1.0}),
        (initial_heads, {"feature": "qk", "null": "initialisation", "reference": 1.0}),
        (initial_heads_grouped, {"feature": "qk", "null": "initialisation", "reference": 1.0}),
        (initial_heads_grouped, {"feature": "ov", "null": "norm_matched"}),
        (rows_of_any_norm, {"feature": "q", "null": "norm_matched", "method": "ward"}),
    ],
)
def test_p_holds_its_level_on_data_from_the_null(make, arguments, fast):
    trials = 60 if "n_clusters" in arguments or "method" in arguments else 120
    low, high = rejection_bounds(trials, 0.05)
    assert low <= rejections(make, trials, **arguments) <= high


def test_every_p_holds_its_level(fast):
    """The silhouette's is above; stability has ties and may stay below its level."""
    trials, count = 80, {"separation_dimensionless": 0, "stability": 0}
    for trial in range(trials):
        metrics = cluster_heads(
            rows_of_any_norm(trial),
            feature="q",
            unit_norm=True,
            n_null=39,
            seed=20_000 + trial,
            options=ClusterOptions(n_resamples=6),
        ).metrics
        for name in count:
            count[name] += metrics[name].p_value <= 0.05
    low, high = rejection_bounds(trials, 0.05)
    assert low <= count["separation_dimensionless"] <= high
    assert count["stability"] <= high


def test_a_shared_preference_for_some_directions_rejects_isotropy(fast):
    """A known limit, as documented: small p without clusters, with a small excess."""
    excess = []
    for trial in range(12):
        rng = np.random.default_rng(trial)
        scale = torch.from_numpy(rng.lognormal(0, 1, 64)).float()[:, None]
        heads = random_heads(12, 64, 8, seed=trial)
        heads = random_heads(12, 64, 8, W_Q=heads.W_Q * scale, W_K=heads.W_K * scale)
        found = cluster_heads(heads, feature="qk", n_null=39, options=QUICK, unit_norm=True)
        assert found.p_value <= 0.05
        excess.append(found.excess)
    assert 0 < np.mean(excess) < 0.12


def test_a_p_value_that_skips_the_choice_of_k_does_not_hold_its_level(fast):
    """Negative control: the best silhouette of all k against the null of one k."""
    count = 0
    for trial in range(60):
        heads = rows_of_any_norm(trial)
        best = cluster_heads(heads, feature="q", n_clusters="silhouette", null=None, options=QUICK)
        null = cluster_heads(heads, feature="q", n_clusters=4, n_null=39, seed=trial, options=QUICK)
        count += permutation_p(best.silhouette, null.null_silhouettes) <= 0.05
    assert count > rejection_bounds(60, 0.05)[1]


@pytest.mark.parametrize("null", ["norm_matched", "permuted", "initialisation"])
@pytest.mark.parametrize("method", ["kmeans", "ward", "dbscan"])
def test_planted_clusters_are_detected(null, method):
    rows = planted_rows(12, 300, gap=2.0, seed=1)
    found = cluster_heads(
        heads_from_rows(rows),
        feature="q",
        null=null,
        method=method,
        n_null=99,
        reference=1.0,
        options=QUICK,
    )
    assert found.labels.tolist() == [0] * 6 + [1] * 6
    assert found.p_value == 0.01


def test_errors_name_what_is_wrong():
    weights = random_heads(5)
    with pytest.raises(InputError, match=r"reference=suite\.head_weights"):
        cluster_heads(weights, null="initialisation")
    with pytest.raises(InputError, match="positive standard deviation"):
        cluster_heads(weights, null="initialisation", reference=0.0)
    with pytest.raises(InputError, match="n_null of 19 or more"):
        cluster_heads(weights, n_null=5)
    with pytest.raises(InputError, match="no coordinates to permute"):
        cluster_heads(head_similarity(weights, feature="q"), null="permuted")
    constant = random_heads(5, W_Q=torch.ones(5, 24, 4))
    with pytest.raises(InputError, match="positive standard deviation"):
        cluster_heads(weights, feature="q", null="initialisation", reference=constant)
