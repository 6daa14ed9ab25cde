"""Functional specialisation: clusters of heads ablated as groups on tasks, labels permuted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from math import factorial, prod
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.heads import Head, check_layer
from headspec.interventions.edit_rows import resolution_of, rows_per_example
from headspec.interventions.edits import Edit, Intervention
from headspec.interventions.interaction import rounding_of, tested_interaction
from headspec.interventions.prompt_pairs import row_groups
from headspec.interventions.reference_runs import mean_activations
from headspec.interventions.replay import MEMORY_BUDGET, Replay
from headspec.interventions.specialisation_result import ClusterEffects
from headspec.interventions.swap_pairs import HeadSet, head_sets_of
from headspec.lens.logits import Metric, as_metric
from headspec.lens.processing import origin_of
from headspec.stats import false_discovery_rate, permutation_p
from headspec.weights.cluster_result import HeadClustering

GroupMode = Literal["mean", "zero"]
"""What replaces z of ablated heads: its mean over the task's prompts and positions, or nothing."""


def cluster_effects(
    model: Any,
    clusters: HeadClustering | Iterable[Any],
    tasks: Mapping[str, Any],
    *,
    layer: int | None = None,
    mode: GroupMode = "mean",
    metric: Any = "log_prob_difference",
    n_random: int = 1000,
    memory_budget: int = MEMORY_BUDGET,
    seed: int = 0,
) -> ClusterEffects:
    """Does each cluster of heads matter for tasks of its own, more than random groups would?

    Every cluster is ablated as a group on every task. With e_ct = metric(ablated) - metric(base),
    and m, s the mean and standard deviation of e over random sets of the cluster's size,

        z_ct = (e_ct - m_ct) / s_ct
        interaction = sum_ct (z_ct - mean_t z - mean_c z + mean z)^2

    A cluster that matters more for everything raises a row, a task that is easily upset a column;
    neither is specialisation, and both are removed. A task whose effects over random sets do not
    vary beyond rounding, or are not finite, has no z: it is left out of the interaction, and named.
    Labels of heads are permuted within the layer, sizes kept: under the hypothesis that labels mean
    nothing, p is uniform. Where there are no more than `n_random` assignments (924 for two halves
    of 12 heads) all are taken.

    Args:
        model: a hooked model of either class.
        clusters: a `HeadClustering`, one label for each head (negative: in no cluster), or sets
            of heads of one layer; two or more.
        tasks: name -> `Task`, `TokenisedTask`, or (tokens, metric) or (tokens, metric,
            attention_mask). Of tasks, the clean prompts are run.
        layer: of the heads, where plain labels do not say it.
        mode: what replaces the heads' z.
        metric: kind of metric for tasks, as in `TokenisedTask.metric`.
        n_random: relabellings.
        memory_budget: bytes for stacked forward passes.
        seed: of the relabellings.

    Returns:
        A `ClusterEffects`; `left_out` names the tasks that decide nothing. What it does not show:
        what a cluster does for a task, or that it does it alone; a group of heads can be spared
        where others stand in. The unit of the test is the head, so that p speaks of these prompts;
        with few heads few p-values are possible.

    Raises:
        InputError: fewer than two clusters, no task, or heads that do not exist.

    Example:
        >>> import headspec as hs
        >>> task = hs.build_task("arithmetic", wording="micro")             # doctest: +SKIP
        >>> other = hs.build_task("decimal_comparison", wording="micro")    # doctest: +SKIP
        >>> found = cluster_effects(model, clusters, {"+": task, ">": other})  # doctest: +SKIP
    """
    check_choice("mode", mode, get_args(GroupMode))
    n_heads = model.cfg.n_heads
    layer, sets = head_sets_of(clusters, layer=layer, n_heads=n_heads)
    _check(model, layer, sets, tasks, n_random=n_random)
    sizes = tuple(map(len, sets))
    relabelled, exact = relabellings(sizes, n_heads=n_heads, n_random=n_random, seed=seed)
    partitions = relabelled if exact else [sets, *relabelled]
    unique = list(dict.fromkeys(one for partition in [sets, *partitions] for one in partition))
    runs = {name: _task_runs(model, task, metric) for name, task in tasks.items()}
    columns = [
        _ablate(model, run, unique, layer=layer, mode=mode, memory_budget=memory_budget)
        for run in runs.values()
    ]
    base = np.array([each.mean() for each, _ in columns])
    by_set = np.stack([effects for _, effects in columns], 1)  # set task
    row = {one: i for i, one in enumerate(unique)}
    drawn = by_set[[[row[one] for one in partition] for partition in partitions]]
    observed = by_set[[row[one] for one in sets]]
    rounding = rounding_of([each for each, _ in columns], resolution=resolution_of(model))
    mean, sd = _null_moments(drawn, sizes)
    varies = np.logical_and(sd > rounding, np.isfinite(by_set).all(0))  # cluster task
    cells = _cell_p(observed, drawn if exact else drawn[1:], exact=exact, varies=varies)
    decides = np.logical_and.reduce(varies)
    z_drawn = _standardise(drawn, mean, sd, decides)
    z_drawn = z_drawn if exact else z_drawn[1:]
    standardised = _standardise(observed, mean, sd, decides)
    interaction, draws = tested_interaction(standardised, z_drawn, decides, exact=exact)
    origin = origin_of(model)
    return ClusterEffects(
        effects=observed,
        standardised=standardised,
        null_mean=mean,
        null_sd=sd,
        cell_p=cells,
        cell_q=false_discovery_rate(cells),
        interaction=interaction,
        interaction_draws=draws,
        exact=exact,
        base=base,
        n=np.array([run.n for run in runs.values()]),
        clusters=tuple(tuple(Head(layer, head) for head in one) for one in sets),
        tasks=tuple(tasks),
        metrics=tuple(run.metric.name for run in runs.values()),
        units=tuple(run.metric.unit for run in runs.values()),
        mode=mode,
        n_random=n_random,
        seed=seed,
        layer=layer,
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
        left_out=tuple(name for name, kept in zip(tasks, decides, strict=True) if not kept),
        standardised_draws=z_drawn,
    )


