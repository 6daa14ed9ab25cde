"""A pair of runs in either direction: which is changed, and what is read from the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headspec.interventions.edits import Site
from headspec.interventions.prompt_pairs import PromptRuns, Prompts, as_tokens, pair_runs
from headspec.interventions.replay import MEMORY_BUDGET, Replay
from headspec.lens.logits import Metric
from headspec.tasks.alignment import invert_map

Direction = Literal["denoise", "noise"]


def prepare_runs(
    model: Any,
    clean: Prompts,
    corrupt: Prompts,
    direction: Direction,
    attention_mask: Tensor | tuple[Tensor | None, Tensor | None] | None,
    position_map: Tensor | None,
) -> PromptRuns:
    """The base run and the source of activations, whichever direction makes clean.

    Args:
        model, clean, corrupt, direction, attention_mask, position_map: as in `patch_heads`.
    """
    masks = attention_mask if isinstance(attention_mask, tuple) else (attention_mask,) * 2
    pair = [
        as_tokens(model, prompts, mask)
        for prompts, mask in zip((clean, corrupt), masks, strict=True)
    ]
    names = ("clean", "corrupt") if direction == "noise" else ("corrupt", "clean")
    if direction == "denoise":
        pair = pair[::-1]
    elif position_map is not None:
        position_map = invert_map(position_map, n_pos=pair[0][0].shape[1])
    return pair_runs(model, pair[0], pair[1], position_map=position_map, names=names)


@torch.no_grad()
def read_source(
    model: Any,
    runs: PromptRuns,
    metric: Metric,
    layers: Iterable[int],
    site: Site,
    *,
    memory_budget: int = MEMORY_BUDGET,
    fast: bool = True,
) -> tuple[dict[int, Tensor], Float[Tensor, " example"]]:
    """Activations of the source run at the columns of the base run by layer, and its metric.

    Args:
        model: the hooked model.
        runs: the two runs, and how columns correspond.
        metric: what is measured.
        layers, site: which activations.
        memory_budget, fast: as in `Replay`.
    """
    source = Replay(
        model,
        runs.source,
        attention_mask=runs.source_mask,
        memory_budget=memory_budget,
        fast=fast,
    )
    found = source.activations(layers, site)
    return {layer: runs.aligned(one) for layer, one in found.items()}, source.base(metric)
