"""Ablation: what heads do is replaced by nothing, by a mean, or by what they do elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.interventions.edit_rows import (
    gather_effects,
    measure_changes,
    row_interventions,
    rows_per_example,
)
from headspec.interventions.effects import HeadEffects
from headspec.interventions.head_sets import HeadSets, HeadsLike, resolve_heads
from headspec.interventions.positions import PositionSets, PositionsLike, resolve_positions
from headspec.interventions.prompt_pairs import Prompts, Tokens, as_tokens, last_read, row_groups
from headspec.interventions.reference_runs import choose_donors, counted_positions, mean_activations
from headspec.interventions.replay import MEMORY_BUDGET, Replay
from headspec.lens.capture import capture
from headspec.lens.logits import Metric, MetricLike, as_metric

AblationMode = Literal["mean", "zero", "resample"]
AblationSite = Literal["z", "mlp_out"]


def ablate_heads(
    model: Any,
    tokens: Prompts,
    metric: MetricLike,
    *,
    heads: HeadsLike = None,
    mode: AblationMode = "mean",
    reference: Prompts | None = None,
    per_position: bool = False,
    n_donors: int = 4,
    positions: PositionsLike = None,
    layers: Iterable[int] | None = None,
    site: AblationSite = "z",
    attention_mask: Tensor | None = None,
    reference_mask: Tensor | None = None,
    counted: Bool[Tensor, "reference pos"] | None = None,
    n_bootstrap: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    batch_size: int = 64,
    memory_budget: int = MEMORY_BUDGET,
    fast: bool = True,
) -> HeadEffects:
    """How a metric changes when what heads give is taken away.

        effect = metric(ablated) - metric(base run)

    `"mean"` replaces z by its mean over a reference set: what the head adds for these prompts in
    particular is lost, what it always adds stays. `"zero"` also takes that away, and shifts
    everything after the head by it: a large effect may be no more than a missing constant.
    `"resample"` gives each example the z of another prompt, which is an activation that occurs
    (a mean may be none), averaged over `n_donors` of them.

    Args:
        model: a hooked model of either class.
        tokens: token ids `batch pos`, or text.
        metric: a `Metric`, or a function from logits `batch pos d_vocab` to one number for each
            example. Rows that are the same up to the last column it reads count as one in `n`.
        heads: None, every head by itself; heads, each by itself; iterables of heads, sets that
            are ablated together and may span layers.
        mode: see above.
        reference: the prompts of means and donors; None: the tokens themselves (a mean per
            position over few prompts then holds a good part of each prompt's own activation).
        per_position: means for each column over the reference prompts, which must all have the
            length of the tokens; otherwise one mean over prompts and positions.
        n_donors: resampling donors for each example. A donor never holds the example's own
            prompt, and has a token wherever it has one.
        positions: where to ablate, as in `patch_heads`; None: everywhere.
        layers: without `heads`, restricts the sweep; the unit for `"mlp_out"`.
        site: `"z"` of heads, or `"mlp_out"` of layers.
        attention_mask: 1 for tokens, 0 for padding on the left, which is left out of means.
        reference_mask: the same of the reference.
        counted: which positions of the reference count in a mean, such as `task.is_token`; None:
            all but padding.
        n_bootstrap, level: of the intervals over distinct prompts; donors are not resampled.
        seed: of donors and intervals.
        batch_size: reference rows in one forward pass.
        memory_budget: bytes of working memory for stacked forward passes.
        fast: False: one whole forward pass for each intervention, the same numbers.

    Returns:
        `HeadEffects` (`target` None). What it does not show: what a head does when others are
        not there to stand in for it, nor which of its uses was lost.

    Raises:
        InputError: unequal lengths where columns must correspond, nothing that counts in a mean,
            no possible donor, heads, layers or positions that do not exist, or a choice that
            does not.

    References:
        Wang et al. 2022 (mean ablation); Chan et al. 2022, "Causal scrubbing" (resampling).

    Example:
        >>> effects = ablate_heads(model, task.clean, task.metric(), mode="resample",
        ...                        attention_mask=task.attention_mask)   # doctest: +SKIP
        >>> print(effects.summary())                                     # doctest: +SKIP
    """
    check_choice("mode", mode, get_args(AblationMode))
    check_choice("site", site, get_args(AblationSite))
    metric = as_metric(metric)
    run = as_tokens(model, tokens, attention_mask)
    donors = run if reference is None else as_tokens(model, reference, reference_mask)
    sets = resolve_heads(model, heads, site=site, layers=layers)
    rows, mask = run
    places = resolve_positions(positions, rows, allowed=_present(run))
    with torch.no_grad():
        replay = Replay(model, rows, attention_mask=mask, memory_budget=memory_budget, fast=fast)
        base = replay.base(metric)
        if mode == "resample":
            given = (run, donors, n_donors, seed)
            changes = _resample(replay, sets, places, metric, base, site, given)
        else:
            values = dict.fromkeys(sets.used_layers, torch.zeros((), device=replay.tokens.device))
            if mode == "mean":
                if per_position:
                    _check_columns(run, donors, places, counted)
                values = mean_activations(
                    model,
                    donors[0],
                    sets.used_layers,
                    site=site,
                    per_position=per_position,
                    attention_mask=donors[1],
                    counted=counted,
                    batch_size=batch_size,
                )
            interventions = row_interventions(sets, places, site=site, values=values)
            changes = measure_changes(replay, interventions, metric, base)
    return gather_effects(
        model,
        sets,
        places,
        changes=changes,
        base=base,
        metric=metric,
        groups=row_groups(model, metric, run),
        target=None,
        site=site,
        mode=mode,
        level=level,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


def _resample(
    replay: Replay,
    sets: HeadSets,
    places: PositionSets,
    metric: Metric,
    base: Float[Tensor, " example"],
    site: AblationSite,
    given: tuple[Tokens, Tokens, int, int],
) -> Float[Tensor, "row example"]:
    """Changes averaged over donors, which run in batches of the base run's size."""
    run, donors, n_donors, seed = given
    if n_donors < 1:
        raise InputError(expected="at least one donor", got=f"{n_donors}", fix="n_donors=4, say.")
    last = last_read(metric, run[0])
    chosen = _donor_rows(run, donors, rows_per_example(metric), n_donors, seed, last=last)
    total = torch.zeros(())
    for index in chosen:
        device = replay.tokens.device
        lent = None if donors[1] is None else donors[1].cpu()[index].to(device)
        found = capture(
            replay.model,
            donors[0].cpu()[index].to(device),
            [(layer, site) for layer in sets.used_layers],
            attention_mask=lent,
        )
        values = {layer: activation for (layer, _), activation in found.items()}
        interventions = row_interventions(sets, places, site=site, values=values)
        total = total + measure_changes(replay, interventions, metric, base)
    return total / len(chosen)


def _donor_rows(
    run: Tokens, donors: Tokens, per_example: int, n_donors: int, seed: int, *, last: Tensor | None
) -> Int[Tensor, "donor batch"]:
    """Rows that lend; the rows of one example take theirs from one donor.

    Rows that are the same up to the `last` column read are one prompt, and do not lend to each
    other.
    """
    within = run[0] is donors[0]  # then a donor lends row for row
    step = per_example if within else 1
    here = _present(run)
    if last is not None:
        here = here & (torch.arange(here.shape[1]) <= last[:, None])
    chosen = choose_donors(
        run[0].cpu()[::per_example],
        donors[0].cpu()[::step],
        mask=here[::per_example],
        reference_mask=_present(donors)[::step],
        n_donors=n_donors,
        seed=seed,
    )
    offsets = torch.arange(per_example) if within else torch.zeros(per_example, dtype=torch.long)
    return (step * chosen[..., None] + offsets).flatten(1)


def _present(tokens: Tokens) -> Tensor:
    """Where there are tokens, on the CPU."""
    ids, mask = tokens
    return torch.ones(ids.shape, dtype=torch.bool) if mask is None else mask.cpu().bool()


def _check_columns(run: Tokens, donors: Tokens, places: PositionSets, counted: Any) -> None:
    """Means per position: as many columns, and a mean for each one that is ablated."""
    n_pos, n_reference = run[0].shape[1], donors[0].shape[1]
    if n_pos != n_reference:
        raise InputError(
            expected=f"reference prompts of {n_pos} columns for means per position",
            got=f"{n_reference} columns",
            fix="Use per_position=False, or prompts of one length.",
        )
    ablated = torch.zeros(n_pos, dtype=torch.bool)
    for where in places.where:
        ablated |= (_present(run) if where is None else where).any(0)
    known = counted_positions(donors[0], donors[1], counted).any(0)
    if missing := (ablated & ~known).nonzero()[:, 0].tolist():
        raise InputError(
            expected="a reference position that counts in every column that is ablated",
            got=f"none in columns {missing}",
            fix="Leave these out of positions=, or use per_position=False.",
        )
