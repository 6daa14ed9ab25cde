"""Pairs of runs and many interventions on them: what is replaced where, and measuring it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from headspec.errors import InputError
from headspec.interventions.edits import Intervention
from headspec.interventions.patching import Direction, prepare_runs
from headspec.interventions.positions import PositionsLike, resolve_positions
from headspec.interventions.prompt_pairs import PromptRuns, Prompts
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


def run_pair(
    model: Any,
    clean: Prompts,
    corrupt: Prompts,
    *,
    direction: Direction,
    attention_mask: Tensor | tuple[Tensor | None, Tensor | None] | None = None,
    position_map: Tensor | None = None,
) -> PromptRuns:
    """Base run and source run of a direction, as `patch_heads` reads its arguments.

    Raises:
        InputError: prompts whose columns do not correspond.
    """
    return prepare_runs(model, clean, corrupt, direction, attention_mask, position_map)


def one_place(positions: PositionsLike, runs: PromptRuns) -> Bool[Tensor, "batch pos"]:
    """The mask of positions that are replaced, where one set of positions is wanted.

    Raises:
        InputError: several sets (`"each"`, a dict), or positions that do not exist.
    """
    found = resolve_positions(positions, runs.base, allowed=runs.allowed)
    if found.by_position:
        raise InputError(
            expected="one set of positions: a column, columns, a mask, or None for all",
            got=f"{len(found.where)} sets ({', '.join(found.labels[:4])}, ...)",
            fix="Call once for each of them.",
        )
    where = found.where[0]
    return runs.allowed if where is None else where
