"""Statistics of singular values: norms, soft ranks, and how fast the spectrum falls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.weights import singular_values as svd
from headspec.weights.spectral_formulas import build_stats, from_values
from headspec.weights.spectral_null import with_gaussian_null
from headspec.weights.spectral_result import SCALARS, SpectralStats, Statistic

_FROM_GRAM: set[Statistic] = {"frobenius_norm", "participation_ratio"}
_FROM_LARGEST: set[Statistic] = {"spectral_norm", "stable_rank"}


def spectral_stats(
    matrix: Float[Tensor, "*batch rows cols"] | Sequence[Tensor] | None = None,
    *,
    stats: Collection[Statistic] | None = None,
    top_k: int | Sequence[int] = (1, 10),
    singular_values: Float[Tensor, "*batch rank"] | Float[np.ndarray, "*batch rank"] | None = None,
    n_null: int = 0,
    seed: int = 0,
) -> SpectralStats:
    """Statistics of the singular values of one or many matrices, in float64.

    Formulas are with `SpectralStats`. All statistics come from one set of singular values, as
    accurate as `headspec.singular_values` says (norms to 1e-11 and soft ranks to 1e-10 of
    themselves, mostly to 1e-13).
    Ask for less and it costs less: with `frobenius_norm` and `participation_ratio` alone no
    eigenvalue is computed (sum s^4 is the squared Frobenius norm of W^T W), and `spectral_norm`
    and `stable_rank` beside them need the largest one only (Lanczos, to 1e-10).

    **Split first.** A fused QKV matrix has other statistics than Q, K and V
    (`suite.layer_matrices` gives the three), and a matrix of all heads others than a head
    (`spectral_stats(weights.W_Q)`, or `singular_values=qk_svd(weights).S` for its circuit).

    Args:
        matrix: a matrix, a batch of them, or a sequence of matrices of any shapes.
        stats: which statistics, out of the fields of `SpectralStats`; None: all.
        top_k: of `top_variance`, one or several; a k beyond the number of values gives 1.
        singular_values: use these instead of computing the matrix's, in any order: from a
            circuit's decomposition, or from before. All of them: norms and ranks of the k largest
            are those of what is left. The matrix may be left out.
        n_null: random matrices of the same shape, with independent Gaussian entries and the same
            Frobenius norm, whose mean and standard deviation stand beside each statistic (and
            `frobenius_norm` comes along). 10 are plenty: they hardly vary. Needs the matrix for
            its shape. Circuits (products) and embeddings have other nulls.
        seed: of the random matrices.

    Returns:
        A `SpectralStats` with arrays of shape `*batch` (a number each for one matrix; one entry a
        matrix for a sequence).

    Raises:
        InputError: NaN or infinite entries (the message names the matrix), an unknown statistic,
            neither a matrix nor singular values, singular values that are negative or not the
            matrix's in number, or `n_null` without a matrix.

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
    on *all* directions, not on those that its inputs take. The spectrum of a random matrix is
    not flat either (Marchenko and Pastur): compare with it (`n_null`).
    """
    wanted = _wanted(stats)
    if n_null:
        wanted |= {"frobenius_norm"}
    ks = tuple(int(k) for k in np.atleast_1d(np.asarray(top_k)))
    if any(k < 1 for k in ks):
        raise InputError(expected="top_k of at least 1", got=f"{ks}", fix="Count from 1.")
    if singular_values is None and not isinstance(matrix, Tensor):
        if matrix is None or not len(matrix):
            raise InputError(
                expected="a matrix, a sequence of matrices, or singular_values=",
                got=f"{matrix!r}",
                fix="Pass one of them.",
            )
        options = {"stats": wanted, "top_k": ks, "n_null": n_null, "seed": seed}
        return _joined([_one_of_many(i, one, options) for i, one in enumerate(matrix)])
    if matrix is not None:
        svd.check_matrices(matrix)
    sides = (matrix.shape[-2], matrix.shape[-1]) if isinstance(matrix, Tensor) else None
    if singular_values is not None:
        values = _checked(singular_values, matrix)
        found = from_values(values, wanted, ks, size=max(sides) if sides else None)
    else:
        assert isinstance(matrix, Tensor)
        if wanted <= _FROM_GRAM | _FROM_LARGEST:
            found = _from_gram(matrix, wanted, ks)
        else:
            values = svd.singular_values(matrix).cpu().numpy()
            found = from_values(values, wanted, ks, size=max(matrix.shape[-2:]))
    return with_gaussian_null(found, sides, n_null=n_null, seed=seed) if n_null else found


def _wanted(stats: Collection[Statistic] | None) -> set[Statistic]:
    known = get_args(Statistic)
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


def _checked(values: Tensor | np.ndarray, matrix: Any) -> np.ndarray:
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
    if matrix is not None and values.shape != (*matrix.shape[:-2], min(matrix.shape[-2:])):
        raise InputError(
            expected=f"all singular values of the matrix {list(matrix.shape)}",
            got=f"shape {list(values.shape)}",
            fix="Leave the matrix out where they are another's, such as a circuit's.",
        )
    return -np.sort(-values, axis=-1)


def _one_of_many(i: int, one: Tensor, options: Mapping[str, Any]) -> SpectralStats:
    if not isinstance(one, Tensor) or one.ndim != 2:
        got = f"shape {list(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
        raise InputError(
            expected="tensors of two dimensions in the sequence",
            got=f"{got} at place {i}",
            fix="Pass a batch as one tensor, a dict's values as a list, and arrays by "
            "torch.from_numpy.",
        )
    try:
        return spectral_stats(one, **options)
    except InputError as error:
        raise InputError(
            expected=error.expected, got=f"{error.got}, in matrix {i}", fix=error.fix
        ) from None


def _joined(parts: list[SpectralStats]) -> SpectralStats:
    """Results of single matrices, one after the other; shorter spectra end in nan."""
    stacked: dict[str, Any] = {
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
    for kind in ("null_mean", "null_sd"):
        every = [getattr(one, kind) for one in parts]
        stacked[kind] = {name: np.stack([one[name] for one in every]) for name in every[0]}
    return replace(first, **stacked, singular_values=padded)


def _from_gram(matrix: Tensor, wanted: set[Statistic], ks: tuple[int, ...]) -> SpectralStats:
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
    return build_stats(found, wanted, ks, shape, min(matrix.shape[-2:]), None)
