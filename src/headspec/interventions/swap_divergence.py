"""KL between the base run and runs with heads swapped, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.interventions.positions import one_position_set
from headspec.interventions.replay import Replay
from headspec.interventions.swap_pairs import Pairing
from headspec.interventions.swap_values import SwapValues
from headspec.interventions.weight_swaps import SwapKind
from headspec.lens.logits import LogitRead


@torch.no_grad()
def swap_divergences(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    pairings: Sequence[Pairing],
    *,
    layer: int,
    how: SwapKind,
    positions: Any,
    read_positions: Any,
    attention_mask: Tensor | None,
    memory_budget: int,
) -> Float[np.ndarray, "pairing batch"]:
    r"""KL(base \|\| swapped) in nats of each pairing and row, averaged over read positions.

    Args:
        model, tokens, layer, how, positions, read_positions, attention_mask, memory_budget: as in
            `swap_clusters`. Rows go in parts whose heads' parts fit the budget.
        pairings: the swaps.
    """
    where = one_position_set(positions, tokens)
    columns, weights = _reads(read_positions, tokens, attention_mask)
    cfg = model.cfg
    bytes_per_row = 4 * tokens.shape[1] * (cfg.n_heads**2 * cfg.d_head + 4 * cfg.d_model)
    size = max(1, memory_budget // bytes_per_row)
    parts = []
    for start in range(0, len(tokens), size):
        rows = slice(start, start + size)
        mask = None if attention_mask is None else attention_mask[rows]
        replay = Replay(model, tokens[rows], attention_mask=mask, memory_budget=memory_budget)
        here = None if where is None else where[rows].to(replay.tokens.device)
        values = SwapValues(replay, layer, how, where=here)
        read = LogitRead(positions=columns[rows], log_probs=True)
        base = replay.read([()], read)[0]
        weight = weights[rows].to(base.device).double()
        at_once = max(1, memory_budget // (16 * base.numel()))
        found = []
        for first in range(0, len(pairings), at_once):
            group = [values.intervention(pairs) for pairs in pairings[first : first + at_once]]
            found.append((_kl(base, replay.read(group, read)) * weight).sum(-1))
        parts.append(torch.cat(found).cpu().numpy())
    return np.concatenate(parts, axis=1)


def _kl(
    base: Float[Tensor, "batch read d_vocab"], other: Float[Tensor, "swap batch read d_vocab"]
) -> Float[Tensor, "swap batch read"]:
    """KL(base || other) in float64, normalised there: rounding then enters by its square."""
    p, q = base.double().log_softmax(-1), other.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).clamp_min(0)


def _reads(
    read_positions: Any, tokens: Tensor, mask: Tensor | None
) -> tuple[Int[Tensor, "batch read"], Float[Tensor, "batch read"]]:
    """Columns to compare in each row, and their weights, which sum to 1 in a row."""
    n_rows, n_columns = tokens.shape
    if isinstance(read_positions, Tensor):
        if read_positions.ndim != 2 or len(read_positions) != n_rows:
            raise InputError(
                expected=f"read_positions of shape batch read, {n_rows} rows",
                got=f"{list(read_positions.shape)}",
                fix="Give the columns to read in each row.",
            )
        columns = read_positions.cpu().long()
        if ((columns < -n_columns) | (columns >= n_columns)).any():
            raise InputError(
                expected=f"read_positions within {n_columns} columns",
                got=f"columns {columns.unique().tolist()}",
                fix="Negative ones count from the end.",
            )
        columns = columns % n_columns
    elif read_positions == "last":
        columns = torch.full((n_rows, 1), n_columns - 1)
    elif read_positions == "all":
        columns = torch.arange(n_columns).expand(n_rows, n_columns)
    else:
        raise InputError(
            expected="read_positions 'last', 'all' or columns of each row",
            got=repr(read_positions),
            fix="Choose one.",
        )
    counted = torch.ones(columns.shape)
    if mask is not None:
        counted = mask.cpu().gather(1, columns).float()
    return columns, counted / counted.sum(1, keepdim=True).clamp_min(1)


def rounding_divergence(model: Any) -> float:
    """KL that rounding of logits makes: about the square of their resolution."""
    dtype = next(model.parameters()).dtype
    return 128 * torch.finfo(dtype).eps ** 2
