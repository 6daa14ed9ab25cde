"""Which singular values stand out from what a random matrix of that shape would have?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError
from headspec.weights.marchenko_pastur_law import (
    bulk_distance,
    median_singular_value,
    spike_threshold,
)
from headspec.weights.marchenko_pastur_result import MarchenkoPastur

_ROUNDS = 20


def marchenko_pastur(
    singular_values: Float[Tensor, "*batch rank"] | Float[np.ndarray, "*batch rank"],
    shape: tuple[int, int],
    *,
    sigma: float | int | None = None,
    level: float = 0.01,
) -> MarchenkoPastur:
    """Bulk edge of a random m x n matrix, and the singular values above it.

    Independent entries of variance sigma^2 give singular values between
    sigma |sqrt(m) - sqrt(n)| and sigma (sqrt(m) + sqrt(n)) (Marchenko and Pastur 1967). The
    largest one of a finite Gaussian matrix scatters about that edge by the law of Tracy and Widom;
    the threshold is its upper `level` quantile, widened for the error of an estimated sigma
    (`headspec.weights.marchenko_pastur_law`).

    sigma is the median singular value over the median of the law for sigma = 1 (Gavish and Donoho
    2014). Spikes push the median up, so it is taken again without them until their number stays.
    Where more than half of the singular values are zero, sigma is 0 and every other one a spike.

    Args:
        singular_values: all min(shape) of them, in any order, along the last axis.
        shape: rows and columns of the matrices.
        sigma: standard deviation of the entries if known, such as the one of the initialisation.
        level: how often a Gaussian matrix may have a spike.

    Returns:
        A `MarchenkoPastur` of arrays `*batch`.

    Raises:
        InputError: values that are negative, not finite, or not min(shape) of them.

    What it does not show: that a spike is a feature, or that the bulk is noise. A scaled row or
    column, entries with heavy tails and common means make spikes too; a trained matrix whose
    `bulk_ks` is far above 3 / n has no Marchenko-Pastur bulk, and the count then only compares
    its top with its middle. Structure below `detection_limit` is not seen by any such count.

    References:
        Gavish and Donoho 2014, "The optimal hard threshold for singular values is 4/sqrt(3)".
        Johnstone 2001 and Ma 2012 for the largest eigenvalue; Chiani 2014 for the quantile;
        Baik, Ben Arous and Peche 2005 for the detection limit.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).standard_normal((64, 256))
        >>> signal = 40 * np.outer(np.eye(64)[0], np.eye(256)[0])
        >>> found = marchenko_pastur(np.linalg.svd(noise + signal)[1], (64, 256))
        >>> int(found.n_spikes), round(float(found.sigma), 2)
        (1, 0.99)
    """
    if isinstance(singular_values, Tensor):
        singular_values = singular_values.detach().to("cpu").double().numpy()
    values = np.asarray(singular_values, dtype=np.float64)
    _check(values, shape, sigma, level)
    small, large = min(shape), max(shape)
    batch = values.shape[:-1]
    rows = np.sort(values.reshape(-1, small), axis=1)
    # In powers of two of the largest, so that no square leaves float64; put back at the end.
    unit = np.exp2(np.floor(np.log2(np.where(rows[:, -1] > 0, rows[:, -1], 1.0))))
    rows = rows / unit[:, None]
    rows = np.where(rows > rows[:, -1:] * large * np.finfo(float).eps, rows, 0.0)
    ratio = spike_threshold(shape, level, estimated=sigma is None)
    if sigma is None:
        scale, spikes = _robust_sigma(rows, (large, small), ratio)
    else:
        scale = float(sigma) / unit
        spikes = (rows > ratio * scale[:, None]).sum(1)
    squares = rows**2
    outside = np.arange(small) >= small - spikes[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (squares * outside).sum(1) / squares.sum(1)
    bulk_ks = bulk_distance(squares, spikes, scale, (large, small))
    scale = scale * unit
    columns = {
        "sigma": scale,
        "edge": scale * (np.sqrt(large) + np.sqrt(small)),
        "lower_edge": scale * (np.sqrt(large) - np.sqrt(small)),
        "threshold": scale * ratio,
        "n_spikes": spikes,
        "spike_variance": share,
        "bulk_ks": bulk_ks,
        "detection_limit": scale * (large * small) ** 0.25,
        "largest": rows[:, -1] * unit,
    }
    shaped = {name: column.reshape(batch) for name, column in columns.items()}
    return MarchenkoPastur(**shaped, level=level, shape=(int(shape[0]), int(shape[1])))


def _check(
    values: np.ndarray, shape: tuple[int, int], sigma: float | int | None, level: float
) -> None:
    if len(shape) != 2 or min(shape) < 1 or values.shape[-1:] != (min(shape),) or not values.size:
        raise InputError(
            expected=f"the {min(shape)} singular values of a matrix of shape {tuple(shape)}",
            got=f"shape {list(values.shape)}",
            fix="Pass all of them, along the last axis.",
        )
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError(
            expected="finite singular values from 0 up",
            got=f"{np.sum(~np.isfinite(values))} not finite, {np.sum(values < 0)} below 0",
            fix="Pass singular values, not eigenvalues of a symmetric matrix.",
        )
    if not 0 < level < 1 or (sigma is not None and not (np.isfinite(sigma) and sigma >= 0)):
        raise InputError(
            expected="a level between 0 and 1 and a sigma from 0 up",
            got=f"level {level}, sigma {sigma}",
            fix="level=.01 gives one Gaussian matrix in a hundred a spike.",
        )


def _robust_sigma(
    rows: Float[np.ndarray, "row rank"], shape: tuple[int, int], ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """sigma from the median of what is no spike, and the number of spikes."""
    small = rows.shape[1]
    spikes = np.zeros(len(rows), dtype=int)
    scale = np.zeros(len(rows))
    for _ in range(_ROUNDS):
        for count in np.unique(spikes):
            at = spikes == count
            scale[at] = np.median(rows[at, : small - count], axis=1) / median_singular_value(
                (shape[0] - int(count), shape[1] - int(count))
            )
        found = np.minimum((rows > ratio * scale[:, None]).sum(1), small - 1)
        found = np.maximum(found, spikes)  # a shrinking sigma finds more, never fewer
        if (found == spikes).all():
            break
        spikes = found
    zero = scale == 0
    spikes[zero] = (rows[zero] > 0).sum(1)
    return scale, spikes
