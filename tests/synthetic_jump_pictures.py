"""Made-up patterns, filters, activations and entropies of the study of jumps."""

from itertools import product

import numpy as np
from synthetic_jumps import STEPS

from headspec.results import tidy


def entropy_frame(*, layers=4, heads=4, seeds=(0,), n_keys=17, seed=0):
    """Heads that sharpen at different steps."""
    rng = np.random.default_rng(seed)
    rows = []
    steps = STEPS[::5]
    for layer, head, run in product(range(layers), range(heads), seeds):
        middle = 100 + 150 * head
        fall = (0.3 + 0.4 * layer) / (1 + np.exp(-(steps - middle) / 40))
        value = np.log(n_keys) - 0.05 - fall + 0.02 * rng.normal(size=len(steps))
        rows += [
            {
                "step": int(step),
                "layer": layer,
                "layer_name": f"blocks.{layer}.attn",
                "head": head,
                "seed": run,
                "metric": "entropy",
                "value": each,
                "null_mean": np.log(n_keys),
            }
            for step, each in zip(steps, value, strict=True)
        ]
    return tidy(rows, model="transformer")


def attention(*, heads=8, grid=(4, 4), sharp=0.0, seed=0):
    """Patterns `head q k` of a vision transformer: class token and patches; heads look near."""
    rng = np.random.default_rng(seed)
    tokens = 1 + grid[0] * grid[1]
    places = np.array([(-1, -1), *product(range(grid[0]), range(grid[1]))], dtype=float)
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    logits = 0.3 * rng.normal(size=(heads, tokens, tokens))
    logits -= sharp * np.arange(heads)[:, None, None] / heads * distance
    shares = np.exp(logits)
    return shares / shares.sum(-1, keepdims=True)


def filter_pair(*, n=16, size=5, seed=0):
    """Filters of noise, then gratings for half of them."""
    rng = np.random.default_rng(seed)
    before = 0.2 * rng.normal(size=(n, size, size))
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    after = 0.3 * before.copy()
    for i in range(0, n, 2):
        angle = np.pi * i / n
        after[i] += 0.4 * np.cos(1.6 * (x * np.cos(angle) + y * np.sin(angle)))
        after[i] *= np.exp(-(x**2 + y**2) / 6)
    r2 = np.where(np.arange(n) % 2 == 0, 0.93, 0.55) + 0.05 * rng.normal(size=n)
    return before, after, np.clip(r2, 0, 1)


def activations(*, classes=10, units=64, tuned=0.0, seed=0):
    """Class means of rectified units, tuned to a class each by so much."""
    rng = np.random.default_rng(seed)
    base = rng.gamma(1.5, 0.3, size=(classes, units))
    base[np.arange(units) % classes, np.arange(units)] += tuned
    return base
