"""Path patching: what reaches one place from one head, everything else being held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.interventions.edit_rows import example_groups, measure_changes, resolution_of
from headspec.interventions.edits import Edit, Intervention
from headspec.interventions.head_sets import HeadSets, HeadsLike, resolve_heads
from headspec.interventions.paired_runs import Direction, prepare_runs, read_source
from headspec.interventions.path_effects import PathEffects
from headspec.interventions.path_runs import (
    Key,
    SenderHeads,
    frozen_edits,
    mlp_reads_attention,
    received_by_blocks,
    received_by_hooks,
    receiver_edits,
)
from headspec.interventions.positions import PositionsLike, one_position_set
from headspec.interventions.prompt_pairs import Prompts
from headspec.interventions.receivers import Receiver, ReceiversLike, resolve_receivers
from headspec.interventions.replay import MEMORY_BUDGET, Replay
from headspec.lens.blocks import Blocks, open_blocks
from headspec.lens.logits import MetricLike, as_metric
from headspec.lens.processing import origin_of


def patch_paths(
    model: Any,
    clean: Prompts,
    corrupt: Prompts,
    metric: MetricLike,
    *,
    receivers: ReceiversLike,
    senders: HeadsLike = None,
    freeze_mlps: bool = True,
    direction: Direction = "denoise",
    positions: PositionsLike = None,
    receiver_positions: PositionsLike = None,
    attention_mask: Tensor | tuple[Tensor | None, Tensor | None] | None = None,
    position_map: Int[Tensor, "*batch pos"] | None = None,
    n_bootstrap: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
    fast: bool = True,
) -> PathEffects:
    """How a metric changes when one path, from a head to a later place, carries the other run.

    The sender's z is taken from the other run, every other head keeps its z of the base run, and
    what the receiver then gets is recorded. In a second run the receiver alone is given that, and
    everything after it is computed as usual. With `freeze_mlps`, MLPs keep their outputs too: the
    path is the direct one, along the residual stream, so that the receiver reads

        resid_pre + (z_other - z_base) W_O

    through its layer norm. Without, MLPs between the two read the change and pass it on, as in
    Wang et al. (2022).

    Args:
        model: a hooked model of either class.
        clean, corrupt, metric, direction, attention_mask, position_map: as in `patch_heads`.
        receivers: `"L5H1.q"`, `"L5H1.k"`, `"L5H1.v"` (key-value heads for k and v under
            grouped-query attention), `"L5.mlp"`, `"logits"`, each alone; a sequence of names
            receives together.
        senders: None, every head that writes before the receiver reads; heads; or sets of heads.
        freeze_mlps: see above.
        positions: where the sender's z is replaced; one set, as in `patch_heads`.
        receiver_positions: where receivers take what reaches them; one set. The logits take it
            wherever the metric reads.
        n_bootstrap, level, seed: of the intervals over distinct prompt pairs.
        memory_budget: bytes of working memory.
        fast: False: whole forward passes under hooks, the same numbers.

    Returns:
        `PathEffects`. What it does not show: paths through other heads' attention (name both
        heads to look at such a path edge by edge), nor that the head acts along this path alone.

    Raises:
        InputError: a receiver at or before its sender, and as `patch_heads`.

    References:
        Wang et al. 2022, "Interpretability in the wild"; Goldowsky-Dill et al. 2023, "Localizing
        model behavior with path patching".

    Example:
        >>> found = patch_paths(model, task.clean, task.corrupt, task.metric(),
        ...                     receivers=["L2H3.k", "logits"],
        ...                     attention_mask=task.attention_mask)   # doctest: +SKIP
        >>> found.effect.shape                                        # doctest: +SKIP
        (48, 2)
    """
    check_choice("direction", direction, get_args(Direction))
    metric = as_metric(metric)
    runs = prepare_runs(model, clean, corrupt, direction, attention_mask, position_map)
    sets = resolve_heads(model, senders, site="z", layers=None)
    ends = resolve_receivers(model, receivers)
    sent_at = one_position_set(positions, runs.base, allowed=runs.allowed)
    taken_at = one_position_set(
        receiver_positions, runs.base, allowed=runs.allowed, name="receiver_positions"
    )
    options = {"memory_budget": memory_budget, "fast": fast}
    with torch.no_grad():
        values, target = read_source(model, runs, metric, sets.used_layers, "z", **options)
        replay = Replay(model, runs.base, attention_mask=runs.base_mask, **options)
        base = replay.base(metric)
        blocks = open_blocks(model, n_pos=runs.base.shape[1]) if replay.is_fast else None
        pairs = _pairs(sets, ends, _parallel(replay, blocks), every=senders is None)
        paths = _Paths(replay, values, freeze_mlps, sent_at, taken_at, runs.allowed, blocks)
        changes = [
            measure_changes(replay, paths.interventions(*part), metric, base)
            for part in _chunks(pairs, sets, replay, memory_budget)
        ]
    origin = origin_of(model)
    return PathEffects(
        values=torch.cat(changes).numpy(),
        base=base.double().numpy(),
        target=target.double().numpy(),
        metric=metric.name,
        unit=metric.unit,
        site="path",
        mode=direction,
        groups=example_groups(metric, runs.groups(metric), n_examples=len(base)),
        level=level,
        n_bootstrap=n_bootstrap,
        seed=seed,
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
        resolution=resolution_of(model),
        senders=tuple(sets.sets[sender] for sender, _, _ in pairs),
        receivers=tuple(name for _, name, _ in pairs),
        freeze_mlps=freeze_mlps,
    )


Path = tuple[int, str, tuple[Receiver, ...]]
"""Row of the sender, name of the receiver, its parts."""


@dataclass(frozen=True)
class _Paths:
    """All that paths of one base run share."""

    replay: Replay
    values: dict[int, Tensor]
    freeze_mlps: bool
    sent_at: Bool[Tensor, "batch pos"]
    taken_at: Bool[Tensor, "batch pos"]
    allowed: Bool[Tensor, "batch pos"]
    blocks: Blocks | None

    @property
    def writes_to_logits(self) -> bool:
        """Whether the last MLP's output can stand for what reaches the logits."""
        return self.blocks is not None and self.blocks.has_mlp(self.blocks.n_layers - 1)

    def interventions(
        self, paths: Sequence[Path], senders: Sequence[SenderHeads]
    ) -> list[Intervention]:
        """One intervention for each path."""
        if not self.sent_at.any():
            return [()] * len(paths)
        rows = list(dict.fromkeys(sender for sender, _, _ in paths))
        keys = dict.fromkeys((end.kind, end.layer) for _, _, ends in paths for end in ends)
        if not self.writes_to_logits:
            keys.pop(("logits", self.replay.n_layers), None)
        held = {} if self.writes_to_logits else {row: self._held(senders[row]) for row in rows}
        found = self._received({row: senders[row] for row in rows}, keys, held)
        return [
            held[row]
            if ends[0].kind == "logits" and not self.writes_to_logits
            else receiver_edits(
                ends,
                found[row],
                n_layers=self.replay.n_layers,
                where=self.taken_at,
                everywhere=self.allowed,
            )
            for row, _, ends in paths
        ]

    def _received(
        self, senders: dict[int, SenderHeads], keys: Iterable[Key], held: dict[int, Intervention]
    ) -> dict[int, dict[Key, Tensor]]:
        replay = self.replay
        if self.blocks is None:
            return {row: received_by_hooks(replay, held[row], keys=keys) for row in senders}
        found = received_by_blocks(
            replay,
            self.blocks,
            list(senders.values()),
            {layer: self._change(layer) for layer in self.values},
            keys=keys,
            freeze_mlps=self.freeze_mlps,
        )
        return dict(zip(senders, found, strict=True))

    def _held(self, heads: SenderHeads) -> Intervention:
        """Everything as in the base run, but for the sender."""
        sent = tuple(
            Edit(layer, "z", self.values[layer], heads=indices, where=self.sent_at)
            for layer, indices in heads.items()
        )
        return frozen_edits(self.replay, sent, freeze_mlps=self.freeze_mlps, where=self.allowed)

    def _change(self, layer: int) -> Tensor:
        """New z - base z, 0 where nothing is sent."""
        base = self.replay.activation(layer, "z")
        change = self.values[layer].float() - base.float()
        return change.masked_fill(~self.sent_at.to(base.device)[..., None, None], 0)


