"""From head sets and positions to interventions, and from their metrics to effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.interventions.edits import Edit, Intervention, Site
from headspec.interventions.effects import HeadEffects
from headspec.interventions.head_sets import HeadSets
from headspec.interventions.positions import PositionSets
from headspec.interventions.replay import Replay
from headspec.lens.logits import Metric
from headspec.lens.processing import origin_of


def row_interventions(
    sets: HeadSets, positions: PositionSets, *, site: Site, values: Mapping[int, Tensor]
) -> list[Intervention]:
    """One intervention for each position set and head set, positions outermost.

    Args:
        sets: the heads.
        positions: the positions.
        site: what is replaced.
        values: the new activations of each layer.

    Returns:
        Interventions, `()` where nothing would change.
    """
    interventions: list[Intervention] = []
    for where in positions.where:
        empty = where is not None and not bool(where.any())
        for row in range(len(sets.sets)):
            by_layer = {} if empty else sets.by_layer(row)
            interventions.append(
                tuple(
                    Edit(layer, site, values[layer], heads=heads, where=where)
                    for layer, heads in by_layer.items()
                )
            )
    return interventions


def measure_changes(
    replay: Replay,
    interventions: Sequence[Intervention],
    metric: Metric,
    base: Float[Tensor, " example"],
) -> Float[Tensor, "intervention example"]:
    """metric(intervened) - metric(base), in float64; interventions `()` cost nothing."""
    changes = torch.zeros(len(interventions), len(base), dtype=torch.float64)
    real = [row for row, intervention in enumerate(interventions) if intervention]
    if real:
        measured = replay.measure([interventions[row] for row in real], metric)
        changes[real] = measured.double() - base.double()
    return changes


def gather_effects(
    model: Any,
    sets: HeadSets,
    positions: PositionSets,
    *,
    changes: Float[Tensor, "row example"],
    base: Float[Tensor, " example"],
    metric: Metric,
    groups: Int[Tensor, " batch"],
    **fields: Any,
) -> HeadEffects:
    """The result of interventions made by `row_interventions`.

    Args:
        model: the hooked model.
        sets, positions: as there.
        changes: metric(intervened) - metric(base).
        base: the metric of the base run.
        metric: the metric.
        groups: which rows of tokens hold the same prompts.
        **fields: the other fields of `HeadEffects`.
    """
    origin = origin_of(model)
    n_sets = len(sets.sets)
    return HeadEffects(
        values=changes.double().numpy(),
        base=base.double().numpy(),
        heads=sets.sets * len(positions.labels),
        layers=sets.layers * len(positions.labels),
        positions=tuple(label for label in positions.labels for _ in range(n_sets)),
        kind=sets.kind,
        by_position=positions.by_position,
        n_layers=sets.n_layers,
        n_heads=sets.n_heads,
        metric=metric.name,
        unit=metric.unit,
        groups=example_groups(metric, groups, n_examples=len(base)),
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
        resolution=resolution_of(model),
        **fields,
    )


def example_groups(
    metric: Metric, groups: Int[Tensor, " batch"], *, n_examples: int
) -> Int[np.ndarray, " example"] | None:
    """Which examples hold the same prompts, by number; None where all are distinct or unknown.

    Args:
        metric: of a metric with `rows_per_example` k, rows ki to ki + k - 1 make example i.
        groups: which rows of tokens hold the same prompts.
        n_examples: how many examples the metric gives.
    """
    groups = groups.view(-1, rows_per_example(metric)).unique(dim=0, return_inverse=True)[1]
    if len(groups) != n_examples or len(groups.unique()) == n_examples:
        return None
    return groups.numpy()


def rows_per_example(metric: Metric) -> int:
    """Rows of tokens that make one example of a metric; 1 unless the metric says otherwise."""
    return getattr(metric, "rows_per_example", 1)


def resolution_of(model: Any) -> float:
    """Relative rounding of a metric, from the dtype that the model computes in."""
    return {torch.bfloat16: 0.03, torch.float16: 0.004}.get(model.cfg.dtype, 2e-6)
