"""SVD of the QK and OV circuits of 144 heads, against the products' and transformer-lens's SVD.

    .venv/bin/python benchmarks/bench_circuits.py

The shape is that of Pythia-160m: 12 layers of 12 heads, d_model 768, d_head 64. Weights are
Gaussian, except in the last rows: there the singular values of every factor fall to 1e-5 of the
largest, so that squares lose them and every head goes the slow way. The SVD of a 768 x 768
product is timed on 6 of the 144 heads.

Agreement: values with those of the float64 SVD of the product, vectors by rebuilding the product.
"""

from __future__ import annotations

import torch
from harness import compare, print_header
from transformer_lens import FactoredMatrix

import headspec as hs

HEADS, SOME = 144, 6


def layers(decay: float = 1.0, n_layers: int = 12, heads: int = 12) -> list[hs.HeadWeights]:
    """Layers whose factors' singular values fall to about `decay` of the largest."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, torch.tensor(decay).log10().item(), 64)

    def draw(*shape: int) -> torch.Tensor:
        return 0.02 * torch.randn(*shape, generator=generator)

    def factor() -> torch.Tensor:
        mixed = draw(heads, 768, 64) * scale
        return mixed @ torch.linalg.qr(draw(heads, 64, 64)).Q if decay < 1 else mixed

    return [
        hs.HeadWeights(W_Q=factor(), W_K=factor(), W_V=factor(), W_O=factor().mT, layer=layer)
        for layer in range(n_layers)
    ]


def factors(weights: list[hs.HeadWeights], circuit: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Both factors of every head, `head d_model d_head` and `head d_head d_model`."""
    if circuit == "qk":
        return torch.cat([w.W_Q for w in weights]), torch.cat([w.W_K for w in weights]).mT
    return torch.cat([w.W_V for w in weights]), torch.cat([w.W_O for w in weights])


def bench(weights: list[hs.HeadWeights], circuit: str, note: str) -> None:
    """Values alone and with vectors, against both peers."""
    A, B = factors(weights, circuit)
    exact = torch.linalg.svdvals(A[:SOME].double() @ B[:SOME].double())[:, :64]
    product = A[:SOME] @ B[:SOME]

    def error(values: torch.Tensor) -> float:
        """The worst relative error of a value in some heads."""
        return float(((values.reshape(-1, 64)[:SOME].double() - exact).abs() / exact).max())

    def right_values(ours: hs.CircuitSpectrum, peer: torch.Tensor) -> bool:
        print(f"<!-- {circuit}: worst value off by {error(ours.S):.1e}, peer {error(peer):.1e} -->")
        near = exact[:, :1] * 1e-5  # what a float32 peer can be held to
        off = (ours.S.reshape(-1, 64)[: len(peer)] - peer).abs()[:SOME]
        return error(ours.S) < 1e-6 and bool((off < near).all())

    def right_vectors(ours: hs.CircuitSVD, peer: tuple[torch.Tensor, ...]) -> bool:
        U, Vh = ours.U.flatten(0, 1)[:SOME], ours.Vh.flatten(0, 1)[:SOME]
        rebuilt = (U * ours.S.reshape(-1, 1, 64)[:SOME]) @ Vh
        close = (rebuilt - product).abs().max() < 1e-5 * product.abs().max()
        return bool(close) and right_values(ours, peer[1][:, :64])

    spectrum, svd = (hs.qk_spectrum, hs.qk_svd) if circuit == "qk" else (hs.ov_spectrum, hs.ov_svd)
    name = f"{circuit.upper()} of 144 heads (768 x 64){note}"
    threads = f"{torch.get_num_threads()} threads"
    compare(
        f"{name}: values, against FactoredMatrix.svd",
        lambda: spectrum(weights),
        lambda: FactoredMatrix(A, B).svd()[1],
        agree=right_values,
        memory=True,
        note=threads,
    )
    compare(
        f"{name}: values and vectors, against FactoredMatrix.svd",
        lambda: svd(weights),
        lambda: FactoredMatrix(A, B).svd(),
        agree=right_vectors,
        memory=True,
        note=threads,
    )
    if note:
        return
    compare(
        f"{name}: values, against the products' svdvals",
        lambda: spectrum(weights),
        lambda: torch.linalg.svdvals(A[:SOME] @ B[:SOME])[:, :64],
        agree=right_values,
        peer_scale=HEADS / SOME,
        note=threads,
    )
    compare(
        f"{name}: values and vectors, against the products' svd",
        lambda: svd(weights),
        lambda: torch.linalg.svd(A[:SOME] @ B[:SOME]),
        agree=right_vectors,
        peer_scale=HEADS / SOME,
        note=threads,
    )


if __name__ == "__main__":
    print_header()
    gaussian = layers()
    for circuit in ("qk", "ov"):
        bench(gaussian, circuit, "")
    bench(layers(decay=1e-5), "qk", ", values down to 1e-10")
