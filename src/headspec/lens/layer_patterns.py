"""Attention patterns one layer at a time, whatever the depth of the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.lens.block_parts import UnsupportedBlocks
from headspec.lens.blocks import Blocks
from headspec.lens.hooks import evaluating, hook_name, run_to_layer
from headspec.lens.observe_sources import open_checked, walk_layers

TakePattern: TypeAlias = Callable[[int, Tensor], None]
"""Is given each layer's pattern `batch head q_pos k_pos`, in order, and keeps nothing of it."""


def pattern_runner(
    model: Any, prompt: Int[Tensor, "batch pos"]
) -> Callable[[Tensor, TakePattern], None]:
    """How to run a model so that each layer's pattern comes by.

    A model whose layers can be taken apart is run layer by layer, one pattern in memory at a time;
    others whole, under hooks, where a TransformerBridge keeps the patterns of all layers.

    Args:
        model: a hooked model of either class.
        prompt: tokens as long as any that will be run.

    What it gives raises InputError where the model's attention is not causal.
    """
    try:
        with evaluating(model):
            blocks = open_checked(model, prompt)
    except UnsupportedBlocks:
        return partial(_run_whole, model)
    return partial(_run_layers, model, blocks)


def _run_layers(
    model: Any, blocks: Blocks, tokens: Int[Tensor, "batch pos"], take: TakePattern
) -> None:
    """Patterns in float32 or float64, from queries and keys in the model's dtype."""
    hidden = torch.ones(tokens.shape[1], tokens.shape[1], device=tokens.device).triu(1).bool()

    def attend(layer: int, *placed: Tensor) -> Tensor:
        q, k, v = (_widened(x, blocks.n_heads) for x in placed)
        scores = (q * blocks.scores_scale(layer)) @ k.mT
        pattern = scores.masked_fill_(hidden, -torch.inf).softmax(-1)
        take(layer, pattern)
        return pattern @ v

    walk_layers(model, blocks, tokens, attend)


def _widened(
    x: Float[Tensor, "batch kv_head pos d_head"], n_heads: int
) -> Float[Tensor, "batch head pos d_head"]:
    """One query, key or value a query head, in float32 at least."""
    wide = x if x.dtype == torch.float64 else x.float()
    return wide.repeat_interleave(n_heads // x.shape[1], 1)


@torch.no_grad()
def _run_whole(model: Any, tokens: Int[Tensor, "batch pos"], take: TakePattern) -> None:
    """Patterns as the model's hooks see them, in float32 or float64, rows summing to one."""

    def reader(layer: int) -> Callable[[Tensor], None]:
        def read(pattern: Tensor) -> None:
            wide = pattern.detach()
            wide = wide if wide.dtype in (torch.float32, torch.float64) else wide.float()
            if (later := float(wide.triu(1).max())) > 1e-6:
                raise InputError(
                    expected="a model whose attention is causal",
                    got=f"a probability of {later:.3g} on a later token",
                    fix="Kinds of heads are told by what they look back at.",
                )
            take(layer, wide / wide.sum(-1, keepdim=True))

        return read

    n_layers = model.cfg.n_layers
    functions = {hook_name(layer, "pattern"): reader(layer) for layer in range(n_layers)}
    run_to_layer(model, tokens, functions, layer=n_layers)
