"""Gram matrices of heads and distances between them, exact also for near copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError
from headspec.head_tensors import HeadWeights
from headspec.results import tidy
from headspec.weights.features import Feature, HeadFactors, head_factors

_BLOCK = 5_000_000  # numbers formed at a time: 20 MB in float32


@dataclass(frozen=True)
class HeadSimilarity:
    """Inner products of heads and distances between them.

    Attributes:
        gram: inner products of the heads' vectors, float64. Accurate to about 1e-7 of the norms
            for float32 weights, 1e-15 for float64.
        distances: Euclidean (Frobenius) distances in units of the weights. Near copies are
            computed from the difference, not from `gram`, where they would drown.
        norms: Euclidean norms before any normalisation.
        feature, unit_norm: what the vectors are.
        n_features: their length.
        d_model, d_head: shape of the heads.
        layers, heads: where each row comes from.
        groups: rows with the same number share a key-value head.
        cores: of products where key-value heads are shared, the R of a QR of each head's own
            factor and of its shared one, each over its norm: all of a factor but its frame in
            d_model. None elsewhere.
        model, step, layer, processing: as in the weights; `layer` is None for several layers.
    """

    gram: Float[np.ndarray, "head head"]
    distances: Float[np.ndarray, "head head"]
    norms: Float[np.ndarray, " head"]
    feature: Feature
    unit_norm: bool
    n_features: int
    d_model: int
    d_head: int
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    groups: tuple[int, ...]
    cores: Float[np.ndarray, "2 head rank d_head"] | None = None
    model: str = ""
    step: int | None = None
    layer: int | None = None
    processing: str = "none"

    @property
    def cosines(self) -> Float[np.ndarray, "head head"]:
        """Cosine similarities; 0 for a head of zeros."""
        scale = np.sqrt(np.diag(self.gram))
        outer = np.outer(scale, scale)
        return np.divide(self.gram, outer, out=np.zeros_like(outer), where=outer > 0)

    def to_frame(self) -> pd.DataFrame:
        """One row a pair of heads and metric (`similarity`: cosine; `distance`).

        `layer` and `head` name the first head, the extra columns `layer_2` and `head_2` the other.
        """
        first, second = np.triu_indices(len(self.heads), 1)
        layers, heads = np.array(self.layers), np.array(self.heads)
        pairs = {
            "layer": layers[first],
            "head": heads[first],
            "layer_2": layers[second],
            "head_2": heads[second],
        }
        frames = [
            pd.DataFrame({**pairs, "metric": metric, "value": values[first, second]})
            for metric, values in (("similarity", self.cosines), ("distance", self.distances))
        ]
        frame = pd.concat(frames, ignore_index=True)
        frame = frame.assign(
            feature=self.feature, unit_norm=self.unit_norm, processing=self.processing
        )
        return tidy(frame, model=self.model, step=self.step, n=self.n_features)


def head_similarity(
    weights: HeadWeights | Sequence[HeadWeights], *, feature: Feature, unit_norm: bool = False
) -> HeadSimilarity:
    """Inner products and distances of all pairs of heads, in one layer or across layers.

    With M_i the vector of head i (a matrix, read as a vector), gram_ij = <M_i, M_j>. For the
    products M_i = A_i B_i^T (`"qk"`: A = W_Q, B = W_K; `"ov"`: A = W_V, B^T = W_O) this is summed
    over blocks of columns, so that 144 products of 768 x 768 need 20 MB and not 340 MB. Distances
    of near copies come from a QR of the stacked factors [A_i, -A_j] and [B_i, B_j] in float64,
    since g_ii + g_jj - 2 g_ij loses them (a float32 Gram gives 0 where 1e-3 is right at norm 22).

    **Gauge.** W_Q -> W_Q A, W_K -> W_K A^-T changes `"q"` and `"k"` and not the model; `"qk"`
    and `"ov"` are invariant. Rotary embeddings restrict the A that leave the model alone to those
    that commute with the rotation, and QK-norm to those that commute with its gain and norm, so
    there `"q"` and `"k"` mean more.

    **What it does not show.** Biases are not in it. Under rotary embeddings `"qk"` is the score
    at relative offset 0 only. QK-norm's gains are in `"qk"`, its normalisation is not (with it,
    the norm of W_Q does nothing in the model). Layer-norm gains are in only where `processing`
    says so. Heads whose products differ may still attend alike on real text.

    Args:
        weights: one layer's heads, or a sequence (layers, or one layer at several steps).
        feature: what stands for a head. Under grouped-query attention `"k"` and `"v"` have one
            row per key-value head; `"qk"` and `"ov"` one per query head.
        unit_norm: divide every head's vector by its norm first.

    Returns:
        A `HeadSimilarity`, `head head` with rows in the order given.

    Raises:
        InputError: weights that are not finite, layers of different shapes, or a head of zeros
            with `unit_norm`.

    Example:
        >>> import torch, headspec as hs
        >>> W = torch.eye(4).reshape(2, 2, 4).mT
        >>> heads = hs.HeadWeights(W_Q=W, W_K=W, W_V=W, W_O=W.mT)
        >>> hs.head_similarity(heads, feature="qk").distances.round(3).tolist()
        [[0.0, 2.0], [2.0, 0.0]]
    """
    layers = [weights] if isinstance(weights, HeadWeights) else list(weights)
    factors = head_factors(layers, feature)
    norms = vector_norms(factors)
    if unit_norm:
        factors = _normalised(factors, norms)
    gram, distances = _gram_and_distances(factors)
    steps, models = {w.step for w in layers}, {w.model for w in layers}
    return HeadSimilarity(
        gram=gram,
        distances=distances,
        norms=norms,
        feature=feature,
        unit_norm=unit_norm,
        n_features=factors.n_features,
        d_model=layers[0].d_model,
        d_head=layers[0].d_head,
        layers=factors.layers,
        heads=factors.heads,
        groups=factors.groups,
        cores=_shared_cores(factors),
        model=models.pop() if len(models) == 1 else "",
        step=steps.pop() if len(steps) == 1 else None,
        layer=layers[0].layer if len({w.layer for w in layers}) == 1 else None,
        processing=",".join(dict.fromkeys(w.processing for w in layers)),
    )


def paired_distances(first: HeadFactors, second: HeadFactors) -> Float[np.ndarray, " head"]:
    """Distance of each head in `first` from the same head in `second`, from the difference."""
    pairs = zip(first.factors(), second.factors(), strict=True)
    return np.array([_difference_norm(one, other) for one, other in pairs])


def vector_norms(factors: HeadFactors) -> Float[np.ndarray, " head"]:
    """Norms in float64; of a product, from the two small Gram matrices of its factors."""
    norms = []
    for left, right in factors.factors():
        if right is None:
            norms.append(torch.linalg.vector_norm(left))
        else:
            norms.append(((left.mT @ left) * (right.mT @ right)).sum().clamp(min=0).sqrt())
    return torch.stack(norms).numpy()


def _shared_cores(factors: HeadFactors) -> np.ndarray | None:
    """`2 head rank d_head`: R of every head's own and shared factor; None without sharing."""
    if len(set(factors.groups)) == factors.n_rows:
        return None
    cores: tuple[list[Tensor], list[Tensor]] = ([], [])
    for left, right in factors.factors():
        assert right is not None  # only products share a factor
        own, shared = (right, left) if factors.feature == "ov" else (left, right)
        for found, factor in zip(cores, (own, shared), strict=True):
            core = torch.linalg.qr(factor, mode="r").R
            norm = torch.linalg.matrix_norm(core)
            found.append(core / norm if norm > 0 else core)
    return torch.stack([torch.stack(side) for side in cores]).numpy()


