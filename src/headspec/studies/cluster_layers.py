"""Clusters of heads in every layer of one checkpoint, and the layer that is worth a closer look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np
import pandas as pd

from headspec.checkpoints.suite import CheckpointSuite
from headspec.errors import InputError
from headspec.head_tensors import HeadWeights
from headspec.stats import false_discovery_rate
from headspec.weights.cluster_comparison import compare_clusters
from headspec.weights.cluster_result import HeadClustering, study_word
from headspec.weights.clustering import cluster_heads
from headspec.weights.features import Feature
from headspec.weights.projections import project_heads
from headspec.weights.similarity import head_similarity

_KINDS: tuple[Feature, ...] = ("q", "k", "v", "o")


def cluster_layers(
    suite: CheckpointSuite,
    *,
    step: int,
    layers: Sequence[int] | None = None,
    feature: Feature = "qk",
    unit_norm: bool = True,
    n_null: int = 2000,
    seed: int = 0,
) -> dict[int, HeadClustering]:
    """Two clusters in every layer of a checkpoint, each against its null.

    The null of a layer is drawn with the seed `seed + layer`, as `ClusterMeasure` does, so that
    the numbers are those of the first half of the study.

    Args:
        suite: where the checkpoint lies.
        step: which checkpoint.
        layers: which; None: all.
        feature, unit_norm, n_null: as in `cluster_heads`; `unit_norm` clusters directions.
        seed: of null draws.

    Returns:
        Layer -> `HeadClustering`.
    """
    chosen = range(suite.n_layers) if layers is None else layers
    return {
        layer: cluster_heads(
            suite.head_weights(step, layer),
            feature=feature,
            unit_norm=unit_norm,
            n_null=n_null,
            seed=seed + layer,
        )
        for layer in chosen
    }


def tabulate_layers(
    clusterings: Mapping[int, HeadClustering], *, alpha: float = 0.05
) -> pd.DataFrame:
    """One row a layer: its clusters, the study's word for them, and what their null says.

    Args:
        clusterings: of `cluster_layers`, drawn against a null.
        alpha: false discovery rate to accept.

    Returns:
        Columns `layer sizes silhouette study_word null_verdict null_mean null_sd p q` (adjusted
        over layers), `smaller` (heads of the last cluster, which is not the largest), `n_clusters`
        and `p_least` (the smallest p that the draws allow).
    """
    rows = [
        {
            "layer": layer,
            "sizes": " + ".join(map(str, one.sizes)),
            "silhouette": one.silhouette,
            "study_word": study_word(one.silhouette),
            "null_mean": one.null_mean,
            "null_sd": one.null_sd,
            "p": one.p_value,
        }
        for layer, one in clusterings.items()
    ]
    table = pd.DataFrame(rows)
    table["q"] = false_discovery_rate(table["p"].to_numpy(float))
    clear = (table["q"] <= alpha).to_numpy(bool)
    words = np.where(clear, "clustered", "not distinguishable")
    table.insert(int(table.columns.get_indexer(["study_word"])[0]) + 1, "null_verdict", words)
    table["smaller"] = [
        ", ".join(str(head) for head in np.array(one.heads)[one.labels == one.labels.max()])
        for one in clusterings.values()
    ]
    table["n_clusters"] = [len(one.sizes) for one in clusterings.values()]
    table["p_least"] = [1 / (1 + one.n_null) for one in clusterings.values()]
    return table


def clearest_layer(clusterings: Mapping[int, HeadClustering]) -> int:
    """The layer whose silhouette stands highest above the mean of its null.

    What it does not show: a layer chosen as the clearest of many has an excess that is too large
    by chance; its q-value is adjusted for the choice, its silhouette is not.

    Raises:
        InputError: when no layer has two clusters, or none was tested.
    """
    excess = {layer: one.excess for layer, one in clusterings.items()}
    known = {layer: value for layer, value in excess.items() if not np.isnan(value)}
    if not known:
        raise InputError(
            expected="a layer with two clusters and a null",
            got=f"none of {sorted(clusterings)}",
            fix="Cluster with null='norm_matched', or look at another feature.",
        )
    return max(known, key=lambda layer: known[layer])


def compare_weights(
    weights: HeadWeights,
    labels: Sequence[int] | np.ndarray,
    *,
    found_by: Feature,
    seed: int = 0,
) -> pd.DataFrame:
    """The study's statistical comparison of two clusters, for every kind of weight.

    Args:
        weights: heads of one layer.
        labels: cluster of each head.
        found_by: the feature that the clusters were found by.
        seed: of random relabellings.

    Returns:
        One row for `q`, `k`, `v` and `o`: `weights`, `independent` (not those that the clusters
        were found by, in which they differ by construction, so that p is too small), then the KS
        distance, Cohen's d of the weights and of the heads' norms with their p over relabelled
        heads (`..._p`), and beside them what the study's tests over all weights say
        (`ks_p_over_weights`, `t_p_over_weights`), which is no evidence.
    """
    labels = np.asarray(labels)
    rows = []
    for feature in _KINDS:
        found = compare_clusters(weights, labels, feature=feature, seed=seed)
        row = {"weights": feature, "independent": feature not in found_by}
        for name in ("ks_distance", "cohens_d", "norm_cohens_d"):
            row |= {name: found.effects[name].observed, f"{name}_p": found.effects[name].p_value}
        for name in ("ks_p_over_weights", "t_p_over_weights"):
            row[name] = found.over_weights[name]
        rows.append(row)
    return pd.DataFrame(rows)


def project_clusters(
    weights: HeadWeights, clustering: HeadClustering, *, seed: int = 0
) -> pd.DataFrame:
    """Where the heads lie, by PCA and (from 4 heads on) t-SNE, with their clusters.

    Args:
        weights: heads of one layer.
        clustering: of these heads.
        seed: of t-SNE.

    Returns:
        Tidy rows of the clustering and of `pca_1`, `pca_2`, `tsne_1`, `tsne_2`, as
        `plot_head_projection` takes them. Two dimensions hold part of the distances only, and
        t-SNE shows clumps in structureless data: neither is evidence of clusters.
    """
    similarity = head_similarity(
        weights, feature=cast(Feature, clustering.feature), unit_norm=clustering.unit_norm
    )
    methods: tuple[Literal["pca", "tsne"], ...] = ("pca", "tsne")
    points = [
        project_heads(similarity, method=method, seed=seed).to_frame()
        for method in (methods if len(similarity.heads) > 3 else methods[:1])
    ]
    return pd.concat([clustering.to_frame(), *points], ignore_index=True)
