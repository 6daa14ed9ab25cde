"""Where heads of a named kind look, found from the tokens, and how much attention goes there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from headspec.activations.attention import check_pattern
from headspec.errors import InputError, check_choice

HeadKind = Literal["previous_token", "induction", "duplicate_token", "first_token"]
HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
CONTENT_KINDS: tuple[HeadKind, ...] = ("induction", "duplicate_token")
"""Kinds that depend on which tokens come again, not on positions alone."""


def head_targets(
    tokens: Integer[Tensor, "batch pos"], kind: HeadKind, *, ignore: Sequence[int] = ()
) -> Bool[Tensor, "batch q_pos k_pos"]:
    """The keys that a head of a kind would look at from each query.

    | kind | keys |
    |---|---|
    | `previous_token` | the position before |
    | `duplicate_token` | every earlier position of the same token |
    | `induction` | every position after an earlier one of the same token |
    | `first_token` | position 0 |

    Queries without such a key have none: position 0, and for the two kinds in the middle every
    token that comes for the first time. Where a token follows itself, "the position after the
    earlier one" is the query's own.

    Args:
        tokens: token ids, one row a sequence.
        kind: which.
        ignore: ids that count neither as queries nor as earlier positions, such as padding.

    Returns:
        True where such a head looks.

    References:
        Elhage et al. 2021, "A mathematical framework for transformer circuits"; Olsson et al. 2022,
        "In-context learning and induction heads"; Wang et al. 2023 (duplicate-token heads).

    Example:
        >>> import torch
        >>> tokens = torch.tensor([[7, 8, 9, 7]])
        >>> head_targets(tokens, "induction")[0, 3].tolist()
        [False, True, False, False]
    """
    check_choice("kind", kind, HEAD_KINDS)
    n = tokens.shape[1]
    if kind == "previous_token":
        found = torch.eye(n, dtype=torch.bool, device=tokens.device).roll(1, 0).tril(-1)
        found = found.expand(len(tokens), -1, -1)
    elif kind == "first_token":
        found = torch.zeros(len(tokens), n, n, dtype=torch.bool, device=tokens.device)
        found[:, 1:, :1] = True
    else:
        found = (tokens[:, :, None] == tokens[:, None, :]).tril(-1)
        if kind == "induction":
            found = F.pad(found[..., :-1], (1, 0))
    if not ignore:
        return found
    counted = ~torch.isin(tokens, torch.tensor(list(ignore), device=tokens.device))
    return found & counted[:, :, None]


def target_attention(
    pattern: Float[Tensor, "batch head q_pos k_pos"],
    targets: Bool[Tensor, "batch q_pos k_pos"],
) -> Float[Tensor, "batch head"]:
    """Mean attention to the targets, over the queries that have any.

    For query q with targets T(q), sum_{k in T(q)} p(q, k); then the mean over all q with a target.
    transformer-lens's `detect_head` divides by all queries instead: its score (`"mul"`) is this
    times the share of queries that have a target.

    Args:
        pattern: attention probabilities.
        targets: of `head_targets`.

    Returns:
        One mean a sequence and head, float64; nan where no query has a target.

    What it does not show: that the head copies what it looks at, or that anything reads it. A head
    that looks everywhere has a score above 0: compare with `uniform_attention`.

    Raises:
        InputError: rows that are no probabilities, mass above the diagonal, other shapes.

    Example:
        >>> import torch
        >>> tokens = torch.tensor([[7, 8, 7]])
        >>> pattern = torch.tensor([[[[1.0, 0, 0], [0.5, 0.5, 0], [0.1, 0.7, 0.2]]]])
        >>> target_attention(pattern, head_targets(tokens, "induction")).round(decimals=3).tolist()
        [[0.7]]
    """
    if pattern.shape[0] != targets.shape[0] or pattern.shape[2:] != targets.shape[1:]:
        raise InputError(
            expected="a pattern batch head q_pos k_pos and targets batch q_pos k_pos",
            got=f"shapes {list(pattern.shape)} and {list(targets.shape)}",
            fix="Find the targets on the tokens that gave the pattern.",
        )
    return attention_on(check_pattern(pattern), targets)


def attention_on(
    pattern: Float[Tensor, "batch head q_pos k_pos"],
    targets: Bool[Tensor, "batch q_pos k_pos"],
) -> Float[Tensor, "batch head"]:
    """`target_attention` of a pattern that is known to be one."""
    row, query, key = targets.nonzero(as_tuple=True)
    sums = pattern.new_zeros(pattern.shape[:2], dtype=torch.float64)
    sums.index_add_(0, row, pattern[row, :, query, key].double())
    return sums / count_queries(targets)[:, None]


def uniform_attention(targets: Bool[Tensor, "batch q_pos k_pos"]) -> Float[Tensor, " batch"]:
    """The same mean for attention that is uniform over all tokens so far.

    Args:
        targets: of `head_targets`.

    Returns:
        One mean a sequence, float64; nan where no query has a target.
    """
    seen = torch.arange(1, targets.shape[1] + 1, device=targets.device, dtype=torch.float64)
    return (targets.sum(-1) / seen).sum(-1) / count_queries(targets)


def count_queries(targets: Bool[Tensor, "batch q_pos k_pos"]) -> Integer[Tensor, " batch"]:
    """Queries of each sequence that have a target."""
    return targets.any(-1).sum(-1)
