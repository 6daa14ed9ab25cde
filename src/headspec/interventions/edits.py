"""An edit: activations of one site of one layer that are replaced during a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headspec.errors import InputError, check_choice

Site = Literal["z", "q", "k", "v", "pattern", "mlp_out", "resid_pre"]
"""Where activations are replaced, by transformer-lens's names."""

HEAD_SITES: tuple[Site, ...] = ("z", "q", "k", "v", "pattern")
"""Sites with an axis of heads (of key-value heads for `k` and `v`)."""


@dataclass(frozen=True, eq=False)
class Edit:
    """Replace activations of one site: chosen heads, chosen positions.

    Attributes:
        layer: layer index from 0.
        site: what is replaced. `z` is what each head read, the input of the output projection
            (a slice of the attention's *output* mixes all heads). `q` and `k` are before the
            rotary embedding, where `hook_q` and `hook_k` stand.
        values: the new activations of *all* heads and positions, of which `heads` and `where`
            choose: `batch pos head d_head` for z and q, `batch pos kv_head d_head` for k and v,
            `batch head q_pos k_pos` for pattern, `batch pos d_model` for mlp_out and resid_pre.
            Any tensor that expands to it will do (zeros, means, views): nothing is copied.
        heads: indices of the heads to replace; None: all. Key-value heads for k and v.
        where: which positions of which rows (query positions for pattern); None: all.
    """

    layer: int
    site: Site
    values: Tensor
    heads: tuple[int, ...] | None = None
    where: Bool[Tensor, "batch pos"] | None = None

    def __post_init__(self) -> None:
        check_choice("site", self.site, get_args(Site))
        if self.heads is not None and self.site not in HEAD_SITES:
            raise InputError(
                expected=f"no heads for site {self.site!r}, which belongs to the whole layer",
                got=f"heads={self.heads}",
                fix=f"Leave heads out, or use a site of heads: {', '.join(HEAD_SITES)}.",
            )

    def first_position(self) -> int:
        """The first column that any row changes (0 when all do)."""
        if self.where is None:
            return 0
        touched = self.where.any(0).nonzero()
        return int(touched[0]) if len(touched) else self.where.shape[1]

    def apply(self, activation: Tensor) -> Tensor:
        """The activation of a whole forward pass with the edit made, as a new tensor."""
        return torch.where(self.mask(activation), self.values.to(activation), activation)

    def of_columns(self, columns: Int[Tensor, " column"], *, shape: Sequence[int]) -> Edit:
        """The edit for activations of some columns only.

        Args:
            columns: absolute columns that remain, in order.
            shape: of the whole activation.
        """
        axis = 2 if self.site == "pattern" else 1
        values = self.values.to(columns.device).expand(torch.Size(shape))
        values = values.index_select(axis, columns)
        where = None if self.where is None else self.where.to(columns.device)[:, columns]
        return Edit(self.layer, self.site, values, heads=self.heads, where=where)

    def mask(self, activation: Tensor) -> Tensor:
        """Which entries are replaced; broadcasts against `activation`."""
        pattern, headed = self.site == "pattern", self.site in HEAD_SITES
        axes = activation.ndim
        mask = torch.ones([1] * axes, dtype=torch.bool, device=activation.device)
        if self.where is not None:
            where = self.where.to(activation.device)
            mask = where[:, None, :, None] if pattern else where[(...,) + (None,) * (axes - 2)]
        if headed and self.heads is not None:
            head_axis = 1 if pattern else 2
            chosen = torch.zeros(
                activation.shape[head_axis], dtype=torch.bool, device=activation.device
            )
            chosen[list(self.heads)] = True
            mask = mask & (chosen[:, None, None] if pattern else chosen[:, None])
        return mask


Intervention: TypeAlias = tuple[Edit, ...]
"""What is replaced in one forward pass. Edits of one layer and site apply in order."""


def rows_of(
    interventions: Sequence[Intervention], rows: slice, *, n_rows: int
) -> list[Intervention]:
    """Interventions for some rows only; values that edits share stay shared.

    Args:
        interventions: of all rows.
        rows: which remain.
        n_rows: how many there were.
    """
    cut: dict[int, Tensor] = {}

    def part(tensor: Tensor, ndim: int) -> Tensor:
        if tensor.ndim < ndim or tensor.shape[0] != n_rows:  # no axis of rows, or broadcast
            return tensor
        return cut.setdefault(id(tensor), tensor[rows])

    return [
        tuple(
            replace(
                edit,
                values=part(edit.values, 4 if edit.site in HEAD_SITES else 3),
                where=None if edit.where is None else part(edit.where, 2),
            )
            for edit in edits
        )
        for edits in interventions
    ]
