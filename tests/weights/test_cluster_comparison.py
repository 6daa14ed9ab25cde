"""Comparing clusters: effect sizes by hand, and p-values over heads instead of weights."""

from math import comb

import jaxtyping
import numpy as np
import pytest
from random_heads import heads_from_rows, random_heads, rejection_bounds
from scipy import stats as scipy_stats

from headspec import compare_clusters, results
from headspec.errors import InputError
from headspec.weights.features import head_factors
from headspec.weights.value_profiles import value_profiles


def heads_of_norms(norms: np.ndarray, *, features: int = 4000, seed: int = 0):
    rows = np.random.default_rng(seed).standard_normal((len(norms), features))
    return heads_from_rows(rows * norms[:, None])


def test_effects_against_the_raw_weights():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((7, 300)) + np.arange(7)[:, None] / 5
    labels = np.array([1, 0, 0, 1, 0, 1, -1])
    found = compare_clusters(heads_from_rows(rows), labels, feature="q")
    one, other = rows[labels == 0].ravel(), rows[labels == 1].ravel()
    value = {name: effect.observed for name, effect in found.effects.items()}
    ks = scipy_stats.ks_2samp(one, other)
    t = scipy_stats.ttest_ind(one, other, equal_var=False)
    assert value["ks_distance"] == pytest.approx(ks.statistic)
    assert value["wasserstein"] == pytest.approx(scipy_stats.wasserstein_distance(one, other))
    pooled = np.sqrt((one.size * one.var() + other.size * other.var()) / (one.size + other.size))
    assert value["cohens_d"] == pytest.approx((one.mean() - other.mean()) / pooled)
    assert value["scale_ratio"] == pytest.approx(one.std() / other.std())
    norms = np.linalg.norm(rows, axis=1)
    a, b = norms[labels == 0], norms[labels == 1]
    spread = np.sqrt((2 * a.var(ddof=1) + 2 * b.var(ddof=1)) / 4)
    assert value["norm_cohens_d"] == pytest.approx((a.mean() - b.mean()) / spread)
    assert found.over_weights["ks_p_over_weights"] == pytest.approx(ks.pvalue, rel=0.05)
    assert found.over_weights["t_over_weights"] == pytest.approx(t.statistic)
    assert found.sizes == (3, 3)
    assert (found.exact, found.n_permutations) == (True, comb(6, 3))


def test_heads_not_weights_are_the_observations():
    """Clusters of a 1.2x norm difference have p ~ 1e-80 over weights, not over heads."""
    norms = np.array([1.5, 1.35, 1.2, 1.05, 0.95, 0.85, 1.4, 1.1, 0.95, 0.85, 0.75, 0.7])
    labels = np.array([0] * 6 + [1] * 6)
    found = compare_clusters(heads_of_norms(norms, features=49_152), labels, feature="q")
    assert found.effects["scale_ratio"].observed == pytest.approx(1.2, abs=0.03)
    assert found.over_weights["ks_p_over_weights"] < 1e-80
    for name in ("ks_distance", "wasserstein", "scale_ratio", "norm_cohens_d", "cohens_d"):
        assert found.effects[name].p_value > 0.05
    assert found.effects["ks_distance"].observed < 0.06  # the effect is small, too


def test_a_single_head_cannot_be_significant():
    labels = (np.arange(12) == 6).astype(int)
    norms = np.where(labels == 1, 4.0, 1.0)
    found = compare_clusters(heads_of_norms(norms), labels, feature="q")
    assert found.n_permutations == 12
    assert found.effects["scale_ratio"].p_value == pytest.approx(1 / 12)


