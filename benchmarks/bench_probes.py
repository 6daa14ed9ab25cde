"""Logistic probes of a stack of layers, against scikit-learn in a loop over the layers.

    .venv/bin/python benchmarks/bench_probes.py [--samples 20000 --features 512 --layers 2]

Features are standardised; of five classes. Ill-conditioned ones, as language models have them,
spread their variance over six decades before a rotation mixes them; isotropic ones are the
easiest there are, and scikit-learn needs some fifteen iterations. Its tolerance is the largest
power of ten that brings every objective within 1e-4 nats of ours; a looser one is not the same
probe. The last rows choose a penalty as `fit_probes` does: six of them, real and control labels.
"""

from __future__ import annotations

import argparse

import torch
from harness import compare, print_header
from sklearn.linear_model import LogisticRegression

from headspec.activations.probe_solver import solve_logistic
from headspec.activations.probes import L2_GRID

CLASSES = 5


def layer(kind: str, n: int, d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised features of one layer and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    x = torch.randn(n, d, generator=generator)
    means = 0.1 * torch.randn(CLASSES, d, generator=generator)
    x += means[labels]
    if kind == "ill-conditioned":
        x *= torch.logspace(0, -3, d)
        x = x @ torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    return ((x - x.mean(0)) / x.std(0)).contiguous(), labels


def scikit_learn(x, labels, penalties, tol):
    """One fit a penalty: weights `d_model class` and biases."""
    found = []
    for l2 in penalties:
        peer = LogisticRegression(C=1 / (l2 * len(x)), tol=tol, max_iter=20_000)
        peer.fit(x.numpy(), labels.numpy())
        found.append((torch.from_numpy(peer.coef_.T), torch.from_numpy(peer.intercept_)))
    return found


def objective(x, labels, weights, biases, l2) -> float:
    """Mean loss + l2/2 |W|² in float64."""
    logits = x.double() @ weights.double() + biases.double()
    loss = torch.nn.functional.cross_entropy(logits, labels)
    return float(loss + 0.5 * l2 * weights.double().square().sum())


def gaps(layers, target_sets, penalties, ours, peers) -> list[float]:
    """scikit-learn's objective minus ours, for every layer, set of labels and penalty."""
    found = []
    for (x, _), sets, (W, b), peer in zip(layers, target_sets, ours, peers, strict=True):
        for s, target in enumerate(sets):
            for at, l2 in enumerate(penalties):
                mine = objective(x, target, W[s, at], b[s, at], l2)
                found.append(objective(x, target, *peer[s][at], l2) - mine)
    return found


def row(name, kind, penalties, *, n, d, n_layers, control) -> None:
    """One comparison; the tolerance of scikit-learn is found first."""
    layers = [layer(kind, n, d, seed) for seed in range(n_layers)]
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(9))
    sets = [
        torch.stack([labels, labels[shuffled]]) if control else labels[None] for _, labels in layers
    ]

    def ours():
        return [
            solve_logistic(x, targets, penalties, n_classes=CLASSES)
            for (x, _), targets in zip(layers, sets, strict=True)
        ]

    def peers(tol):
        return [
            [scikit_learn(x, target, penalties, tol) for target in targets]
            for (x, _), targets in zip(layers, sets, strict=True)
        ]

    def agree(mine, theirs):
        return max(map(abs, gaps(layers, sets, penalties, mine, theirs))) < 1e-4

    best = ours()
    tol = next(tol for tol in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7) if agree(best, peers(tol)))
    note = f"tol {tol:g}, {torch.get_num_threads()} threads"
    compare(name, ours, lambda: peers(tol), agree=agree, note=note)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--layers", type=int, default=2)
    chosen = parser.parse_args()
    size = {"n": chosen.samples, "d": chosen.features, "n_layers": chosen.layers}
    what = f"{chosen.layers} layers, {chosen.samples:,} x {chosen.features}, {CLASSES} classes"
    print_header()
    for kind in ("ill-conditioned", "isotropic"):
        for l2 in (1e-5, 1e-3):
            row(f"probes, {kind}, l2 {l2:g}: {what}", kind, [l2], control=False, **size)
    quarter = {**size, "n": chosen.samples // 4, "n_layers": 1}
    for kind in ("ill-conditioned", "isotropic"):
        name = f"six penalties and control, {kind}: 1 layer, {quarter['n']:,} x {chosen.features}"
        row(name, kind, list(L2_GRID), control=True, **quarter)
