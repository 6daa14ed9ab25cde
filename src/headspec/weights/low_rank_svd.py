"""SVD of products of two thin factors, `left @ right.mT`, which are never formed.

Two ways. From float64 Gram matrices of the factors, which is fast: with left^T left = L L^T
(Cholesky), the squared singular values are the eigenvalues of L^T (right^T right) L. Squares
lose the smallest values, so heads in which one is below `_TRUSTED` of the product of the factors'
norms go the other way: QR of both factors, then the SVD of R_left R_right^T. Float64 factors
always go that way.

A float32 Gram matrix or Cholesky factor would be faster still and is wrong in the tail.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_TRUSTED = 1e-9
"""Least squared singular value over the factors' squared Frobenius norms that a Gram matrix gives.

Rounding in float64 is 2e-16 of those norms, so it is 2e-7 of such a value squared, and it is that
for the condition of the factors too: |left| |right| >= value bounds both.
"""


def product_rank(left: Tensor, right: Tensor) -> int:
    """How many singular values the products have: all that need not be zero."""
    return min(left.shape[-1], left.shape[-2], right.shape[-2])


def product_values(
    left: Float[Tensor, "left_head d_left d_head"],
    right: Float[Tensor, "right_head d_right d_head"],
) -> Float[Tensor, "head rank"]:
    """Singular values of each head's product, float64, descending.

    Args:
        left, right: factors; where one has fewer heads, each of its heads belongs to as many
            consecutive heads of the other.
    """
    if not _gram_fits(left, right):
        return _values_by_qr(left, right)
    _, core, scale = _gram_core(left.double(), right.double())
    squares, poor = _trusted(torch.linalg.eigvalsh(core).flip(-1), scale)
    values = squares.sqrt()
    if poor.any():
        values[poor] = _values_by_qr(left, right, poor)
    return values


def product_svd(
    left: Float[Tensor, "left_head d_left d_head"],
    right: Float[Tensor, "right_head d_right d_head"],
    k: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Left vectors `head d_left k`, all values `head rank` and right vectors `head d_right k`.

    Args:
        left, right: as for `product_values`.
        k: vectors to compute.

    Returns:
        U, S and V in float64: left @ right.mT = U S V^T for k = rank, with sum_i cos(i) u_i >= 0
        for every column u of U.
    """
    if not _gram_fits(left, right):
        return _svd_by_qr(left, right, k)
    left64, right64 = left.double(), right.double()
    lower, core, scale = _gram_core(left64, right64)
    squares, inner = torch.linalg.eigh(core)
    squares, poor = _trusted(squares.flip(-1), scale)
    values, inner = squares.sqrt(), inner.flip(-1)[..., :k]
    own_left, own_right = _own(left64, len(core)), _own(right64, len(core))
    towards_U = torch.linalg.solve_triangular(lower.mT, inner, upper=True)
    towards_V = (lower @ inner) / values[:, None, :k].clamp(min=torch.finfo(torch.float64).tiny)
    signs = _signs(own_left, towards_U)
    U, V = own_left @ (towards_U * signs), own_right @ (towards_V * signs)
    if poor.any():
        U[poor], values[poor], V[poor] = _svd_by_qr(left, right, k, poor)
    return U, values, V


def _gram_fits(left: Tensor, right: Tensor) -> bool:
    return left.dtype != torch.float64 and product_rank(left, right) == left.shape[-1]


def _own(shared: Tensor, n_heads: int) -> Tensor:
    """One factor for each head, where heads share them."""
    size = n_heads // len(shared)
    return shared if size == 1 else shared.repeat_interleave(size, 0)


def _gram_core(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """L, L^T (right^T right) L and the product of the factors' squared norms, for each head.

    The norms are infinite where there is no Cholesky factor, so that nothing is trusted.
    """
    n_heads = max(len(left), len(right))
    gram_left, gram_right = left.mT @ left, right.mT @ right
    lower, failed = torch.linalg.cholesky_ex(gram_left)
    norms = gram_left.diagonal(dim1=1, dim2=2).sum(-1).where(failed == 0, torch.inf)
    same = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    lower = lower.where((failed == 0)[:, None, None], same)
    lower, gram_right = _own(lower, n_heads), _own(gram_right, n_heads)
    scale = _own(norms, n_heads) * gram_right.diagonal(dim1=1, dim2=2).sum(-1)
    return lower, lower.mT @ gram_right @ lower, scale


def _trusted(squares: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Squared values that can be rooted, and which heads' smallest ones are lost."""
    return squares.clamp(min=0), ~(squares[:, -1] > _TRUSTED * scale)


def _cores(left: Tensor, right: Tensor, heads: Tensor | None, mode: str) -> tuple[Tensor, ...]:
    """Q and R of each head's left and right factor, in float64; shared ones computed once."""
    n_heads = max(len(left), len(right))
    numbers = torch.arange(n_heads, device=left.device)
    numbers = numbers if heads is None else numbers[heads]
    found = []
    for factor in (left, right):
        rows, which = torch.unique(numbers // (n_heads // len(factor)), return_inverse=True)
        Q, R = torch.linalg.qr(factor[rows].double(), mode=mode)
        found += [Q[which] if mode == "reduced" else Q, R[which, : min(factor.shape[1:])]]
    return tuple(found)


def _values_by_qr(left: Tensor, right: Tensor, heads: Tensor | None = None) -> Tensor:
    _, R_left, _, R_right = _cores(left, right, heads, "r")
    return torch.linalg.svdvals(R_left @ R_right.mT)


def _svd_by_qr(
    left: Tensor, right: Tensor, k: int, heads: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    Q_left, R_left, Q_right, R_right = _cores(left, right, heads, "reduced")
    u, values, vh = torch.linalg.svd(R_left @ R_right.mT, full_matrices=False)
    u, v = u[..., :k], vh[:, :k].mT
    signs = _signs(Q_left, u)
    return Q_left @ (u * signs), values, Q_right @ (v * signs)


def _signs(factor: Tensor, small: Tensor) -> Tensor:
    """For each column u of factor @ small: the sign of sum_i cos(i) u_i, `head 1 k`."""
    rows = torch.arange(1, factor.shape[1] + 1, dtype=factor.dtype, device=factor.device)
    return torch.where((rows.cos() @ factor)[:, None] @ small < 0, -1.0, 1.0).to(small)
