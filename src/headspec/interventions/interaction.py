"""Interaction of cluster and task: what is left of a table without its rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from headspec.stats import NullSummary, summarise_null


def interaction_of(
    table: Float[np.ndarray, "*draws cluster task"],
) -> Float[np.ndarray, "*draws"]:
    """Residual sum of squares of cluster x task tables after removing row and column means.

    Example:
        >>> float(interaction_of(np.array([[1.0, 0.0], [0.0, 1.0]])))
        1.0
        >>> float(interaction_of(np.array([[3.0, 1.0], [2.0, 0.0]])))
        0.0
    """
    rest = table - table.mean(-1, keepdims=True)
    rest = rest - rest.mean(-2, keepdims=True)
    return np.asarray(np.square(rest).sum((-2, -1)))


def tested_interaction(
    observed: Float[np.ndarray, "cluster task"],
    drawn: Float[np.ndarray, "null cluster task"],
    decides: Bool[np.ndarray, " task"],
    *,
    exact: bool,
) -> tuple[NullSummary, Float[np.ndarray, " null"]]:
    """The interaction over the tasks that decide, before that of permuted labels, and its draws.

    A task of nothing but zeros would turn a cluster that matters more for everything into an
    interaction, so that it must not be among them. With fewer than two tasks all is nan.

    Args:
        observed: standardised effects.
        drawn: the same under permuted labels.
        decides: which tasks count.
        exact: the draws are all there are.
    """
    if decides.sum() < 2:
        return NullSummary.bare(float("nan")), np.full(len(drawn), np.nan)
    draws = interaction_of(drawn[..., decides])
    found = float(interaction_of(observed[..., decides]))
    return summarise_null(found, draws, exact=exact), draws


def rounding_of(
    base: Sequence[Float[np.ndarray, " example"]], *, resolution: float
) -> Float[np.ndarray, " task"]:
    """What rounding can make of no change at all in each task, from the metric of its base run.

    Args:
        base: metric of every example, task by task.
        resolution: relative rounding of the model's arithmetic.
    """
    return np.array([resolution * max(1.0, float(np.abs(each).max())) for each in base])
