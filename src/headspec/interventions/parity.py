"""Even against odd heads of a layer, beside every other split of the heads into equal halves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.heads import parity_heads
from headspec.interventions.edit_rows import resolution_of
from headspec.interventions.edits import Edit, Intervention
from headspec.interventions.paired_runs import Direction
from headspec.interventions.parity_result import ParityTest
from headspec.interventions.replay import MEMORY_BUDGET, Replay
from headspec.interventions.split_strength import split_strength
from headspec.interventions.task_runs import distinct_pairs, named_positions, task_runs
from headspec.lens.logits import LogitRead, Metric, MetricLike, as_metric
from headspec.lens.processing import origin_of
from headspec.tasks.answer_metrics import Kind
from headspec.tasks.prompts import Task
from headspec.tasks.tokenised import TokenisedTask


def parity_test(
    model: Any,
    task: Task | TokenisedTask,
    *,
    layer: int,
    splits: Literal["exact"] | int = "exact",
    metric: MetricLike | Literal["preference", "accuracy"] = "preference",
    graded: MetricLike | None = None,
    positions: str | Sequence[str] | None = None,
    direction: Direction = "denoise",
    max_splits: int = 20_000,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
) -> ParityTest:
    """Do even heads of a layer restore more than odd ones, and more than other halves do?

    The z (what each head read, before the output projection) of a set S of heads in the clean run
    replaces that of the corrupt run; m(S) is the mean metric over prompt pairs. Then

        strength = m(even) - m(odd)

    as the study defines it (with m the share of pairs whose answer becomes the clean one), and
    for every other set S of half the heads m(S) - m(heads not in S). Which half is called "even"
    is an accident of initialisation: under the hypothesis that parity means nothing, the observed
    strength is one draw from these. For n heads there are C(n, n/2) sets (924 for 12), two for
    every split, with opposite signs; the p-value is two-sided and exact: the share of splits whose
    |strength| is at least the observed one, itself included. It cannot be below 2 / C(n, n/2), and
    is small only where several heads of one parity share the work (five of 12, in equal shares): a
    single head that does everything makes every split as strong. Under grouped-query attention,
    where heads of a group resemble each other and parity divides them, p errs on the large side.

    Args:
        model: a hooked model of either class.
        task: a `Task` (tokenised with the model's tokenizer) or a `TokenisedTask`.
        layer: layer index from 0; it must have an even number of heads.
        splits: `"exact"`, every split; or how many sets to sample (both halves of a split
            counted), seeded, without repeats, even against odd among them.
        metric: what counts as success, 0 or 1 for each pair: `"preference"`, the clean answer is
            likelier than the corrupt one; `"accuracy"`, it is the likeliest continuation; or a
            metric of your own.
        graded: a graded metric besides; the log-probability difference of the two answers (nats)
            unless given. Success moves in steps of one pair; this one does not.
        positions: names of positions of the task (`task.positions`) at which z is replaced; None:
            all from the first that differs between clean and corrupt (where the prompts differ in
            length: all that correspond).
        direction: `"denoise"`, as above; `"noise"` puts z of the corrupt run into the clean one,
            where a *negative* strength says that the even heads matter more.
        max_splits: with more sets than this, `"exact"` samples this many and says so.
        seed: of the sampled splits and of bootstrap intervals over pairs.
        memory_budget: bytes that stacked forward passes may take.

    Returns:
        A `ParityTest`. What it does not show: that parity is *the* grouping (a small p says that
        this split is unusual, and other splits may be more so: see `rank`); that heads outside
        the layer are not involved; anything about prompts unlike those of the task. p is of one
        layer and one step: correct it for all that were tried (`false_discovery_rate`).

    Raises:
        InputError: an odd number of heads, an unknown position, choice or layer, too few splits,
            or a metric that gives not one number a pair.

    References:
        Activation patching: Vig et al. 2020; Meng et al. 2022; Heimersheim and Nanda 2024,
        arXiv 2404.15255. Sampled permutations: Phipson and Smyth 2010.

    Example:
        >>> import headspec as hs
        >>> model = hs.open_suite("micro").model(6144)                      # doctest: +SKIP
        >>> task = hs.build_task("decimal_comparison", wording="micro")     # doctest: +SKIP
        >>> print(hs.parity_test(model, task, layer=2).summary())           # doctest: +SKIP
    """
    check_choice("direction", direction, get_args(Direction))
    _check_layer(model, layer)
    if isinstance(task, Task):
        task = task.tokenise(model.tokenizer, n_ctx=getattr(model.cfg, "n_ctx", None))
    sets, exact = split_sets(model.cfg.n_heads, splits=splits, max_splits=max_splits, seed=seed)
    success = task.metric(cast(Kind, metric)) if isinstance(metric, str) else as_metric(metric)
    by_degree = task.metric("log_prob_difference") if graded is None else as_metric(graded)
    runs = task_runs(model, task, direction)
    where = named_positions(task, positions, runs, direction)
    replay = Replay(model, runs.base, attention_mask=runs.base_mask, memory_budget=memory_budget)
    _check_counts(replay, success, by_degree, n_pairs=task.n_examples)
    source = Replay(
        model, runs.source, attention_mask=runs.source_mask, memory_budget=memory_budget
    )
    # One tensor for all sets: each head's contribution is taken once.
    other_z = runs.aligned(source.activation(layer, "z"))
    halves = [(Edit(layer, "z", other_z, tuple(heads), where),) for heads in sets.tolist()]
    everything: Intervention = (Edit(layer, "z", other_z, None, where),)
    rows = measure_both(replay, [*halves, everything, ()], success, by_degree)
    clean_run = source if direction == "denoise" else replay
    clean = measure_both(clean_run, [()], success, by_degree)
    distinct = distinct_pairs(task)
    origin = origin_of(model)
    results = [
        split_strength(
            one,
            sets=part[: len(sets), distinct],
            full=part[-2, distinct],
            base=part[-1, distinct],
            clean=at_clean[0, distinct],
            seed=seed,
            resolution=resolution_of(model),
        )
        for one, part, at_clean in zip((success, by_degree), rows, clean, strict=True)
    ]
    return ParityTest(
        success=results[0],
        graded=results[1],
        sets=sets,
        exact=exact,
        prompts=tuple((task.pairs[i].clean, task.pairs[i].corrupt) for i in distinct),
        task=task.name,
        positions=_label(positions),
        direction=direction,
        layer=layer,
        n_heads=model.cfg.n_heads,
        seed=seed,
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
    )


def split_sets(
    n_heads: int, *, splits: Literal["exact"] | int, max_splits: int, seed: int
) -> tuple[Int[np.ndarray, "set half"], bool]:
    """Halves of all (or sampled) equal splits, as rows of head indices, and whether they are all.

    Row 0 holds the even heads. The first half of the rows contain head 0; row i + (rows / 2) is the
    complement of row i.

    Args:
        n_heads: heads in the layer.
        splits: `"exact"` or a number of sets.
        max_splits: most sets that `"exact"` enumerates.
        seed: of the sample.

    Raises:
        InputError: an odd number of heads, or fewer than two sets.
    """
    if n_heads % 2:
        raise InputError(
            expected="a layer with an even number of heads, which splits into equal halves",
            got=f"{n_heads} heads",
            fix="head_set_values compares sets of any size, for any number of heads.",
        )
    wanted = max_splits if splits == "exact" else splits
    if wanted < 2:
        raise InputError(
            expected="splits='exact' or at least 2 sets (the two halves of one split)",
            got=f"{wanted}",
            fix="Use 'exact': 12 heads have 924 sets.",
        )
    half = n_heads // 2
    even = tuple(head.index for head in parity_heads(0, "even", n_heads=n_heads))
    exact = wanted >= comb(n_heads, half)
    if exact:
        others = combinations(range(1, n_heads), half - 1)
        chosen = dict.fromkeys([even, *((0, *rest) for rest in others)])
    else:
        rng = np.random.default_rng(seed)
        chosen = dict.fromkeys([even])
        while len(chosen) < wanted // 2:
            rest = 1 + rng.choice(n_heads - 1, half - 1, replace=False)
            chosen[(0, *sorted(int(head) for head in rest))] = None
    first = np.array(list(chosen))
    outside = np.ones((len(first), n_heads), dtype=bool)
    np.put_along_axis(outside, first, False, axis=1)
    return np.concatenate([first, np.nonzero(outside)[1].reshape(len(first), half)]), exact


def measure_both(
    replay: Replay, interventions: Sequence[Intervention], first: Metric, second: Metric
) -> tuple[Float[np.ndarray, "intervention example"], Float[np.ndarray, "intervention example"]]:
    """Two metrics under each intervention; by one set of forward passes if they read alike."""
    if _read_alike(first.read(replay.tokens), second.read(replay.tokens)):
        both = replay.measure(interventions, _Both(first, second)).double().numpy()
        n = both.shape[1] // 2
        return both[:, :n], both[:, n:]
    one, other = (replay.measure(interventions, metric).double() for metric in (first, second))
    return one.numpy(), other.numpy()


class _Both:
    """Two metrics that read the same logits, one after the other."""

    name, unit = "both", ""

    def __init__(self, first: Metric, second: Metric) -> None:
        self.metrics = (first, second)

    def read(self, tokens: Int[Tensor, "batch pos"]) -> LogitRead:
        return self.metrics[0].read(tokens)

    def __call__(self, logits: Float[Tensor, "batch read column"]) -> Float[Tensor, " twice"]:
        return torch.cat([metric(logits).float() for metric in self.metrics])


def _read_alike(one: LogitRead, other: LogitRead) -> bool:
    def alike(a: Tensor | None, b: Tensor | None) -> bool:
        return (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))

    return (
        one.log_probs == other.log_probs
        and alike(one.positions, other.positions)
        and alike(one.columns, other.columns)
    )


def _label(positions: str | Sequence[str] | None) -> str:
    if positions is None:
        return "from the first that differs"
    return positions if isinstance(positions, str) else ", ".join(positions)


def _check_counts(replay: Replay, *metrics: Metric, n_pairs: int) -> None:
    """One number a pair: rows of the two answers of a pair are no two observations."""
    for metric in metrics:
        count = len(replay.base(metric))
        if count != n_pairs:
            raise InputError(
                expected=f"a metric with one number for each of {n_pairs} pairs",
                got=f"{count} from {metric.name}",
                fix="Answers of several tokens take two rows a pair: use task.metric(), combine "
                "rows 2i and 2i + 1, or tokenise with answers='first_token'.",
            )


def _check_layer(model: Any, layer: int) -> None:
    if not 0 <= layer < model.cfg.n_layers:
        raise InputError(
            expected=f"a layer from 0 to {model.cfg.n_layers - 1}",
            got=str(layer),
            fix="Layers are counted from 0.",
        )
