"""Clusters of the rows of any matrix."""

import jaxtyping
import numpy as np
import pytest
import torch
from random_heads import planted_rows, rejection_bounds
from sklearn.metrics import adjusted_rand_score, silhouette_score

from headspec import ClusterOptions, cluster_rows, results
from headspec.errors import InputError


def test_few_rows_are_all_tested():
    rows = planted_rows(40, 60, gap=3, seed=0)
    found = cluster_rows(rows)
    assert found.labels.tolist() == [0] * 20 + [1] * 20
    assert found.silhouette == found.tested_silhouette
    assert found.silhouette == pytest.approx(silhouette_score(rows, found.labels))
    assert len(found.tested_rows) == 40
    assert found.p_value == 0.01


@pytest.mark.parametrize("method", ["kmeans", "ward", "dbscan"])
def test_many_rows_are_tested_on_a_subset(method):
    rows = planted_rows(600, 30, gap=3, seed=0)
    options = ClusterOptions(eps=9.0, min_samples=5, n_init=2)
    found = cluster_rows(
        torch.from_numpy(rows).float(), n_tested=60, n_null=39, method=method, options=options
    )
    inside = found.labels >= 0
    true = np.repeat([0, 1], 300)
    assert adjusted_rand_score(found.labels[inside], true[inside]) == 1
    assert inside.mean() > 0.9
    assert len(set(found.tested_rows.tolist())) == 60
    assert found.p_value == 1 / 40
    assert found.silhouette == pytest.approx(
        silhouette_score(rows[inside], found.labels[inside]), abs=1e-5
    )


@pytest.mark.parametrize("null", ["norm_matched", "permuted"])
@pytest.mark.parametrize("unit_norm", [False, True])
def test_p_holds_its_level(null, unit_norm, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # for speed
    rng = np.random.default_rng(0)
    options = ClusterOptions(n_init=2)
    count = 0
    for trial in range(80):
        rows = rng.standard_normal((12, 8))
        if null == "norm_matched":
            rows *= rng.uniform(0.5, 3, (12, 1))
        count += (
            cluster_rows(
                rows, null=null, unit_norm=unit_norm, n_null=39, seed=trial, options=options
            ).p_value
            <= 0.05
        )
    low, high = rejection_bounds(80, 0.05)
    assert low <= count <= high


def test_a_few_long_rows_are_not_a_finding():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 2000))
    rows[7] *= 6
    found = cluster_rows(rows, n_null=39)
    assert found.sizes == (59, 1)
    assert found.silhouette > 0.7  # "strong"
    assert found.null_mean == pytest.approx(found.silhouette, abs=0.02)


def test_frame_and_file(tmp_path):
    rows = planted_rows(30, 20, gap=3, seed=0)
    found = cluster_rows(rows, n_clusters="silhouette", n_tested=20, n_null=19, name="W_in")
    assert found.n_clusters == 2
    frame = found.to_frame()
    assert list(frame.columns[:11]) == list(results.TIDY_COLUMNS)
    by_metric = frame.set_index("metric")
    assert by_metric.loc["silhouette", "value"] == found.tested_silhouette
    assert by_metric.loc["silhouette_all_rows", "value"] == found.silhouette
    assert (by_metric.loc["silhouette", "n"], by_metric.loc["silhouette_all_rows", "n"]) == (20, 30)
    assert (frame["matrix"] == "W_in").all()
    loaded = results.load(results.save(found, tmp_path / "x.json"))
    assert (loaded.labels == found.labels).all()
    assert np.isnan(cluster_rows(rows, null=None).p_value)


def test_errors_name_what_is_wrong(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong words through
    rows = np.random.default_rng(0).standard_normal((30, 4))
    with pytest.raises(InputError, match="n_clusters from 2 to 29"):
        cluster_rows(rows, n_clusters=30)
    with pytest.raises(InputError, match="null 'norm_matched', 'permuted'"):
        cluster_rows(rows, null="initialisation")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="DBSCAN radius for 30 rows"):
        cluster_rows(rows, method="dbscan", n_tested=10)
    bad = rows.copy()
    bad[3, 0] = np.nan
    with pytest.raises(InputError, match="in 1 rows"):
        cluster_rows(bad)
    rows[5] = 0
    with pytest.raises(InputError, match="1 rows of zeros"):
        cluster_rows(rows, unit_norm=True)
