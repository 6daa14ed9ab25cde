"""Heads made of random numbers, for the tests of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import binom

from headspec import HeadWeights


def random_heads(
    n: int = 12, d_model: int = 24, d_head: int = 4, *, kv: int | None = None, seed: int = 0, **more
) -> HeadWeights:
    """Gaussian heads; `dtype=` and any field of HeadWeights may be given."""
    generator = torch.Generator().manual_seed(seed)
    dtype = more.pop("dtype", torch.float32)
    kv = kv or n

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    fields: dict[str, Any] = {
        "W_Q": draw(n, d_model, d_head),
        "W_K": draw(kv, d_model, d_head),
        "W_V": draw(kv, d_model, d_head),
        "W_O": draw(n, d_head, d_model),
    }
    return HeadWeights(**(fields | more))


def heads_from_rows(rows: np.ndarray, **more) -> HeadWeights:
    """Heads whose `"q"` feature is the given `head feature` rows (d_head 1)."""
    W_Q = torch.from_numpy(np.ascontiguousarray(rows))[:, :, None]
    return HeadWeights(W_Q=W_Q, W_K=W_Q, W_V=W_Q, W_O=W_Q.mT, **more)


def planted_rows(n: int, features: int, *, gap: float, seed: int) -> np.ndarray:
    """Two equal clusters of Gaussian rows, `gap` norms of a row apart."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, features))
    rows[: n // 2] += gap * rng.standard_normal(features)
    return rows


def long_head_rows(norm: float, seed: int = 0, features: int = 3000) -> np.ndarray:
    """Twelve unrelated heads of norm 1, head 6 of the given norm."""
    rows = np.random.default_rng(seed).standard_normal((12, features))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[6] *= norm
    return rows


def rejection_bounds(trials: int, level: float) -> tuple[int, int]:
    """Counts of rejections that a test of that level stays within (all but 1 in 1,000 times)."""
    return int(binom.ppf(0.0005, trials, level)), int(binom.ppf(0.9995, trials, level))
