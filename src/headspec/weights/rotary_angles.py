"""Turning queries and keys by their position, as rotary embeddings do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.head_tensors import Rotary


def rotate(
    vectors: Float[Tensor, "*#batch d_head"],
    positions: Int[Tensor, "*#batch"] | Sequence[int] | int,
    rotary: Rotary,
    *,
    frequencies: Float[Tensor, " plane"] | None = None,
) -> Float[Tensor, "*turned d_head"]:
    """Vectors in a head's own space, turned by the rotary embedding of their positions.

    Plane m of `rotary.dim / 2` is turned by the angle position * base^(-2m / dim):
    (a, b) -> (a cos - b sin, b cos + a sin). Dimensions from `rotary.dim` on stay. The product of
    a query at i and a key at j depends on i - j alone: rotate(q, i) . rotate(k, j) =
    rotate(q, i - j) . k, so the QK form at an offset is `rotate(W_Q, offset) @ W_K.mT`.

    Args:
        vectors: the last axis is `d_head`: queries, keys, or W_Q and W_K themselves. Half
            precision is turned in float32.
        positions: one for all, or any shape that broadcasts with the other axes; negative ones turn
            back.
        rotary: what the model does.
        frequencies: radians per position of every plane, where the model scales them (its own
            `rotary_emb.inv_freq`).

    Returns:
        The two shapes broadcast, in the vectors' dtype and on their device; angles are computed
        in float64.

    Raises:
        InputError: frequencies that are scaled (`rotary.scaling`), of which only the name is known,
            and not given, not one for each plane, or more rotated dimensions than there are.

    References:
        Su et al. 2021, "RoFormer", arXiv:2104.09864.

    Example:
        >>> import torch
        >>> rotate(torch.tensor([1.0, 0.0]), 1, Rotary(dim=2)).round(decimals=4).tolist()
        [0.5403000116348267, 0.8414999842643738]
    """
    dim, width = rotary.dim, vectors.shape[-1]
    unknown = rotary.scaling is not None and frequencies is None
    if unknown or dim > width or dim % 2:
        raise InputError(
            expected="plain rotary embeddings of an even number of dimensions, at most d_head",
            got=f"{rotary} for d_head={width}",
            fix="Scaled frequencies are known by name only: give frequencies= (the model's own "
            "`rotary_emb.inv_freq`), or use offset 0, where nothing turns.",
        )
    if frequencies is not None and len(frequencies) != dim // 2:
        raise InputError(
            expected=f"{dim // 2} frequencies, one for each pair of rotated dimensions",
            got=f"{len(frequencies)}",
            fix="Pass the model's own (`rotary_emb.inv_freq`).",
        )
    where = torch.as_tensor(positions, device=vectors.device, dtype=torch.float64)[..., None]
    if frequencies is None:
        planes = torch.arange(0, dim, 2, dtype=torch.float64)
        frequencies = float(rotary.base) ** (-planes / max(dim, 1))
    angles = where * frequencies.detach().to(where)
    working = vectors.dtype if vectors.dtype == torch.float64 else torch.float32
    cos, sin = angles.cos().to(working), angles.sin().to(working)
    first, second = _planes(vectors.to(working), rotary)
    turned = (first * cos - second * sin, second * cos + first * sin)
    if rotary.pairing == "halves":
        moved = torch.cat(turned, -1)
    else:
        moved = torch.stack(turned, -1).flatten(-2)
    rest = vectors[..., dim:].expand(*moved.shape[:-1], width - dim)
    return torch.cat([moved.to(vectors.dtype), rest], -1)


def _planes(vectors: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
    """First and second coordinate of every plane."""
    half = rotary.dim // 2
    if rotary.pairing == "halves":
        return vectors[..., :half], vectors[..., half : rotary.dim]
    return vectors[..., 0 : rotary.dim : 2], vectors[..., 1 : rotary.dim : 2]
