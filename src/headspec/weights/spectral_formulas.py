"""From singular values to `SpectralStats`: the formulas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headspec.weights.spectral_result import SCALARS, SpectralStats, Statistic

_EPS = float(np.finfo(np.float64).eps)


def from_values(
    values: np.ndarray, wanted: set[Statistic], ks: tuple[int, ...], *, size: int | None = None
) -> SpectralStats:
    """All statistics from descending singular values; `size` is the larger side of the matrix."""
    rank = values.shape[-1]
    first = values[..., 0]
    shares = np.divide(  # of the largest, so that no power overflows
        values, first[..., None], out=np.full_like(values, np.nan), where=first[..., None] > 0
    )
    total, square = shares.sum(-1), (shares**2).sum(-1)
    p = shares / total[..., None]
    entropy = -(p * np.log(np.where(p == 0, 1.0, p))).sum(-1)
    smallest = shares[..., -1]
    singular = smallest <= _EPS * max(size or rank, rank)
    found = {
        "spectral_norm": first,
        "frobenius_norm": np.where(first > 0, first * np.sqrt(square), 0.0),
        "nuclear_norm": np.where(first > 0, first * total, 0.0),
        "stable_rank": square,
        "effective_rank": np.exp(entropy),
        "participation_ratio": square**2 / (shares**4).sum(-1),
        "participation_ratio_sigma": total**2 / square,
        "condition_number": np.where(singular, np.inf, 1 / np.where(singular, 1.0, smallest)),
        "decay_rate": _decay_rate(shares),
    }
    cumulated = np.cumsum(shares**2, axis=-1) / square[..., None]
    chosen = [min(k, rank) - 1 for k in ks]
    found["top_variance"] = np.minimum(cumulated[..., chosen], 1.0)
    return build_stats(found, wanted, ks, values.shape[:-1], rank, values)


def _decay_rate(shares: np.ndarray) -> np.ndarray:
    """Minus the least-squares slope of ln s_r against ln r over the upper half of the ranks."""
    rank = shares.shape[-1]
    upper = shares[..., : -(-rank // 2)]
    if upper.shape[-1] < 2:
        return np.full(shares.shape[:-1], np.nan)
    x = np.log(np.arange(1, upper.shape[-1] + 1))
    x = x - x.mean()
    positive = (upper > _EPS * rank).all(-1)
    y = np.log(np.where(positive[..., None], upper, 1.0))
    return np.where(positive, -(y @ x) / (x @ x), np.nan)


def build_stats(
    found: Mapping[str, np.ndarray | np.float64],
    wanted: set[Statistic],
    ks: tuple[int, ...],
    shape: tuple[int, ...],
    rank: int,
    values: np.ndarray | None,
) -> SpectralStats:
    """The result: what was asked for, and NaN for the rest."""
    fields: dict[str, Any] = {name: np.full(shape, np.nan) for name in SCALARS}
    fields["top_variance"] = np.full((*shape, len(ks)), np.nan)
    fields |= {name: np.asarray(found[name]) for name in wanted}
    return SpectralStats(
        **fields,
        n_values=np.full(shape, rank),
        top_k=ks,
        computed=tuple(name for name in (*SCALARS, "top_variance") if name in wanted),
        singular_values=values,
    )
