"""What reaches a receiver when a sender alone carries another run's activation.

Two ways to the same numbers. With the layers as functions (`Blocks`), the change that senders
write is carried along the residual stream of the base run, many senders at once. With whole
forward passes, every head's z (and every MLP's output) is hooked to its value in the base run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headspec.interventions.edits import Edit, Intervention, Site
from headspec.interventions.full_forward import edit_hooks
from headspec.interventions.receivers import Receiver
from headspec.interventions.replay import Replay
from headspec.lens.blocks import Blocks
from headspec.lens.hooks import HookFunction, hook_name, run_to_layer

Key: TypeAlias = tuple[str, int]
"""Kind and layer of a receiver."""

SenderHeads: TypeAlias = Mapping[int, tuple[int, ...]]
"""Head indices of a sender, by layer."""


def receiver_edits(
    ends: Sequence[Receiver],
    received: Mapping[Key, Tensor],
    *,
    n_layers: int,
    where: Bool[Tensor, "batch pos"],
    everywhere: Bool[Tensor, "batch pos"],
) -> Intervention:
    """The edits that give receivers what they received.

    What reaches the logits is written by the last MLP in addition to its own output.

    Args:
        ends: receivers.
        received: activations, as `received_by_blocks` and `received_by_hooks` give them.
        n_layers: of the model.
        where: positions at which receivers take it.
        everywhere: positions that can have changed, for the logits.
    """
    edits = []
    for end in ends:
        values = received[end.kind, end.layer]
        if end.kind == "logits":
            edits.append(Edit(n_layers - 1, "mlp_out", values, where=everywhere))
        elif end.kind == "mlp":
            edits.append(Edit(end.layer, "mlp_out", values, where=where))
        else:
            assert end.head is not None
            edits.append(Edit(end.layer, end.kind, values, heads=(end.head,), where=where))
    return tuple(edits)


def received_by_blocks(
    replay: Replay,
    blocks: Blocks,
    senders: Sequence[SenderHeads],
    changes: Mapping[int, Float[Tensor, "batch pos head d_head"]],
    *,
    keys: Iterable[Key],
    freeze_mlps: bool,
) -> list[dict[Key, Tensor]]:
    """What receivers receive, for several senders at once.

    Args:
        replay: the base run.
        blocks: the model's layers.
        senders: heads of each sender.
        changes: new z - base z of each layer with a sender, 0 where nothing is sent.
        keys: which receivers.
        freeze_mlps: carry the change past MLPs, not through them.

    Returns:
        For each sender: (kind, layer) -> activation of all heads and positions.
    """
    wanted = tuple(keys)
    received: list[dict[Key, Tensor]] = [{} for _ in senders]
    last = blocks.n_layers
    for layer, stream, mlp_input in _carried(replay, blocks, senders, changes, freeze_mlps):
        for kind, at in wanted:
            if at != layer:
                continue
            if kind == "logits":
                base = replay.activation(last - 1, "mlp_out")
                values = (base.float() + stream).to(base.dtype)
            elif kind == "mlp":
                values = blocks.mlp(layer, _mlp_base(replay, blocks, layer, mlp_input))
            else:
                base = replay.activation(layer, "resid_pre")
                values = blocks.project(layer, (base.float() + stream).to(base.dtype), kind)[0]
            for row, found in enumerate(received):
                found[kind, layer] = values[row]
    return received


def _carried(
    replay: Replay,
    blocks: Blocks,
    senders: Sequence[SenderHeads],
    changes: Mapping[int, Tensor],
    freeze_mlps: bool,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Layer by layer: the change of the stream before it, and of what its MLP reads."""
    first = min(layer for heads in senders for layer in heads)
    batch, pos = replay.tokens.shape
    nothing = torch.zeros(batch, pos, blocks.d_model, device=blocks.device)
    stream = nothing.expand(len(senders), -1, -1, -1)
    for layer in range(first, blocks.n_layers):
        written = torch.stack([_write(blocks, layer, heads, changes, nothing) for heads in senders])
        mlp_input = stream if blocks.is_parallel(layer) else stream + written
        yield layer, stream, mlp_input
        stream = stream + written
        if not freeze_mlps and blocks.has_mlp(layer):
            new = blocks.mlp(layer, _mlp_base(replay, blocks, layer, mlp_input))
            stream = stream + (new.float() - replay.activation(layer, "mlp_out").float())
    yield blocks.n_layers, stream, stream


