"""What random matrices of the same shape give in the place of a spectral statistic."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import get_args

import numpy as np

from headspec.errors import InputError
from headspec.weights.gaussian_spectra import gaussian_spectra
from headspec.weights.spectral_formulas import from_values
from headspec.weights.spectral_result import SpectralStats, Statistic

_WITHOUT = ("frobenius_norm", "condition_number")  # held equal; infinite on average if square


def with_gaussian_null(
    stats: SpectralStats, sides: tuple[int, int] | None, *, n_null: int, seed: int
) -> SpectralStats:
    """The statistics beside those of Gaussian matrices of the same shape and Frobenius norm.

    Raises:
        InputError: no shape, or fewer than 2 draws.
    """
    if sides is None or n_null < 2:
        raise InputError(
            expected="a matrix, for its shape, and n_null of at least 2",
            got=f"n_null={n_null}" + ("" if sides else " and singular values alone"),
            fix="Pass the matrix too, and n_null=10; or leave n_null out.",
        )
    of_one = _gaussian_stats(sides, stats.top_k, n_null, seed)
    mean, sd = {}, {}
    for name in stats.named():
        if name in _WITHOUT:
            continue
        scale = (
            stats.frobenius_norm if name.endswith("norm") else np.ones_like(stats.frobenius_norm)
        )
        mean[name], sd[name] = (np.asarray(scale * number) for number in of_one[name])
    return replace(stats, null_mean=mean, null_sd=sd, n_null=n_null, seed=seed)


@lru_cache(maxsize=256)
def _gaussian_stats(
    sides: tuple[int, int], top_k: tuple[int, ...], n_null: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each statistic at Frobenius norm 1."""
    values = np.sqrt(gaussian_spectra(sides, n_draws=n_null, seed=seed))[:, ::-1]
    values = values / np.linalg.norm(values, axis=1, keepdims=True)
    drawn = from_values(values, set(get_args(Statistic)), top_k, size=max(sides)).named()
    return {name: (float(one.mean()), float(one.std(ddof=1))) for name, one in drawn.items()}
