"""Dimensionality of activations against SVDs of the data matrix.

    .venv/bin/python benchmarks/bench_dimensionality.py [--samples 10000] [--features 512]

The peers: `torch.linalg.svdvals` of the centred data, in float64 (the same accuracy) and in
float32 (the data's own), and the usual `torch.linalg.svd` with vectors that are not used, which
is what ndtracker calls. Each gives the singular values and the six measures; ours gives their
resolutions as well. Then what a training loop needs: 14 layers of 512 samples and 128 features,
at once and layer by layer. Two nearest neighbours are compared with scikit-learn's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from harness import compare, print_header
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from headspec import dimensionality_stats, streamed_dimensionality, two_nn_dimension


def measures(values: Tensor) -> dict[str, float]:
    """The six measures of descending singular values."""
    s = values.double().numpy()
    squares, p = s**2, s / s.sum()
    p = p[p > 0]
    return {
        "stable_rank": squares.sum() / squares[0],
        "participation_ratio": squares.sum() ** 2 / (squares**2).sum(),
        "participation_ratio_sigma": s.sum() ** 2 / squares.sum(),
        "effective_rank": np.exp(-(p * np.log(p)).sum()),
        "components_90": 1.0 + int(np.searchsorted(np.cumsum(squares) / squares.sum(), 0.9)),
        "nuclear_ratio": s.sum() / s[0],
    }


def naive(matrix: Tensor, *, dtype: torch.dtype, vectors: bool = False) -> dict[str, float]:
    """Centre, decompose, measure."""
    x = matrix.to(dtype)
    x = x - x.mean(0)
    if vectors:
        return measures(torch.linalg.svd(x, full_matrices=False).S)
    return measures(torch.linalg.svdvals(x))


def agreement(rtol: float) -> Callable:
    """Every measure to `rtol`, or to 1 for the number of components."""

    def agree(ours: dict, peer: dict) -> None:
        for name, value in peer.items():
            slack = 1 if name == "components_90" and rtol > 1e-6 else 0
            np.testing.assert_allclose(ours[name], value, rtol=rtol, atol=slack, err_msg=name)

    return agree


def random_activations(samples: int, features: int, *, seed: int = 0) -> Tensor:
    """Rectified features of a falling spectrum, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(features, features, generator=generator) / features**0.5
    x = torch.randn(samples, features, generator=generator)
    return (x * torch.arange(1, features + 1) ** -0.5 @ mix * 3).relu()


def compare_one(samples: int, features: int) -> None:
    """One matrix, three peers; in memory and in batches of 500."""
    matrix = random_activations(samples, features)
    what = f"{samples:,} x {features} float32"
    exact, single = torch.float64, torch.float32
    peers = [
        ("svdvals in float64", {"dtype": exact}, 1e-6),
        ("svdvals in float32", {"dtype": single}, 1e-3),
        ("svd with vectors in float64", {"dtype": exact, "vectors": True}, 1e-6),
        ("svd with vectors in float32", {"dtype": single, "vectors": True}, 1e-3),
    ]
    for peer, options, rtol in peers:
        compare(
            f"dimensionality of {what}, against {peer}",
            lambda: dimensionality_stats(matrix).named(),
            lambda options=options: naive(matrix, **options),
            agree=agreement(rtol),
            memory=True,
        )
    compare(
        f"the same from batches of 500, against {peers[0][0]} of all",
        lambda: streamed_dimensionality(matrix.split(500)).named(),
        lambda: naive(matrix, dtype=exact),
        agree=agreement(1e-6),
        memory=True,
    )


def compare_layers(layers: int) -> None:
    """What a training loop measures every few steps."""
    many = {f"layer {i}": random_activations(512, 128, seed=i) for i in range(layers)}

    def together(*, resolution: bool = True) -> dict[str, np.ndarray]:
        return dimensionality_stats(many, resolution=resolution).named()

    def one_by_one() -> dict[str, np.ndarray]:
        found = [dimensionality_stats(matrix).named() for matrix in many.values()]
        return {name: np.array([one[name] for one in found]) for name in found[0]}

    def peer(dtype: torch.dtype) -> dict[str, np.ndarray]:
        found = [naive(matrix, dtype=dtype, vectors=True) for matrix in many.values()]
        return {name: np.array([one[name] for one in found]) for name in found[0]}

    for dtype, rtol in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
        compare(
            f"{layers} layers of 512 x 128 at once, against svd in {str(dtype)[6:]}, one by one",
            together,
            lambda dtype=dtype: peer(dtype),
            agree=agreement(rtol),
        )
    compare(
        f"{layers} layers of 512 x 128 without resolutions, against svd in float64, one by one",
        lambda: together(resolution=False),
        lambda: peer(torch.float64),
        agree=agreement(1e-6),
    )
    compare(
        f"{layers} layers of 512 x 128, at once against one call a layer",
        together,
        one_by_one,
        agree=agreement(1e-9),
    )


def compare_neighbours(points: int) -> None:
    """Two nearest neighbours in 128 dimensions."""
    x = random_activations(points, 128)

    def peer() -> float:
        near, _ = NearestNeighbors(n_neighbors=3).fit(x.numpy()).kneighbors(x.numpy())
        ratios = np.sort(np.log(near[:, 2] / near[:, 1]))
        kept = int(0.9 * points)
        return (kept - 1) / (ratios[:kept].sum() + (points - kept) * ratios[kept - 1])

    compare(
        f"two-NN dimension of {points:,} x 128, against scikit-learn's neighbours",
        lambda: two_nn_dimension(x).dimension,
        peer,
        agree=lambda ours, other: np.testing.assert_allclose(ours, other, rtol=1e-3),
        memory=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--points", type=int, default=5_000)
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads\n")
    print_header()
    compare_one(arguments.samples, arguments.features)
    compare_layers(arguments.layers)
    compare_neighbours(arguments.points)
