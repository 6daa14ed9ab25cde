"""What dimensionality is measured of: checked, and matrices of one shape put together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from headspec.activations.dimensionality_result import METRICS, DimensionalityMetric
from headspec.errors import InputError, check_choice


@dataclass(frozen=True)
class Matrices:
    """Matrices to measure.

    Attributes:
        groups: places in the result, and the `matrix sample feature` that belong there.
        batch: shape of the result.
        names: of the matrices, where they have some.
    """

    groups: list[tuple[np.ndarray, Tensor]]
    batch: tuple[int, ...]
    names: tuple[str, ...] = ()

    def label(self, place: int) -> str:
        """The matrix at a place of the result, for messages."""
        if self.names:
            return repr(self.names[place])
        if not self.batch:
            return "the matrix"
        return f"matrix {[int(i) for i in np.unravel_index(place, self.batch)]} of the batch"


def gather_matrices(activations: Tensor | Iterable[Tensor] | Mapping[str, Tensor]) -> Matrices:
    """Matrices of a tensor, a sequence or a mapping; equal shape, dtype and device go together.

    Raises:
        InputError: anything but floating tensors with samples and features.
    """
    if isinstance(activations, Tensor):
        check_matrix(activations)
        batch = tuple(activations.shape[:-2])
        flat = activations.detach().reshape(-1, *activations.shape[-2:])
        return Matrices([(np.arange(len(flat)), flat)], batch)
    names: tuple[str, ...] = ()
    if isinstance(activations, Mapping):
        names = tuple(str(name) for name in activations)
        activations = list(activations.values())
    many = list(activations) if isinstance(activations, Iterable) else [activations]
    alike: dict[tuple, list[int]] = {}
    for i, one in enumerate(many):
        where = f" in {names[i]!r}" if names else f" at place {i}"
        check_matrix(one, where=where)
        if one.ndim != 2:
            raise InputError(
                expected="matrices, sample feature, in a sequence or mapping",
                got=f"shape {list(one.shape)}{where}",
                fix="Flatten other dimensions, or pass one tensor with batch dimensions first.",
            )
        alike.setdefault((one.shape, one.dtype, one.device), []).append(i)
    if not many:
        raise InputError(
            expected="at least one matrix", got="none", fix="Pass a tensor, or tensors by layer."
        )
    groups = [
        (np.array(places), torch.stack([many[i].detach() for i in places]))
        for places in alike.values()
    ]
    return Matrices(groups, (len(many),), names)


def check_matrix(matrix: object, *, where: str = "") -> None:
    """Raise unless it is a floating tensor of at least one sample and feature."""
    if not isinstance(matrix, Tensor):
        got = type(matrix).__name__
    elif not matrix.is_floating_point() or matrix.ndim < 2 or 0 in matrix.shape:
        got = f"{matrix.dtype} of shape {list(matrix.shape)}"
    else:
        return
    raise InputError(
        expected="a real floating tensor [... sample feature] without empty dimensions",
        got=got + where,
        fix="Put samples in rows and features last (torch.from_numpy of an array).",
    )


def wanted_metrics(
    metrics: Collection[DimensionalityMetric] | None,
) -> tuple[DimensionalityMetric, ...]:
    """The measures that were asked for, in their order.

    Raises:
        InputError: an unknown measure, or text alone.
    """
    if metrics is None:
        return METRICS
    if isinstance(metrics, str) or not metrics:
        raise InputError(
            expected="a tuple of measures, or None for all",
            got=f"metrics={metrics!r}",
            fix='For one: metrics=("stable_rank",).',
        )
    for name in metrics:
        check_choice("metrics", name, get_args(DimensionalityMetric))
    return tuple(name for name in METRICS if name in metrics)


def entry_error(dtype: torch.dtype, roundings: float | int) -> float:
    """Standard deviation of an entry's rounding error, as a share of the entry.

    Raises:
        InputError: an integer dtype, or roundings that are not positive and finite.
    """
    if not dtype.is_floating_point or not 0 < roundings < float("inf"):
        raise InputError(
            expected="a floating dtype and a positive number of roundings",
            got=f"dtype={dtype}, roundings={roundings}",
            fix="1 is the rounding of storage alone.",
        )
    return float(roundings) * torch.finfo(dtype).eps / 12**0.5
