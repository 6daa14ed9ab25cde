"""Each number of a clustering beside its null draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from headspec.errors import InputError
from headspec.head_tensors import HeadWeights
from headspec.stats import NullSummary, summarise_null
from headspec.weights.cluster_algorithm import SMALLEST_FOR_STABILITY, ClusterAlgorithm
from headspec.weights.cluster_metrics import adjusted_rand, has_p_value, partition_metrics
from headspec.weights.cluster_nulls import (
    NULLS,
    initialisation_distances,
    norm_matched_distances,
    permuted_distances,
)
from headspec.weights.features import HeadFactors, head_factors
from headspec.weights.similarity import (
    HeadSimilarity,
    head_similarity,
    paired_distances,
    vector_norms,
)
from headspec.weights.value_profiles import value_profiles

Weights = HeadWeights | Sequence[HeadWeights]
_STABILITY_DRAWS = 200  # null draws that are resampled too


def null_distances(
    null: str | None,
    similarity: HeadSimilarity,
    factors: HeadFactors | None,
    *,
    n_draws: int,
    seed: int,
    reference: HeadWeights | float | int | None,
) -> np.ndarray | None:
    """Distances `draw head head` under a null; None for none.

    Raises:
        InputError: unknown null, fewer than 19 draws, or what it needs is missing.
    """
    if null is None:
        return None
    if null not in NULLS or n_draws < 19:
        raise InputError(
            expected=f"null {', '.join(map(repr, NULLS))} or None, with n_null of 19 or more",
            got=f"null={null!r}, n_null={n_draws}",
            fix="p cannot go below 1 / (1 + n_null); 1000 draws take milliseconds.",
        )
    if null == "norm_matched":
        return norm_matched_distances(similarity, n_draws=n_draws, seed=seed)
    if null == "initialisation":
        return initialisation_distances(similarity, n_draws=n_draws, seed=seed, reference=reference)
    if factors is None:
        raise InputError(
            expected="head weights for null='permuted'",
            got="a HeadSimilarity, which has no coordinates to permute",
            fix="Pass the HeadWeights, or use null='norm_matched'.",
        )
    unit_norm = similarity.unit_norm
    if unit_norm:
        factors = factors.scaled(1 / similarity.norms)
    elif not 1e-30 < np.diag(similarity.gram).max() < 1e36:  # beyond float32 when squared
        factors = factors.astype(torch.float64)
    blocks = (block.numpy() for block in factors.blocks())
    return permuted_distances(blocks, unit_norm=unit_norm, n_draws=n_draws, seed=seed)


def metrics_with_null(
    similarity: HeadSimilarity,
    labels: np.ndarray,
    draws: np.ndarray | None,
    null_labels: np.ndarray | None,
) -> tuple[dict[str, NullSummary], np.ndarray]:
    """The metrics of `partition_metrics` with their nulls, and the null's silhouettes."""
    size = similarity.n_features
    observed = partition_metrics(similarity.distances[None], labels, n_features=size)
    if draws is None or null_labels is None:
        return {
            name: NullSummary.bare(float(value[0])) for name, value in observed.items()
        }, np.empty(0)
    null = partition_metrics(draws, null_labels, n_features=size)
    metrics = {
        name: against_null(name, float(value[0]), null[name], unit_norm=similarity.unit_norm)
        for name, value in observed.items()
    }
    return metrics, null["silhouette"]


def stability_with_null(
    algorithm: ClusterAlgorithm,
    distances: np.ndarray,
    labels: np.ndarray,
    draws: np.ndarray | None,
    null_labels: np.ndarray | None,
) -> NullSummary:
    """Agreement of clusters with those of subsets of heads; the null's from 200 of its draws."""
    observed = float(algorithm.stability(distances[None], labels)[0])
    if draws is None or null_labels is None or len(labels[0]) < SMALLEST_FOR_STABILITY:
        return NullSummary.bare(observed)
    some = slice(0, _STABILITY_DRAWS)
    null = algorithm.stability(draws[some], null_labels[some])
    return summarise_null(observed, null)


def wasserstein_with_null(
    factors: HeadFactors | None,
    similarity: HeadSimilarity,
    labels: np.ndarray,
    null_labels: np.ndarray | None,
) -> NullSummary:
    """Wasserstein distance between clusters' weights, from all values; nan without weights.

    Its null: these heads' values, split as the clusters of the null draws are, on a grid of
    quantiles (within about a percent). No p, see `has_p_value`: with norms as they are the null
    splits off the longest head, and under `"initialisation"` it has no tie to the heads' norms
    and is rejected too often (.15 at level .05 where it holds).
    """
    if factors is None:
        return NullSummary.bare(float("nan"))
    if similarity.unit_norm:
        factors = factors.scaled(1 / similarity.norms)
    profiles = value_profiles(factors)
    observed = profiles.wasserstein(labels)
    if null_labels is None or np.isnan(observed):
        return NullSummary.bare(observed)
    null, _ = profiles.grid_distances(null_labels)
    return against_null("wasserstein", observed, null, unit_norm=similarity.unit_norm)


def against_previous(
    algorithm: ClusterAlgorithm,
    similarity: HeadSimilarity,
    factors: HeadFactors | None,
    labels: np.ndarray,
    previous: Weights,
) -> tuple[dict[str, NullSummary], np.ndarray | None]:
    """`ari_previous`, and from weights `weight_divergence`; also the divergence of each head.

    Divergence is the Frobenius norm of the change over the norm before; for products it is that
    of W_Q W_K^T or W_V W_O, which a change of basis inside the head leaves alone.
    """
    before = head_similarity(previous, feature=similarity.feature, unit_norm=similarity.unit_norm)
    old = head_factors(previous, similarity.feature)
    if before.heads != similarity.heads or before.n_features != similarity.n_features:
        raise InputError(
            expected=f"a previous checkpoint with {len(similarity.heads)} heads of "
            f"{similarity.n_features} coordinates",
            got=f"{len(before.heads)} heads of {before.n_features}",
            fix="Pass the same layers of the same model at an earlier step.",
        )
    old_labels = algorithm.labels(before.distances[None])[0]
    found = {"ari_previous": NullSummary.bare(float(adjusted_rand(labels, old_labels)))}
    if factors is None:
        return found, None
    change, scale = paired_distances(factors, old), vector_norms(old)
    total = float(np.linalg.norm(scale))
    found["weight_divergence"] = NullSummary.bare(
        float(np.linalg.norm(change)) / total if total > 0 else float("nan")
    )
    nothing = np.full(len(scale), np.nan)
    return found, np.divide(change, scale, out=nothing, where=scale > 0)


def against_null(
    name: str, observed: float | int, null: np.ndarray, *, unit_norm: bool
) -> NullSummary:
    """A metric beside its null draws; with a p-value where it has one (see `has_p_value`)."""
    found = summarise_null(observed, null)
    if has_p_value(name, unit_norm=unit_norm):
        return found
    return replace(found, p_value=float("nan"), p_below=float("nan"))
