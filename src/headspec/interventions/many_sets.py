"""Pairs of runs and many interventions on them: what is replaced where, and measuring it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.interventions.edits import Intervention
from headspec.interventions.replay import Replay
from headspec.lens.logits import Metric

_FLOAT_BYTES = 4


def measure_many(
    replay: Replay, interventions: Sequence[Intervention], metric: Metric
) -> Float[np.ndarray, "intervention example"]:
    """The metric under each intervention, in float64.

    A metric that reads a few columns of the vocabulary needs one call for thousands of
    interventions; one that reads all of them is measured in parts, so that logits stay within the
    memory budget of the replay.

    Args:
        replay: the base run.
        interventions: any number of them.
        metric: what is measured.
    """
    read = metric.read(replay.tokens.cpu())
    n_pos = replay.tokens.shape[1] if read.positions is None else read.positions.shape[1]
    n_columns = replay.model.cfg.d_vocab if read.columns is None else read.columns.shape[2]
    bytes_each = _FLOAT_BYTES * len(replay.tokens) * n_pos * n_columns
    together = max(1, replay.memory_budget // bytes_each)
    parts = [
        replay.measure(interventions[start : start + together], metric).double().numpy()
        for start in range(0, len(interventions), together)
    ]
    return np.concatenate(parts)


def replaced_positions(
    model: Any,
    clean: Int[Tensor, "batch pos"],
    corrupt: Int[Tensor, "rows columns"],
    positions: Bool[Tensor, "batch pos"] | int | Iterable[int] | None,
) -> Bool[Tensor, "batch pos"] | None:
    """Which positions of which rows are replaced, as `Edit.where`.

    Args:
        model: its attention decides whether earlier positions can differ.
        clean, corrupt: token ids of the two runs.
        positions: a column, several columns, or a mask; None: all (of a causal model, all from
            the first that differs: before it the runs are the same).

    Raises:
        InputError: runs of different shape, or positions that they do not have.
    """
    if clean.shape != corrupt.shape:
        raise InputError(
            expected="clean and corrupt tokens of one shape, aligned column by column",
            got=f"{list(clean.shape)} and {list(corrupt.shape)}",
            fix="Pair prompts of equal token length; aligning unequal ones from the left patches "
            "unrelated positions into each other.",
        )
    if positions is None:
        causal = getattr(model.cfg, "attention_dir", "causal") == "causal"
        return (clean != corrupt).cumsum(1) > 0 if causal else None
    if isinstance(positions, Tensor):
        if positions.shape != clean.shape:
            raise InputError(
                expected=f"a mask of positions of the tokens' shape {list(clean.shape)}",
                got=f"{list(positions.shape)}",
                fix="Say for every row and column whether it is replaced.",
            )
        return positions
    columns = [positions] if isinstance(positions, int) else list(positions)
    n_pos = clean.shape[1]
    if not columns or any(not -n_pos <= column < n_pos for column in columns):
        raise InputError(
            expected=f"columns from 0 to {n_pos - 1} (or from the end, -1 the last)",
            got=str(columns),
            fix="None replaces all positions.",
        )
    where = torch.zeros(clean.shape, dtype=torch.bool)
    where[:, columns] = True
    return where


def distinct_groups(
    clean: Int[Tensor, "batch pos"], corrupt: Int[Tensor, "batch pos"], *, n_examples: int
) -> Int[np.ndarray, " example"]:
    """Which examples have the same prompts, by number: repeats are one observation.

    Where examples are not rows (two continuations of a prompt, say), all count as distinct.
    """
    if n_examples != len(clean):
        return np.arange(n_examples)
    both = torch.cat([clean, corrupt.to(clean)], 1).cpu().numpy()
    return np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
