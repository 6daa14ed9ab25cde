"""From singular values to measures of dimensionality, and how far rounding moves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from headspec.activations.dimensionality_result import METRICS
from headspec.weights.spectral_formulas import from_values
from headspec.weights.spectral_result import Statistic

ARITHMETIC = 1e-15  # of s_1^2: error of an eigenvalue of a Gram matrix in float64
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
    """Singular values of a batch of matrices, and how large the entries behind them are.

    Attributes:
        values: descending.
        possible: which of them can be above 0: not those beyond the samples, nor the features that
            are not constant. The others stay 0 however entries are rounded.
        entry_squares: mean square of the entries as they are, uncentred.
        value_squares: the same weighted by the two directions of each singular value.
        sides: number of rows and columns.
    """

    values: Float[np.ndarray, "matrix rank"]
    possible: Bool[np.ndarray, "matrix rank"]
    entry_squares: Float[np.ndarray, " matrix"]
    value_squares: Float[np.ndarray, "matrix rank"]
    sides: tuple[int, int]


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


def arithmetic_limits(spectrum: Spectrum, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far the Gram matrix, in float64 but squared, may have moved every measure."""
    moved = measures(_lifted(spectrum, ARITHMETIC * spectrum.values[:, :1] ** 2))
    sums = _FLOOR * spectrum.values.shape[-1]
    return {name: np.abs(moved[name] - found[name]) + sums * found[name] for name in METRICS}


def _lifted(spectrum: Spectrum, squares: np.ndarray) -> np.ndarray:
    return np.sqrt(spectrum.values**2 + np.where(spectrum.possible, squares, 0.0))


def rounding_limits(
    spectrum: Spectrum, found: Mapping[str, np.ndarray], *, error: float
) -> dict[str, np.ndarray]:
    """How far two measurements of the same thing may lie apart for rounding of the entries.

    To first order an error E moves s_k by u_k^T E v_k, whose standard deviation is `error` times
    the root of the entries' mean square, weighted by u_k^2 and v_k^2. Three standard deviations
    of a difference of two, and what errors add up to: values far below them are lifted to their
    level, and equal largest values are driven apart.

    Args:
        spectrum: the singular values.
        found: the measures of these values.
        error: standard deviation of an entry's error, as a share of the entry.
    """
    values = spectrum.values
    scale = error * np.sqrt(spectrum.entry_squares)[:, None]
    lifted = _lifted(spectrum, max(spectrum.sides) * scale**2)
    deviations = error * np.sqrt(np.where(spectrum.possible, spectrum.value_squares, 0.0))
    level = scale * (np.sqrt(spectrum.sides[0]) + np.sqrt(spectrum.sides[1]))
    tied = (values > values[:, :1] - 2 * level).sum(-1)
    driven = lifted.copy()
    driven[:, 0] += np.where(tied > 1, deviations[:, 0] * np.sqrt(2 * tied), 0.0)
    limits = {}
    with np.errstate(divide="ignore", invalid="ignore"):  # matrices of zeros: nan
        moved = measures(driven)
        slopes = gradients(lifted, measures(lifted))
        for name, slope in slopes.items():
            spread = np.sqrt(((slope * deviations) ** 2).sum(-1))
            limits[name] = _DEVIATIONS * spread + np.abs(moved[name] - found[name])
    limits["components_90"] = np.where(np.isnan(found["components_90"]), np.nan, 1.0)
    return limits
