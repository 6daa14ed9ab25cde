"""Is the tail of a spectrum a power law, and with which exponent?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.stats import permutation_p
from headspec.weights.gaussian_spectra import gaussian_alphas
from headspec.weights.power_law_result import ALL_EQUAL, FITTED, TOO_FEW, PowerLawFit
from headspec.weights.tail_bootstrap import goodness_of_fit, tail_at
from headspec.weights.tail_scan import scan_tails

Null = Literal["gaussian"]


def fit_power_law(
    values: Float[Tensor, "*batch n"] | Float[np.ndarray, "*batch n"],
    *,
    xmin: float | int | Float[np.ndarray, "*batch"] | None = None,
    min_tail: int = 2,
    drop_below: float | int | None = None,
    n_bootstrap: int = 0,
    null: Null | None = None,
    shape: tuple[int, int] | None = None,
    n_null: int = 99,
    seed: int = 0,
) -> PowerLawFit:
    """Exponent of the power law p(x) ~ x^-alpha above xmin, of many spectra at once.

    alpha = 1 + n_tail / sum ln(x / xmin) (maximum likelihood, continuous values). Without `xmin`
    it is the value whose tail has the smallest KS distance to its own fit, over all values as
    lower end, exactly (`headspec.weights.tail_scan`); equal values are one candidate. All in
    float64, whatever the input.

    For a weight matrix pass the eigenvalues of W^T W, that is sigma^2: weightwatcher's convention.
    Of the singular values themselves the same tail has exponent 2 alpha - 1.

    Args:
        values: spectra along the last axis, in any order; float16 and bfloat16 are read as they
            are.
        xmin: lower end if known beforehand, one for all or one a spectrum.
        min_tail: values a tail must have. With 2 it is what `powerlaw` and weightwatcher (for 20
            values or more) do.
        drop_below: values at or below it are left out before fitting. Default: n times the
            float64 rounding of the largest value, which takes the zeros of a rank-deficient
            matrix; weightwatcher takes 1e-5, whatever the scale.
        n_bootstrap: draws for the goodness of fit p-value: samples as large, with the tail from
            the fitted law and the rest resampled, refitted with their own xmin. Clauset takes
            1,000 or more and rejects below .1.
        null: `"gaussian"` fits `n_null` Gaussian matrices of the same `shape` too (kept for the
            next call).
        shape: rows and columns of the matrix, for the null.
        n_null: Gaussian matrices.
        seed: of bootstrap and null.

    Returns:
        A `PowerLawFit` of arrays `*batch`. Fewer than `min_tail` values, or none that differ, give
        nan and say so in `status`.

    Raises:
        InputError: values that are not finite or negative, an xmin that is not positive, a null
            without a shape that fits.

    What it does not show:
        That there is a power law: every sample gets an alpha, a Gaussian matrix too (768 x 768:
        about 13 with a standard deviation of 7, from 4.7 up), so look at `p_value`, at the null
        and at `compare_tails`. The alpha of 64 values is mostly noise. `se` takes xmin as known
        and is too small where it was chosen. alpha is blind to scale; `weighted_alpha` mostly
        shows scale.

    References:
        Clauset, Shalizi and Newman 2009, "Power-law distributions in empirical data", 3.1-3.3 and
        4.1. Martin and Mahoney 2021, "Implicit self-regularization in deep neural networks".

    Example:
        >>> import numpy as np
        >>> pareto = (1 - np.random.default_rng(0).random(2000)) ** (-1 / 1.5)  # alpha 2.5
        >>> fit = fit_power_law(pareto)
        >>> round(float(fit.alpha), 2), int(fit.n_tail), round(float(fit.ks), 4)
        (2.49, 1957, 0.0082)
    """
    _check_options(min_tail, n_bootstrap, null, n_null)
    values = values if isinstance(values, Tensor) else np.asarray(values)
    ordered = _sorted_values(values)
    batch = tuple(values.shape[:-1])
    device = values.device if isinstance(values, Tensor) else torch.device("cpu")
    _check_null(null, shape, xmin, ordered.shape[1])
    dropped = _count_dropped(ordered, drop_below)
    tails = _fitted_tails(
        ordered, dropped, None if xmin is None else _given_xmin(xmin, batch), min_tail, device
    )
    p_value = np.full(len(ordered), np.nan)
    for row in np.flatnonzero(~np.isnan(tails.slope)) if n_bootstrap else ():
        p_value[row] = goodness_of_fit(
            tails.logs[row, dropped[row] :],
            log_xmin=float(tails.log_xmin[row]),
            slope=float(tails.slope[row]),
            distance=float(tails.distance[row]),
            n_bootstrap=n_bootstrap,
            min_tail=min_tail,
            refit_xmin=xmin is None,
            seed=seed,
            device=device,
        )
    alpha, size = 1 + tails.slope, tails.size
    enough = (ordered.shape[1] - dropped if xmin is None else size) >= min_tail
    arrays = {
        "alpha": alpha,
        "xmin": tails.xmin,
        "ks": tails.distance,
        "n_tail": size,
        "se": tails.slope / np.sqrt(np.maximum(size, 1)),
        "p_value": p_value,
        "n": ordered.shape[1] - dropped,
        "n_dropped": dropped,
        "largest": ordered[:, -1],
        "status": np.where(~np.isnan(alpha), FITTED, np.where(enough, ALL_EQUAL, TOO_FEW)),
        **_against_null(alpha, null, shape, n_null, seed, min_tail),
    }
    return PowerLawFit(
        **{name: array.reshape(batch) for name, array in arrays.items()},
        min_tail=min_tail,
        n_bootstrap=n_bootstrap,
        null=null,
        shape=shape if null is not None else None,
        n_null=n_null if null is not None else 0,
        seed=seed,
    )


@dataclass(frozen=True)
class _FittedTails:
    """The tail of each spectrum, beside the logarithms it was found in."""

    logs: Float[np.ndarray, "row n"]
    xmin: Float[np.ndarray, " row"]
    log_xmin: Float[np.ndarray, " row"]
    slope: Float[np.ndarray, " row"]
    distance: Float[np.ndarray, " row"]
    size: Int[np.ndarray, " row"]


def _fitted_tails(
    ordered: Float[np.ndarray, "row n"],
    dropped: Int[np.ndarray, " row"],
    xmin: Float[np.ndarray, " row"] | None,
    min_tail: int,
    device: torch.device,
) -> _FittedTails:
    n_rows, n = ordered.shape
    kept = np.arange(n) >= dropped[:, None]
    smallest = ordered[np.arange(n_rows), np.minimum(dropped, n - 1), None]
    logs = np.log(np.where(kept, ordered, np.where(smallest > 0, smallest, 1.0)))
    if xmin is not None:
        inside = kept & (ordered >= xmin[:, None])
        log_xmin = np.log(xmin)
        slope, distance, size = tail_at(np.where(inside, logs, -np.inf), log_xmin)
        slope, distance = (np.where(size >= min_tail, x, np.nan) for x in (slope, distance))
        return _FittedTails(logs, xmin, log_xmin, slope, distance, size.astype(int))
    found = scan_tails(
        torch.from_numpy(logs).to(device),
        torch.from_numpy(dropped).to(device),
        min_tail=min_tail,
    )
    start, slope, distance = (
        part.cpu().numpy() for part in (found.start, found.slope, found.distance)
    )
    at, some = (np.arange(n_rows), start), start >= 0
    lower, log_lower = (np.where(some, x[at], np.nan) for x in (ordered, logs))
    size = np.where(some, n - start, 0)
    return _FittedTails(logs, lower, log_lower, slope, distance, size)


def _count_dropped(
    ordered: Float[np.ndarray, "row n"], drop_below: float | int | None
) -> Int[np.ndarray, " row"]:
    """How many of the smallest values count as zero."""
    limit = np.full(len(ordered), drop_below, dtype=np.float64)
    if drop_below is None:
        limit = ordered.shape[1] * np.finfo(float).eps * np.abs(ordered).max(1)
    limit = np.maximum(limit, 0.0)
    if (ordered[:, 0] < -limit).any():
        raise InputError(
            expected="values from 0 up, such as squares of singular values",
            got=f"{ordered.min():.3g} beside {ordered.max():.3g}",
            fix="Pass sigma^2; a power law has no negative values.",
        )
    return (ordered <= limit[:, None]).sum(1)


def _check_options(min_tail: int, n_bootstrap: int, null: str | None, n_null: int) -> None:
    if null is not None:
        check_choice("null", null, get_args(Null))
    if min_tail < 2 or n_bootstrap < 0 or (null is not None and n_null < 2):
        raise InputError(
            expected="min_tail and n_null from 2 up, n_bootstrap from 0 up",
            got=f"min_tail {min_tail}, n_null {n_null}, n_bootstrap {n_bootstrap}",
            fix="A tail of one value has no exponent.",
        )


def _sorted_values(values: Tensor | np.ndarray) -> Float[np.ndarray, "row n"]:
    """Ascending in float64, one row a spectrum."""
    if isinstance(values, Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    found = np.asarray(values, dtype=np.float64)
    if not found.ndim or not found.size or not np.isfinite(found).all():
        raise InputError(
            expected="finite values along the last axis, at least one",
            got=f"shape {list(found.shape)}, {int((~np.isfinite(found)).sum())} not finite",
            fix="A matrix with nan or inf has no spectrum: look at the checkpoint.",
        )
    return np.sort(found.reshape(-1, found.shape[-1]), axis=1)


def _given_xmin(
    xmin: float | int | np.ndarray, batch: tuple[int, ...]
) -> Float[np.ndarray, " row"]:
    given = np.asarray(xmin, dtype=np.float64)
    try:
        lower = np.broadcast_to(given, batch).reshape(-1).copy()
    except ValueError as error:
        raise InputError(
            expected=f"one xmin, or one a spectrum: shape {list(batch)}",
            got=f"shape {list(given.shape)}",
            fix="The last axis of values is within a spectrum.",
        ) from error
    if not (np.isfinite(lower) & (lower > 0)).all():
        raise InputError(
            expected="a positive, finite xmin",
            got=f"{lower.min():.3g}",
            fix="Leave xmin out to have it chosen.",
        )
    return lower


def _check_null(null: str | None, shape: tuple[int, int] | None, xmin: object, n: int) -> None:
    if null is None:
        return
    if shape is None or min(shape) != n or xmin is not None:
        raise InputError(
            expected=f"a shape whose smaller side is the {n} values, and no xmin, for the null",
            got=f"shape {shape}" + ("" if xmin is None else " and a given xmin"),
            fix="Pass shape=(rows, columns) of the matrix with all its singular values squared; "
            "an xmin has no meaning for matrices of another scale.",
        )


def _against_null(
    alpha: np.ndarray,
    null: str | None,
    shape: tuple[int, int] | None,
    n_null: int,
    seed: int,
    min_tail: int,
) -> dict[str, np.ndarray]:
    mean, sd, p = (np.full(alpha.shape, np.nan) for _ in range(3))
    if null is not None and shape is not None:
        shape = (max(shape), min(shape))
        drawn = np.array(gaussian_alphas(shape, n_null, seed, min_tail))
        mean[:], sd[:] = np.nanmean(drawn), np.nanstd(drawn, ddof=1)
        for row in np.flatnonzero(~np.isnan(alpha)):
            p[row] = permutation_p(float(alpha[row]), drawn, alternative="two-sided")
    return {"null_mean": mean, "null_sd": sd, "null_p": p}
