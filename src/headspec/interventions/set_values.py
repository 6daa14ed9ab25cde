"""Restore sets of heads of every size: smallest sufficient sets, Shapley values of heads."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from math import comb
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.interventions.edit_rows import example_groups, resolution_of
from headspec.interventions.edits import Edit
from headspec.interventions.paired_runs import Direction, prepare_runs, read_source
from headspec.interventions.positions import PositionsLike, one_position_set
from headspec.interventions.prompt_pairs import Prompts
from headspec.interventions.replay import MEMORY_BUDGET, Replay
from headspec.interventions.set_values_result import HeadSetValues
from headspec.interventions.shapley import antithetic_orders, exact_shapley, sampled_shapley
from headspec.lens.logits import MetricLike, as_metric
from headspec.lens.processing import origin_of


def head_set_values(
    model: Any,
    clean: Prompts,
    corrupt: Prompts,
    metric: MetricLike,
    *,
    layer: int,
    sizes: Iterable[int] | None = None,
    exact_limit: int = 13,
    n_samples: int = 128,
    positions: PositionsLike = None,
    direction: Direction = "denoise",
    attention_mask: Tensor | tuple[Tensor | None, Tensor | None] | None = None,
    position_map: Int[Tensor, "*batch pos"] | None = None,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
) -> HeadSetValues:
    """The metric when sets of heads of one layer, of every size, are restored (or corrupted).

    v(S) is the metric of the corrupt run with the z (before the output projection) of the heads
    in S replaced by those of the clean run. With `n_heads <= exact_limit` all 2^n sets are measured
    (4,096 for 12 heads): the attention output is linear in the set, so each head's contribution is
    computed once. v itself is *not* linear in the set: later layers and the metric bend it, which
    is why single-head effects need not add up and why sets are worth measuring.

    Above the limit `n_samples` random orders in which heads join are followed from no head to all
    (antithetic pairs): Shapley values then carry a sampling error, and the smallest sufficient set
    is the smallest *seen*.

    Args:
        model: a hooked model of either class.
        clean, corrupt: token ids `batch pos` of the two runs, column by column comparable, or
            text.
        metric: one number an example, higher where the clean answer wins.
        layer: layer index from 0.
        sizes: measure all sets of these sizes alone (besides none and all heads); no Shapley
            values then.
        exact_limit: most heads for which all sets are measured, 2**exact_limit sets.
        n_samples: orders to sample above the limit, even.
        positions: where z is replaced, one set of positions as in `patch_heads`; None: all.
        direction: `"denoise"`, as above; `"noise"` puts z of the corrupt run into the clean one:
            sets that suffice then take away a share of what all heads of the layer take away.
        attention_mask, position_map: as in `patch_heads`.
        seed: of the sampled orders; also of the halves and intervals of the result.
        memory_budget: bytes that stacked interventions may take.

    Returns:
        `HeadSetValues`, with `.smallest_sufficient()`, `.shapley`, `.by_size`, and `.gap_share`:
        how much of the gap between the two runs all heads of the layer make up, without which the
        share of a set says little. What they do not show: what heads of other layers could
        restore; that a sufficient set is *the* mechanism (several often are, all ties are listed).

    Raises:
        InputError: prompts whose columns do not correspond, an unknown layer, size or position,
            several sets of positions, or too many sets for the limit.

    Example:
        >>> import headspec as hs
        >>> model = hs.open_suite("micro").model(6144)                          # doctest: +SKIP
        >>> found = hs.head_set_values(model, clean, corrupt, metric, layer=2)  # doctest: +SKIP
        >>> found.smallest_sufficient(0.8).sets                                 # doctest: +SKIP
    """
    check_choice("direction", direction, get_args(Direction))
    metric = as_metric(metric)
    runs = prepare_runs(model, clean, corrupt, direction, attention_mask, position_map)
    where = one_position_set(positions, runs.base, allowed=runs.allowed)
    n_heads = model.cfg.n_heads
    masks, orders = _sets(n_heads, sizes, exact_limit, n_samples, seed)
    replay = Replay(model, runs.base, attention_mask=runs.base_mask, memory_budget=memory_budget)
    other, target = read_source(model, runs, metric, [layer], "z", memory_budget=memory_budget)
    members = [tuple(np.flatnonzero(mask).tolist()) for mask in masks]
    edits = [(Edit(layer, "z", other[layer], heads, where),) if heads else () for heads in members]
    values = replay.measure(edits, metric).double().numpy()
    shapley, errors = _shapley(masks, values, orders, complete=sizes is None)
    groups = example_groups(metric, runs.groups(metric), n_examples=values.shape[1])
    origin = origin_of(model)
    return HeadSetValues(
        sets=masks,
        values=values,
        target=target.double().numpy(),
        shapley_values=shapley,
        shapley_errors=errors,
        exact=orders is None,
        sizes=tuple(sorted(set(masks.sum(1).tolist()))),
        groups=np.arange(values.shape[1]) if groups is None else groups,
        layer=layer,
        metric=metric.name,
        unit=metric.unit,
        direction=direction,
        n_samples=0 if orders is None else len(orders),
        seed=seed,
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
        resolution=resolution_of(model),
    )


def _sets(
    n_heads: int, sizes: Iterable[int] | None, exact_limit: int, n_samples: int, seed: int
) -> tuple[Bool[np.ndarray, "set head"], Int[np.ndarray, "order head"] | None]:
    """The sets to measure, as masks; and the sampled orders that they come from, if any."""
    if sizes is not None:
        return _sets_of_sizes(n_heads, sizes, limit=2**exact_limit), None
    if n_heads <= exact_limit:
        index = np.arange(2**n_heads)[:, None]
        return (index >> np.arange(n_heads)) % 2 == 1, None
    orders = antithetic_orders(n_heads, n_samples=n_samples, seed=seed)
    chains = _chains(orders).reshape(-1, n_heads)
    return np.unique(chains, axis=0), orders


def _sets_of_sizes(
    n_heads: int, sizes: Iterable[int], *, limit: int
) -> Bool[np.ndarray, "set head"]:
    wanted = sorted({0, n_heads, *sizes})
    if wanted[0] < 0 or wanted[-1] > n_heads:
        raise InputError(
            expected=f"sizes from 0 to {n_heads}, the heads of the layer",
            got=f"{wanted[0] if wanted[0] < 0 else wanted[-1]}",
            fix="A set cannot hold more heads than the layer has.",
        )
    count = sum(comb(n_heads, size) for size in wanted)
    if count > limit:
        raise InputError(
            expected=f"at most {limit:,} sets",
            got=f"{count:,} sets of sizes {wanted}",
            fix="Ask for fewer sizes, raise exact_limit, or leave sizes out to sample.",
        )
    members = [list(heads) for size in wanted for heads in combinations(range(n_heads), size)]
    masks = np.zeros((len(members), n_heads), dtype=bool)
    for row, heads in enumerate(members):
        masks[row, heads] = True
    return masks


def _chains(orders: Int[np.ndarray, "order head"]) -> Bool[np.ndarray, "order size head"]:
    """For each order, the sets of its first 0, 1, ... n heads."""
    place = np.argsort(orders, axis=1)
    return place[:, None, :] < np.arange(orders.shape[1] + 1)[:, None]


def _shapley(
    masks: Bool[np.ndarray, "set head"],
    values: Float[np.ndarray, "set example"],
    orders: Int[np.ndarray, "order head"] | None,
    *,
    complete: bool,
) -> tuple[Float[np.ndarray, "head example"] | None, Float[np.ndarray, " head"] | None]:
    if not complete:
        return None, None
    if orders is None:
        return exact_shapley(values), np.zeros(masks.shape[1])
    row_of = {mask.tobytes(): row for row, mask in enumerate(masks)}
    chains = _chains(orders)
    rows = [[row_of[mask.tobytes()] for mask in chain] for chain in chains]
    return sampled_shapley(orders, values[np.array(rows)])