def test_p_over_heads_holds_its_level_where_p_over_weights_does_not(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # for speed
    rng = np.random.default_rng(0)
    labels = np.array([0] * 4 + [1] * 4)
    rejected = dict.fromkeys(("ks_distance", "scale_ratio", "norm_cohens_d"), 0)
    over_weights = 0
    for trial in range(100):
        heads = heads_of_norms(rng.uniform(0.7, 1.4, 8), features=1000, seed=trial)
        found = compare_clusters(heads, labels, feature="q")
        for name in rejected:
            rejected[name] += found.effects[name].p_value <= 0.05
        over_weights += found.over_weights["ks_p_over_weights"] <= 0.05
    low, high = rejection_bounds(100, 2 / 70)  # 70 labellings, mirrored pairs are equal
    assert all(low <= count <= high for count in rejected.values())
    assert over_weights > 50


def test_real_differences_are_detected():
    norms = np.array([1.2] * 6 + [1.0] * 6) * np.random.default_rng(0).uniform(0.98, 1.02, 12)
    labels = np.array([0] * 6 + [1] * 6)
    found = compare_clusters(heads_of_norms(norms), labels, feature="q")
    assert found.effects["scale_ratio"].observed == pytest.approx(1.2, rel=0.03)
    for name in ("ks_distance", "wasserstein", "scale_ratio", "norm_cohens_d"):
        assert found.effects[name].p_value == pytest.approx(2 / comb(12, 6))
    assert found.effects["norm_cohens_d"].observed > 5
    sampled = compare_clusters(heads_of_norms(norms), labels, feature="q", n_permutations=500)
    assert (sampled.exact, sampled.n_permutations) == (False, 500)
    assert sampled.effects["scale_ratio"].p_value < 0.02


@pytest.mark.parametrize("feature", ["q", "o", "qk", "ov"])
def test_every_feature_and_the_frame(feature, tmp_path):
    labels = np.array([0, 0, 1, 1, 2, -1])
    weights = random_heads(6, model="m", step=4, layer=2)
    found = compare_clusters(weights, labels, feature=feature, clusters=(2, 0))
    assert found.clusters == (2, 0)
    assert found.sizes == (1, 2)
    frame = found.to_frame().set_index("metric")
    assert frame.loc["ks_distance", "p"] == found.effects["ks_distance"].p_value
    assert frame.loc["ks_p_over_weights", "note"].startswith("not evidence")
    assert np.isnan(frame.loc[list(found.over_weights), "p"]).all()
    assert (frame["step"] == 4).all()
    loaded = results.load(results.save(found, tmp_path / "x.json"))
    assert loaded.effects["ks_distance"] == found.effects["ks_distance"]


def test_profiles_on_the_grid_are_close_to_all_values():
    factors = head_factors(heads_of_norms(np.linspace(0.5, 2, 8)), "q")
    profiles = value_profiles(factors)
    rng = np.random.default_rng(0)
    labels = np.stack([rng.permutation([0, 0, 0, 1, 1, 1, 2, -1]) for _ in range(5)])
    area, height = profiles.grid_distances(labels)
    for row, approximate, high in zip(labels, area, height, strict=True):
        assert approximate == pytest.approx(profiles.wasserstein(row), rel=0.02)
        pooled = [profiles.cluster_values(row, i) for i in range(3)]
        ks = max(
            scipy_stats.ks_2samp(pooled[a], pooled[b]).statistic
            for a, b in [(0, 1), (0, 2), (1, 2)]
        )
        assert high == pytest.approx(ks, abs=0.01)
    alone = profiles.grid_distances(np.zeros((1, 8), dtype=int))
    assert np.isnan(alone[0][0])
    assert np.isnan(profiles.wasserstein(np.zeros(8, dtype=int)))


def test_errors_name_what_is_wrong():
    weights = random_heads(4)
    for labels, clusters in [
        ([0, 0, 0, 0], None),
        ([0, 1, 2, 0], None),
        ([0, 1, 1], None),
        ([0, 1, 1, 1], (0, 3)),
    ]:
        with pytest.raises(InputError, match=r"clusters=\(a, b\)"):
            compare_clusters(weights, np.array(labels), clusters=clusters)
