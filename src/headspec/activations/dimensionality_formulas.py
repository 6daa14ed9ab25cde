"""From singular values to measures of dimensionality, and how far rounding moves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from headspec.weights.spectral_formulas import from_values
from headspec.weights.spectral_result import Statistic

_ARITHMETIC = 1e-15  # of s_1^2: error of an eigenvalue of a Gram matrix in float64
_FLOOR = 1e-15  # of the measure and a singular value: error of the sums themselves
_DEVIATIONS = 3 * np.sqrt(2)  # three standard deviations of a difference of two measurements
_SHARED: set[Statistic] = {
    "spectral_norm",
    "nuclear_norm",
    "stable_rank",
    "effective_rank",
    "participation_ratio",
    "participation_ratio_sigma",
}


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a batch of matrices, and what rounding needs to know of the entries.

    Attributes:
        values: descending.
        possible: which of them can be above 0: not those beyond the samples, nor the features that
            are not constant. The others stay 0 however entries are rounded.
        entry_size: root mean square of the entries as they are, uncentred.
        sides: number of rows and columns.
        weigh: slopes `matrix function rank` of functions of the values, divided by the values, to
            the root of the sum over entries of (x df/dx)^2, `matrix function`. None: unknown, and
            only what rounding does always is found.
    """

    values: Float[np.ndarray, "matrix rank"]
    possible: Bool[np.ndarray, "matrix rank"]
    entry_size: Float[np.ndarray, " matrix"]
    sides: tuple[int, int]
    weigh: Callable[[np.ndarray], np.ndarray] | None


def measures(values: np.ndarray) -> dict[str, np.ndarray]:
    """Every measure of descending singular values, `matrix rank`; nan where all are 0."""
    found = from_values(values, _SHARED, ())
    first = np.where(found.spectral_norm > 0, found.spectral_norm, np.nan)
    shares = np.cumsum((values / first[:, None]) ** 2, axis=-1)
    missing = (shares < 0.9 * (1 - 1e-12) * shares[:, -1:]).sum(-1)
    return {
        "stable_rank": found.stable_rank,
        "participation_ratio": found.participation_ratio,
        "participation_ratio_sigma": found.participation_ratio_sigma,
        "effective_rank": found.effective_rank,
        "components_90": np.where(np.isnan(first), np.nan, missing + 1.0),
        "nuclear_ratio": found.nuclear_norm / first,
    }


def gradients(values: np.ndarray, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Derivative of every smooth measure by every singular value, `matrix rank`.

    Args:
        values: descending.
        found: the measures of these values.
    """
    total, square = values.sum(-1, keepdims=True), (values**2).sum(-1, keepdims=True)
    fourth, first = (values**4).sum(-1, keepdims=True), values[:, :1]
    at = {name: numbers[:, None] for name, numbers in found.items()}
    entropy, share = np.log(at["effective_rank"]), values / total
    logarithms = np.log(np.where(share > 0, share, 1.0))
    ratio = at["participation_ratio"]
    slopes = {
        "stable_rank": 2 * values / first**2,
        "participation_ratio": 4 * ratio * values * (1 / square - values**2 / fourth),
        "participation_ratio_sigma": 2
        * at["participation_ratio_sigma"]
        * (1 / total - values / square),
        "effective_rank": -at["effective_rank"] * (logarithms + entropy) / total,
        "nuclear_ratio": np.repeat(1 / first, values.shape[-1], axis=-1),
    }
    slopes["stable_rank"][:, 0] -= 2 * found["stable_rank"] / first[:, 0]
    slopes["nuclear_ratio"][:, 0] -= found["nuclear_ratio"] / first[:, 0]
    return slopes


def measure_spectrum(
    spectrum: Spectrum, *, error: float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Measures, what rounding of the entries does to them, and what squaring has done.

    To first order errors of the entries move a measure by their sum over x_ij df/dx_ij, which has
    a standard deviation if they are independent. Three of it, for a difference of two, and what
    errors do always: values far below them are lifted to their level (or were lost, if all entries
    of a feature were rounded to the same number), and equal largest values are driven apart.

    Args:
        spectrum: the singular values.
        error: standard deviation of an entry's error, as a share of the entry.

    Returns:
        The measures of the values; the differences of two measurements that rounding can make;
        how far the Gram matrix, in float64 but squared, may have moved them.
    """
    values, squares = spectrum.values, np.where(spectrum.possible, spectrum.values[:, :1] ** 2, 0)
    noise = np.where(spectrum.possible, error * spectrum.entry_size[:, None], 0.0)
    level = noise * np.sqrt(spectrum.sides).sum()
    lifted = np.sqrt(values**2 + max(spectrum.sides) * noise**2)
    lost = np.where((values > level) | (np.arange(values.shape[-1]) == 0), values, 0.0)
    squared = np.sqrt(values**2 + _ARITHMETIC * squares)
    found, after, under, moved = _measures_of(values, lifted, lost, squared)

    spread = _spread(spectrum, lifted, after, error=error)
    driven = measures(-np.sort(-_driven_apart(lifted, level, spread["first"]), axis=-1))
    rounding = {
        name: _DEVIATIONS * spread[name]
        + np.maximum(np.abs(driven[name] - found[name]), np.abs(under[name] - found[name]))
        for name in found
        if name in spread
    }
    rounding["components_90"] = np.where(np.isnan(found["components_90"]), np.nan, 1.0)
    floor = _FLOOR * values.shape[-1]
    arithmetic = {name: np.abs(moved[name] - found[name]) + floor * found[name] for name in found}
    return found, rounding, arithmetic


def _spread(
    spectrum: Spectrum, lifted: np.ndarray, found: Mapping[str, np.ndarray], *, error: float
) -> dict[str, np.ndarray]:
    """Standard deviations of the smooth measures, and of the first value."""
    with np.errstate(divide="ignore", invalid="ignore"):  # matrices of zeros: nan
        slopes = gradients(lifted, found)
        slopes["first"] = np.eye(1, lifted.shape[-1]) * np.ones_like(lifted)
        relative = np.stack(list(slopes.values()), axis=1) / lifted[:, None]
    if spectrum.weigh is None:
        return {name: np.zeros(len(lifted)) for name in slopes}
    relative[~(spectrum.possible[:, None] & np.isfinite(relative))] = 0.0
    return dict(zip(slopes, error * spectrum.weigh(relative).T, strict=True))


def _measures_of(*spectra: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Measures of several spectra of the same matrices, at once."""
    together = measures(np.concatenate(spectra))
    parts = {name: np.split(numbers, len(spectra)) for name, numbers in together.items()}
    return [{name: part[i] for name, part in parts.items()} for i in range(len(spectra))]


def _driven_apart(values: np.ndarray, level: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Values within the noise of the largest: m equal ones take up 2 sqrt(2 m) deviations.

    That is the width of Wigner's semicircle for a symmetric noise matrix of side m.
    """
    tied = values > values[:, :1] - 2 * level
    count = tied.sum(-1, keepdims=True)
    place = 1 - 2 * np.arange(values.shape[-1]) / np.maximum(count - 1, 1)
    width = deviation[:, None] * np.sqrt(2 * count)
    return np.maximum(values + np.where(tied & (count > 1), width * place, 0.0), 0.0)
