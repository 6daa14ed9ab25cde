"""Heads as points: principal components and t-SNE, from distances alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from headspec.errors import InputError
from headspec.head_tensors import HeadWeights
from headspec.results import tidy
from headspec.weights.features import Feature
from headspec.weights.similarity import HeadSimilarity, head_similarity


@dataclass(frozen=True)
class HeadProjection:
    """Coordinates of heads.

    Attributes:
        coordinates: one row a head; for PCA in units of the weights, t-SNE has no unit.
        explained: share of the total variance in each PCA component; nan for t-SNE.
        method: `"pca"` or `"tsne"`.
        perplexity: of t-SNE, None for PCA.
        seed: of t-SNE.
        feature, unit_norm, layers, heads, model, step, layer, processing: of the heads.
    """

    coordinates: Float[np.ndarray, "head component"]
    explained: Float[np.ndarray, " component"]
    method: str
    perplexity: float | None
    seed: int
    feature: Feature
    unit_norm: bool
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    model: str = ""
    step: int | None = None
    layer: int | None = None
    processing: str = "none"

    def to_frame(self) -> pd.DataFrame:
        """One row a head and component, metrics `pca_1`, `pca_2`, ... or `tsne_1`, `tsne_2`.

        The extra column `explained` repeats the component's share of the variance.
        """
        rows = [
            {
                "layer": layer,
                "head": head,
                "metric": f"{self.method}_{component + 1}",
                "value": value,
                "explained": self.explained[component],
            }
            for layer, head, point in zip(self.layers, self.heads, self.coordinates, strict=True)
            for component, value in enumerate(point)
        ]
        return tidy(
            rows,
            model=self.model,
            step=self.step,
            n=len(self.heads),
            seed=self.seed if self.method == "tsne" else None,
            feature=self.feature,
            unit_norm=self.unit_norm,
            processing=self.processing,
        )


def project_heads(
    weights: HeadWeights | Sequence[HeadWeights] | HeadSimilarity,
    *,
    feature: Feature = "qk",
    unit_norm: bool = False,
    method: Literal["pca", "tsne"] = "pca",
    n_components: int = 2,
    perplexity: float | int | None = None,
    seed: int = 0,
) -> HeadProjection:
    """Coordinates of heads for a figure.

    PCA is exact: the eigenvectors of the doubly centred squared distances are the principal
    component scores of the raw vectors, whatever their length. t-SNE starts from the PCA
    coordinates. The sign of each component makes its largest coordinate positive.

    **What it does not show.** PCA's two components often hold a small share (`explained`). t-SNE
    makes clumps out of structureless data and its distances mean nothing; a dozen heads are few
    for it. Whether there are clusters is for `cluster_heads` and its null.

    Args:
        weights: heads, or their `HeadSimilarity` (which has its own `feature` and `unit_norm`).
        feature, unit_norm: see `head_similarity`.
        method: `"pca"` or `"tsne"`.
        n_components: number of coordinates, at most heads - 1 (t-SNE: 1 to 3).
        perplexity: of t-SNE, at least 1 and at most (heads - 1) / 3, beyond which there are not
            three neighbours a perplexity; None for that largest value, at most 30.
        seed: of t-SNE.

    Returns:
        A `HeadProjection`.

    Raises:
        InputError: a perplexity or a number of components that does not fit the number of heads.

    References:
        van der Maaten and Hinton 2008; computed by `sklearn.manifold.TSNE`.
    """
    if isinstance(weights, HeadSimilarity):
        similarity = weights
    else:
        similarity = head_similarity(weights, feature=feature, unit_norm=unit_norm)
    heads = len(similarity.heads)
    most = heads - 1 if method == "pca" else min(3, heads - 1)
    if method not in ("pca", "tsne") or not 1 <= n_components <= most:
        raise InputError(
            expected=f"method 'pca' with 1 to {heads - 1} components for {heads} heads, or "
            f"'tsne' with 1 to {min(3, heads - 1)}",
            got=f"method {method!r} with {n_components}",
            fix="Two are enough for a figure.",
        )
    points, explained = _principal(similarity.distances, n_components)
    if method == "tsne":
        perplexity = _fitting_perplexity(perplexity, heads)
        points = _tsne(similarity.distances, points, perplexity=perplexity, seed=seed)
        explained = np.full(n_components, np.nan)
    return HeadProjection(
        coordinates=points,
        explained=explained,
        method=method,
        perplexity=perplexity if method == "tsne" else None,
        seed=seed,
        feature=similarity.feature,
        unit_norm=similarity.unit_norm,
        layers=similarity.layers,
        heads=similarity.heads,
        model=similarity.model,
        step=similarity.step,
        layer=similarity.layer,
        processing=similarity.processing,
    )


def _principal(distances: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal component scores and shares of variance (classical scaling, Torgerson 1952)."""
    squares = distances**2
    centred = -(squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean()) / 2
    values, vectors = np.linalg.eigh((centred + centred.T) / 2)
    values = np.maximum(values[::-1], 0)
    vectors = vectors[:, ::-1][:, :components]
    largest = np.abs(vectors).argmax(0)
    signs = np.sign(vectors[largest, np.arange(components)])
    total = values.sum()
    shares = values[:components] / total if total > 0 else np.zeros(components)
    return vectors * signs * np.sqrt(values[:components]), shares


def _fitting_perplexity(perplexity: float | int | None, heads: int) -> float:
    most = (heads - 1) / 3
    chosen = min(30.0, most) if perplexity is None else float(perplexity)
    if not 1 <= chosen <= most:
        raise InputError(
            expected=f"a perplexity from 1 to (heads - 1) / 3 = {most:.3g} for {heads} heads",
            got=f"{perplexity}" if perplexity is not None else f"{heads} heads",
            fix="Leave perplexity=None for the largest that fits, or use method='pca'.",
        )
    return chosen


def _tsne(distances: np.ndarray, start: np.ndarray, *, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    spread = start[:, 0].std()
    start = start / spread * 1e-4 if spread > 0 else start
    model = TSNE(
        n_components=start.shape[1],
        perplexity=perplexity,
        metric="precomputed",
        init=start.astype(np.float32),  # pyright: ignore[reportArgumentType]
        method="exact",
        random_state=seed,
    )
    return model.fit_transform(distances).astype(np.float64)
