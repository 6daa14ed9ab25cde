"""Topics of passages by K-means, with figures that say what they are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.errors import InputError
from headspec.results import tidy
from headspec.stats import NullSummary, permutation_p

_SAMPLE = 2000  # passages on which silhouette and stability are measured
_RESTARTS = 5


@dataclass(frozen=True)
class CorpusTopics:
    """Topics of passages and the quality of the partition.

    Attributes:
        labels: topic of each passage, 0 the largest.
        sizes: passages in each topic.
        top_terms: words of each topic that are rarer elsewhere.
        silhouette: mean silhouette of a sample, with what passages without clusters give.
        stability: mean adjusted Rand index between K-means runs from different starts, likewise.
        source_agreement: adjusted mutual information with the sources of the documents (1: the
            topics are the sources, 0: unrelated); nan with fewer than two sources.
        seed: of everything.

    What the figures do not show: that topics are meanings. A small p says that passages are not a
    single cloud; it would also be small for one cloud of another shape.
    """

    labels: Int[np.ndarray, " passage"]
    sizes: tuple[int, ...]
    top_terms: tuple[tuple[str, ...], ...]
    silhouette: NullSummary
    stability: NullSummary
    source_agreement: float
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows: silhouette, stability, source_agreement; then `size` for each topic.

        Extra columns: topic, terms. `n` counts passages.
        """
        rows = [
            {
                "metric": name,
                "value": one.observed,
                "null_mean": one.mean,
                "null_sd": one.sd,
                "p": one.p_value,
            }
            for name, one in (("silhouette", self.silhouette), ("stability", self.stability))
        ]
        rows.append({"metric": "source_agreement", "value": self.source_agreement})
        rows += [
            {"metric": "size", "value": float(size), "topic": topic, "terms": " ".join(terms)}
            for topic, (size, terms) in enumerate(zip(self.sizes, self.top_terms, strict=True))
        ]
        return tidy(rows, n=len(self.labels), seed=self.seed)

    def summary(self) -> str:
        """Sizes and words of the topics, and what the null says, in plain sentences."""
        lines = [
            f"{len(self.labels):,} passages in {len(self.sizes)} topics. Silhouette "
            f"{self.silhouette.observed:.3f} (a cloud of the same mean and covariance: "
            f"{self.silhouette.mean:.3f}, p = {self.silhouette.p_value:.2g}); adjusted Rand index "
            f"between starts {self.stability.observed:.2f} ({self.stability.mean:.2f}, "
            f"p = {self.stability.p_value:.2g}); agreement with sources "
            f"{self.source_agreement:.2f}."
        ]
        lines += [
            f"Topic {topic}: {size:,} passages; {', '.join(terms)}."
            for topic, (size, terms) in enumerate(zip(self.sizes, self.top_terms, strict=True))
        ]
        return "\n".join(lines)


def find_topics(
    vectors: Float[np.ndarray, "passage dimension"],
    passages: Sequence[str],
    *,
    n_topics: int,
    sources: Sequence[str] = (),
    n_null: int = 50,
    seed: int = 0,
) -> CorpusTopics:
    """Cluster passages with K-means and measure the partition against a null.

    The null draws vectors from a normal distribution of the same mean and covariance, scaled to
    unit length, and sends them through the same algorithm: a cloud without clusters that has
    all that two moments can say. Silhouette and stability are measured on a sample of at
    most 2,000 passages, clustered alike for data and null.

    Args:
        vectors: unit vectors, see `embed_passages`.
        passages: their texts, for the words of topics.
        n_topics: clusters.
        sources: of each passage's document, or nothing.
        n_null: draws.
        seed: of starts, sample and draws.

    Raises:
        InputError: for fewer than two topics, or not more passages than topics.

    References:
        Rousseeuw 1987, "Silhouettes"; Hubert and Arabie 1985, "Comparing partitions".
    """
    if not 2 <= n_topics < len(passages):
        raise InputError(
            expected="at least two topics and more passages than topics",
            got=f"n_topics={n_topics} and {len(passages)} passages",
            fix="Choose fewer topics, or give more documents.",
        )
    from sklearn.metrics import adjusted_mutual_info_score

    labels = _by_size(_kmeans(vectors, n_topics, seed=seed, starts=_RESTARTS))
    sample = np.random.default_rng(seed).permutation(len(vectors))[:_SAMPLE]
    observed = _quality(vectors[sample], n_topics, seed=seed)
    draws = [
        _quality(cloud, n_topics, seed=seed)
        for cloud in _clouds(vectors, len(sample), n_null, seed=seed)
    ]
    agreement = (
        float(adjusted_mutual_info_score(list(sources), labels))
        if len(set(sources)) > 1
        else float("nan")
    )
    return CorpusTopics(
        labels=labels,
        sizes=tuple(np.bincount(labels, minlength=n_topics).tolist()),
        top_terms=_top_terms(passages, labels, n_topics),
        silhouette=_summarise(observed[0], [draw[0] for draw in draws]),
        stability=_summarise(observed[1], [draw[1] for draw in draws]),
        source_agreement=agreement,
        seed=seed,
    )