def _write(
    blocks: Blocks, layer: int, heads: SenderHeads, changes: Mapping[int, Tensor], nothing: Tensor
) -> Tensor:
    """What a sender's heads of one layer write more than in the base run."""
    if layer not in heads:
        return nothing
    chosen = list(heads[layer])
    weight = blocks.W_O(layer)[chosen].float()
    return changes[layer][:, :, chosen].flatten(2) @ weight.flatten(0, 1)


def _mlp_base(replay: Replay, blocks: Blocks, layer: int, change: Tensor) -> Tensor:
    """What the MLP of a layer reads: as in the base run, plus a change."""
    base = replay.activation(layer, "resid_pre")
    if not blocks.is_parallel(layer):
        base = base + blocks.write(layer, replay.activation(layer, "z"))
    return (base.float() + change).to(base.dtype)


def frozen_edits(
    replay: Replay, sent: Intervention, *, freeze_mlps: bool, where: Bool[Tensor, "batch pos"]
) -> Intervention:
    """Edits that hold every head (and MLP) from the sender's layer on as in the base run.

    Args:
        replay: the base run.
        sent: edits of the sender's z.
        freeze_mlps: hold MLPs too.
        where: positions that can have changed.
    """
    sites: tuple[Site, ...] = ("z", "mlp_out") if freeze_mlps else ("z",)
    first = min(edit.layer for edit in sent)
    held = [
        Edit(layer, site, replay.activation(layer, site), where=where)
        for layer in range(first, replay.n_layers)
        for site in sites
        if hook_name(layer, site) in replay.model.hook_dict
    ]
    return (*held, *sent)


def received_by_hooks(
    replay: Replay, frozen: Intervention, *, keys: Iterable[Key]
) -> dict[Key, Tensor]:
    """What receivers receive from one sender, by one forward pass under hooks.

    Args:
        replay: the base run.
        frozen: as `frozen_edits` gives them.
        keys: which receivers; not the logits.
    """
    wanted = tuple(keys)
    hooks: dict[str, HookFunction] = edit_hooks(frozen)
    received: dict[Key, Tensor] = {}
    for key in wanted:
        name = hook_name(key[1], "mlp_out" if key[0] == "mlp" else key[0])
        hooks[name] = _keeping(received, key, hooks.get(name))
    last = 1 + max((layer for _, layer in wanted), default=-1)
    run_to_layer(
        replay.model, replay.tokens, hooks, layer=last, attention_mask=replay.attention_mask
    )
    return received


def _keeping(received: dict[Key, Tensor], key: Key, then: HookFunction | None) -> HookFunction:
    """Keep what comes first (a hook may be called again on its own result), then hold it."""

    def function(activation: Tensor) -> Tensor | None:
        received.setdefault(key, activation.detach().clone())
        return None if then is None else then(activation)

    return function


def mlp_reads_attention(model: Any, tokens: Tensor, *, layer: int) -> bool:
    """Whether the MLP of a layer reads what attention of that layer wrote, found by trying."""
    found: list[Tensor] = []
    name = hook_name(layer, "mlp_out")
    if name not in model.hook_dict:
        return False
    for scale in (1.0, 2.0):
        kept: list[Tensor] = []
        hooks: dict[str, HookFunction] = {
            hook_name(layer, "z"): _scaled(scale),
            name: _appending(kept),
        }
        run_to_layer(model, tokens[:1], hooks, layer=layer + 1)
        found.append(kept[0])
    return not torch.equal(*found)


def _scaled(scale: float) -> HookFunction:
    return lambda activation: torch.full_like(activation, scale)


def _appending(kept: list[Tensor]) -> HookFunction:
    return lambda activation: kept.append(activation.detach().clone())
