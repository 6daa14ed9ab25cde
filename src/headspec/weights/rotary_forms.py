"""The QK form under rotary embeddings, at one offset, averaged over several, and without them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError
from headspec.head_tensors import Rotary
from headspec.weights.rotary_angles import rotate

Offset = int | Sequence[int] | None


def as_offset(offset: Any) -> int | tuple[int, ...] | None:
    """One offset or several in Python's own integers.

    Raises:
        InputError: no offsets, or offsets that are not whole numbers.
    """
    if offset is None:
        return None
    try:
        return operator.index(offset)
    except TypeError:
        pass
    try:
        several = tuple(operator.index(one) for one in offset)
    except TypeError:
        several = ()
    if not several:
        raise InputError(
            expected="an offset, several to average over, or None",
            got=f"{offset!r}",
            fix="Offsets count positions; None is the part that does not depend on them.",
        )
    return several


def query_factor(
    matrix: Float[Tensor, "head d_in d_head"],
    rotary: Rotary | None,
    offset: Offset,
    frequencies: Float[Tensor, " pair"] | None = None,
) -> Float[Tensor, "head d_in d_head"]:
    """W_Q with the offset in it, so that W_QK = query_factor @ W_K^T.

    Args:
        matrix: W_Q.
        rotary: what the model does; without it every offset gives W_Q.
        offset: one turns by it; several give the mean of their turns; None the mean over ever more
            offsets, which is 0 in rotated dimensions and leaves the others alone.
        frequencies: of scaled rotary embeddings, see `rotate`.

    Raises:
        InputError: as `as_offset`, or scaled frequencies that are not given.
    """
    offset = as_offset(offset)
    if rotary is None or rotary.dim == 0 or offset == 0:
        return matrix
    if isinstance(offset, int):
        return rotate(matrix, offset, rotary, frequencies=frequencies)
    if offset is None:
        kept = matrix.clone()
        kept[..., : rotary.dim] = 0
        return kept
    offsets, width = torch.tensor(offset), matrix.shape[-1]
    turns = rotate(  # of each unit vector at each offset
        torch.eye(width, dtype=torch.float64).expand(len(offsets), width, width),
        offsets[:, None],
        rotary,
        frequencies=None if frequencies is None else frequencies.cpu(),
    )
    return matrix @ turns.mean(0).to(matrix)


def mean_square(
    left: Float[Tensor, "head d_in d_head"],
    right: Float[Tensor, "head d_in d_head"],
    rotary: Rotary | None,
    offsets: tuple[int, ...] | None,
    frequencies: Float[Tensor, " pair"] | None = None,
) -> Float[Tensor, " head"]:
    """Mean over offsets of the squared Frobenius norm of left R(offset) right^T, float64.

    With G the Gram matrices of the factors, each is tr(R^T G_left R G_right). Over ever more
    offsets (None) products of cosines and sines average to 1/2 within a plane and 0 between
    planes, whose frequencies differ.
    """
    gram_left, gram_right = left.double().mT @ left.double(), right.double().mT @ right.double()
    if rotary is None or rotary.dim == 0:
        return (gram_left * gram_right).sum((1, 2))
    if offsets is not None:
        squares = torch.zeros(len(left), dtype=torch.float64, device=left.device)
        for offset in offsets:
            half = rotate(gram_left, offset, rotary, frequencies=frequencies)
            full = rotate(half.mT, offset, rotary, frequencies=frequencies)
            squares += (full * gram_right).sum((1, 2))
        return squares / len(offsets)
    dim = rotary.dim
    unrotated = (gram_left[:, dim:, dim:] * gram_right[:, dim:, dim:]).sum((1, 2))
    place = torch.arange(dim, device=left.device)
    halves = rotary.pairing == "halves"
    planes = place.view(2, dim // 2).mT if halves else place.view(dim // 2, 2)
    within = [g[:, planes[:, :, None], planes[:, None, :]] for g in (gram_left, gram_right)]
    traces = [g.diagonal(dim1=2, dim2=3).sum(-1) for g in within]
    # The two blocks are symmetric: turned all the way round, only their traces are left.
    return unrotated + (traces[0] * traces[1]).sum(-1) / 2
