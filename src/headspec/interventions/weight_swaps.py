"""Swap the weights of heads in the live model for the time of a block; every byte comes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.heads import Head
from headspec.lens.capture import capture
from headspec.lens.head_parameters import Part, head_parameters
from headspec.lens.hooks import has_caller_hooks, hook_name, hooked

SwapKind = Literal["outputs", "queries", "keys", "values", "qk", "ov", "pattern", "all"]
"""What two heads exchange; see `swap_clusters` for which of these are one and the same."""

_PARTS: dict[SwapKind, tuple[Part, ...]] = {
    "outputs": ("o",),
    "queries": ("q",),
    "keys": ("k",),
    "values": ("v",),
    "qk": ("q", "k"),
    "pattern": ("q", "k"),
    "ov": ("v", "o"),
    "all": ("q", "k", "v", "o"),
}
_NAMES = {"q": "W_Q", "k": "W_K", "v": "W_V", "o": "W_O"}

HeadPair: TypeAlias = tuple[Head | int, Head | int]
"""Two heads that change places; numbers are indices within the layer."""


@contextmanager
def swapped_weights(
    model: Any, layer: int, pairs: Sequence[HeadPair], *, which: SwapKind
) -> Iterator[None]:
    """Exchange weights of pairs of heads in the model itself for the time of a block.

    The parameters that the forward pass reads are written to in place: weights, biases of heads,
    and gains of QK-norm where each head has its own (a gain that heads share stays). They are put
    back byte for byte when the block ends, also by an exception or Ctrl-C; what the block itself
    writes to the same heads is lost.

    After the exchange a short probe is run, and an error raised if the model does not compute with
    the exchanged weights (editing the fused matrix of a GPT-NeoX Bridge, for one, is not seen).

    Args:
        model: a HookedTransformer or TransformerBridge, any processing.
        layer: layer index from 0.
        pairs: heads that change places; no head twice.
        which: `"queries"` W_Q; `"keys"` W_K; `"values"` W_V; `"outputs"` W_O; `"qk"` and
            `"pattern"` W_Q and W_K; `"ov"` W_V and W_O; `"all"` all four, which renames heads and
            leaves the model's function as it was. Under grouped-query attention keys and values
            belong to groups of heads, so that pairs must exchange whole groups (`"queries"` and
            `"outputs"` need not).

    Raises:
        InputError: heads that do not exist or come twice, groups that are not exchanged whole,
            or a model whose forward pass does not read these parameters.

    What it does not show: that two heads do different things. Exchanging any two heads changes
    the output, since later layers read what they write; see `swap_clusters` for the controls.

    Example:
        >>> with swapped_weights(model, 2, [(0, 3), (1, 5)], which="qk"):   # doctest: +SKIP
        ...     logits = model(tokens)
    """
    check_choice("which", which, get_args(SwapKind))
    parts = _PARTS[which]
    views = {part: head_parameters(model, layer, part) for part in parts}
    order = partners(_indices(pairs, layer), n_heads=model.cfg.n_heads)
    orders: dict[Part, Tensor] = {
        part: _order_of_heads(order, n_heads=len(views[part][0]), which=which) for part in parts
    }
    before = None if has_caller_hooks(model) else _probe(model, layer, parts)
    moved = [(view, orders[part]) for part in parts for view in views[part]]
    kept = [view.clone() for view, _ in moved]
    try:
        with torch.no_grad():
            for (view, order_of_heads), old in zip(moved, kept, strict=True):
                view.copy_(old[order_of_heads])
        if before is not None:
            _check_seen(model, layer, before, orders=orders)
        yield
    finally:
        with torch.no_grad():
            for (view, _), old in zip(moved, kept, strict=True):
                view.copy_(old)


def partners(pairs: Sequence[tuple[int, int]], *, n_heads: int) -> Int[Tensor, " head"]:
    """For each head the one whose part it plays: its partner, or itself.

    Args:
        pairs: indices of heads that change places.
        n_heads: heads in the layer.

    Raises:
        InputError: heads that do not exist, or come twice.

    Example:
        >>> partners([(0, 2)], n_heads=3).tolist()
        [2, 1, 0]
    """
    flat = [head for pair in pairs for head in pair]
    twice = sorted({head for head in flat if flat.count(head) > 1})
    absent = sorted({head for head in flat if not 0 <= head < n_heads})
    if twice or absent:
        raise InputError(
            expected=f"pairs of different heads from 0 to {n_heads - 1}, every head at most once",
            got=f"{list(pairs)}",
            fix="A one-to-one swap gives every head one partner at most.",
        )
    order = torch.arange(n_heads)
    for one, other in pairs:
        order[one], order[other] = other, one
    return order


def _indices(pairs: Sequence[HeadPair], layer: int) -> list[tuple[int, int]]:
    elsewhere = [
        str(head)
        for pair in pairs
        for head in pair
        if isinstance(head, Head) and head.layer != layer
    ]
    if elsewhere:
        raise InputError(
            expected=f"heads of layer {layer}",
            got=", ".join(elsewhere),
            fix="Heads are swapped within a layer: elsewhere they read another residual stream.",
        )
    return [
        tuple(head.index if isinstance(head, Head) else int(head) for head in pair)  # type: ignore[misc]
        for pair in pairs
    ]


def _order_of_heads(
    order: Int[Tensor, " head"], *, n_heads: int, which: str
) -> Int[Tensor, " kv_head"]:
    """The order of key-value heads that an order of heads means, if it moves whole groups."""
    size = len(order) // n_heads
    grouped = order.unflatten(0, (n_heads, size)) // size
    if not bool((grouped == grouped[:, :1]).all()):
        raise InputError(
            expected=f"pairs that exchange whole groups of {size} heads, which share one key-value "
            f"head, for which={which!r}",
            got=f"heads that play the part of {order.tolist()}",
            fix="Use which='queries' or 'outputs', or swap_clusters, which swaps activations "
            "head by head.",
        )
    return grouped[:, 0]


def _probe(model: Any, layer: int, parts: Sequence[Part]) -> dict[str, Tensor]:
    sites = [part for part in parts if part != "o"] + (["z", "attn_out"] if "o" in parts else [])
    found = capture(model, _probe_tokens(model), [(layer, site) for site in sites])
    return {site: value for (_, site), value in found.items()}


def _probe_tokens(model: Any) -> Int[Tensor, "batch pos"]:
    n = min(8, getattr(model.cfg, "n_ctx", None) or 8)
    return (torch.arange(n, device=model.cfg.device) * 7919 % model.cfg.d_vocab)[None]


def _check_seen(
    model: Any, layer: int, before: dict[str, Tensor], *, orders: dict[Part, Tensor]
) -> None:
    """That queries, keys, values and outputs are now those of the partners."""
    tokens = _probe_tokens(model)
    for part, order in orders.items():
        if part == "o":
            order = order.to(before["z"].device)
            put = before["z"][:, :, order]
            with hooked(model, {hook_name(layer, "z"): lambda z, put=put: put}):
                found = capture(model, tokens, [(layer, "attn_out")])[layer, "attn_out"]
            expected = before["attn_out"]
        else:
            found = capture(model, tokens, [(layer, part)])[layer, part]
            heads = torch.arange(found.shape[2])
            # HookedTransformer may show keys and values once for every query head.
            size = len(heads) // len(order)
            heads = (order[:, None] * size + torch.arange(size)).flatten()
            expected = before[part][:, :, heads.to(found.device)]
        allowed = 1e-3 if found.dtype in (torch.float32, torch.float64) else 0.1
        if not bool((found - expected).abs().max() <= allowed * expected.abs().max().clamp(1e-6)):
            raise InputError(
                expected=f"a model that computes with the {_NAMES[part]} of its heads",
                got=f"a {type(model).__name__} whose activations do not follow when it is swapped",
                fix="Build a fresh model with load_model, and swap there.",
            )
