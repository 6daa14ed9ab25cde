"""Eigenvalues of W^T W for Gaussian W, drawn without the matrix, and the alpha they have."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import eigvalsh_tridiagonal

from headspec.errors import InputError
from headspec.weights.tail_scan import scan_tails


def gaussian_spectra(
    shape: tuple[int, int], *, n_draws: int = 1, seed: int = 0
) -> Float[np.ndarray, "draw rank"]:
    """Eigenvalues of W^T W of random matrices with independent standard normal entries.

    The matrix is never made. Householder reflections bring it to bidiagonal form, whose entries
    are independent chi variables with m, m - 1, ... and n - 1, n - 2, ... degrees of freedom; the
    eigenvalues of that tridiagonal product have exactly the distribution of those of W^T W. The
    cost is n^2 a draw, not m n^2.

    Args:
        shape: of the matrix, in either order.
        n_draws: matrices.
        seed: of the draws.

    Returns:
        The min(shape) eigenvalues, ascending; multiply by the variance of the entries. The
        singular values are their roots.

    Raises:
        InputError: an empty shape or no draws.

    What it does not show: anything about a trained matrix, whose entries are neither independent
    nor normal. It is what a matrix of that shape gives without structure.

    References:
        Dumitriu and Edelman 2002, "Matrix models for beta ensembles", section III.

    Example:
        >>> gaussian_spectra((64, 256), n_draws=3).shape
        (3, 64)
    """
    diagonals, offs = _tridiagonals(shape, n_draws, seed)
    if min(shape) == 1:
        return diagonals
    found = [eigvalsh_tridiagonal(d, e) for d, e in zip(diagonals, offs, strict=True)]
    return np.maximum(np.stack(found), 0.0)


def middle_and_top(
    shape: tuple[int, int], *, n_draws: int, seed: int = 0
) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
    """Median and largest singular value of Gaussian matrices, by bisection: no other is found."""
    n = min(shape)
    diagonals, offs = _tridiagonals(shape, n_draws, seed)
    if n == 1:
        return np.sqrt(diagonals[:, 0]), np.sqrt(diagonals[:, 0])
    found = np.empty((2, n_draws))
    for draw, (d, e) in enumerate(zip(diagonals, offs, strict=True)):
        for row, ends in enumerate((((n - 1) // 2, n // 2), (n - 1, n - 1))):
            picked = eigvalsh_tridiagonal(d, e, select="i", select_range=ends)
            found[row, draw] = np.sqrt(np.maximum(picked, 0.0)).mean()
    return found[0], found[1]


def _tridiagonals(shape: tuple[int, int], n_draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Diagonal and off-diagonal of B B^T, B bidiagonal with independent chi entries."""
    m, n = max(shape), min(shape)
    if n < 1 or n_draws < 1:
        raise InputError(
            expected="a shape of positive numbers and at least one draw",
            got=f"shape {shape}, {n_draws} draws",
            fix="Give the rows and columns of the matrix.",
        )
    rng = np.random.default_rng(seed)
    diagonal = rng.chisquare(m - np.arange(n), (n_draws, n))
    below = rng.chisquare(np.arange(n - 1, 0, -1), (n_draws, n - 1)) if n > 1 else diagonal[:, 1:]
    off = np.sqrt(diagonal[:, :-1] * below)
    diagonal[:, 1:] += below
    return diagonal, off


@lru_cache(maxsize=256)
def gaussian_alphas(
    shape: tuple[int, int], n_null: int, seed: int, min_tail: int
) -> tuple[float, ...]:
    """alpha of each of `n_null` Gaussian matrices of that shape; kept for the next call."""
    eigenvalues = gaussian_spectra(shape, n_draws=n_null, seed=seed)
    logs = torch.from_numpy(np.log(np.maximum(eigenvalues, np.finfo(float).tiny)))
    nothing = torch.zeros(n_null, dtype=torch.long)
    slopes = scan_tails(logs, nothing, min_tail=min_tail).slope
    return tuple((1 + slopes).tolist())
