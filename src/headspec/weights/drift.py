"""How far a weight matrix has moved: norm, direction, and its leading singular subspaces."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import subspace_angles
from torch import Tensor

from headspec.errors import InputError
from headspec.weights import singular_values as svd
from headspec.weights.drift_result import WeightChange

_DEGENERATE = 1e-12  # of s_1^2: subspaces with a smaller gap of s^2 are not found in float64
_DRAWS = 400


def weight_change(
    before: Float[Tensor, "*batch rows cols"],
    after: Float[Tensor, "*batch rows cols"],
    *,
    k: int = 10,
    steps: tuple[int, int] | None = None,
) -> WeightChange:
    """How a weight matrix A has become B, one number a matrix and measure.

    Formulas are with `WeightChange`. Everything is computed in float64 whatever the dtypes, the
    change from the difference B - A itself, so that near copies keep their digits. Subspaces of
    the k largest singular values come from the k + 1 largest eigenpairs of the Gram matrix.

    Args:
        before, after: the same matrix, or batch of matrices, at two checkpoints.
        k: dimension of the singular subspaces, at most min(rows, cols) (where it is cut to).
        steps: training steps of the two, for rates per step and per log step
            (`WeightChange.rates`).

    Returns:
        A `WeightChange` with arrays of shape `*batch`.

    Raises:
        InputError: different shapes, NaN or infinite entries (the message names the matrix), k
            below 1, or steps that do not ascend.

    References:
        Bjorck and Golub 1973 (principal angles; computed by `scipy.linalg.subspace_angles`).
        Wedin 1972: sin(angle) <= |B - A| / gap. Yunis et al. 2024, arXiv:2408.11804, follow
        singular vectors over training.

    Example:
        >>> import torch
        >>> A = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
        >>> change = weight_change(A, 2 * A, k=1)
        >>> [round(float(x), 3) for x in (change.cosine, change.relative_change)]
        [1.0, 1.0]
        >>> round(float(change.left_angle), 3)
        0.0

    **What it does not show.** Whether the function changed: Q and K may turn together with no
    effect on their product (`qk_svd` sees that). Angles of subspaces with a small gap move by
    noise alone: look at `gap` and at the angle of random subspaces.
    """
    if before.shape != after.shape:
        raise InputError(
            expected="the same matrix at two checkpoints",
            got=f"shapes {list(before.shape)} and {list(after.shape)}",
            fix="Pair layers and roles: suite.layer_matrices(step, layer) of both steps.",
        )
    if isinstance(k, bool) or k != int(k) or k < 1:
        raise InputError(expected="k of at least 1", got=f"{k!r}", fix="10 is usual.")
    if steps is not None and not 0 <= steps[0] < steps[1]:
        raise InputError(
            expected="steps=(earlier, later), from 0",
            got=f"{steps!r}",
            fix="Pass the checkpoints' training steps in order.",
        )
    svd.check_matrices(before)
    rows, cols = before.shape[-2:]
    k = min(int(k), rows, cols)
    batch = tuple(before.shape[:-2])
    with torch.no_grad():
        pairs = zip(svd.scaled_matrices(before), svd.scaled_matrices(after), strict=True)
        found = [{**_moves(a, b), **_turns(a, b, k)} for a, b in pairs]
    fields = {name: np.array([one[name] for one in found]).reshape(batch) for name in found[0]}
    return WeightChange(
        **fields,
        left_random=random_angle(rows, k),
        right_random=random_angle(cols, k),
        k=k,
        steps=None if steps is None else (int(steps[0]), int(steps[1])),
    )


@lru_cache(maxsize=64)
def random_angle(dim: int, k: int) -> float:
    """Expected mean principal angle between two random k-dimensional subspaces, in radians.

    Mean of 400 seeded draws. One subspace may be held as the first k axes; of a Gaussian basis of
    the other, the part outside enters by its triangular factor only (Bartlett), so that a draw
    costs k^3 whatever `dim` is. The mean squared cosine is k / dim.
    """
    if k == dim:
        return 0.0
    rng = np.random.default_rng(0)
    return float(np.mean([np.arccos(random_cosines(rng, dim, k)).mean() for _ in range(_DRAWS)]))


def random_cosines(rng: np.random.Generator, dim: int, k: int) -> np.ndarray:
    """Cosines of the principal angles between two random k-dimensional subspaces."""
    inside, beyond = rng.standard_normal((k, k)), dim - k
    if beyond <= k:
        outside = rng.standard_normal((beyond, k))
    else:
        outside = np.triu(rng.standard_normal((k, k)), 1)
        outside += np.diag(np.sqrt(rng.chisquare(beyond - np.arange(k))))
    basis = np.linalg.qr(np.concatenate([inside, outside])).Q
    return np.clip(np.linalg.svd(basis[:k], compute_uv=False), 0, 1)


def _moves(before: tuple[Tensor, float], after: tuple[Tensor, float]) -> dict[str, float]:
    """Cosine, relative change and norm growth of one matrix."""
    scale = max(before[1], after[1]) or 1.0
    sums = np.zeros(4)
    pairs = zip(svd.blocks(before[0], scale), svd.blocks(after[0], scale), strict=True)
    for a, b in pairs:
        b = b.to(a.device)
        parts = (a.square().sum(), b.square().sum(), (a * b).sum(), (b - a).square().sum())
        sums += [float(part) for part in parts]
    first, second, product, difference = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "cosine": float(np.clip(product / np.sqrt(first * second), -1, 1)),
            "relative_change": float(np.sqrt(difference / first)),
            "norm_growth": float(np.log(second / first) / 2),
        }


def _turns(before: tuple[Tensor, float], after: tuple[Tensor, float], k: int) -> dict[str, float]:
    """Principal angles between the leading subspaces of one matrix, and the smaller gap."""
    (left_a, right_a, gap_a), (left_b, right_b, gap_b) = (_top(*m, k) for m in (before, after))
    found = {"gap": min(gap_a, gap_b)}
    for side, a, b in (("left", left_a, left_b), ("right", right_a, right_b)):
        known = a is not None and b is not None
        angles = subspace_angles(a, b) if known else np.array([np.nan])
        found |= {f"{side}_angle": float(angles.mean()), f"{side}_angle_max": float(angles.max())}
    return found


def _top(
    matrix: Tensor, scale: float, k: int
) -> tuple[np.ndarray | None, np.ndarray | None, float]:
    """Bases of the k leading left and right singular subspaces; None where they are degenerate.

    Also (s_k - s_k+1) / s_k.
    """
    if scale == 0:
        return None, None, 0.0
    side = min(matrix.shape)
    squares, short = svd.top_eigenpairs(svd.gram(matrix, scale), min(k + 1, side))
    least, following = squares[k - 1], squares[k] if k < side else 0.0
    gap = 1 - np.sqrt(following / least) if least > 0 else 0.0
    if least - following < _DEGENERATE * squares[0]:
        return None, None, float(gap)
    short = short[:, :k]
    wide = matrix.shape[0] < matrix.shape[1]
    vectors = torch.from_numpy(short).to(matrix.device)
    tall = svd.blocks(matrix.mT if wide else matrix, scale)
    long = torch.cat([block @ vectors for block in tall]).cpu().numpy() / np.sqrt(squares[:k])
    return (short, long, float(gap)) if wide else (long, short, float(gap))
