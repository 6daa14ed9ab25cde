"""Activations as `sample unit`: one row an input, one column a unit, checked."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError


def check_samples(
    activations: Any, *, name: str = "activations", least: int = 1
) -> Float[Tensor, "sample unit"]:
    """Activations in float64 on their device, if they are finite and `sample unit`.

    Args:
        activations: any floating dtype and device.
        name: how the message calls them.
        least: samples that are needed.

    Raises:
        InputError: another shape, whole numbers, too few samples, NaN or infinite entries.
    """
    fits = isinstance(activations, Tensor) and activations.is_floating_point()
    if not fits or activations.ndim != 2 or activations.shape[0] < least or 0 in activations.shape:
        shape = list(activations.shape) if isinstance(activations, Tensor) else ""
        kind = getattr(activations, "dtype", type(activations).__name__)
        raise InputError(
            expected=f"{name}: a floating tensor `sample unit`, at least {least} sample(s)",
            got=f"{kind} of shape {shape}",
            fix="Of convolution maps (sample channel height width) take the mean over positions, "
            "maps.mean((2, 3)), or each position as a sample, maps.movedim(1, -1).flatten(0, 2).",
        )
    found = activations.detach().double()
    bad = int((~torch.isfinite(found)).sum())
    if bad:
        raise InputError(
            expected=f"finite {name}",
            got=f"{bad} of {found.numel()} entries NaN or infinite",
            fix="Look for overflow where they were taken (float16?).",
        )
    return found
