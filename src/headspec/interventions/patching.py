"""Activation patching: activations of one prompt's run put into the run of another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.interventions.edit_rows import gather_effects, measure_changes, row_interventions
from headspec.interventions.edits import Site
from headspec.interventions.effects import HeadEffects
from headspec.interventions.head_sets import HeadsLike, resolve_heads
from headspec.interventions.paired_runs import Direction, prepare_runs, read_source
from headspec.interventions.positions import PositionsLike, resolve_positions
from headspec.interventions.prompt_pairs import PromptRuns, Prompts
from headspec.interventions.replay import MEMORY_BUDGET, Replay
from headspec.lens.logits import MetricLike, as_metric


def patch_heads(
    model: Any,
    clean: Prompts,
    corrupt: Prompts,
    metric: MetricLike,
    *,
    heads: HeadsLike = None,
    positions: PositionsLike = None,
    site: Site = "z",
    direction: Direction = "denoise",
    layers: Iterable[int] | None = None,
    attention_mask: Tensor | tuple[Tensor | None, Tensor | None] | None = None,
    position_map: Int[Tensor, "*batch pos"] | None = None,
    n_bootstrap: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
    fast: bool = True,
) -> HeadEffects:
    """How a metric changes when activations of one run are put into another.

    `direction="denoise"`: the base run reads the corrupt prompts, and clean activations are put
    in. What restores the clean answer is *sufficient*, given the rest of the corrupt run.
    `"noise"`: the base run is the clean one; what destroys the answer is *necessary*, given the
    rest of the clean run. Heads that stand in for each other show only in the first, heads that
    need each other only in the second.

        effect = metric(base run with the other run's activations) - metric(base run)
        normalized = mean effect / mean(metric(clean) - metric(corrupt))

    Args:
        model: a hooked model of either class.
        clean: token ids `batch pos`, or text.
        corrupt: the same number of prompts, column by column comparable.
        metric: a `Metric`, such as `task.metric()`, or a function from logits
            `batch pos d_vocab` to one number for each example.
        heads: None, every head by itself; heads, each by itself; iterables of heads, sets that
            are patched together and may span layers. Key-value heads for `k` and `v`.
        positions: columns of the base run. None: all (the engine starts where clean and corrupt
            first differ, exact under causal attention); a column or a list of columns; `"each"`,
            column by column; a Bool tensor `batch pos`; an Int tensor `batch`, one column in each
            row; a dict of names to these, one set each: `task.positions` where the base run is
            clean or the lengths are equal, `task.corrupt_positions` to denoise with a position
            map. Query positions for `pattern`.
        site: `"z"`, what a head reads into the output projection (a slice of the attention's
            *output* is no head); `"q" "k" "v"` before rotary embeddings; `"pattern"`; or, for
            whole layers, `"mlp_out"`, `"resid_pre"`.
        direction: see above.
        layers: without `heads`, restricts the sweep; the unit for sites of whole layers.
        attention_mask: 1 for tokens, 0 for padding on the left; a pair (clean, corrupt) where
            the two differ, which needs a `position_map`.
        position_map: for prompts of unequal length, such as `task.position_map`: for each column
            of the corrupt run the clean one, -1 for none; columns without one are left alone.
        n_bootstrap, level, seed: of the intervals over distinct prompt pairs.
        memory_budget: bytes of working memory for stacked forward passes.
        fast: False: one whole forward pass for each intervention, the same numbers.

    Returns:
        `HeadEffects`. What it does not show: a path. A head's effect passes through everything
        after it (`patch_paths` tells direct from indirect); and an activation put into a run it
        does not come from may be unlike any the later layers meet.

    Raises:
        InputError: prompts of unequal length without a map, one column a row that the map leaves
            without counterpart, heads, layers or positions that do not exist, or a choice that
            does not.

    References:
        Meng et al. 2022; Wang et al. 2022; Heimersheim and Nanda 2024, "How to use and interpret
        activation patching".

    Example:
        >>> effects = patch_heads(model, task.clean, task.corrupt, task.metric(),
        ...                       attention_mask=task.attention_mask)   # doctest: +SKIP
        >>> effects.effect.shape, effects.n                             # doctest: +SKIP
        ((4, 12), 100)
    """
    check_choice("site", site, get_args(Site))
    check_choice("direction", direction, get_args(Direction))
    metric = as_metric(metric)
    runs = prepare_runs(model, clean, corrupt, direction, attention_mask, position_map)
    if position_map is not None and site == "pattern":
        raise InputError(
            expected="prompts of equal length for site 'pattern'",
            got="position_map=",
            fix="A pattern over other columns would not sum to 1. Patch z instead.",
        )
    sets = resolve_heads(model, heads, site=site, layers=layers)
    places = resolve_positions(positions, runs.base, allowed=runs.allowed)
    if position_map is not None:
        check_counterparts(positions, runs, direction)
    options = {"memory_budget": memory_budget, "fast": fast}
    with torch.no_grad():
        values, target = read_source(model, runs, metric, sets.used_layers, site, **options)
        replay = Replay(model, runs.base, attention_mask=runs.base_mask, **options)
        base = replay.base(metric)
        interventions = row_interventions(sets, places, site=site, values=values)
        changes = measure_changes(replay, interventions, metric, base)
    return gather_effects(
        model,
        sets,
        places,
        changes=changes,
        base=base,
        metric=metric,
        groups=runs.groups(metric),
        target=target.double().numpy(),
        site=site,
        mode=direction,
        level=level,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


def check_counterparts(positions: PositionsLike, runs: PromptRuns, direction: Direction) -> None:
    """Raise where a row's one column has no counterpart: it would be left alone in silence.

    Columns of the other run often have none. Where they do, a map cannot tell that they were
    meant for the other run.

    Args:
        positions: as in `patch_heads`; masks, lists and `"each"` may name columns without.
        runs: with a position map.
        direction: as in `patch_heads`.
    """
    named = positions if isinstance(positions, Mapping) else {"positions": positions}
    for name, columns in named.items():
        if not isinstance(columns, Tensor) or columns.dtype == torch.bool:
            continue
        alone = ~runs.allowed.gather(1, (columns.cpu().long() % runs.allowed.shape[1])[:, None])
        if alone.any():
            row = int(alone.nonzero()[0, 0])
            own = (
                ("clean", "positions") if direction == "noise" else ("corrupt", "corrupt_positions")
            )
            raise InputError(
                expected=f"columns of the {own[0]} run that the position map gives a counterpart",
                got=f"none for column {int(columns[row])} of row {row} ({name})",
                fix=f"Positions are columns of the base run, task.{own[1]} here; leave out names "
                "whose words only one of the prompts has.",
            )
