"""Topics by K-means: what their figures say with and without clusters."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from headspec.errors import InputError
from headspec.training.corpus_topics import find_topics


def cloud(seed: int, *, n: int = 120, dimensions: int = 6, centres: int = 1) -> np.ndarray:
    """Unit vectors around one or several centres."""
    rng = np.random.default_rng(seed)
    means = 3.0 * rng.standard_normal((centres, dimensions))
    spread = rng.standard_normal((dimensions, dimensions)) / np.sqrt(dimensions)
    vectors = means[np.arange(n) % centres] + rng.standard_normal((n, dimensions)) @ spread
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def texts(n: int) -> list[str]:
    words = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot"]
    return [f"{words[i % 6]} {words[(i + 1) % 6]}" for i in range(n)]


def found(vectors: np.ndarray, **options):
    return find_topics(vectors, texts(len(vectors)), **({"n_topics": 3, "n_null": 19} | options))


def test_one_cloud_is_rarely_called_clusters():
    """The null holds its level: p at most .05 in about one of twenty clouds without clusters."""
    p = [found(cloud(seed, n=60)).silhouette.p_value for seed in range(16)]
    assert sum(value <= 0.05 for value in p) <= 3  # more in one run of 140 at the level
    assert 0.25 < np.mean(p) < 0.8


def test_three_clouds_are_told_from_one():
    topics = found(cloud(0, centres=3), sources=[str(i % 3) for i in range(120)])
    assert topics.silhouette.p_value == pytest.approx(1 / 20)
    assert topics.stability.observed > 0.95
    assert topics.source_agreement > 0.95
    assert max(topics.sizes) - min(topics.sizes) <= 4


def test_the_silhouette_is_scikit_learns():
    vectors = cloud(1, centres=3)
    topics = found(vectors)
    assert topics.silhouette.observed == pytest.approx(
        silhouette_score(vectors, topics.labels), abs=1e-6
    )


def test_a_silhouette_alone_would_find_topics_in_one_cloud():
    """Without the null a number well above 0 stands for nothing at all."""
    topics = found(cloud(2), n_null=0)
    assert topics.silhouette.observed > 0.15
    assert np.isnan(topics.silhouette.p_value)


def test_words_of_topics():
    vectors = np.eye(3, dtype=np.float32)[np.arange(30) % 3]
    vectors = vectors + 0.01 * cloud(0, n=30, dimensions=3)
    words = ["apple pear", "river stone", "violin drum"]
    topics = find_topics(vectors, [words[i % 3] for i in range(30)], n_topics=3, n_null=1)
    assert {frozenset(terms[:2]) for terms in topics.top_terms} == {
        frozenset(one.split()) for one in words
    }


def test_too_few_passages():
    with pytest.raises(InputError, match="more passages than topics"):
        found(cloud(0, n=3))
    with pytest.raises(InputError, match="at least two topics"):
        found(cloud(0), n_topics=1)
