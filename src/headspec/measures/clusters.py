"""Clusters of heads at a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from headspec.checkpoints.checkpoint import Checkpoint
from headspec.errors import InputError
from headspec.head_tensors import HeadWeights
from headspec.results import tidy
from headspec.weights.cluster_nulls import Null
from headspec.weights.clustering import cluster_heads
from headspec.weights.features import Feature
from headspec.weights.partitions import Method
from headspec.weights.projections import project_heads
from headspec.weights.similarity import HeadSimilarity, head_similarity


@dataclass(frozen=True)
class ClusterMeasure:
    """Cluster the heads of every layer, with metrics, nulls, projections and similarities.

    Attributes:
        layers: which layers; None: all.
        feature, n_clusters, method, null, n_null, seed, unit_norm: as in `cluster_heads`. The
            null of each layer is drawn with its own seed, `seed + layer`, so that layers are
            compared with independent draws. The null `"initialisation"` takes its
            standard deviations from step 0 (or 1) of the suite.
        positions: also where heads lie: projections and similarities.

    Called with a checkpoint it gives a tidy frame: the rows of `HeadClustering.to_frame` for each
    layer, and with `positions` `pca_1`, `pca_2`, `tsne_1`, `tsne_2` of each head (t-SNE from 4
    heads on) and `similarity` of each pair `head`, `head_2` (cosine). Against the previous
    checkpoint of the sweep it adds `weight_divergence` and `ari_previous`.

    Example:
        >>> import headspec as hs
        >>> measure = hs.ClusterMeasure(layers=(0,), feature="qk", n_null=99)
        >>> frame = measure(hs.open_suite("micro").checkpoint(0))      # doctest: +SKIP
    """

    layers: tuple[int, ...] | None = None
    feature: Feature = "qk"
    n_clusters: int | Literal["silhouette"] = 2
    method: Method = "kmeans"
    null: Null | None = "norm_matched"
    n_null: int = 1000
    seed: int = 0
    unit_norm: bool = False
    positions: bool = True

    def __post_init__(self) -> None:
        if self.layers is not None and not (
            isinstance(self.layers, tuple) and len(set(self.layers)) == len(self.layers) > 0
        ):
            raise InputError(
                expected="layers as a tuple of different numbers, or None for all",
                got=f"layers={self.layers!r}",
                fix="For one layer: layers=(6,).",
            )

    def __call__(self, checkpoint: Checkpoint) -> pd.DataFrame:
        layers = range(checkpoint.n_layers) if self.layers is None else self.layers
        parts = [part for layer in layers for part in self._layer(checkpoint, layer)]
        return pd.concat(parts, ignore_index=True)

    def _layer(self, checkpoint: Checkpoint, layer: int) -> list[pd.DataFrame]:
        weights = checkpoint.head_weights(layer)
        before = checkpoint.previous
        found = cluster_heads(
            weights,
            feature=self.feature,
            n_clusters=self.n_clusters,
            method=self.method,
            null=self.null,
            n_null=self.n_null,
            seed=self.seed + layer,
            unit_norm=self.unit_norm,
            previous=None if before is None else before.head_weights(layer),
            reference=self._initial_heads(checkpoint, layer),
        )
        if not self.positions:
            return [found.to_frame()]
        similarity = head_similarity(weights, feature=self.feature, unit_norm=self.unit_norm)
        parts = [found.to_frame(), project_heads(similarity, method="pca").to_frame()]
        if len(similarity.heads) > 3:
            parts.append(project_heads(similarity, method="tsne", seed=self.seed).to_frame())
        return [*parts, _pairs(similarity)]

    def _initial_heads(self, checkpoint: Checkpoint, layer: int) -> HeadWeights | None:
        if self.null != "initialisation":
            return None
        suite = checkpoint.suite
        if suite.steps[0] > 1:
            raise InputError(
                expected="a suite with step 0 or 1 for null='initialisation'",
                got=f"step {suite.steps[0]} as the first of {suite.name}",
                fix="Use null='norm_matched', or `cluster_heads` with `reference=` the standard "
                "deviation of the initial weights.",
            )
        return suite.head_weights(suite.steps[0], layer)


def _pairs(similarity: HeadSimilarity) -> pd.DataFrame:
    first, second = np.triu_indices(len(similarity.heads), 1)
    heads = np.asarray(similarity.heads)
    return tidy(
        {
            "head": heads[first],
            "head_2": heads[second],
            "value": similarity.cosines[first, second],
        },
        model=similarity.model,
        step=similarity.step,
        layer=similarity.layer,
        metric="similarity",
        n=len(heads),
        feature=similarity.feature,
        unit_norm=similarity.unit_norm,
        processing=similarity.processing,
    )
