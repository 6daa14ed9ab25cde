"""Clustering heads end to end: results, words, previous checkpoints, edge cases."""

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_heads import heads_from_rows, long_head_rows, planted_rows, random_heads
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

from headspec import ClusterOptions, HeadWeights, cluster_heads, results
from headspec.errors import InputError
from headspec.weights.cluster_result import study_separation_word, study_word


def test_planted_clusters_by_hand():
    rows = np.zeros((6, 4))
    rows[:, 0] = [0, 0.5, 1, 9, 9.5, 10]
    found = cluster_heads(heads_from_rows(rows), feature="q", n_null=99)
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.sizes == (3, 3)
    value = {name: one.observed for name, one in found.metrics.items()}
    assert value["inter_cluster_distance"] == pytest.approx(9)
    variance = np.mean([(x - 0.5) ** 2 for x in (0, 0.5, 1)]) / 4
    assert value["within_cluster_variance"] == pytest.approx(variance)
    assert value["separation_ratio"] == pytest.approx(9 / variance)
    assert value["separation_dimensionless"] == pytest.approx(9 / 0.5)
    assert value["wasserstein"] == pytest.approx(9 / 4)
    assert value["stability"] == 1
    assert value["smallest_cluster"] == 3
    assert found.silhouette == pytest.approx(silhouette_score(rows, found.labels))


@pytest.mark.parametrize("feature", ["q", "o", "qk", "ov"])
@pytest.mark.parametrize("n_clusters", [2, 3, 5])
def test_as_scikit_learn_on_the_raw_vectors(feature, n_clusters):
    weights = random_heads(10, seed=3)
    centres = random_heads(n_clusters, seed=7)
    pick = torch.arange(10) % n_clusters
    moved = {
        name: getattr(weights, name) + 2 * getattr(centres, name)[pick]
        for name in ("W_Q", "W_K", "W_V", "W_O")
    }
    heads = HeadWeights(**moved)
    raw = {
        "q": heads.W_Q,
        "o": heads.W_O,
        "qk": heads.W_Q @ heads.W_K.mT,
        "ov": heads.W_V @ heads.W_O,
    }[feature].flatten(1)
    found = cluster_heads(heads, feature=feature, n_clusters=n_clusters, n_null=19)
    oracle = KMeans(n_clusters, n_init=10, random_state=0).fit(raw.numpy())
    assert adjusted_rand_score(found.labels, oracle.labels_) == 1
    assert found.silhouette == pytest.approx(silhouette_score(raw, oracle.labels_), abs=1e-5)


@pytest.mark.parametrize("norm", [2.0, 3.0, 4.0])
def test_one_long_head_is_not_a_finding(norm):
    """By the study's words strong from 3 on; the null and unit norms say otherwise."""
    p_values = []
    for seed in range(4):
        found = cluster_heads(heads_from_rows(long_head_rows(norm, seed)), feature="q", n_null=99)
        closed = 11 / 12 * (1 - np.sqrt(2) / np.sqrt(1 + norm**2))
        assert found.silhouette == pytest.approx(closed, abs=0.01)
        assert found.sizes == (11, 1)
        assert found.null_mean == pytest.approx(found.silhouette, abs=0.01)
        p_values.append(found.p_value)
    assert np.mean(p_values) > 0.1
    assert study_word(found.silhouette) == ("moderate" if norm == 2 else "strong")
    words = found.summary()
    assert "clusters of 11 and 1" in words
    assert f"single head (L0H6) of {norm:.2f} times the others' norm" in words
    assert f"have silhouette {closed:.3f} from the norm alone" in words
    assert found.verdict in words
    assert ("clearer than the null" in words) == (found.p_value < 0.05)
    naive = cluster_heads(  # negative control: without the norms in the null it is "significant"
        heads_from_rows(long_head_rows(norm)), feature="q", null="permuted", n_null=99
    )
    assert naive.p_value == 0.01
    unit = cluster_heads(heads_from_rows(long_head_rows(norm)), feature="q", unit_norm=True)
    assert unit.silhouette < 0.05


