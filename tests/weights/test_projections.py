"""PCA and t-SNE coordinates of heads."""

import jaxtyping
import numpy as np
import pytest
from random_heads import heads_from_rows, planted_rows, random_heads
from scipy.spatial.distance import pdist, squareform
from sklearn.decomposition import PCA

from headspec import head_similarity, project_heads, results
from headspec.errors import InputError


def test_pca_is_scikit_learns_on_the_raw_vectors():
    rows = np.random.default_rng(0).standard_normal((9, 50)) * np.linspace(0.2, 2, 50)
    found = project_heads(heads_from_rows(rows), feature="q", n_components=4)
    oracle = PCA(4, svd_solver="full").fit(rows)
    np.testing.assert_allclose(found.explained, oracle.explained_variance_ratio_)
    scores = oracle.transform(rows)
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(scores), atol=1e-9)
    largest = np.abs(found.coordinates).argmax(0)
    assert (found.coordinates[largest, np.arange(4)] > 0).all()


def test_all_components_keep_every_distance():
    weights = random_heads(6)
    similarity = head_similarity(weights, feature="qk")
    found = project_heads(similarity, n_components=5)
    distances = squareform(pdist(found.coordinates))
    np.testing.assert_allclose(distances, similarity.distances, rtol=1e-6)
    assert found.explained.sum() == pytest.approx(1)


def test_tsne_separates_planted_clusters_and_is_seeded():
    rows = planted_rows(12, 100, gap=4, seed=0)
    found = project_heads(heads_from_rows(rows), feature="q", method="tsne")
    assert found.perplexity == pytest.approx(11 / 3)
    distances = squareform(pdist(found.coordinates))
    assert distances[:6, :6].max() < distances[:6, 6:].min()
    again = project_heads(heads_from_rows(rows), feature="q", method="tsne")
    assert (again.coordinates == found.coordinates).all()


def test_frame_and_file(tmp_path):
    found = project_heads(random_heads(5, model="m", step=2, layer=1), unit_norm=True)
    frame = found.to_frame()
    assert list(frame.columns[:11]) == list(results.TIDY_COLUMNS)
    assert set(frame["metric"]) == {"pca_1", "pca_2"}
    first = frame.query("metric == 'pca_1'").sort_values("head")["value"]
    np.testing.assert_allclose(first, found.coordinates[:, 0])
    assert (frame["layer"] == 1).all()
    loaded = results.load(results.save(found, tmp_path / "x.parquet"))
    assert (loaded.coordinates == found.coordinates).all()


def test_identical_heads_lie_in_one_point():
    found = project_heads(heads_from_rows(np.ones((5, 3))), feature="q")
    assert not found.coordinates.any()
    assert not found.explained.any()


def test_errors_name_what_is_wrong(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong words through
    weights = random_heads(12)
    for perplexity in (30, 4.0, 0.5):
        with pytest.raises(InputError, match=r"\(heads - 1\) / 3 = 3.67 for 12 heads"):
            project_heads(weights, method="tsne", perplexity=perplexity)
    with pytest.raises(InputError, match="got 3 heads"):
        project_heads(random_heads(3), method="tsne")
    with pytest.raises(InputError, match="1 to 11 components"):
        project_heads(weights, n_components=12)
    with pytest.raises(InputError, match="method 'umap'"):
        project_heads(weights, method="umap")  # type: ignore[arg-type]
