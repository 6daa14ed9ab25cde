"""The pieces of one layer of a hooked model as functions, whichever class the model is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from headspec.lens.block_weights import LayerWeights, Norm

Function = Callable[[Tensor], Tensor]


class UnsupportedBlocks(Exception):
    """The layers of this model cannot be taken apart safely; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Layer:
    """One block. Functions read the model's parameters when they are called.

    Attributes:
        parallel: the MLP reads the same residual stream as attention.
        norm: before attention; any leading axes.
        heads: `"q" "k" "v"` -> normed `row pos d_model` to `row pos head d_head`.
        head_norms: `"q" "k"` -> norm over `d_head` that follows the projection, if there is one.
        clip: queries, keys and values are clamped to this, if set.
        rotary: cosines and sines `pos rotary_dim`, or None without rotary embeddings.
        adjacent: rotary pairs are neighbours, not halves.
        scale: factor on scores.
        out: flat heads `row pos head*d_head` to `row pos d_model`, with the bias.
        W_O: `head d_head d_model`.
        mlp: `row pos d_model` to what the MLP writes, its norm included; None without an MLP.
        weights: the same as tensors; raises `UnsupportedBlocks` where it is not made of these.
    """

    parallel: bool
    norm: Function
    heads: Mapping[str, Function]
    head_norms: Mapping[str, Function]
    clip: float | None
    rotary: Callable[[], tuple[Tensor, Tensor]] | None
    adjacent: bool
    scale: float
    out: Function
    W_O: Callable[[], Tensor]
    mlp: Function | None
    weights: Callable[[], LayerWeights]


@dataclass(frozen=True)
class Parts:
    """All layers, and what follows them.

    Attributes:
        layers: in order.
        n_kv_heads: axis of heads of keys and values, as hooks show it.
        final_norm: before the unembedding.
        unembedding: weight `d_vocab d_model` and bias `d_vocab` or None.
        final_weights: of the norm before the unembedding; None without one.
    """

    layers: tuple[Layer, ...]
    n_kv_heads: int
    final_norm: Function
    unembedding: Callable[[], tuple[Tensor, Tensor | None]]
    final_weights: Callable[[], Norm | None]


def in_rows(function: Function, x: Tensor) -> Tensor:
    """A function of `row pos width` for any number of leading axes."""
    out = function(x.reshape(-1, *x.shape[-2:]))
    return out.reshape(*x.shape[:-2], *out.shape[1:])


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, adjacent: bool) -> Tensor:
    """Turn the first `cos.shape[-1]` dimensions of each head.

    Args:
        x: `... pos head d_head`.
        cos: `... pos rotary_dim`, each frequency twice (side by side when adjacent).
        sin: as cos.
        adjacent: pairs are (0, 1), (2, 3), ...; otherwise dimension i pairs with i + half.
    """
    width = cos.shape[-1]
    if not width:
        return x
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    turned, rest = x[..., :width], x[..., width:]
    if adjacent:
        flipped = torch.stack((-turned[..., 1::2], turned[..., ::2]), dim=-1).flatten(-2)
    else:
        first, second = turned.chunk(2, dim=-1)
        flipped = torch.cat((-second, first), dim=-1)
    turned = (turned * cos + flipped * sin).to(x.dtype)
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def check_plain(model: torch.nn.Module) -> None:
    """One device, no quantised weights."""
    parameters = list(model.parameters())
    if any(not parameter.is_floating_point() for parameter in parameters):
        raise UnsupportedBlocks("its weights are quantised")
    if len({parameter.device for parameter in parameters}) > 1:
        raise UnsupportedBlocks("it is spread over several devices")