def test_below_the_null_is_not_called_indistinguishable():
    """Two real groups, less clear than one long head would be by its length."""
    rows = planted_rows(12, 3000, gap=0.7, seed=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[0] *= 1.6
    found = cluster_heads(heads_from_rows(rows), feature="q", n_null=199)
    below = found.metrics["silhouette"].p_below
    assert found.p_value > 0.95
    assert below < 0.05
    assert found.verdict == "less clear than the null"
    words = found.summary()
    assert f"less clear than the null. (Lower tail: p = {below:.2g}.)" in words
    assert "Long heads set this null: unit_norm=True looks past norms." in words
    assert "not distinguishable" not in words
    unit = cluster_heads(heads_from_rows(rows), feature="q", n_null=199, unit_norm=True)
    assert unit.verdict == "clearer than the null at p < .05"
    noise = cluster_heads(heads_from_rows(planted_rows(12, 300, gap=0, seed=3)), feature="q")
    assert noise.verdict == "not distinguishable from the null"


def test_a_significant_trifle_is_called_small():
    rows = long_head_rows(4.0)
    rows[:6] += 0.02 * rows[:6].sum(0)
    found = cluster_heads(heads_from_rows(rows), feature="q", n_null=99)
    assert found.sizes == (11, 1)
    assert found.p_value < 0.05
    assert abs(found.excess) < 0.05
    assert f"though by {found.excess:.3f} only." in found.summary()


def test_the_words_of_the_study():
    assert [study_word(x) for x in (0.51, 0.5, 0.3, 0.29)] == [
        "strong",
        "moderate",
        "moderate",
        "weak or none",
    ]
    assert [study_separation_word(x) for x in (2.1, 2.0, 0.9, np.nan)] == [
        "well separated",
        "moderate",
        "poor",
        "not defined",
    ]
    found = cluster_heads(heads_from_rows(planted_rows(8, 100, gap=3, seed=0)), feature="q")
    words = found.summary()
    assert "the study would call this clustering" in words
    assert "clearer than the null at p < .05" in words
    assert "that ratio has no scale" in words
    without = cluster_heads(random_heads(8), null=None)
    assert "No null was drawn" in without.summary()
    assert without.verdict == "not tested"
    assert np.isnan(without.p_value)


@given(st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_labels_do_not_depend_on_the_gauge_or_the_order_of_heads(seed):
    weights = random_heads(7, seed=seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    A = torch.linalg.qr(torch.randn(7, 4, 4, generator=generator, dtype=torch.float64))[0]
    turned = random_heads(7, W_Q=weights.W_Q @ A, W_K=weights.W_K @ A)
    plain = cluster_heads(random_heads(7, W_Q=weights.W_Q, W_K=weights.W_K), n_null=19)
    again = cluster_heads(turned, n_null=19)
    assert (plain.labels == again.labels).all()
    assert again.silhouette == pytest.approx(plain.silhouette, abs=1e-6)
    order = torch.randperm(7, generator=generator)
    mixed = random_heads(7, W_Q=weights.W_Q[order], W_K=weights.W_K[order])
    assert adjusted_rand_score(cluster_heads(mixed, n_null=19).labels, plain.labels[order]) == 1


def test_number_of_clusters_by_silhouette():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((12, 200)) + 3 * np.repeat(rng.standard_normal((4, 200)), 3, 0)
    found = cluster_heads(heads_from_rows(rows), feature="q", n_clusters="silhouette", n_null=99)
    assert found.n_clusters == 4
    assert found.sizes == (3, 3, 3, 3)
    assert found.chosen == "silhouette"
    assert found.p_value == 0.01
    limited = cluster_heads(
        heads_from_rows(rows),
        feature="q",
        n_clusters="silhouette",
        n_null=19,
        options=ClusterOptions(max_clusters=3),
    )
    assert limited.n_clusters <= 3


def test_dbscan_noise_and_nothing_found():
    rows = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [50.0]]) * np.ones((1, 5))
    options = ClusterOptions(eps=1.0)
    found = cluster_heads(
        heads_from_rows(rows), feature="q", method="dbscan", options=options, n_null=99
    )
    assert found.labels.tolist() == [0, 0, 0, 1, 1, -1]
    assert found.sizes == (3, 2)
    inside = found.labels >= 0
    assert found.silhouette == pytest.approx(silhouette_score(rows[inside], found.labels[inside]))
    assert "1 in none" in found.summary()
    for eps, sizes in [(1e-6, ()), (1e6, (6,))]:
        nothing = cluster_heads(
            heads_from_rows(rows),
            feature="q",
            method="dbscan",
            options=ClusterOptions(eps=eps),
            n_null=99,
        )
        assert nothing.sizes == sizes
        assert np.isnan(nothing.silhouette)
        assert nothing.p_value == 1
        assert nothing.verdict == "no clusters found"
        assert "need two and are nan" in nothing.summary()
        assert len(nothing.to_frame())


@pytest.mark.parametrize("method", ["kmeans", "ward", "dbscan"])
def test_identical_and_zero_heads(method):
    same = random_heads(4, W_Q=torch.ones(4, 24, 4))
    found = cluster_heads(same, feature="q", method=method, n_null=19)
    assert "identical" in found.summary()
    assert not found.silhouette > 0
    W_Q = random_heads(4).W_Q
    W_Q[1] = 0
    found = cluster_heads(random_heads(4, W_Q=W_Q), feature="q", method=method, n_null=19)
    assert "zeros in rows [1]" in found.summary()
    assert np.isfinite(found.null_mean) or method == "dbscan"


def test_frame_is_tidy():
    weights = random_heads(6, model="m", step=64, layer=3, processing="fold_ln")
    found = cluster_heads(weights, previous=random_heads(6, seed=1), n_null=99, seed=5)
    frame = found.to_frame()
    assert list(frame.columns[:11]) == list(results.TIDY_COLUMNS)
    row = frame.set_index("metric").loc["silhouette"]
    assert row["value"] == found.silhouette
    assert (row["null_mean"], row["p"]) == (found.null_mean, found.p_value)
    assert (row["step"], row["layer"], row["n"], row["seed"]) == (64, 3, 6, 5)
    assert row["processing"] == "fold_ln"
    per_head = frame[frame["head"].notna()]
    assert set(per_head["metric"]) == {
        "cluster",
        "head_silhouette",
        "head_norm",
        "head_weight_divergence",
    }
    assert per_head.groupby("metric").size().eq(6).all()
    assert set(frame[frame["head"].isna()]["metric"]) == set(found.metrics)
    assert not frame[frame["head"].isna()]["metric"].duplicated().any()


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_saved_and_loaded(tmp_path, suffix):
    found = cluster_heads(random_heads(5), n_null=19)
    loaded = results.load(results.save(found, tmp_path / f"x.{suffix}"))
    assert loaded.metrics["silhouette"] == found.metrics["silhouette"]
    assert (loaded.labels == found.labels).all()


def test_the_same_again_with_the_same_seed_and_without_side_effects():
    weights = random_heads(14)
    before = weights.W_Q.clone()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = cluster_heads(weights, n_clusters=3, n_null=50)
    assert (torch.get_rng_state() == state).all()
    assert (before == weights.W_Q).all()
    assert one.to_frame().equals(cluster_heads(weights, n_clusters=3, n_null=50).to_frame())


def test_several_layers_together():
    layers = [random_heads(4, seed=i, layer=i) for i in range(3)]
    found = cluster_heads(layers, n_clusters=3, n_null=19)
    assert len(found.labels) == 12
    assert found.layer is None
    heads = found.to_frame().query("metric == 'cluster'")
    assert heads["layer"].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_errors_name_what_is_wrong(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong words through
    weights = random_heads(5)
    for n_clusters in (1, 5, 0, "best"):
        with pytest.raises(InputError, match="n_clusters from 2 to 4 for 5"):
            cluster_heads(weights, n_clusters=n_clusters)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'kmeans', 'ward' or 'dbscan'"):
        cluster_heads(weights, method="spectral")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 3"):
        cluster_heads(random_heads(2))
    with pytest.raises(InputError, match="null 'norm_matched'"):
        cluster_heads(weights, null="shuffled")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="with 5 heads"):
        cluster_heads(weights, previous=random_heads(4))
    bad = random_heads(5)
    bad.W_K[2] = float("inf")
    with pytest.raises(InputError, match=r"heads \[2\]"):
        cluster_heads(bad)
