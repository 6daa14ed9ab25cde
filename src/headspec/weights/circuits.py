"""QK and OV circuits of heads, taken apart into singular values and vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError
from headspec.head_tensors import HeadWeights
from headspec.weights.circuit_factors import as_layers, ov_factors, qk_factors
from headspec.weights.circuit_result import Circuit, CircuitSpectrum, CircuitSVD
from headspec.weights.low_rank_svd import product_rank, product_svd, product_values
from headspec.weights.rotary_forms import Offset, as_offset

Factors = Callable[[HeadWeights], tuple[Tensor, Tensor]]


def qk_svd(
    weights: HeadWeights | Sequence[HeadWeights],
    *,
    k: int | None = None,
    offset: Offset = 0,
    biases: bool = False,
    frequencies: Float[Tensor, " pair"] | None = None,
    dtype: torch.dtype | None = None,
) -> CircuitSVD:
    """Singular values and vectors of every head's QK circuit, W_QK = W_Q W_K^T = U diag(S) Vh.

    The circuit says which pairs of residual streams attend: before the softmax a head scores a
    query x_q against a key x_k by x_q W_QK x_k^T / sqrt(d_head). It does not depend on the basis
    inside a head (W_Q A, W_K A^-T has the same product), as W_Q and W_K themselves do.

    - **Rotary embeddings** give one form for each offset, W_Q R(offset) W_K^T, with offset = query
      position minus key position (see `position_share` for how much they differ).
    - **QK-norm**: its gains are in the form. The division by the norms of q and k is not linear
      and is not: the model's score is the form over rms(q) rms(k).
    - **Grouped-query attention**: one circuit for each query head; what key-value heads share is
      computed once.
    - **Biases**: with `biases=True` x is extended by a constant 1, so that the last row of U and
      the last column of Vh belong to b_Q and b_K.

    The d_model x d_model product is never formed: each factor is reduced to d_head x d_head, in
    float64 whatever the weights are. Singular values of float32 weights come out right to float32
    rounding (relative 1e-6, tested), down to 1e-9 of the largest. Gains and turns are applied in
    the weights' precision: with them, 1e-7 of the largest (`dtype=torch.float64` does better).

    **What it does not show.** Which of these directions occur in real residual streams. Layer-norm
    gains are in only where `processing` says so, and the norm divides by the stream's size.

    Args:
        weights: one layer's heads, or a sequence (layers, or one layer at several steps).
        k: singular values and vectors to keep, from the largest; all by default.
        offset: query position minus key position. Several: the mean of their forms. None: the part
            that no offset moves, which is the mean over ever more offsets (the unrotated
            dimensions; nothing where the whole head is rotated). Without rotary embeddings all are
            the same.
        biases: extend the residual space by a constant 1.
        frequencies: radians per position of each rotated pair, where the model scales them
            (`rotary.scaling`): its own `rotary_emb.inv_freq`.
        dtype: `torch.float32` or `torch.float64`, of the weights and the result; the weights' own
            by default, float32 for half precision. float64 is the most accurate.

    Returns:
        A `CircuitSVD` on the weights' device: S `head rank`, U `head d_model rank`, Vh `head rank
        d_model`, with rank = min(d_head, d_model), or with a `layer` axis first for a sequence.

    Raises:
        InputError: weights that are not finite, layers of different shapes, k outside 1 .. rank,
            scaled frequencies that are not given, products beyond the range of float32.

    References:
        Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".

    Example:
        >>> import torch, headspec as hs
        >>> W = torch.diag(torch.tensor([3.0, 2.0]))[None]
        >>> hs.qk_svd(hs.HeadWeights(W_Q=W, W_K=W, W_V=W, W_O=W)).S.tolist()
        [[9.0, 4.0]]
    """
    layers = as_layers(weights)

    def factors(layer: HeadWeights) -> tuple[Tensor, Tensor]:
        return qk_factors(layer, offset=offset, biases=biases, frequencies=frequencies, dtype=dtype)

    return _svd(weights, layers, factors, k, _facts(layers, "qk", biases, offset))


def ov_svd(
    weights: HeadWeights | Sequence[HeadWeights],
    *,
    k: int | None = None,
    biases: bool = False,
    dtype: torch.dtype | None = None,
) -> CircuitSVD:
    """Singular values and vectors of every head's OV circuit, W_OV = W_V W_O = U diag(S) Vh.

    The circuit says what a head writes where it attends: x_k W_OV, for each unit of attention. It
    reads the columns of U and writes the rows of Vh. Computed as `qk_svd` does.

    **What it does not show.** How much the head attends, and what later layers do with what it
    writes. Layer-norm gains are in only where `processing` says so.

    Args:
        weights: one layer's heads, or a sequence (layers, or one layer at several steps).
        k: singular values and vectors to keep, from the largest; all by default.
        biases: extend what is read by a constant 1, so that the last row of U belongs to b_V. The
            output bias belongs to the layer, not to a head, and is never in it.
        dtype: as for `qk_svd`.

    Returns:
        A `CircuitSVD`, one circuit for each query head.

    Raises:
        InputError: as `qk_svd`.

    References:
        Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".

    Example:
        >>> import torch, headspec as hs
        >>> W = torch.diag(torch.tensor([3.0, 2.0]))[None]
        >>> hs.ov_svd(hs.HeadWeights(W_Q=W, W_K=W, W_V=W, W_O=W), k=1).S.tolist()
        [[9.0]]
    """
    layers = as_layers(weights)
    factors = partial(ov_factors, biases=biases, dtype=dtype)
    return _svd(weights, layers, factors, k, _facts(layers, "ov", biases, 0))


def qk_spectrum(
    weights: HeadWeights | Sequence[HeadWeights],
    *,
    offset: Offset = 0,
    biases: bool = False,
    frequencies: Float[Tensor, " pair"] | None = None,
    dtype: torch.dtype | None = None,
) -> CircuitSpectrum:
    """The singular values that `qk_svd` gives, without the vectors: two to three times faster.

    Args:
        weights: one layer's heads, or a sequence (layers, or one layer at several steps).
        offset, biases, frequencies, dtype: as for `qk_svd`.

    Returns:
        A `CircuitSpectrum` with S `head rank`, or `layer head rank` for a sequence.

    Raises:
        InputError: as `qk_svd`.

    Example:
        >>> import torch, headspec as hs
        >>> W = torch.diag(torch.tensor([3.0, 2.0]))[None]
        >>> hs.qk_spectrum(hs.HeadWeights(W_Q=W, W_K=W, W_V=W, W_O=W)).S.tolist()
        [[9.0, 4.0]]
    """
    layers = as_layers(weights)

    def factors(layer: HeadWeights) -> tuple[Tensor, Tensor]:
        return qk_factors(layer, offset=offset, biases=biases, frequencies=frequencies, dtype=dtype)

    return _spectrum(weights, layers, factors, _facts(layers, "qk", biases, offset))


def ov_spectrum(
    weights: HeadWeights | Sequence[HeadWeights],
    *,
    biases: bool = False,
    dtype: torch.dtype | None = None,
) -> CircuitSpectrum:
    """The singular values that `ov_svd` gives, without the vectors: two to three times faster.

    Args:
        weights: one layer's heads, or a sequence (layers, or one layer at several steps).
        biases, dtype: as for `ov_svd`.

    Returns:
        A `CircuitSpectrum` with S `head rank`, or `layer head rank` for a sequence.

    Raises:
        InputError: as `qk_svd`.

    Example:
        >>> import torch, headspec as hs
        >>> W = torch.diag(torch.tensor([3.0, 2.0]))[None]
        >>> hs.ov_spectrum(hs.HeadWeights(W_Q=W, W_K=W, W_V=W, W_O=W)).S.tolist()
        [[9.0, 4.0]]
    """
    layers = as_layers(weights)
    factors = partial(ov_factors, biases=biases, dtype=dtype)
    return _spectrum(weights, layers, factors, _facts(layers, "ov", biases, 0))


@torch.no_grad()
def _spectrum(
    weights: HeadWeights | Sequence[HeadWeights],
    layers: list[HeadWeights],
    factors: Factors,
    facts: dict[str, Any],
) -> CircuitSpectrum:
    found = []
    for layer in layers:
        left, right = factors(layer)
        values = product_values(left, right)
        norm = torch.linalg.vector_norm(values, dim=-1)
        _check_range(norm, left.dtype)
        found.append((values.to(left.dtype), norm.to(left.dtype)))
    S, norms = (torch.stack(parts) for parts in zip(*found, strict=True))
    one = isinstance(weights, HeadWeights)
    return CircuitSpectrum(S=S[0] if one else S, norm=norms[0] if one else norms, **facts)


@torch.no_grad()
def _svd(
    weights: HeadWeights | Sequence[HeadWeights],
    layers: list[HeadWeights],
    factors: Factors,
    k: int | None,
    facts: dict[str, Any],
) -> CircuitSVD:
    kept: dict[str, Tensor] = {}
    for i, layer in enumerate(layers):
        left, right = factors(layer)
        k = _checked_k(k, product_rank(left, right))
        U, S, V = product_svd(left, right, k)
        norm = torch.linalg.vector_norm(S, dim=-1)
        _check_range(norm, left.dtype)
        parts = {"U": U, "S": S[:, :k], "Vh": V.mT, "norm": norm}
        for name, part in parts.items():
            if i == 0:
                kept[name] = part.new_empty((len(layers), *part.shape), dtype=left.dtype)
            kept[name][i] = part
    if isinstance(weights, HeadWeights):
        kept = {name: part[0] for name, part in kept.items()}
    return CircuitSVD(**kept, **facts)


def _check_range(norm: Tensor, dtype: torch.dtype) -> None:
    """Raise where a float64 norm overflows `dtype` (heads that vanish in it become 0)."""
    if (norm > torch.finfo(dtype).max).any():
        raise InputError(
            expected=f"circuits of norms that {dtype} can hold",
            got=f"a norm of {float(norm.max()):.3g}",
            fix="Pass dtype=torch.float64.",
        )


def _checked_k(k: int | None, rank: int) -> int:
    if k is not None and not 1 <= k <= rank:
        raise InputError(
            expected=f"k from 1 to {rank}, the rank of the circuits",
            got=f"k={k}",
            fix="Leave k out to keep all.",
        )
    return rank if k is None else k


def _facts(
    layers: list[HeadWeights], circuit: Circuit, biases: bool, offset: Offset
) -> dict[str, Any]:
    """What results carry along: where the weights come from, and what is left out."""
    models = {w.model for w in layers}
    turned = circuit == "qk" and any(w.rotary is not None and w.rotary.dim for w in layers)
    return {
        "circuit": circuit,
        "offset": as_offset(offset) if turned else 0,
        "biases": biases,
        "d_model": layers[0].d_model,
        "d_head": layers[0].d_head,
        "layers": tuple(w.layer for w in layers),
        "steps": tuple(w.step for w in layers),
        "model": models.pop() if len(models) == 1 else "",
        "processing": ",".join(dict.fromkeys(w.processing for w in layers)),
        "notes": tuple(_notes(layers[0], circuit, biases)),
    }


def _notes(weights: HeadWeights, circuit: Circuit, biases: bool) -> list[str]:
    used = (weights.b_Q, weights.b_K) if circuit == "qk" else (weights.b_V,)
    notes = []
    if not biases and any(bias is not None for bias in used):
        notes.append("biases are left out (biases=True takes them in)")
    if circuit == "qk" and weights.q_norm is not None:
        notes.append("QK-norm: its gains are in, its division by the norms of q and k is not")
    if weights.qkv_clip is not None:
        notes.append(f"the model clips queries, keys and values at {weights.qkv_clip:g}: not in it")
    return notes
