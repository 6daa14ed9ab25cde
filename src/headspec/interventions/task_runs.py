"""The two runs of a task: which is changed, where, and which of its pairs are distinct."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from headspec.errors import InputError
from headspec.interventions.paired_runs import Direction, prepare_runs
from headspec.interventions.prompt_pairs import PromptRuns
from headspec.tasks.tokenised import TokenisedTask


def task_runs(model: Any, task: TokenisedTask, direction: Direction) -> PromptRuns:
    """The two runs of a task: the one that is patched, and the one that activations come from.

    Args:
        model: a hooked model.
        task: its prompts may differ in length if it has a position map.
        direction: which run is which.
    """
    clean_mask, corrupt_mask = (
        None if bool(mask.all()) else mask for mask in (task.clean_mask, task.corrupt_mask)
    )
    position_map = None if _same_columns(task) else task.position_map
    return prepare_runs(
        model, task.clean, task.corrupt, direction, (clean_mask, corrupt_mask), position_map
    )


def _same_columns(task: TokenisedTask) -> bool:
    """Whether every token corresponds to the one in its column: the map says nothing more."""
    columns = torch.arange(task.clean.shape[1])
    same = (task.position_map.cpu() == columns) | ~task.is_token.cpu()
    return torch.equal(task.clean_mask, task.corrupt_mask) and bool(same.all())


def named_positions(
    task: TokenisedTask, names: str | Sequence[str] | None, runs: PromptRuns, direction: Direction
) -> Bool[Tensor, "batch pos"]:
    """Which positions of which rows of the base run are replaced; None: all that correspond.

    Args:
        task: has the names.
        names: of positions.
        runs, direction: of `task_runs`.

    Raises:
        InputError: a name that the task does not have.
    """
    if names is None:
        return runs.allowed
    of_base = task.corrupt_positions if direction == "denoise" else task.positions
    where = torch.zeros(runs.base.shape, dtype=torch.bool)
    for name in [names] if isinstance(names, str) else names:
        if name not in of_base:
            raise InputError(
                expected=f"positions out of {', '.join(map(repr, of_base))}",
                got=repr(name),
                fix="See task.positions; None replaces all from the first that differs.",
            )
        where[torch.arange(len(where)), of_base[name].cpu()] = True
    return where & runs.allowed


def distinct_pairs(task: TokenisedTask) -> list[int]:
    """The first of every distinct pair: a repeated greedy trial of one prompt is one trial."""
    first: dict[tuple[str, ...], int] = {}
    for i, pair in enumerate(task.pairs):
        first.setdefault((pair.clean, pair.corrupt, pair.correct, pair.wrong), i)
    return list(first.values())
