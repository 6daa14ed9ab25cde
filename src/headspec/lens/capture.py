"""Activations of chosen sites during one forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from headspec.lens.hooks import hook_name, run_to_layer


def capture(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    sites: Iterable[tuple[int, str]],
    *,
    attention_mask: Int[Tensor, "batch pos"] | None = None,
    batch_size: int | None = None,
) -> dict[tuple[int, str], Tensor]:
    """Activations of chosen sites, and nothing else kept.

    Layers after the last one asked for, and the unembedding, are not run.

    Args:
        model: a hooked model of either class.
        tokens: token ids.
        sites: pairs of a layer and a site: `"z" "q" "k" "v" "pattern"` of the attention,
            `"attn_out" "mlp_out" "resid_pre" "resid_post"` of the block.
        attention_mask: 1 for tokens, 0 for padding.
        batch_size: rows per forward pass; None: all at once.

    Returns:
        (layer, site) -> activation, detached, in the model's dtype and on its device. Keys and
        values have the model's key-value heads; `q` and `k` are before the rotary embedding.

    Raises:
        InputError: the model has no such site.

    Example:
        >>> import headspec as hs
        >>> model = hs.open_suite("micro").model(6144)               # doctest: +SKIP
        >>> capture(model, tokens, [(2, "z")])[2, "z"].shape         # doctest: +SKIP
        torch.Size([8, 20, 12, 10])
    """
    wanted = tuple(dict.fromkeys(sites))
    parts: dict[tuple[int, str], list[Tensor]] = {key: [] for key in wanted}
    found: dict[tuple[int, str], Tensor] = {}

    def keep(key: tuple[int, str]):
        def store(activation: Tensor) -> None:
            found[key] = activation.detach()

        return store

    functions = {hook_name(*key): keep(key) for key in wanted}
    last = 1 + max((layer for layer, _ in wanted), default=-1)
    size = batch_size or len(tokens)
    with torch.no_grad():
        for start in range(0, len(tokens), size):
            mask = None if attention_mask is None else attention_mask[start : start + size]
            rows = tokens[start : start + size]
            run_to_layer(model, rows, functions, layer=last, attention_mask=mask)
            for key in wanted:
                parts[key].append(found.pop(key))
    return {key: kept[0] if len(kept) == 1 else torch.cat(kept) for key, kept in parts.items()}
