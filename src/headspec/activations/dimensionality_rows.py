"""A few rows of each matrix, kept to see how rounding their entries moves singular values."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

_SPREAD = 32  # rows evenly spread over all, up to twice as many
_LARGEST = 16  # rows of largest norm, which a spread would miss


@dataclass
class KeptRows:
    """Rows of a batch of matrices, taken while they pass: evenly spread ones and the largest.

    Attributes:
        n: rows that passed.
        stride: distance between the spread ones.
        spread: `matrix row col`, as they are, uncentred.
        largest: those of largest norm, descending.
    """

    n: int = 0
    stride: int = 1
    spread: Tensor = field(default_factory=lambda: torch.empty(0))
    largest: Tensor = field(default_factory=lambda: torch.empty(0))

    def add(self, rows: Tensor, norms: Tensor) -> None:
        """Look at rows, `matrix row col`, whose norms are `norms`, `matrix row`."""
        chosen = rows[:, -self.n % self.stride :: self.stride].clone()
        top = norms.topk(min(_LARGEST, norms.shape[-1])).indices
        largest = rows.gather(1, top[:, :, None].expand(-1, -1, rows.shape[-1]))
        if self.n:
            chosen = torch.cat([self.spread, chosen], dim=1)
            largest = torch.cat([self.largest, largest], dim=1)
            top = largest.square().sum(-1).topk(min(_LARGEST, largest.shape[1])).indices
            largest = largest.gather(1, top[:, :, None].expand(-1, -1, rows.shape[-1]))
        while chosen.shape[1] > 2 * _SPREAD:
            chosen, self.stride = chosen[:, ::2], 2 * self.stride
        self.n += rows.shape[1]
        self.spread, self.largest = chosen, largest

    def weighted(self) -> tuple[Tensor, Tensor]:
        """The rows, and how many each stands for, `matrix row`."""
        if self.stride == 1:  # all of them
            return self.spread, self.spread.new_ones(self.spread.shape[:2])
        least = self.largest[:, -1:].square().sum(-1)
        others = (self.spread.square().sum(-1) < least).to(torch.float64)
        each = (self.n - self.largest.shape[1]) / others.sum(-1, keepdim=True).clamp(min=1)
        rows = torch.cat([self.largest, self.spread], dim=1)
        return rows, torch.cat([torch.ones_like(self.largest[..., 0]), others * each], dim=1)


def entry_weights(
    rows: Tensor, weights: Tensor, *, centre: Tensor, vectors: Tensor, slopes: Tensor
) -> Tensor:
    """Root of the sum over entries of (x df/dx)^2, for functions f of the singular values.

    With X = sum s_k u_k v_k^T, df/dx_ij is M_ij with M = sum over k of (df/ds_k) u_k v_k^T, and
    u_k = X v_k / s_k: a row of M needs that row of X alone.

    Args:
        rows: `matrix row col`, entries as they are.
        weights: rows that each stands for, `matrix row`.
        centre: to take out of the rows before they are projected, `matrix row|1 col|1`.
        vectors: v_k as columns, `matrix col rank`.
        slopes: df/ds_k / s_k, `matrix function rank`.

    Returns:
        `matrix function`.
    """
    shares = (rows - centre) @ vectors
    steps = (shares[:, None] * slopes[:, :, None]).flatten(1, 2)  # one product for all functions
    moves = (steps @ vectors.mT).unflatten(1, (slopes.shape[1], rows.shape[1]))
    return ((moves * rows[:, None]).square_().sum(-1) * weights[:, None]).sum(-1).sqrt()
