"""Do heads write where others read: overlaps of the subspaces of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.head_tensors import HeadWeights
from headspec.weights.composition_result import CompositionScores
from headspec.weights.head_pairs import (
    as_double,
    as_layers,
    check_stream,
    earlier_pairs,
    heads_of,
    processing_of,
    shared,
)
from headspec.weights.orientation_null import alignment_moments, alignment_p

SubspaceRole = Literal["q", "k", "v", "o"]


def projection_kernel_overlap(
    first: HeadWeights | Sequence[HeadWeights],
    second: HeadWeights | Sequence[HeadWeights],
    *,
    first_role: Literal["q", "k", "v", "o"] = "o",
    second_role: Literal["q", "k", "v", "o"] = "k",
    rank: int | None = None,
    order: Literal["earlier", "all"] = "earlier",
) -> CompositionScores:
    """Overlap of the subspaces that heads read from or write to, for all pairs, with its null.

    With U1, U2 orthonormal bases of the subspaces, of ranks r1 and r2,

        score = ||U1^T U2||_F^2 / sqrt(r1 r2),

    the cosine of the two projections: 1 for equal subspaces, 0 for orthogonal ones. Unlike
    composition it does not weigh directions by singular values.

    **Null.** For random subspaces of R^d E ||U1^T U2||_F^2 = r1 r2 / d, with variance
    2 r1 r2 (d - r1) (d - r2) / (d^2 (d - 1) (d + 2)); p as in `composition_scores`.

    **What it does not show.** How much goes through the shared directions, or whether it is used. A
    full-rank head spans all of its d_head directions, the weak ones too: `rank` keeps the strong.

    Args:
        first, second: layers.
        first_role, second_role: which subspace: what is read as query, key or value (columns of
            W_Q, W_K, W_V), or what is written (rows of W_O).
        rank: leading singular directions to keep; None: all of the numerical rank.
        order: `"earlier"` leaves nan where the first head does not come before the second;
            `"all"` compares all pairs, a head with itself too.

    Returns:
        A `CompositionScores` with metric `"overlap_o_k"`, and so on.

    Raises:
        InputError: as `composition_scores`, or a rank outside 1 .. d_head.

    References:
        Golub and Van Loan, "Matrix Computations", section 6.4 (angles between subspaces).

    Example:
        >>> import headspec as hs
        >>> suite = hs.open_suite("micro")
        >>> layers = [suite.head_weights(6144, layer) for layer in (1, 2)]
        >>> hs.projection_kernel_overlap(layers[0], layers[1], rank=2).scores.shape
        (12, 12)
    """
    for name, role in (("first_role", first_role), ("second_role", second_role)):
        check_choice(name, role, get_args(SubspaceRole))
    check_choice("order", order, ("earlier", "all"))
    one, other = as_layers(first), as_layers(second)
    check_stream(one, other)
    every = one + other
    widest = min(w.d_head for w in every)
    if rank is not None and not 1 <= rank <= widest:
        raise InputError(expected=f"a rank from 1 to {widest}", got=f"{rank}", fix="Or None: all.")
    allowed = np.ones((len(one), len(other)), dtype=bool)
    if order == "earlier":
        allowed = earlier_pairs(one, other)
    with torch.no_grad():
        bases = [[_bases(w, first_role, rank) for w in one]]
        bases.append([_bases(w, second_role, rank) for w in other])
        kernels = np.block([[_kernels(a, b) for b in bases[1]] for a in bases[0]])
    ranks = [np.concatenate([(base != 0).any(1).sum(1).cpu().numpy() for base in b]) for b in bases]
    for row, side in enumerate(ranks):
        ranks[row] = np.where(side > 0, side, np.nan)
    per_head = [[w.n_heads for w in layers] for layers in (one, other)]
    mask = allowed.repeat(per_head[0], axis=0).repeat(per_head[1], axis=1)
    r1, r2 = ranks[0][:, None], ranks[1][None, :]
    ratios = [np.stack([1 / r, 1 / r**2], -1) for r in (r1, r2)]  # equal singular values
    mean, sd, skew = alignment_moments(ratios[0], ratios[1], one[0].d_model)
    scale = np.sqrt(r1 * r2)  # from tr(P1 P2) / (r1 r2) to the score
    scores = np.where(mask, kernels / scale, np.nan)
    step = shared(every, "step")
    return CompositionScores(
        scores=scores,
        null_mean=mean * scale,
        null_sd=sd * scale,
        p_values=alignment_p(scores / scale, mean, sd, skew),
        metric=f"overlap_{first_role}_{second_role}",
        null="orientation",
        upstream=heads_of(one),
        downstream=heads_of(other),
        d_model=one[0].d_model,
        model=str(shared(every, "model") or ""),
        step=step if isinstance(step, int) else None,
        processing=processing_of(every),
    )


def _bases(weights: HeadWeights, role: str, rank: int | None) -> Tensor:
    """`head d_model rank`: orthonormal columns; zeros beyond the numerical rank (of float32)."""
    matrix = as_double(weights, f"W_{role.upper()}")
    matrix = matrix.mT if role == "o" else matrix
    vectors, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    tolerance = max(matrix.shape[1:]) * torch.finfo(torch.float32).eps
    kept = values > tolerance * values[:, :1]
    return (vectors * kept[:, None, :])[..., :rank]


def _kernels(one: Tensor, other: Tensor) -> np.ndarray:
    """||U_i^T V_j||_F^2 of all pairs."""
    product = one.mT.flatten(0, 1) @ other.mT.flatten(0, 1).mT
    shape = (len(one), one.shape[2], len(other), other.shape[2])
    return product.view(shape).square().sum((1, 3)).cpu().numpy()
