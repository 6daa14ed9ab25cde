"""SVD of products of two thin factors, `left @ right.mT`, which are never formed.

Each factor is taken apart as Q R, and the SVD of the small core R_left R_right^T is that of the
product. For float32 factors both steps square in float64, which is several times faster, wherever
that loses nothing: R is the Cholesky factor of the Gram matrix, and singular values are roots of
the eigenvalues of core core^T. Badly conditioned factors go through QR and such cores through the
SVD, as float64 factors all do. (Squares in float32 would be faster still, and wrong in the tail.)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_WELL_CONDITIONED = 1e9
"""Most that |factor|^2 |inverse|^2, or the ratio of squared singular values, may be for squares.

Relative errors are about 2e-16 times that.
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
    R_left, R_right = _thin_qr(left, "r")[0], _thin_qr(right, "r")[0]
    core = _core(R_left, R_right)
    if _exactly(core, left, right):
        return torch.linalg.svdvals(core)
    squares = torch.linalg.eigvalsh(core @ core.mT).flip(-1)
    values, lost = squares.clamp(min=0).sqrt(), _lost(squares)
    if lost.any():
        values[lost] = torch.linalg.svdvals(core[lost])
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
    R_left, frame_left, inverse_left = _thin_qr(left, "reduced")
    R_right, frame_right, inverse_right = _thin_qr(right, "reduced")
    core = _core(R_left, R_right)
    u, values, v = _core_svd(core, _exactly(core, left, right))
    n_heads = len(core)
    frame_left, frame_right = _own(frame_left, n_heads), _own(frame_right, n_heads)
    u, v = _own(inverse_left, n_heads) @ u[..., :k], _own(inverse_right, n_heads) @ v[..., :k]
    signs = _signs(frame_left, u)
    return frame_left @ (u * signs), values, frame_right @ (v * signs)


def _thin_qr(factor: Tensor, mode: str) -> tuple[Tensor, Tensor, Tensor]:
    """R of each factor = Q R, and Q as `frame @ inverse`; float64.

    `mode` is that of `torch.linalg.qr`: under `"r"` R alone means anything.
    """
    height, width = factor.shape[-2:]
    same = torch.eye(min(height, width), dtype=torch.float64, device=factor.device)
    same = same.expand(len(factor), -1, -1)
    if factor.dtype == torch.float64 or height < width:
        Q, R = torch.linalg.qr(factor.double(), mode=mode)
        return R, Q, same
    frame = factor.double()  # a copy, which may be written to
    gram = frame.mT @ frame
    lower, failed = torch.linalg.cholesky_ex(gram)
    lower = lower.where((failed == 0)[:, None, None], same)
    inverse = torch.linalg.solve_triangular(lower, same, upper=False).mT
    spread = gram.diagonal(dim1=1, dim2=2).sum(-1) * inverse.square().sum((1, 2))
    poor = (failed != 0) | ~(spread < _WELL_CONDITIONED)
    R = lower.mT
    if poor.any():
        R = R.clone()
        Q, R[poor] = torch.linalg.qr(frame[poor], mode=mode)
        if mode == "reduced":
            frame[poor] = Q
            inverse = inverse.where(~poor[:, None, None], same)
    return R, frame, inverse


def _own(shared: Tensor, n_heads: int) -> Tensor:
    """One matrix for each head, where heads share them."""
    size = n_heads // len(shared)
    return shared if size == 1 else shared.repeat_interleave(size, 0)


def _core(R_left: Tensor, R_right: Tensor) -> Tensor:
    n_heads = max(len(R_left), len(R_right))
    return _own(R_left, n_heads) @ _own(R_right, n_heads).mT


def _exactly(core: Tensor, left: Tensor, right: Tensor) -> bool:
    """Whether squares are out of the question: float64 factors, or more columns than rows."""
    return torch.float64 in (left.dtype, right.dtype) or core.shape[-1] != core.shape[-2]


def _lost(squares: Tensor) -> Tensor:
    """The heads whose smallest value drowns in the square of the largest."""
    return ~(squares[:, -1] * _WELL_CONDITIONED > squares[:, 0])


def _core_svd(core: Tensor, exactly: bool) -> tuple[Tensor, Tensor, Tensor]:
    """U, S and V of small matrices."""
    if exactly:
        u, values, vh = torch.linalg.svd(core, full_matrices=False)
        return u, values, vh.mT
    squares, u = torch.linalg.eigh(core @ core.mT)
    squares, u = squares.flip(-1), u.flip(-1)
    values, lost = squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt(), _lost(squares)
    v = core.mT @ u / values[:, None]
    if lost.any():
        u[lost], values[lost], v[lost] = _core_svd(core[lost], True)
    return u, values, v


def _signs(frame: Tensor, small: Tensor) -> Tensor:
    """For each column u of frame @ small: the sign of sum_i cos(i) u_i, `head 1 k`."""
    rows = torch.arange(1, frame.shape[1] + 1, dtype=frame.dtype, device=frame.device)
    return torch.where((rows.cos() @ frame)[:, None] @ small < 0, -1.0, 1.0).to(small)
