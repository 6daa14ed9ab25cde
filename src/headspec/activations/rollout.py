"""Attention rollout: patterns of all layers multiplied, as if values and MLPs did nothing."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError, check_choice

HeadFusion = Literal["mean", "max"]
"""How the heads of a layer become one pattern; rows are divided by their sums after it."""


def attention_rollout(
    patterns: Float[Tensor, "layer *batch head q_pos k_pos"],
    *,
    residual: float | int = 0.5,
    fusion: HeadFusion = "mean",
) -> Float[Tensor, "layer *batch q_pos k_pos"]:
    """How much of each token an output position would hold if layers only mixed positions.

    With P_l the fused pattern of layer l and r the share of the residual stream,

        R_l = ((1 - r) P_l + r I) R_{l-1},    R_{-1} = I.

    Every row of every R_l sums to one. The baseline to hold a token-to-token map against; see
    `linear_operator` for the map that the weights, norms and MLPs of this input make.

    What it does not show: what is written. A head that moves nothing (small values, an attention
    sink) counts as much as any other, signs cannot cancel, norms and MLPs are left out, and `r` is
    a convention, not a measurement. It is no causal effect.

    Args:
        patterns: attention probabilities, float16 and bfloat16 computed in float32. For causal
            models the result is causal, too.
        residual: share r of the residual stream, 0 to 1; the paper's is 0.5.
        fusion: mean over heads (the paper), or their largest entry.

    Returns:
        The rollout from the input to the output of every layer; `[-1]` is the whole model's.

    Raises:
        InputError: rows that are no probabilities, other axes, or a residual outside 0 to 1.

    References:
        Abnar & Zuidema 2020, Quantifying Attention Flow in Transformers (ACL).

    Example:
        >>> import torch
        >>> first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # all attend to the first token
        >>> attention_rollout(torch.stack([first, first])[:, None])[-1]
        tensor([[1.0000, 0.0000],
                [0.7500, 0.2500]])
    """
    check_choice("fusion", fusion, get_args(HeadFusion))
    _check(patterns, float(residual))
    patterns = patterns.to(torch.promote_types(patterns.dtype, torch.float32))
    fused = patterns.mean(-3) if fusion == "mean" else patterns.amax(-3)
    fused = fused / fused.sum(-1, keepdim=True)
    identity = torch.eye(patterns.shape[-1], dtype=fused.dtype, device=fused.device)
    step, rollouts = identity.expand(fused.shape[1:]), []
    for layer in fused:
        step = ((1 - residual) * layer + residual * identity) @ step
        rollouts.append(step)
    return torch.stack(rollouts)


def _check(patterns: Tensor, residual: float) -> None:
    if not 0 <= residual <= 1:
        raise InputError(
            expected="residual, a share from 0 to 1",
            got=str(residual),
            fix="The paper's is 0.5; 0 leaves the residual stream out.",
        )
    if patterns.ndim < 4 or patterns.shape[-1] != patterns.shape[-2] or not len(patterns):
        raise InputError(
            expected="patterns shaped layer, any batch axes, head, q_pos, k_pos, as many queries "
            "as keys, of at least one layer",
            got=f"shape {tuple(patterns.shape)}",
            fix="Stack the patterns of all layers of one model along the first axis.",
        )
    tolerance = 1e-4 if patterns.dtype in (torch.float32, torch.float64) else 2e-2
    error = float((patterns.sum(-1, dtype=torch.float32) - 1).abs().max())
    if not error <= tolerance or float(patterns.min()) < 0:
        raise InputError(
            expected="patterns of probabilities: every row sums to one",
            got=f"rows off by up to {error:.2g}, smallest entry {float(patterns.min()):.2g}",
            fix="Take patterns after the softmax (hook_pattern, not hook_attn_scores).",
        )
