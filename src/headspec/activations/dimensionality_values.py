"""From sums over samples to measures of dimensionality and their resolution."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor

from headspec.activations.dimensionality_formulas import Spectrum, measure_spectrum
from headspec.activations.dimensionality_rows import KeptRows, entry_weights
from headspec.activations.dimensionality_sums import GramSums, exact_values, sum_gram
from headspec.errors import InputError

_SQUARES = {"stable_rank", "participation_ratio", "components_90"}  # hardly feel small values
_LOSS = 1e-8  # of a measure: what the Gram matrix may cost
_EXACT = 1e-12  # of a measure: what an SVD costs
_TINY = 1e-200  # of sums of squares: below, or above its inverse, matrices are scaled first
_CHUNK = 4_000_000  # numbers of Gram matrices at a time: 32 MB

Measured = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
"""Measures and their resolution, an entry a matrix."""


def measure_matrices(
    matrices: Tensor,
    *,
    centred: bool,
    wanted: Collection[str],
    error: float,
    name: Callable[[int], str],
    resolution: bool,
) -> Measured:
    """Measures of `matrix sample feature`.

    Args:
        matrices: of any floating dtype.
        centred: whether the mean sample is taken out.
        wanted: measures whose accuracy counts.
        error: standard deviation of an entry's error, as a share of the entry.
        name: place to the matrix's name in messages.
        resolution: False: what rounding does to the measures is left out, in part.
    """
    size = max(1, _CHUNK // min(matrices.shape[-2:]) ** 2)
    parts = []
    with torch.no_grad():
        for start, chunk in enumerate(matrices.split(size)):
            at = start * size
            found = _measure_chunk(
                chunk,
                centred=centred,
                wanted=wanted,
                error=error,
                name=lambda i, at=at: name(at + i),
                resolution=resolution,
            )
            parts.append(found)
    first, second = ([part[side] for part in parts] for side in range(2))
    return _concatenated(first), _concatenated(second)


def _concatenated(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _measure_chunk(
    matrices: Tensor,
    *,
    centred: bool,
    wanted: Collection[str],
    error: float,
    name: Callable[[int], str],
    resolution: bool,
) -> Measured:
    scale, sums = None, sum_gram(matrices, scale=None, centred=centred, keep=resolution)
    if not in_range(sums):
        scale = scales(matrices, name=name)
        sums = sum_gram(matrices, scale=scale, centred=centred, keep=resolution)
    spectrum = spectrum_of(sums, (matrices.shape[-2], matrices.shape[-1]), dtype=matrices.dtype)
    found, limits, lost = measure_spectrum(spectrum, error=error)
    poor = np.zeros(len(matrices), dtype=bool)
    for key in set(wanted) - _SQUARES:
        poor |= lost[key] > np.maximum(_LOSS * found[key], limits[key] / 10)
    for i in np.flatnonzero(poor):
        by = None if scale is None else scale[i : i + 1]
        exact = exact_values(matrices[i : i + 1], scale=by, centred=centred).cpu().numpy()
        spectrum.values[i] = np.where(spectrum.possible[i], exact, 0.0)
    if poor.any():
        found, limits, less = measure_spectrum(spectrum, error=error)
        lost = {key: np.where(poor, _EXACT * found[key], less[key]) for key in less}
    return found, {key: np.maximum(limits[key], lost[key]) for key in limits}


def in_range(sums: GramSums) -> bool:
    """Whether sums of squares of every matrix neither overflowed nor vanished."""
    return bool(((sums.squares > _TINY) & (sums.squares < 1 / _TINY)).all())


def scales(matrices: Tensor, *, name: Callable[[int], str]) -> Tensor:
    """The power of two that brings the largest entry of each matrix to [0.5, 1); 1 of zeros.

    Raises:
        InputError: NaN or infinite entries.
    """
    low, high = matrices.flatten(1).amin(-1), matrices.flatten(1).amax(-1)
    peak = torch.maximum(-low, high).to(torch.float64)
    if not bool(torch.isfinite(peak).all()):
        bad = int(torch.isfinite(peak).logical_not().nonzero()[0])
        count = int(torch.isfinite(matrices[bad]).logical_not().sum())
        raise InputError(
            expected="finite entries",
            got=f"{count} of {matrices[bad].numel()} NaN or infinite in {name(bad)}",
            fix="Find the step or layer where they start; there is no dimension to measure.",
        )
    return torch.ldexp(torch.ones_like(peak), torch.frexp(peak).exponent)


def spectrum_of(sums: GramSums, sides: tuple[int, int], *, dtype: torch.dtype) -> Spectrum:
    """Singular values, and how they depend on the entries, from the sums.

    Args:
        sums: over samples or features.
        sides: number of samples and features.
        dtype: of the data. How values depend on the entries is computed in float32 for all but
            float64, whose smallest values would be lost.
    """
    if sums.kept is None:
        eigenvalues, weigh = torch.linalg.eigvalsh(sums.gram, UPLO="U"), None
    else:
        eigenvalues, vectors = torch.linalg.eigh(sums.gram, UPLO="U")
        weigh = _weigher(sums, sums.kept, vectors, sides=sides, dtype=dtype)
    values = eigenvalues.clamp(min=0).sqrt().flip(-1).cpu().numpy()
    rank = sums.rank.clamp(max=sides[0] - sums.centred).cpu().numpy()
    possible = np.arange(values.shape[-1]) < rank[:, None]
    return Spectrum(
        values=np.where(possible, values, 0.0),
        possible=possible,
        entry_size=_entry_size(sums, sides).cpu().numpy(),
        sides=sides,
        weigh=weigh,
    )


def _entry_size(sums: GramSums, sides: tuple[int, int]) -> Tensor:
    return (sums.squares / (sides[0] * sides[1])).sqrt()


def _weigher(
    sums: GramSums, kept: KeptRows, vectors: Tensor, *, sides: tuple[int, int], dtype: torch.dtype
) -> Callable[[np.ndarray], np.ndarray]:
    """`Spectrum.weigh`, from the rows that were kept."""
    rows, weights = kept.weighted()
    if not sums.centred:
        centre = rows.new_zeros(1, 1, 1)
    elif sums.by_feature:
        centre = rows.mean(-1, keepdim=True)
    else:
        centre = sums.mean[:, None]

    kind = torch.float64 if dtype == torch.float64 else torch.float32
    size = _entry_size(sums, sides)
    unit = torch.where(size > 0, size, 1.0)[:, None, None]

    def weigh(slopes: np.ndarray) -> np.ndarray:
        by_eigenvalue = torch.from_numpy(slopes[..., ::-1].copy()).to(rows.device)
        found = entry_weights(
            (rows / unit).to(kind),
            weights.to(kind),
            centre=(centre / unit).to(kind),
            vectors=vectors.to(kind),
            slopes=(by_eigenvalue * unit**2).to(kind),
        )
        return found.to(torch.float64).cpu().numpy()

    return weigh
