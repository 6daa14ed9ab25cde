"""Composition of all pairs of 144 heads, null included, against transformer-lens (no null).

    .venv/bin/python benchmarks/bench_composition.py

The shape is that of Pythia-160m: 12 layers of 12 heads, d_model 768, d_head 64.
"""

from __future__ import annotations

import numpy as np
import torch
from harness import compare, print_header
from transformer_lens import FactoredMatrix
from transformer_lens.utilities.matrix import composition_scores as their_scores

from headspec import HeadWeights, composition_scores


def layers(n_layers: int = 12, heads: int = 12, d_model: int = 768, d_head: int = 64):
    """Gaussian layers."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(*shape, generator=generator)

    return [
        HeadWeights(
            W_Q=draw(heads, d_model, d_head),
            W_K=draw(heads, d_model, d_head),
            W_V=draw(heads, d_model, d_head),
            W_O=draw(heads, d_head, d_model),
            layer=layer,
        )
        for layer in range(n_layers)
    ]


def theirs(weights: list[HeadWeights]) -> torch.Tensor:
    """`layer head layer head`, as `all_composition_scores("K")` computes it."""
    W_Q, W_K, W_V, W_O = (
        torch.stack([getattr(layer, name) for layer in weights])
        for name in ("W_Q", "W_K", "W_V", "W_O")
    )
    return their_scores(FactoredMatrix(W_V, W_O), FactoredMatrix(W_Q, W_K.mT).T)


def agree(ours, naive) -> None:
    """The same scores wherever the upstream layer comes first."""
    defined = ~np.isnan(ours.scores)
    np.testing.assert_allclose(
        ours.scores[defined], naive.numpy().reshape(144, 144)[defined], rtol=1e-5
    )


if __name__ == "__main__":
    WEIGHTS = layers()
    print_header()
    compare(
        "K-composition of 144 heads (768 x 64), all pairs, with p",
        lambda: composition_scores(WEIGHTS, WEIGHTS, kind="k"),
        lambda: theirs(WEIGHTS),
        agree=agree,
        memory=True,
        note=f"{torch.get_num_threads()} threads",
    )
