"""Interventions by whole forward passes of the model: what the fast path must equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.interventions.edits import Edit, Intervention
from headspec.lens.hooks import HookFunction, hook_name, run_logits
from headspec.lens.logits import LogitRead


def read_full(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    interventions: Sequence[Intervention],
    read: LogitRead,
    *,
    attention_mask: Int[Tensor, "batch pos"] | None = None,
    grad: bool = False,
) -> Float[Tensor, "intervention batch read column"]:
    """The read logits under each intervention, by one forward pass each, hooks of the caller on.

    Args:
        model: a hooked model of either class.
        tokens: token ids.
        interventions: what is replaced in each pass.
        read: which logits to keep.
        attention_mask: 1 for tokens, 0 for padding.
        grad: keep the graph through the values of the edits.
    """
    results = []
    with torch.set_grad_enabled(grad):
        for intervention in interventions:
            hooks = edit_hooks(intervention)
            logits = run_logits(model, tokens, hooks, attention_mask=attention_mask)
            results.append(read.take(logits))
    return torch.stack(results)


def edit_hooks(intervention: Intervention) -> dict[str, HookFunction]:
    """Hooks that make the edits of one intervention, by hook name."""
    by_name: dict[str, list[Edit]] = {}
    for edit in intervention:
        by_name.setdefault(hook_name(edit.layer, edit.site), []).append(edit)
    return {name: _applying(edits) for name, edits in by_name.items()}


def _applying(edits: list[Edit]) -> HookFunction:
    def function(activation: Tensor) -> Tensor:
        for edit in edits:
            activation = edit.apply(activation)
        return activation

    return function
