"""Cluster the heads of a layer, and say what a null gives instead."""

from __future__ import annotations

from typing import Literal

import numpy as np

from headspec.head_tensors import HeadWeights
from headspec.stats import NullSummary
from headspec.weights.cluster_algorithm import ClusterAlgorithm, ClusterOptions, cluster_algorithm
from headspec.weights.cluster_evidence import (
    Weights,
    against_previous,
    metrics_with_null,
    null_distances,
    stability_with_null,
    wasserstein_with_null,
)
from headspec.weights.cluster_metrics import silhouette_samples
from headspec.weights.cluster_nulls import Null
from headspec.weights.cluster_result import HeadClustering
from headspec.weights.features import Feature, head_factors
from headspec.weights.partitions import Method
from headspec.weights.similarity import HeadSimilarity, head_similarity


def cluster_heads(
    weights: Weights | HeadSimilarity,
    *,
    feature: Feature = "qk",
    n_clusters: int | Literal["silhouette"] = 2,
    method: Method = "kmeans",
    null: Null | None = "norm_matched",
    n_null: int = 1000,
    seed: int = 0,
    unit_norm: bool = False,
    previous: Weights | None = None,
    reference: HeadWeights | float | int | None = None,
    options: ClusterOptions | None = None,
) -> HeadClustering:
    """Cluster attention heads by their weights and test the result against a null.

    Works on the distances between heads, where clustering 12 heads of 589,824 coordinates is
    exact and takes microseconds. Data and null draws go through the same algorithm and the same
    choice of the number of clusters, so that p = (1 + #{null >= observed}) / (1 + n_null) holds
    its level. Metrics that test clusters have their own p, unadjusted; the others have nan.

    A small p with `"norm_matched"` says that the directions of the heads are not unrelated: by
    clusters; by one pair of similar heads; by all heads sharing a direction that their norms then
    spread out; or by independent heads that all prefer the same few residual directions (outlier
    dimensions, folded layer-norm gains), for it tests against directions uniform in all of them.
    The last alone can reject always, at an excess of some .02 to .08 (column scales lognormal(1),
    d_model 64). Look at `excess`, `sizes` and `stability`, not at p alone.

    **It does not show** that clusters do different things; weights alone cannot. For what the
    vectors leave out see `head_similarity`. K-means is exact for two clusters of at most 13
    heads; beyond that it is the best of `n_init` starts, which need not be the same optimum as
    scikit-learn finds.

    Args:
        weights: one layer, several layers, or their `HeadSimilarity` (which has its own `feature`
            and `unit_norm`, and no weights for `null="permuted"`, Wasserstein and divergence).
        feature: what stands for a head; `"qk"` and `"ov"` do not depend on the gauge.
        n_clusters: 2 to n - 1, or `"silhouette"`: the number with the best silhouette.
        method: `"kmeans"`, `"ward"`, or `"dbscan"` (which finds the number itself).
        null: `"norm_matched"`, `"initialisation"`, `"permuted"` (see `cluster_nulls`) or None.
        n_null: draws of the null.
        seed: of null draws, k-means starts and resampling.
        unit_norm: cluster directions only.
        previous: the heads at the checkpoint before: adds `weight_divergence` (relative Frobenius
            norm of the change) and `ari_previous` (adjusted Rand index with its clusters).
        reference: for the initialisation null: heads of step 0, or the standard deviation of the
            initial weights.
        options: `ClusterOptions`: k-means starts, DBSCAN radius, resampling.

    Returns:
        A `HeadClustering`; `.summary()` says it in words.

    Raises:
        InputError: impossible number of clusters, weights that are not finite, a null whose
            inputs are missing, or a previous checkpoint of another shape.

    Example:
        >>> import torch, headspec as hs
        >>> W = torch.randn(6, 32, 4, generator=torch.Generator().manual_seed(0))
        >>> found = hs.cluster_heads(hs.HeadWeights(W_Q=W, W_K=W, W_V=W, W_O=W.mT), feature="q")
        >>> sum(found.sizes), found.null
        (6, 'norm_matched')
    """
    if isinstance(weights, HeadSimilarity):
        similarity, factors = weights, None
    else:
        similarity = head_similarity(weights, feature=feature, unit_norm=unit_norm)
        factors = head_factors(weights, feature)
    algorithm = cluster_algorithm(
        len(similarity.norms), n_clusters, method=method, options=options, seed=seed
    )
    labels = algorithm.labels(similarity.distances[None])
    draws = null_distances(
        null, similarity, factors, n_draws=n_null, seed=seed, reference=reference
    )
    null_labels = None if draws is None else algorithm.labels(draws)
    metrics, null_silhouettes = metrics_with_null(similarity, labels, draws, null_labels)
    if algorithm.options.n_resamples > 0:
        metrics["stability"] = stability_with_null(
            algorithm, similarity.distances, labels, draws, null_labels
        )
    metrics["wasserstein"] = wasserstein_with_null(factors, similarity, labels[0], null_labels)
    divergence = None
    if previous is not None:
        found, divergence = against_previous(algorithm, similarity, factors, labels[0], previous)
        metrics |= found
    return _result(
        algorithm, similarity, labels[0], metrics, null_silhouettes, divergence, null=null
    )


def _result(
    algorithm: ClusterAlgorithm,
    similarity: HeadSimilarity,
    labels: np.ndarray,
    metrics: dict[str, NullSummary],
    null_silhouettes: np.ndarray,
    divergence: np.ndarray | None,
    *,
    null: str | None,
) -> HeadClustering:
    sizes = tuple(int(size) for size in np.bincount(labels[labels >= 0]))
    metrics["smallest_cluster"] = NullSummary.bare(float(min(sizes, default=float("nan"))))
    found = metrics["silhouette"]
    return HeadClustering(
        labels=labels,
        sizes=sizes,
        silhouette=found.observed,
        null_mean=found.mean,
        null_sd=found.sd,
        null_quantiles=(found.q05, found.q50, found.q95),
        p_value=found.p_value,
        metrics=metrics,
        head_silhouettes=silhouette_samples(similarity.distances[None], labels[None])[0],
        null_silhouettes=null_silhouettes,
        distances=similarity.distances,
        norms=similarity.norms,
        head_divergence=divergence,
        feature=similarity.feature,
        unit_norm=similarity.unit_norm,
        method=algorithm.method,
        n_clusters=len(sizes),
        chosen=algorithm.chosen,
        null=null,
        n_null=len(null_silhouettes),
        seed=algorithm.seed,
        n_features=similarity.n_features,
        layers=similarity.layers,
        heads=similarity.heads,
        notes=_notes(sizes, similarity),
        model=similarity.model,
        step=similarity.step,
        layer=similarity.layer,
        processing=similarity.processing,
    )


def _notes(sizes: tuple[int, ...], similarity: HeadSimilarity) -> tuple[str, ...]:
    """Why numbers are missing, or do not mean what they seem to."""
    notes = []
    if len(sizes) < 2:
        notes.append(
            f"Found {len(sizes)} clusters: silhouette and separation need two and are nan."
        )
    if not similarity.distances.any():
        notes.append("All heads are identical: clusters are arbitrary.")
    zero = np.flatnonzero(similarity.norms == 0)
    if len(zero):
        notes.append(f"Heads of zeros in rows {zero.tolist()}.")
    return tuple(notes)
