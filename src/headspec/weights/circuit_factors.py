"""The two thin factors of a head's QK or OV circuit, with gains, biases and rotations in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.head_tensors import HeadWeights
from headspec.weights.rotary_forms import Offset, query_factor


def qk_factors(
    weights: HeadWeights,
    *,
    offset: Offset = 0,
    biases: bool = False,
    frequencies: Float[Tensor, " pair"] | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Float[Tensor, "head d_in d_head"], Float[Tensor, "kv_head d_in d_head"]]:
    """A and B of W_QK = A B^T: W_Q and W_K with the gains of QK-norm, W_Q turned by the offset."""
    left = _with_bias(weights.W_Q, weights.b_Q, biases, dtype)
    right = _with_bias(weights.W_K, weights.b_K, biases, dtype)
    left, right = with_gain(left, weights.q_norm), with_gain(right, weights.k_norm)
    _check_finite(weights, "QK", left, right)
    return query_factor(left, weights.rotary, offset, frequencies), right


def ov_factors(
    weights: HeadWeights, *, biases: bool = False, dtype: torch.dtype | None = None
) -> tuple[Float[Tensor, "kv_head d_in d_head"], Float[Tensor, "head d_model d_head"]]:
    """A and B of W_OV = A B^T: W_V and the transpose of W_O."""
    left = _with_bias(weights.W_V, weights.b_V, biases, dtype)
    right = working(weights.W_O, dtype).mT
    _check_finite(weights, "OV", left, right)
    return left, right


def working(matrix: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Detached and in `dtype`; without one as it is, half precision as float32."""
    if dtype is None:
        dtype = matrix.dtype if matrix.dtype == torch.float64 else torch.float32
    check_choice("dtype", dtype, (torch.float32, torch.float64))
    return matrix.detach().to(dtype)


def as_layers(weights: HeadWeights | Sequence[HeadWeights]) -> list[HeadWeights]:
    """The layers as a list, after a check that they can be stacked.

    Raises:
        InputError: no layers, or layers of different shapes.
    """
    layers = [weights] if isinstance(weights, HeadWeights) else list(weights)
    shapes = sorted({(w.n_heads, w.n_kv_heads, w.d_model, w.d_head) for w in layers})
    if len(shapes) != 1:
        raise InputError(
            expected="at least one layer, all with the same heads and widths",
            got=f"(heads, kv_heads, d_model, d_head) of {shapes}" if shapes else "no layers",
            fix="Give layers or steps of one model at a time.",
        )
    return layers


def _with_bias(matrix: Tensor, bias: Tensor | None, biases: bool, dtype: torch.dtype | None):
    """The matrix, with the bias (or zeros) as one more row where biases are asked for."""
    matrix = working(matrix, dtype)
    if not biases:
        return matrix
    row = matrix.new_zeros(matrix.shape[0], 1, matrix.shape[2])
    row = row if bias is None else bias.detach().to(row)[:, None]
    return torch.cat([matrix, row], dim=1)


def with_gain(
    matrix: Float[Tensor, "head d_in d_head"], gain: Tensor | None
) -> Float[Tensor, "head d_in d_head"]:
    """The matrix with its columns times the gains, `d_head` or one row a head; None: as it is."""
    if gain is None:
        return matrix
    gain = gain.detach().to(matrix)
    return matrix * (gain if gain.ndim == 1 else gain[:, None, :])


def _check_finite(weights: HeadWeights, circuit: str, *factors: Tensor) -> None:
    for factor in factors:
        sums = factor.sum((1, 2))  # one number a head: NaN and infinities survive in it
        if torch.isfinite(sums).all():
            continue
        bad = ~torch.isfinite(factor).all(2).all(1)
        if bad.any():
            numbers = torch.nonzero(bad).flatten().tolist()
            kind = "heads" if len(factor) == weights.n_heads else "key-value heads"
            raise InputError(
                expected=f"finite weights for the {circuit} circuits",
                got=f"NaN or infinity in {kind} {numbers} of layer {weights.layer}",
                fix="Check the checkpoint (`suite.verify()` names damaged ones).",
            )
