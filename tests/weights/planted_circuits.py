"""Heads with a circuit put in by hand among random heads."""

from __future__ import annotations

from dataclasses import replace

import torch
from random_heads import random_heads

from headspec import HeadWeights


def induction_layers(
    d_model: int = 48, d_head: int = 8, n_heads: int = 8, *, seed: int = 0
) -> list[HeadWeights]:
    """Two layers: L0H2 copies tokens into a second subspace, where the keys of L1H5 look for them.

    The stream's first d_head directions hold the token, the next ones the token before (in a
    random basis). L1H5 looks with the token for an equal token before, and copies.
    """
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(d_model, d_model, generator=generator)).Q
    token, before = basis[:, :d_head], basis[:, d_head : 2 * d_head]
    layers = [random_heads(n_heads, d_model, d_head, seed=seed + i, layer=i) for i in (0, 1)]
    changes = (
        {"W_V": (2, token), "W_O": (2, before.mT)},
        {"W_Q": (5, token), "W_K": (5, before), "W_V": (5, token), "W_O": (5, token.mT)},
    )
    for i, change in enumerate(changes):
        for name, (head, matrix) in change.items():
            grown = getattr(layers[i], name).clone()
            grown[head] = matrix
            layers[i] = replace(layers[i], **{name: grown})
    return layers
