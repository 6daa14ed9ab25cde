"""Statistics of singular values: norms, soft ranks, and how fast the spectrum falls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.weights import singular_values as svd
from headspec.weights.spectral_result import SCALARS, SpectralStats

_EPS = float(np.finfo(np.float64).eps)
_FROM_GRAM = {"frobenius_norm", "participation_ratio"}
_FROM_LARGEST = {"spectral_norm", "stable_rank"}


def spectral_stats(
    matrix: Float[Tensor, "*batch rows cols"] | Sequence[Tensor] | None = None,
    *,
    stats: Collection[str] | None = None,
    top_k: Sequence[int] = (1, 10),
    singular_values: Float[Tensor, "*batch rank"] | Float[np.ndarray, "*batch rank"] | None = None,
) -> SpectralStats:
    """Statistics of the singular values of one or many matrices, in float64.

    Formulas are with `SpectralStats`. All statistics come from one set of singular values, as
    accurate as `headspec.singular_values` says (norms and soft ranks to 1e-12 of themselves).
    Ask for less and it costs less: with `frobenius_norm` and `participation_ratio` alone no
    eigenvalue is computed (sum s^4 is the squared Frobenius norm of W^T W), and `spectral_norm`
    and `stable_rank` beside them need the largest one only (Lanczos, to 1e-10).

    **Split first.** A fused QKV matrix has other statistics than Q, K and V
    (`suite.layer_matrices` gives the three), and a matrix of all heads others than a head
    (`spectral_stats(weights.W_Q)`, or `singular_values=qk_svd(weights).S` for its circuit).

    Args:
        matrix: a matrix, a batch of them, or a sequence of matrices of any shapes.
        stats: which statistics, out of the fields of `SpectralStats`; None: all.
        top_k: of `top_variance`; a k beyond the number of values gives 1.
        singular_values: use these instead of computing the matrix's, in any order: from a
            circuit's decomposition, or from before. The matrix may be left out.

    Returns:
        A `SpectralStats` with arrays of shape `*batch` (a number each for one matrix; one entry a
        matrix for a sequence).

    Raises:
        InputError: NaN or infinite entries (the message names the matrix), an unknown statistic,
            neither a matrix nor singular values, or negative singular values.

    References:
        Roy and Vetterli 2007, The effective rank. Rudelson and Vershynin 2007,
        arXiv:math/0503442 (stable rank). Yunis et al. 2024, arXiv:2408.11804, for spectra over
        training; the definition of `decay_rate` is headspec's.

    Example:
        >>> import torch
        >>> stats = spectral_stats(torch.diag(torch.tensor([2.0, 2.0, 1.0, 0.0])))
        >>> float(stats.stable_rank), float(stats.participation_ratio)
        (2.25, 2.4545454545454546)

    **What it does not show.** Norms follow the optimiser's weight decay and learning rate; under
    layer norm before and after, the model may not feel them. A rank says how evenly a matrix acts
    on *all* directions, not on those that its inputs take. Compare with a random matrix of the
    same shape and norm, whose spectrum is not flat either (Marchenko and Pastur).
    """
    wanted = _wanted(stats)
    ks = tuple(int(k) for k in top_k)
    if any(k < 1 for k in ks):
        raise InputError(expected="top_k of at least 1", got=f"{ks}", fix="Count from 1.")
    if singular_values is not None:
        size = max(matrix.shape[-2:]) if isinstance(matrix, Tensor) else None
        return _from_values(_checked(singular_values), wanted, ks, size=size)
    if isinstance(matrix, Tensor):
        if wanted <= _FROM_GRAM | _FROM_LARGEST:
            return _from_gram(matrix, wanted, ks)
        values = svd.singular_values(matrix).cpu().numpy()
        return _from_values(values, wanted, ks, size=max(matrix.shape[-2:]))
    if matrix is None or not len(matrix):
        raise InputError(
            expected="a matrix, a sequence of matrices, or singular_values=",
            got=f"{matrix!r}",
            fix="Pass one of them.",
        )
    return _joined([_one_of_many(i, one, wanted, ks) for i, one in enumerate(matrix)])


def _wanted(stats: Collection[str] | None) -> set[str]:
    known = (*SCALARS, "top_variance")
    if stats is None:
        return set(known)
    if isinstance(stats, str) or not stats:
        raise InputError(
            expected="a tuple of statistics, or None for all",
            got=f"stats={stats!r}",
            fix='For one: stats=("stable_rank",).',
        )
    for name in stats:
        check_choice("stats", name, known)
    return set(stats)


def _checked(values: Tensor | np.ndarray) -> np.ndarray:
    """Singular values as float64, descending."""
    if isinstance(values, Tensor):
        values = values.detach().to(device="cpu", dtype=torch.float64).numpy()
    values = np.asarray(values, dtype=np.float64)
    if values.ndim < 1 or values.size == 0 or not (values >= 0).all() or np.isinf(values).any():
        raise InputError(
            expected="finite singular values of at least 0, [... rank]",
            got=f"shape {list(values.shape)}, least {values.min() if values.size else None}",
            fix="Eigenvalues of W^T W are their squares: take the root first.",
        )
    return -np.sort(-values, axis=-1)


def _one_of_many(i: int, one: Tensor, wanted: set[str], ks: tuple[int, ...]) -> SpectralStats:
    if one.ndim != 2:
        raise InputError(
            expected="matrices of two dimensions in the sequence",
            got=f"shape {list(one.shape)} at place {i}",
            fix="Pass a batch as one tensor.",
        )
    try:
        return spectral_stats(one, stats=wanted, top_k=ks)
    except InputError as error:
        raise InputError(
            expected=error.expected, got=f"{error.got}, in matrix {i}", fix=error.fix
        ) from None


def _joined(parts: list[SpectralStats]) -> SpectralStats:
    """Results of single matrices, one after the other; shorter spectra end in nan."""
    stacked = {
        name: np.stack([getattr(one, name) for one in parts])
        for name in (*SCALARS, "top_variance", "n_values")
    }
    spectra = [one.singular_values for one in parts if one.singular_values is not None]
    padded = None
    if spectra:
        padded = np.full((len(spectra), max(len(one) for one in spectra)), np.nan)
        for row, one in zip(padded, spectra, strict=True):
            row[: len(one)] = one
    first = parts[0]
    return SpectralStats(
        **stacked, top_k=first.top_k, computed=first.computed, singular_values=padded
    )


def _from_gram(matrix: Tensor, wanted: set[str], ks: tuple[int, ...]) -> SpectralStats:
    """Statistics that need W^T W, or less, and no more than its largest eigenvalue."""
    rows = []
    with torch.no_grad():
        for one, scale in svd.scaled_matrices(matrix):
            if wanted == {"frobenius_norm"} or scale == 0:
                square = sum(float(part.square().sum()) for part in svd.blocks(one, scale or 1.0))
                rows.append((scale, square, np.nan, np.nan))
                continue
            product = svd.gram(one, scale)
            fourth = float(product.square().sum())
            top = svd.largest_eigenvalue(product) if wanted & _FROM_LARGEST else np.nan
            rows.append((scale, float(product.trace()), fourth, top))
    shape = tuple(matrix.shape[:-2])
    scale, square, fourth, top = np.array(rows).T.reshape(4, *shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "frobenius_norm": scale * np.sqrt(square),
            "participation_ratio": square**2 / fourth,
            "spectral_norm": np.where(scale == 0, 0.0, scale * np.sqrt(top)),
            "stable_rank": square / top,
        }
    return _result(found, wanted, ks, shape, min(matrix.shape[-2:]), None)


def _from_values(
    values: np.ndarray, wanted: set[str], ks: tuple[int, ...], *, size: int | None = None
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
    return _result(found, wanted, ks, values.shape[:-1], rank, values)


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


def _result(
    found: Mapping[str, np.ndarray | np.float64],
    wanted: set[str],
    ks: tuple[int, ...],
    shape: tuple[int, ...],
    rank: int,
    values: np.ndarray | None,
) -> SpectralStats:
    fields = {name: np.full(shape, np.nan) for name in SCALARS}
    fields["top_variance"] = np.full((*shape, len(ks)), np.nan)
    fields |= {name: np.asarray(found[name]) for name in wanted}
    return SpectralStats(
        **fields,
        n_values=np.full(shape, rank),
        top_k=ks,
        computed=tuple(name for name in (*SCALARS, "top_variance") if name in wanted),
        singular_values=values,
    )
