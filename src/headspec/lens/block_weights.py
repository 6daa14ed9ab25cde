"""The weights of one layer in one convention, whichever class the model is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")


@dataclass(frozen=True)
class Norm:
    """``gain * c(x) / sqrt(mean(c(x)^2) + eps) + bias``, c the centring or the identity.

    Attributes:
        gain, bias: `width`, or None for ones and zeros.
        centred: the mean is taken off first (LayerNorm), or not (RMSNorm).
        eps: under the root.
    """

    gain: Tensor | None
    bias: Tensor | None
    centred: bool
    eps: float

    def inverse_scale(self, x: Tensor) -> Tensor:
        """What this norm multiplies each vector of x with: `... 1`."""
        return (self.centre(x).square().mean(-1, keepdim=True) + self.eps).rsqrt()

    def centre(self, x: Tensor) -> Tensor:
        """The linear map before scaling; it is its own transpose."""
        return x - x.mean(-1, keepdim=True) if self.centred else x


@dataclass(frozen=True)
class Affine:
    """``x @ weight.T + bias``; weight `out in`, bias `out` or None."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class MlpWeights:
    """``out(activation(into(n)))``, gated ``out(activation(gate(n)) * into(n))``, n = norm(x)."""

    norm: Norm | None
    into: Affine
    gate: Affine | None
    activation: Callable[[Tensor], Tensor]
    out: Affine


@dataclass(frozen=True)
class LayerWeights:
    """One block; projections are `head*d_head d_model`, keys and values with the heads of hooks."""

    norm: Norm | None
    q: Affine
    k: Affine
    v: Affine
    q_norm: Norm | None
    k_norm: Norm | None
    out: Affine
    mlp: MlpWeights | None


def cast_weights(part: Part, dtype: torch.dtype) -> Part:
    """The same weights, detached, in another dtype; views where it is the dtype they have."""
    if isinstance(part, Tensor):
        return part.detach().to(dtype)  # type: ignore[return-value]
    if not is_dataclass(part) or isinstance(part, type):
        return part
    changes: dict[str, Any] = {
        field.name: cast_weights(getattr(part, field.name), dtype) for field in fields(part)
    }
    return replace(part, **changes)