def _pairs(
    sets: HeadSets,
    ends: dict[str, tuple[Receiver, ...]],
    parallel: Callable[[int], bool],
    *,
    every: bool,
) -> list[Path]:
    """Every sender with every receiver; of a sweep over all heads, those pairs that are paths."""
    pairs: list[Path] = []
    for row, heads in enumerate(sets.sets):
        if not heads:
            raise InputError(expected="senders of one head or more", got="none", fix="Drop it.")
        last = max(head.layer for head in heads)
        for name, parts in ends.items():
            deaf = [
                end
                for end in parts
                if not end.hears(
                    last, parallel=end.kind == "mlp" and end.layer == last and parallel(last)
                )
            ]
            if not deaf:
                pairs.append((row, name, parts))
            elif not every:
                raise InputError(
                    expected="receivers that read after their sender writes",
                    got=f"sender {' '.join(map(str, heads))}, receiver {name}",
                    fix="A head reads what earlier layers wrote; an MLP also what attention of "
                    "its own layer wrote, where blocks are not parallel.",
                )
    if not pairs:
        raise InputError(
            expected="at least one head that writes before a receiver reads",
            got=f"receivers {', '.join(ends)}",
            fix="Choose receivers in later layers.",
        )
    return pairs


def _chunks(
    pairs: Sequence[Path], sets: HeadSets, replay: Replay, budget: int
) -> Iterator[tuple[list[Path], list[SenderHeads]]]:
    """Paths of a few senders at a time, whose activations fit the budget."""
    width = replay.model.cfg.d_model * 4 * replay.tokens.numel()
    n_keys = len({(end.kind, end.layer) for _, _, parts in pairs for end in parts})
    size = max(1, budget // (width * (6 + n_keys)))
    rows = list(dict.fromkeys(row for row, _, _ in pairs))
    heads: list[SenderHeads] = [
        {layer: indices or () for layer, indices in sets.by_layer(row).items()}
        for row in range(len(sets.sets))
    ]
    for start in range(0, len(rows), size):
        chosen = set(rows[start : start + size])
        yield [pair for pair in pairs if pair[0] in chosen], heads


def _parallel(replay: Replay, blocks: Blocks | None) -> Callable[[int], bool]:
    """Whether the MLP of a layer reads what its attention reads, found where it is asked."""
    if blocks is not None:
        return blocks.is_parallel
    return lambda layer: not mlp_reads_attention(replay.model, replay.tokens, layer=layer)