def _kmeans(vectors: np.ndarray, n_topics: int, *, seed: int, starts: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    n_init: Any = starts
    return KMeans(n_topics, n_init=n_init, random_state=seed).fit_predict(vectors)


def _by_size(labels: np.ndarray) -> Int[np.ndarray, " passage"]:
    """Labels with 0 the largest cluster."""
    sizes = np.bincount(labels)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[labels]


def _quality(vectors: np.ndarray, n_topics: int, *, seed: int) -> tuple[float, float]:
    """Silhouette of one run; mean adjusted Rand index between three runs."""
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    runs = [_kmeans(vectors, n_topics, seed=seed + run, starts=1) for run in range(3)]
    pairs = [adjusted_rand_score(a, b) for a, b in combinations(runs, 2)]
    return float(silhouette_score(vectors, runs[0])), float(np.mean(pairs))


def _clouds(vectors: np.ndarray, n: int, draws: int, *, seed: int) -> Iterator[np.ndarray]:
    """Unit vectors from a normal distribution of the same mean and covariance."""
    mean = vectors.mean(axis=0)
    _, scales, directions = np.linalg.svd(vectors - mean, full_matrices=False)
    shape = scales[:, None] * directions / np.sqrt(max(1, len(vectors) - 1))
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        cloud = mean + rng.standard_normal((n, len(scales)), dtype=np.float32) @ shape
        yield cloud / np.linalg.norm(cloud, axis=1, keepdims=True)


def _summarise(observed: float, draws: Sequence[float]) -> NullSummary:
    if not draws:
        return NullSummary.bare(observed)
    q05, q50, q95 = np.quantile(draws, [0.05, 0.5, 0.95])
    return NullSummary(
        observed,
        float(np.mean(draws)),
        float(np.std(draws, ddof=1)) if len(draws) > 1 else float("nan"),
        float(q05),
        float(q50),
        float(q95),
        p_value=permutation_p(observed, draws),
        n=len(draws),
        p_below=permutation_p(observed, draws, alternative="less"),
    )


def _top_terms(
    passages: Sequence[str], labels: np.ndarray, n_topics: int, *, n_terms: int = 8
) -> tuple[tuple[str, ...], ...]:
    """Words whose mean TF-IDF weight is furthest above that of the other topics."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        stop_words="english",
        sublinear_tf=True,
        max_features=20_000,
        token_pattern=r"(?u)\b[^\W\d_]{3,}\b",
    )
    weights = vectorizer.fit_transform(passages)
    names = vectorizer.get_feature_names_out()
    terms = []
    for topic in range(n_topics):
        here = labels == topic
        inside = np.asarray(weights[here].mean(axis=0)).ravel()
        outside = np.asarray(weights[~here].mean(axis=0)).ravel()
        terms.append(tuple(str(names[i]) for i in np.argsort(outside - inside)[:n_terms]))
    return tuple(terms)