def relabellings(
    sizes: Sequence[int], *, n_heads: int, n_random: int, seed: int
) -> tuple[list[tuple[HeadSet, ...]], bool]:
    """Assignments of a layer's heads to clusters of given sizes: all if they are few, else random.

    Returns:
        The assignments, and whether they are all.
    """
    rest = n_heads - sum(sizes)
    count = factorial(n_heads) // prod(map(factorial, [*sizes, rest]))
    if count <= n_random:
        return list(_assignments(tuple(range(n_heads)), sizes)), True
    rng = np.random.default_rng(seed)
    ends = np.cumsum(sizes)
    draws = []
    for _ in range(n_random):
        order = rng.permutation(n_heads)[: ends[-1]]
        parts = np.split(order, ends[:-1])
        draws.append(tuple(tuple(int(head) for head in np.sort(part)) for part in parts))
    return draws, False


def _assignments(heads: HeadSet, sizes: Sequence[int]) -> Iterator[tuple[HeadSet, ...]]:
    if not sizes:
        yield ()
        return
    for first in combinations(heads, sizes[0]):
        left = tuple(head for head in heads if head not in first)
        for others in _assignments(left, sizes[1:]):
            yield (first, *others)


class _TaskRuns:
    """Tokens of one task, its metric, which positions count in means, and distinct examples."""

    def __init__(
        self,
        tokens: Int[Tensor, "row pos"],
        metric: Metric,
        mask: Tensor | None,
        counted: Tensor | None,
        n: int,
    ) -> None:
        self.tokens, self.metric, self.mask = tokens, metric, mask
        self.counted, self.n = counted, n


