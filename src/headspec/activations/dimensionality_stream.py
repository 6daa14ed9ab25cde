"""Dimensionality of activations that come in batches, in one pass."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headspec.activations.dimensionality_formulas import measure_spectrum
from headspec.activations.dimensionality_inputs import (
    check_matrix,
    entry_error,
    wanted_metrics,
)
from headspec.activations.dimensionality_result import (
    METRICS,
    DimensionalityMetric,
    DimensionalityStats,
)
from headspec.activations.dimensionality_sums import GramSums, blocks
from headspec.activations.dimensionality_values import scales, spectrum_of
from headspec.errors import InputError


def streamed_dimensionality(
    batches: Iterable[Tensor],
    *,
    centred: bool = True,
    metrics: Collection[DimensionalityMetric] | None = None,
    roundings: float | int = 1,
    dtype: torch.dtype | None = None,
) -> DimensionalityStats:
    """`dimensionality_stats` of samples that come in batches, read once and not kept.

    Held in memory: one matrix of features by features in float64 (512 features: 2 MB), and blocks
    of 2 MB. The sums are joined by the rule of Chan, Golub and LeVeque, so that neither the order
    of batches nor a mean that drifts costs digits.

    **Accuracy.** There is no second look at the data, so that the small singular values are those
    of the Gram matrix: a value s is off by up to about 5e-16 s_1^2 / s, and 3e-8 s_1 where it
    would be 0. `stable_rank`, `participation_ratio` and `components_90` do not feel it (1e-12 of
    themselves). The other three do where many values are far below the largest; `resolution`
    then holds this loss where it exceeds that of the entries' rounding.

    Args:
        batches: tensors `*batch sample feature`, with any number of samples each; the other
            dimensions and the dtype are the same in all.
        centred, metrics, roundings, dtype: as in `dimensionality_stats`. The mean taken out is
            that of all samples.

    Returns:
        A `DimensionalityStats` with arrays of shape `*batch`.

    Raises:
        InputError: no batches, batches of different features or dtypes, NaN or infinite entries
            (the message names the batch).

    References:
        Chan, Golub and LeVeque 1983, Algorithms for computing the sample variance.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> batches = (torch.randn(100, 8, generator=generator) for _ in range(50))
        >>> float(streamed_dimensionality(batches).participation_ratio.round(1))
        8.0

    **What it does not show.** As `dimensionality_stats`; and activations of different steps of
    training are not samples of one thing.
    """
    wanted = wanted_metrics(metrics)
    sums, scale, first = GramSums(centred), torch.ones(1), None
    with torch.no_grad():
        for place, batch in enumerate(batches):
            check_matrix(batch, where=f" in batch {place}")
            if first is None:
                first = batch[..., :0, :]
            if _named(batch) != _named(first):
                raise InputError(
                    expected=f"batches like the first, {_named(first)}",
                    got=f"{batch.dtype} of shape {list(batch.shape)} in batch {place}",
                    fix="Only the number of samples may differ; put features last.",
                )
            flat = batch.detach().reshape(-1, *batch.shape[-2:])
            found = scales(flat, name=lambda _, place=place: f"batch {place}")
            scale = found if sums.n == 0 else scale
            for block in blocks(flat, scale=scale, dim=-2):
                sums.add(block)
        if first is None:
            raise InputError(
                expected="at least one batch",
                got="none",
                fix="A generator is read once: make a new one for every call.",
            )
        spectrum = spectrum_of(sums, (sums.n, first.shape[-1]), dtype=first.dtype)
    kind = dtype or first.dtype
    found, limits, lost = measure_spectrum(spectrum, error=entry_error(kind, roundings))
    shape = tuple(first.shape[:-2])
    blank = np.full(shape, np.nan)
    fields: dict[str, Any] = {
        name: found[name].reshape(shape) if name in wanted else blank for name in METRICS
    }
    return DimensionalityStats(
        **fields,
        resolution={name: np.maximum(limits[name], lost[name]).reshape(shape) for name in wanted},
        n_samples=np.full(shape, sums.n),
        n_features=np.full(shape, first.shape[-1]),
        centred=centred,
        dtype=str(kind).removeprefix("torch."),
        roundings=float(roundings),
        metrics=wanted,
    )


def _named(batch: Tensor) -> str:
    shape = ", ".join(map(str, (*batch.shape[:-2], "any", batch.shape[-1])))
    return f"{batch.dtype} of shape [{shape}]"
