"""What one attention pattern says: entropy, mean distance, mass on the first token, per query."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError

_SLACK = {torch.float64: 1e-6, torch.float32: 1e-4}  # of a row's sum; half precision: .01


def attention_entropy(
    pattern: Float[Tensor, "*batch head q_pos k_pos"], *, causal: bool = True
) -> Float[Tensor, "*batch head q_pos"]:
    """Entropy of each query's attention in nats: H = - sum_k p_k ln p_k, with 0 ln 0 = 0.

    Uniform attention over t + 1 keys has ln(t + 1), so the mean over the queries of a causal
    pattern of length T cannot exceed mean_t ln(t + 1) (5.246 nats at T = 512): a larger figure
    says that the pattern was not causal. Compare with `attention_baselines`.

    Takes probabilities, never scores: a softmax over probabilities would be nearly uniform.

    Args:
        pattern: attention probabilities.
        causal: whether keys after the query are forbidden; False for masked language models.

    Returns:
        Nats, float64, on the pattern's device. Half precision is read as float32.

    What it does not show: which keys are attended to. A low entropy may be a first-token sink, the
    previous token or a content match alike; and entropy grows with the position by itself.

    Raises:
        InputError: rows that are no probabilities, or mass above the diagonal.

    Example:
        >>> import torch
        >>> attention_entropy(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])).round(decimals=3).tolist()
        [[0.0, 0.693]]
    """
    return torch.special.entr(check_pattern(pattern, causal=causal)).sum(-1, dtype=torch.float64)


def attention_distance(
    pattern: Float[Tensor, "*batch head q_pos k_pos"], *, causal: bool = True
) -> Float[Tensor, "*batch head q_pos"]:
    """Mean distance that each query looks back: sum_k p_k |q - k|, in tokens.

    Args:
        pattern: attention probabilities.
        causal: as in `attention_entropy`.

    Returns:
        Tokens, float64: 0 for the token itself, 1 for the previous token.

    What it does not show: a sink on the first token and a long-range match are both far away; see
    `sink_mass`.

    Raises:
        InputError: as `attention_entropy`.

    Example:
        >>> import torch
        >>> attention_distance(torch.tensor([[[1.0, 0.0], [0.75, 0.25]]])).tolist()
        [[0.0, 0.75]]
    """
    checked = check_pattern(pattern, causal=causal)
    at = torch.arange(checked.shape[-1], device=checked.device)
    return (checked * (at[:, None] - at).abs()).sum(-1, dtype=torch.float64)


def sink_mass(
    pattern: Float[Tensor, "*batch head q_pos k_pos"], *, causal: bool = True
) -> Float[Tensor, "*batch head q_pos"]:
    """Mass that each query puts on the first token, where heads rest that have nothing to do.

    Args:
        pattern: attention probabilities.
        causal: as in `attention_entropy`.

    Returns:
        Probability, float64; always 1 for the first query of causal attention.

    What it does not show: that the head rests; a head may look at the first token for what it is.

    Raises:
        InputError: as `attention_entropy`.

    References:
        Xiao et al., "Efficient streaming language models with attention sinks", 2024.

    Example:
        >>> import torch
        >>> sink_mass(torch.tensor([[[1.0, 0.0], [0.75, 0.25]]])).tolist()
        [[1.0, 0.75]]
    """
    return check_pattern(pattern, causal=causal)[..., 0].double()


def check_pattern(
    pattern: Float[Tensor, "*batch head q_pos k_pos"], *, causal: bool = True
) -> Float[Tensor, "*batch head q_pos k_pos"]:
    """The pattern in float32 or float64, if its rows are probabilities and it is causal.

    Rows of half precision are divided by their sum, which rounding moved away from one.

    Args:
        pattern: attention probabilities, as many queries as keys.
        causal: whether keys after the query are forbidden.

    Raises:
        InputError: another shape, rows that do not sum to one, mass above the diagonal.
    """
    slack = _SLACK.get(pattern.dtype, 1e-2)
    checked = pattern.detach()
    checked = checked if checked.dtype in _SLACK else checked.float()
    n_pos = checked.shape[-1]
    if checked.shape[-2] != n_pos or not n_pos:
        raise InputError(
            expected="attention of every query to every key: head q_pos k_pos, square",
            got=f"shape {list(pattern.shape)}",
            fix="Keep the whole pattern; decoding with a cache gives single rows.",
        )
    sums = checked.sum(-1)
    off = (sums - 1).abs().max() if sums.numel() else sums.new_zeros(())
    if not bool(off <= slack) or bool((checked < 0).any()):  # `not`: nan is off as well
        raise InputError(
            expected="attention probabilities: not negative, every row sums to one",
            got=f"rows that sum to {float(sums.min()):.4g} to {float(sums.max()):.4g}, entries "
            f"from {float(checked.min()):.4g}",
            fix="Pass the pattern after the softmax (`hook_pattern`), not scores.",
        )
    if causal and checked.numel():
        blocks = range(0, n_pos, 256)
        later = max(float(checked[..., i : i + 256, :].triu(i + 1).max()) for i in blocks)
        if later > 1e-6:
            raise InputError(
                expected="causal attention: nothing after the query",
                got=f"a probability of {later:.3g} above the diagonal",
                fix="Was the mask lost where the pattern was taken? For models that attend both "
                "ways pass causal=False.",
            )
    return checked if pattern.dtype in _SLACK else checked / sums[..., None]