def _task_runs(model: Any, task: Any, kind: Any) -> _TaskRuns:
    if isinstance(task, (tuple, list)):
        tokens, metric, *rest = task
        mask = rest[0] if rest else None
        metric = as_metric(metric)
        rows = row_groups(model, metric, (tokens, mask)).view(-1, rows_per_example(metric))
        return _TaskRuns(tokens, metric, mask, None, len(rows.unique(dim=0)))
    if hasattr(task, "tokenise"):
        task = task.tokenise(model.tokenizer)
    metric = task.metric(kind) if isinstance(kind, str) else as_metric(kind)
    mask = None if bool(task.clean_mask.all()) else task.clean_mask
    distinct = {(pair.clean, pair.correct, pair.wrong) for pair in task.pairs}
    return _TaskRuns(task.clean, metric, mask, task.is_token, len(distinct))


def _ablate(
    model: Any,
    run: _TaskRuns,
    sets: Sequence[HeadSet],
    *,
    layer: int,
    mode: GroupMode,
    memory_budget: int,
) -> tuple[Float[np.ndarray, " example"], Float[np.ndarray, " set"]]:
    """Metric of the base run, and the mean change under ablation of each set."""
    replay = Replay(model, run.tokens, attention_mask=run.mask, memory_budget=memory_budget)
    values = torch.zeros((), device=replay.tokens.device)
    if mode == "mean":
        values = mean_activations(
            model, run.tokens, [layer], attention_mask=run.mask, counted=run.counted
        )[layer]
    ablated: list[Intervention] = [(Edit(layer, "z", values, heads=heads),) for heads in sets]
    measured = replay.measure([(), *ablated], run.metric).double().numpy()
    with np.errstate(invalid="ignore"):
        return measured[0], (measured[1:] - measured[0]).mean(1)


def _null_moments(
    drawn: Float[np.ndarray, "draw cluster task"], sizes: Sequence[int]
) -> tuple[Float[np.ndarray, "cluster task"], Float[np.ndarray, "cluster task"]]:
    """Mean and standard deviation over random sets of each cluster's size, on each task."""
    by_size = {}
    for size in set(sizes):
        pool = drawn[:, [c for c, other in enumerate(sizes) if other == size]]
        pool = pool.reshape(-1, drawn.shape[-1])
        with np.errstate(invalid="ignore"):
            by_size[size] = pool.mean(0), pool.std(0)
    return np.stack([by_size[s][0] for s in sizes]), np.stack([by_size[s][1] for s in sizes])


def _standardise(
    effects: np.ndarray, mean: np.ndarray, sd: np.ndarray, decides: Bool[np.ndarray, " task"]
) -> np.ndarray:
    """Tasks that decide nothing get 0."""
    with np.errstate(invalid="ignore"):
        return np.where(decides, (effects - mean) / np.where(decides, sd, 1.0), 0.0)


def _cell_p(
    observed: Float[np.ndarray, "cluster task"],
    drawn: Float[np.ndarray, "draw cluster task"],
    *,
    exact: bool,
    varies: Bool[np.ndarray, "cluster task"],
) -> Float[np.ndarray, "cluster task"]:
    """Two-sided p of each effect: 1 where all sets do the same, nan where one is not finite."""
    p = np.where(np.isfinite(drawn).all(0) & np.isfinite(observed), 1.0, np.nan)
    for c, t in np.argwhere(varies):
        p[c, t] = permutation_p(
            float(observed[c, t]), drawn[:, c, t], alternative="two-sided", exact=exact
        )
    return p


def _check(
    model: Any, layer: int, sets: Sequence[HeadSet], tasks: Mapping[str, Any], *, n_random: int
) -> None:
    check_layer(layer, n_layers=model.cfg.n_layers)
    if len(sets) < 2 or not tasks or n_random < 1:
        raise InputError(
            expected="two clusters or more, a task or more, and random relabellings",
            got=f"{len(sets)} clusters, {len(tasks)} tasks, n_random={n_random}",
            fix="A single group's effect is what ablate_heads gives.",
        )