def _normalised(factors: HeadFactors, norms: np.ndarray) -> HeadFactors:
    if (norms == 0).any():
        raise InputError(
            expected="heads with weights that are not all 0 (unit_norm divides by the norm)",
            got=f"zero norm in rows {np.flatnonzero(norms == 0).tolist()}",
            fix="Use unit_norm=False, or leave these heads out.",
        )
    return factors.scaled(1 / norms)


def _gram_and_distances(factors: HeadFactors) -> tuple[np.ndarray, np.ndarray]:
    """The Gram matrix by blocks of columns; close pairs by their difference."""
    exact = factors.dtype == torch.float64
    gram = _gram(factors)
    if not exact and _out_of_range(gram):
        factors, exact = factors.astype(torch.float64), True
        gram = _gram(factors)
    close = _close_pairs(gram, 1e-9 if exact else 1e-3)
    if not exact and len(close) > 4 * factors.n_rows:  # in float64 few pairs are too close
        factors = factors.astype(torch.float64)
        gram = _gram(factors)
        close = _close_pairs(gram, 1e-9)
    squares = np.diag(gram)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0))
    for i, j in close:
        distances[i, j] = distances[j, i] = _difference_norm(factors.factor(i), factors.factor(j))
    np.fill_diagonal(distances, 0)
    return gram, distances


def _gram(factors: HeadFactors) -> np.ndarray:
    gram = np.zeros((factors.n_rows, factors.n_rows))
    for block in factors.blocks(_BLOCK):
        numbers = block.numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # see `_out_of_range`
            gram += numbers @ numbers.T  # NumPy uses the symmetric product: half the work
    return gram


def _out_of_range(gram: np.ndarray) -> bool:
    """Whether squares of float32 numbers overflowed, or may have vanished."""
    return not np.isfinite(gram).all() or bool((np.diag(gram) < 1e-30).any())


def _close_pairs(gram: np.ndarray, share: float) -> list[tuple[int, int]]:
    """Pairs whose squared distance is below `share` of the sum of their squared norms."""
    squares = np.diag(gram)
    total = squares[:, None] + squares[None, :]
    close = np.triu(total - 2 * gram <= share * total, 1)
    return [(int(i), int(j)) for i, j in np.argwhere(close)]


def _difference_norm(
    one: tuple[Tensor, Tensor | None], other: tuple[Tensor, Tensor | None]
) -> float:
    """Norm of the difference of two heads' vectors, each given by its factors in float64."""
    left, right = one[0], one[1]
    if right is None or other[1] is None:
        return float(torch.linalg.vector_norm(left - other[0]))
    stacked_left = torch.cat([left, -other[0]], 1)
    stacked_right = torch.cat([right, other[1]], 1)
    small_left = torch.linalg.qr(stacked_left, mode="r").R
    small_right = torch.linalg.qr(stacked_right, mode="r").R
    return float(torch.linalg.matrix_norm(small_left @ small_right.mT))
