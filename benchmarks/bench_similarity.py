"""All-pairs distances of the QK products of 144 heads, against a loop over formed products.

    .venv/bin/python benchmarks/bench_similarity.py

The shape is that of Pythia-160m: 12 layers of 12 heads, d_model 768, d_head 64. Near copies are
checked against the difference in float64, where the Gram matrix of float32 products fails.
"""

from __future__ import annotations

import numpy as np
import torch
from harness import compare, print_header

from headspec import HeadWeights, head_similarity


def layers(n_layers: int = 12, heads: int = 12, d_model: int = 768, d_head: int = 64):
    """Gaussian layers; head 1 of layer 1 is a near copy of head 1 of layer 0."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for layer in range(n_layers):
        W_Q, W_K = (0.1 * torch.randn(heads, d_model, d_head, generator=generator) for _ in "qk")
        if layer == 1:
            noise = 1e-7 * torch.randn(d_model, d_head, generator=generator)
            W_Q[1], W_K[1] = found[0].W_Q[1] + noise, found[0].W_K[1]
        found.append(HeadWeights(W_Q=W_Q, W_K=W_K, W_V=W_K, W_O=W_Q.mT, layer=layer))
    return found


def loop_over_products(weights) -> np.ndarray:
    """Form every product, then subtract every pair."""
    products = torch.empty(144, 768, 768)
    for i, layer in enumerate(weights):
        torch.bmm(layer.W_Q, layer.W_K.mT, out=products[12 * i : 12 * (i + 1)])
    found = np.zeros((len(products), len(products)))
    for i, one in enumerate(products):
        for j in range(i):
            found[i, j] = found[j, i] = torch.linalg.vector_norm(one - products[j])
    return found


def agree(ours, naive) -> None:
    """The same distances; the near copy right to 1 % by its difference in float64."""
    copies = ours.distances[1, 13]
    mask = np.ones_like(naive, dtype=bool)
    mask[1, 13] = mask[13, 1] = False
    np.testing.assert_allclose(ours.distances[mask], naive[mask], rtol=1e-5)
    true = (WEIGHTS[0].W_Q[1].double() - WEIGHTS[1].W_Q[1].double()) @ WEIGHTS[0].W_K[1].double().mT
    np.testing.assert_allclose(copies, float(torch.linalg.matrix_norm(true)), rtol=0.01)


WEIGHTS = layers()

if __name__ == "__main__":
    print_header()
    compare(
        "QK distances of 144 heads (768 x 64), all pairs",
        lambda: head_similarity(WEIGHTS, feature="qk"),
        lambda: loop_over_products(WEIGHTS),
        agree=agree,
        memory=True,
        note=f"{torch.get_num_threads()} threads",
    )
