"""Live views of the parameters of one layer's heads, to write to: whichever class the model is."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from headspec.errors import UnsupportedArchitectureError
from headspec.heads import check_layer

Part = Literal["q", "k", "v", "o"]
"""Which map of a head: to queries, keys, values, or from what it read to the residual stream."""


def head_parameters(model: Any, layer: int, part: Part) -> list[Tensor]:
    """What makes one map of each head: views of the parameters that the forward pass reads.

    Writing to them changes the model. A Bridge of a fused architecture (GPT-NeoX, GPT-2) computes
    with split copies of query, key and value; its fused matrix is not read, and not given here.

    Args:
        model: a HookedTransformer or TransformerBridge.
        layer: layer index from 0.
        part: which map.

    Returns:
        Weight, bias if there is one, and the gain of QK-norm where each head has one of its own
        (OLMo2); axis 0 counts heads, key-value heads for `k` and `v`. The bias of the
        output projection belongs to no head and is left out.

    Raises:
        InputError: a layer that the model does not have.
        UnsupportedArchitectureError: projections that are not plain linear layers.
    """
    check_layer(layer, n_layers=model.cfg.n_layers)
    attention = model.blocks[layer].attn
    if isinstance(getattr(attention, "W_Q", None), torch.nn.Parameter):
        found = _of_hooked_transformer(attention, part)
    else:
        found = _of_bridge(attention, part, d_head=model.cfg.d_head)
    return [tensor.detach() for tensor in [*found, *_gains(attention, part, model.cfg.d_head)]]


def gains_differ_by_head(model: Any, layer: int) -> bool:
    """Whether QK-norm has a gain of its own for each head (OLMo2), not one that all share."""
    return bool(_gains(model.blocks[layer].attn, "q", model.cfg.d_head))


def _of_hooked_transformer(attention: Any, part: Part) -> list[Tensor]:
    letter = part.upper()
    if part == "o":
        return [attention.W_O]
    names = (f"_W_{letter}", f"_b_{letter}") if hasattr(attention, f"_W_{letter}") else None
    return [getattr(attention, name) for name in names or (f"W_{letter}", f"b_{letter}")]


def _of_bridge(attention: Any, part: Part, *, d_head: int) -> list[Tensor]:
    linear: Any = getattr(getattr(attention, part, None), "original_component", None)
    if type(linear).__name__ not in ("Linear", "Conv1D"):
        raise UnsupportedArchitectureError(
            expected="query, key, value and output projections that are plain linear layers",
            got=type(linear).__name__,
            fix="Swap activations with swap_clusters instead.",
        )
    weight = linear.weight if type(linear).__name__ == "Linear" else linear.weight.T  # out in
    if part == "o":
        return [weight.unflatten(1, (-1, d_head)).movedim(1, 0)]
    bias = getattr(linear, "bias", None)
    return [x.unflatten(0, (-1, d_head)) for x in (weight, bias) if x is not None]


def _gains(attention: Any, part: Part, d_head: int) -> list[Tensor]:
    norm = getattr(attention, f"{part}_norm", None)
    gain = getattr(norm, "weight", getattr(norm, "w", None))
    if not isinstance(gain, Tensor) or gain.numel() == d_head:
        return []
    return [gain.unflatten(0, (-1, d_head))]
