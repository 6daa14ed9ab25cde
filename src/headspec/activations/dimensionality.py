"""Dimensionality of activations, weights and gradients, with what rounding makes of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headspec.activations.dimensionality_inputs import (
    entry_error,
    gather_matrices,
    wanted_metrics,
)
from headspec.activations.dimensionality_result import (
    METRICS,
    DimensionalityMetric,
    DimensionalityStats,
)
from headspec.activations.dimensionality_values import measure_matrices


def dimensionality_stats(
    activations: Float[Tensor, "*batch sample feature"] | Sequence[Tensor] | Mapping[str, Tensor],
    *,
    centred: bool = True,
    metrics: Collection[DimensionalityMetric] | None = None,
    roundings: float | int = 1,
    dtype: torch.dtype | None = None,
    resolution: bool = True,
) -> DimensionalityStats:
    """How many directions activations take up, and how small a change of that means nothing.

    With s_1 >= s_2 >= ... the singular values of the matrix of samples, about the mean sample:

    | measure | formula |
    |---|---|
    | `stable_rank` | sum s^2 / s_1^2 |
    | `participation_ratio` | (sum s^2)^2 / sum s^4, that of the covariance's eigenvalues |
    | `participation_ratio_sigma` | (sum s)^2 / sum s^2, that of the singular values |
    | `effective_rank` | exp of the entropy of s / sum s |
    | `components_90` | directions that hold 90 % of sum s^2 |
    | `nuclear_ratio` | sum s / s_1 |

    All lie between 1 and the rank, and all are r for r equal values. Weights and gradients are
    matrices like any other: pass them with `centred=False`.

    **Computed** from the Gram matrix of the shorter side, in float64 whatever the dtype, over
    blocks; matrices of one shape go through together. Squaring costs accuracy in the small values
    that `effective_rank`, `participation_ratio_sigma` and `nuclear_ratio` depend on: where the loss
    is above 1e-8 of the measure and a tenth of its resolution, an SVD takes over. Agreement
    with an SVD in float64 is 1e-10 mostly.

    **Resolution.** Entries are rounded to their dtype: errors of up to `eps / 2` of themselves,
    taken as independent with standard deviation `eps / sqrt(12)`. To first order a measure moves by
    the sum over entries of x_ij df/dx_ij, with df/dX = sum over k of (df/ds_k) u_k v_k^T
    (evaluated on up to 80 rows, the largest among them). The resolution is three standard
    deviations of a difference of two measurements, plus what rounding does always: lift values
    that would be 0, drive equal largest ones apart. Differences below it are no differences. It is
    about 5.5 times the standard deviation that rounding causes (4 to 13), and more
    where values that would be 0 or equal dominate. For `components_90` it is 1. It does not hold
    where errors are not independent: a feature whose spread is below the grid of its dtype.

    Args:
        activations: samples in rows, any floating dtype and device; leading dimensions are a
            batch. Or matrices of different shapes, as a sequence or by layer name: the results
            then have one batch dimension, in this order.
        centred: take the mean sample out (variance of activations). False: the matrix as it is;
            the mean is then a direction, often the largest.
        metrics: which measures; None: all.
        roundings: size of an entry's error, in roundings to the dtype. 1 is storage alone.
            Activations carry the errors of all products before them, 2 to 18 roundings in float32
            networks of 5 to 20 layers: 10 kept every difference measured within the resolution.
        dtype: what the entries were rounded to, if not the tensor's own: bfloat16 activations
            that were made float32 later.
        resolution: False leaves the resolutions nan, for about half of the time of small
            matrices: they hardly change from one step of training to the next.

    Returns:
        A `DimensionalityStats` with arrays of shape `*batch`, on the CPU.

    Raises:
        InputError: NaN or infinite entries (the message names the matrix), an empty or integer
            tensor, or an unknown measure.

    References:
        Roy and Vetterli 2007, The effective rank. Rudelson and Vershynin 2007,
        arXiv:math/0503442 (stable rank). Gao et al. 2017, bioRxiv 214262 (participation ratio).
        Stewart 1990, Perturbation theory for the singular value decomposition.

    Example:
        >>> import torch
        >>> square = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> stats = dimensionality_stats(square)
        >>> float(stats.stable_rank), float(stats.participation_ratio)
        (2.0, 2.0)

    **What it does not show.** Linear directions only: a curve in the plane has 2. With n
    samples everything is at most n - 1, and the participation ratio of n samples of d equal
    directions is about n d / (n + d): compare equal n alone. All of it depends on the units of
    the features, and nothing says which directions a later layer reads.
    """
    wanted = wanted_metrics(metrics)
    matrices = gather_matrices(activations)
    total = sum(len(places) for places, _ in matrices.groups)
    values, limits = ({name: np.full(total, np.nan) for name in METRICS} for _ in range(2))
    sides = np.empty((2, total), dtype=int)
    for places, group in matrices.groups:
        found, limit = measure_matrices(
            group,
            centred=centred,
            wanted=wanted,
            error=entry_error(dtype or group.dtype, roundings),
            name=lambda i, places=places: matrices.label(int(places[i])),
            resolution=resolution,
        )
        sides[:, places] = np.array(group.shape[-2:])[:, None]
        for name in wanted:
            values[name][places] = found[name]
            limits[name][places] = limit[name] if resolution else np.nan
    dtypes = {str(dtype or group.dtype) for _, group in matrices.groups}
    return DimensionalityStats(
        **{name: numbers.reshape(matrices.batch) for name, numbers in values.items()},
        resolution={name: limits[name].reshape(matrices.batch) for name in wanted},
        n_samples=sides[0].reshape(matrices.batch),
        n_features=sides[1].reshape(matrices.batch),
        centred=centred,
        dtype=", ".join(sorted(one.removeprefix("torch.") for one in dtypes)),
        roundings=float(roundings),
        metrics=wanted,
        layer_names=matrices.names,
    )
