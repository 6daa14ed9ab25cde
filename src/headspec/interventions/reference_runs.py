"""What stands in for an ablated activation: a mean over a reference set, or another example's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.lens.capture import capture


def mean_activations(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    layers: Iterable[int],
    *,
    site: str = "z",
    per_position: bool = False,
    attention_mask: Int[Tensor, "batch pos"] | None = None,
    counted: Bool[Tensor, "batch pos"] | None = None,
    batch_size: int = 64,
) -> dict[int, Tensor]:
    """Mean activation of each head (or MLP) over a reference set, summed in float64.

    Args:
        model: a hooked model of either class.
        tokens: the reference prompts, streamed `batch_size` rows at a time.
        layers: which layers.
        site: `"z"` or another site whose first axes are `batch pos`.
        per_position: a mean for each column, over prompts, instead of one over prompts and
            positions.
        attention_mask: 1 for tokens, 0 for padding, which is left out.
        counted: which positions count, such as `task.is_token`; None: all but padding.
        batch_size: rows in one forward pass.

    Returns:
        layer -> `1 1 head d_head`, or `1 pos head d_head` per position, in the model's dtype; nan
        in columns where no prompt has a position that counts.

    Raises:
        InputError: no position that counts, or means per position over prompts of unequal length.
    """
    mask = torch.ones(tokens.shape) if attention_mask is None else attention_mask.cpu().float()
    lengths = mask.sum(1).unique().int().tolist()
    mask = counted_positions(tokens, attention_mask, counted).double()
    if not mask.any():
        raise InputError(
            expected="a position that counts in a mean",
            got=f"none in {len(tokens)} reference prompts",
            fix="`counted` and the attention mask must share positions. For no mean at all use "
            "mode='zero'.",
        )
    if per_position and len(lengths) > 1:
        raise InputError(
            expected="reference prompts of equal length for means per position",
            got=f"lengths {lengths[0]} to {lengths[-1]}",
            fix="Use per_position=False, or prompts of one length.",
        )
    sums: dict[int, Tensor] = {}
    sites = [(layer, site) for layer in layers]
    device = model.cfg.device
    for start in range(0, len(tokens), batch_size):
        rows = slice(start, start + batch_size)
        part = None if attention_mask is None else attention_mask[rows].to(device)
        found = capture(model, tokens[rows].to(device), sites, attention_mask=part)
        for (layer, _), activation in found.items():
            weight = mask[rows].to(activation.device, torch.float64)
            axes = (0,) if per_position else (0, 1)
            weight = weight[(...,) + (None,) * (activation.ndim - 2)]
            total = activation.double().masked_fill(weight == 0, 0).sum(axes, keepdim=True)
            sums[layer] = sums[layer] + total if layer in sums else total
    counts = mask.sum(0) if per_position else mask.sum()[None]
    means = {}
    for layer, total in sums.items():
        count = counts.to(total.device, torch.float64)
        means[layer] = total / count[(...,) + (None,) * (total.ndim - 2)]
        means[layer] = means[layer].to(model.cfg.dtype)
    return means


def counted_positions(
    tokens: Int[Tensor, "batch pos"],
    attention_mask: Tensor | None,
    counted: Bool[Tensor, "batch pos"] | None,
) -> Bool[Tensor, "batch pos"]:
    """Which positions count in a mean, on the CPU: tokens, and only those `counted`."""
    found = torch.ones(tokens.shape, dtype=torch.bool)
    for mask in (attention_mask, counted):
        found = found if mask is None else found & mask.cpu().bool()
    return found


def choose_donors(
    tokens: Int[Tensor, "batch pos"],
    reference: Int[Tensor, "reference pos"],
    *,
    mask: Bool[Tensor, "batch pos"],
    reference_mask: Bool[Tensor, "reference pos"],
    n_donors: int,
    seed: int,
) -> Int[Tensor, "donor batch"]:
    """Rows of the reference set that lend their activations to each row; never itself.

    A donor holds another prompt than the row (copies of it are the row itself) and has a token
    in every column where the row has one. Donors of a row differ as long as there are enough.

    Args:
        tokens: rows to be given activations.
        reference: rows that lend them.
        mask, reference_mask: where there are tokens.
        n_donors: how many for each row.
        seed: of the choice.

    Raises:
        InputError: a row that no reference row can lend to.
    """
    if tokens.shape[1] != reference.shape[1]:
        raise InputError(
            expected=f"reference prompts of {tokens.shape[1]} columns, as the tokens have",
            got=f"{reference.shape[1]} columns",
            fix="Resampling is column by column; use mode='mean' for other lengths.",
        )
    rng = np.random.default_rng(seed)
    chosen = torch.empty(n_donors, len(tokens), dtype=torch.long)
    for row in range(len(tokens)):
        here = mask[row]
        same = ((reference == tokens[row]) | ~here).all(1)
        covers = (reference_mask | ~here).all(1)
        able = (covers & ~same).nonzero()[:, 0].numpy()
        if not len(able):
            raise InputError(
                expected="another prompt for every example to take activations from",
                got=f"none for row {row} of {len(tokens)}",
                fix="Give reference= with other prompts, at least as long.",
            )
        chosen[:, row] = torch.from_numpy(np.resize(rng.permutation(able), n_donors))
    return chosen
