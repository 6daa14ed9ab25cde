"""Queries and keys of every position, averaged over content, and the attention they give."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError
from headspec.head_tensors import HeadWeights
from headspec.weights.rotary_angles import rotate

Normalisation = Literal["layer_norm", "rms_norm", "none"]
_EPS = 1e-5


def mean_queries_and_keys(
    weights: HeadWeights,
    inputs: Tensor | None,
    pos_embed: Tensor | None,
    normalisation: Normalisation,
    n_positions: int,
    frequencies: Tensor | None,
) -> tuple[Float[Tensor, "head pos d_head"], Float[Tensor, "head pos d_head"]]:
    """Mean query and key of each position in float64; `weights` has a key for every query head."""
    rotary = weights.rotary if weights.rotary is not None and weights.rotary.dim else None
    _check(weights, inputs, pos_embed, n_positions)
    device = weights.W_Q.device
    if pos_embed is not None:
        stream = pos_embed[:n_positions].detach().to(device).double()
        if inputs is not None:
            stream = stream + inputs.detach().to(device).double().mean(0)
        stream = _normalise(stream, normalisation)
        queries, keys = (_project(stream, weights, side) for side in "qk")
    else:
        assert inputs is not None
        stream = _normalise(inputs.detach().to(device).double(), normalisation)
        queries, keys = (
            _project(stream, weights, side).mean(1, keepdim=True).expand(-1, n_positions, -1)
            for side in "qk"
        )
    if rotary is not None:
        places = torch.arange(n_positions)
        queries, keys = (
            rotate(side, places, rotary, frequencies=frequencies) for side in (queries, keys)
        )
    return queries, keys


def position_attention(
    queries: Float[Tensor, "head pos d_head"], keys: Float[Tensor, "head pos d_head"]
) -> Float[np.ndarray, "head offset"]:
    """Mean attention to each offset: causal softmax, over the positions that have that offset."""
    n = queries.shape[1]
    scores = queries @ keys.mT / np.sqrt(queries.shape[2])
    later = torch.ones(n, n, dtype=torch.bool, device=scores.device).triu(1)
    pattern = scores.masked_fill(later, -torch.inf).softmax(-1)
    means = [pattern.diagonal(-offset, 1, 2).mean(-1) for offset in range(n)]
    return torch.stack(means, -1).cpu().numpy()


def turned_queries(
    queries: Float[Tensor, "head pos d_head"],
    weights: HeadWeights,
    rng: np.random.Generator,
    *,
    learned: bool,
) -> Float[Tensor, "head pos d_head"]:
    """Each head's queries turned at random, alike at all positions, inside the head's space.

    Rotary planes turn each by its own angle, which commutes with the positions' turns; with learned
    positions the whole space turns. Dimensions without positions matter to neither.
    """
    n_heads, _, width = queries.shape
    rotary = weights.rotary if weights.rotary is not None and weights.rotary.dim else None
    if learned and rotary is None:
        normal = torch.from_numpy(rng.standard_normal((n_heads, width, width))).to(queries)
        frame, upper = torch.linalg.qr(normal)
        signs = upper.diagonal(dim1=1, dim2=2).sign()
        return queries @ (frame * signs[:, None, :])
    assert rotary is not None
    turned = []
    for head in range(n_heads):
        angles = torch.from_numpy(rng.uniform(0, 2 * np.pi, rotary.dim // 2))
        turned.append(rotate(queries[head], 1, rotary, frequencies=angles))
    return torch.stack(turned)


def _project(stream: Tensor, weights: HeadWeights, side: str) -> Tensor:
    """`head sample d_head`: queries or keys, with bias, clipping and QK-norm."""
    matrix = getattr(weights, f"W_{side.upper()}").detach().double()
    bias, gain = getattr(weights, f"b_{side.upper()}"), getattr(weights, f"{side}_norm")
    found = stream @ matrix
    if bias is not None:
        found = found + bias.detach().double()[:, None, :]
    if weights.qkv_clip is not None:
        found = found.clamp(-weights.qkv_clip, weights.qkv_clip)
    if gain is None:
        return found
    together = gain.ndim == 2  # the whole projection is normalised at once
    square = found.square().mean(-1, keepdim=True)
    square = square.mean(0, keepdim=True) if together else square
    gain = gain.detach().double()
    found = found / (square + weights.qk_norm_eps).sqrt()
    return found * (gain[:, None, :] if together else gain)


def _normalise(stream: Tensor, how: Normalisation) -> Tensor:
    if how == "none":
        return stream
    if how == "layer_norm":
        stream = stream - stream.mean(-1, keepdim=True)
    return stream / (stream.square().mean(-1, keepdim=True) + _EPS).sqrt()


def _check(
    weights: HeadWeights, inputs: Tensor | None, pos_embed: Tensor | None, n_positions: int
) -> None:
    rotary = weights.rotary is not None and weights.rotary.dim > 0
    if pos_embed is None and not (rotary and inputs is not None):
        raise InputError(
            expected="pos_embed (learned positions), or rotary weights and inputs",
            got="rotary weights without inputs" if rotary else "weights without rotary positions",
            fix="Pass the residual streams that reach the layer, such as rows of the embedding."
            if rotary
            else "Pass pos_embed; a head without positions has no previous-token score.",
        )
    if pos_embed is not None and len(pos_embed) < n_positions:
        raise InputError(
            expected=f"learned positions for n_positions={n_positions}",
            got=f"{len(pos_embed)}",
            fix="Lower n_positions.",
        )
    for name, given in (("inputs", inputs), ("pos_embed", pos_embed)):
        if given is None:
            continue
        if given.shape[-1] != weights.d_model or not len(given) or not given.isfinite().all():
            raise InputError(
                expected=f"{name} of finite rows of d_model={weights.d_model} numbers",
                got=f"shape {list(given.shape)}"
                + ("" if given.isfinite().all() else " with NaN or infinity"),
                fix="Embeddings are `d_vocab d_model`: transpose, or check the checkpoint.",
            )
