"""Interventions by recomputing only what they can change.

A stack of interventions that begin in the same layer and column runs as one batch: from that layer
on, from that column on, against the base run's keys and values before it. Where only heads' outputs
`z` are replaced, the first layer's attention is not computed again: what it writes is linear in z,
so that its change is a sum over heads of (new z - base z) W_O. Of the last layer only the columns
that the metric reads are computed, and of the unembedding only the columns of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.interventions.base_run import BaseRun
from headspec.interventions.edits import Edit, Intervention, Site
from headspec.lens.logits import LogitRead


class Stack:
    """Interventions that run together: their first edits lie in one layer, no earlier than `start`.

    Attributes:
        base: the base run (of the rows that are computed together).
        interventions: at least one, each with at least one edit.
        layer: the first layer that is edited.
        start: the first column that is edited.
        wanted: columns from `start` on whose final residual stream is read, ascending.
    """

    def __init__(
        self,
        base: BaseRun,
        interventions: Sequence[Intervention],
        *,
        layer: int,
        start: int,
        wanted: Int[Tensor, " column"],
    ) -> None:
        self.base, self.blocks = base, base.blocks
        self.interventions = interventions
        self.layer, self.start, self.wanted = layer, start, wanted

    def final_residual(self) -> Float[Tensor, "stack batch wanted d_model"]:
        """The residual stream after the last layer in the wanted columns."""
        stream = self._first_layer()
        for layer in range(self.layer + 1, self.blocks.n_layers):
            stream = self._later_layer(layer, stream)
        return stream

    def _columns(self, layer: int) -> Int[Tensor, " query"]:
        """Absolute columns whose output of a layer is needed."""
        last = layer == self.blocks.n_layers - 1
        return self.wanted if last else self.base.positions[self.start :]

    def _kept(self, layer: int, x: Tensor) -> Tensor:
        """Of columns from `start` on (axis -2), those whose output is needed."""
        if layer < self.blocks.n_layers - 1 or len(self.wanted) == x.shape[-2]:
            return x
        return x[..., self.wanted - self.start, :]

    def _first_layer(self) -> Tensor:
        base, layer = self.base, self.layer
        sites = {edit.site for _, edit in self.edits(layer)}
        if "resid_pre" in sites:
            stream = base.layers[layer].resid_pre[:, self.start :]
            stream = self._edited(layer, "resid_pre", stream, base.positions[self.start :])
            return self._later_layer(layer, stream, edited=True)
        columns = self._columns(layer)
        linear = sites <= {"z", "mlp_out"} and self._disjoint(layer)
        change = _HeadChanges(self, layer, columns).of_stack() if linear and "z" in sites else None
        if sites == {"z"} and change is not None and self.blocks.is_parallel(layer):
            after = base.resid_post(layer)[:, columns]
            return (after.float() + change).to(after.dtype)
        resid_pre = base.layers[layer].resid_pre[:, columns]
        z = base.layers[layer].z[:, columns]
        if not linear:
            attn_out = self.blocks.write(layer, self._recomputed_z(layer, columns, z))
        else:
            attn_out = self.blocks.write(layer, z)
            if change is not None:
                attn_out = (attn_out.float() + change).to(attn_out.dtype)
        return self._finish(layer, resid_pre, attn_out)

    def _recomputed_z(self, layer: int, columns: Tensor, z: Tensor) -> Tensor:
        """What heads read in the first layer, queries, keys, values or patterns being edited."""
        sites = {edit.site for _, edit in self.edits(layer)}
        if sites & {"q", "k", "v", "pattern"}:
            z = self._attend(layer, self.base.layers[layer].resid_pre[:, self.start :])
        return self._edited(layer, "z", z, columns)

    def _later_layer(self, layer: int, stream: Tensor, *, edited: bool = False) -> Tensor:
        if not edited:
            stream = self._edited(layer, "resid_pre", stream, self.base.positions[self.start :])
        z = self._edited(layer, "z", self._attend(layer, stream), self._columns(layer))
        return self._finish(layer, self._kept(layer, stream), self.blocks.write(layer, z))

    def _attend(self, layer: int, stream: Tensor) -> Tensor:
        """What heads read in the needed columns, from the stream in all columns from `start`."""
        every, columns = self.base.positions[self.start :], self._columns(layer)
        asking = self._kept(layer, stream)
        if asking is stream:
            q, k, v = self.blocks.project(layer, stream)
        else:
            (q,), (k, v) = (
                self.blocks.project(layer, asking, "q"),
                self.blocks.project(layer, stream, "kv"),
            )
        q = self._edited(layer, "q", q, columns)
        k = self._edited(layer, "k", k, every)
        v = self._edited(layer, "v", v, every)
        q, k, v = self._together(*self.base.turn(layer, q, k, v, queries=columns, keys=every))
        pattern = self.base.pattern(layer, q, k, start=self.start, queries=columns)
        pattern = self._edited(layer, "pattern", pattern, columns)
        v = v.expand(*pattern.shape[:-4], *v.shape[-4:])  # if patterns alone were edited
        return self.base.mix(pattern, v, layer=layer, start=self.start)

    def _together(self, *tensors: Tensor) -> list[Tensor]:
        """Tensors with the axis of the stack, where one of them has it."""
        most = max(tensor.ndim for tensor in tensors)
        lead = next(tensor.shape[0] for tensor in tensors if tensor.ndim == most)
        return [x if x.ndim == most else x.expand(lead, *x.shape) for x in tensors]

    def _finish(self, layer: int, resid_pre: Tensor, attn_out: Tensor) -> Tensor:
        """The layer's output, its MLP being run where its input changed."""
        columns = self._columns(layer)
        mid = resid_pre + attn_out
        if self.blocks.is_parallel(layer) and resid_pre.ndim == 3:  # unchanged: once for the stack
            mlp_out = self.blocks.mlp(layer, resid_pre)
        else:
            mlp_out = self.blocks.mlp(layer, self.base.mlp_input(layer, resid_pre, mid))
        mlp_out = self._edited(layer, "mlp_out", mlp_out, columns)
        out = mid + mlp_out
        return out if out.ndim == 4 else out.expand(len(self.interventions), *out.shape)

    def edits(self, layer: int) -> list[tuple[int, Edit]]:
        return [
            (index, edit)
            for index, edits in enumerate(self.interventions)
            for edit in edits
            if edit.layer == layer
        ]

    def _disjoint(self, layer: int) -> bool:
        """Whether no intervention replaces one head of the layer twice."""
        for edits in self.interventions:
            heads = [
                head
                for edit in edits
                if edit.layer == layer and edit.site == "z"
                for head in (range(self.blocks.n_heads) if edit.heads is None else edit.heads)
            ]
            if len(heads) != len(set(heads)):
                return False
        return True

    def _edited(self, layer: int, site: Site, activation: Tensor, columns: Tensor) -> Tensor:
        """The activation with the edits of its site made; unedited and unstacked if there are none.

        Args:
            layer: whose edits.
            site: which site.
            activation: `batch pos ...`, or stacked; `... batch head query pos` for patterns.
            columns: its absolute columns.
        """
        wanted = [(index, edit) for index, edit in self.edits(layer) if edit.site == site]
        if not wanted:
            return activation
        base_ndim = 3 if site in ("mlp_out", "resid_pre") else 4
        n = len(self.interventions)
        if activation.ndim == base_ndim:
            activation = activation.expand(n, *activation.shape)
        parts = list(activation)
        shape = list(parts[0].shape)
        shape[2 if site == "pattern" else 1] = len(self.base.positions)
        for index, edit in wanted:
            here = edit.of_columns(columns, shape=shape)
            parts[index] = here.apply(parts[index])
        return torch.stack(parts)


class _HeadChanges:
    """What the attention of one layer writes more than in the base run, by sums over heads."""

    def __init__(self, stack: Stack, layer: int, columns: Tensor) -> None:
        self.stack, self.layer, self.columns = stack, layer, columns
        self.z = stack.base.layers[layer].z

    def of_stack(self) -> Float[Tensor, "stack batch column d_model"]:
        """The change of each intervention, in float32."""
        n, n_heads = len(self.stack.interventions), self.stack.blocks.n_heads
        sources: dict[tuple[int, int], Edit] = {}
        members: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for index, edit in self.stack.edits(self.layer):
            if edit.site != "z":
                continue
            key = (id(edit.values), id(edit.where))
            sources[key] = edit
            heads = range(n_heads) if edit.heads is None else edit.heads
            members.setdefault(key, []).extend((index, head) for head in heads)
        total: Tensor | None = None
        for key, pairs in members.items():
            heads = sorted({head for _, head in pairs})
            changes = self._of_heads(sources[key], heads)  # head batch column d_model
            at = {head: place for place, head in enumerate(heads)}
            rows = torch.tensor([[index, at[head]] for index, head in pairs]).T
            rows = rows.to(changes.device)
            if bool(changes.isfinite().all()):
                member = torch.zeros(n, len(heads), device=changes.device)
                member[rows[0], rows[1]] = 1.0
                part = (member @ changes.flatten(1)).view(n, *changes.shape[1:])
            else:  # 0 * nan would reach interventions that leave such a head alone
                part = changes.new_zeros(n, *changes.shape[1:])
                part = part.index_add(0, rows[0], changes[rows[1]])
            total = part if total is None else total + part
        assert total is not None
        return total

    def _of_heads(self, edit: Edit, heads: list[int]) -> Float[Tensor, "head batch column d_model"]:
        """What replacing each head alone adds to the attention's output."""
        here = edit.of_columns(self.columns, shape=self.z.shape)
        old = self.z[:, self.columns][:, :, heads].float()
        difference = here.values.to(self.z.device)[:, :, heads].float() - old
        if here.where is not None:
            difference = difference * here.where.to(self.z.device)[:, :, None, None]
        written = self.stack.blocks.W_O(self.layer)[heads].float()
        return torch.einsum("bphd,hdm->hbpm", difference, written)


def read_stack(
    stack: Stack, read: LogitRead, *, budget: int
) -> Float[Tensor, "stack batch read column"]:
    """The read logits of a stack of interventions.

    Args:
        stack: what runs.
        read: with positions given (columns of the rows of the stack's base run).
        budget: bytes that logits may take at once.
    """
    assert read.positions is not None
    base, final = stack.base, stack.final_residual()
    rows = torch.arange(len(base.final), device=base.final.device)[:, None]
    at = read.positions
    place = torch.zeros(len(base.positions), dtype=torch.long, device=at.device)
    place[stack.wanted] = torch.arange(len(stack.wanted), device=at.device)
    changed = (at >= stack.start)[..., None]
    resid = torch.where(changed, final[:, rows, place[at]], base.final[rows, at])
    return read_residual(base, resid, read, budget=budget)


def read_residual(
    base: BaseRun, resid: Float[Tensor, "stack batch read d_model"], read: LogitRead, *, budget: int
) -> Float[Tensor, "stack batch read column"]:
    """The read logits of a residual stream at the read positions."""
    whole = read.columns is None or read.log_probs
    if not whole:
        return base.blocks.logits(resid, read.columns).float()
    vocabulary = base.d_vocab
    size = max(1, budget // (8 * vocabulary * resid[0, ..., 0].numel() + 1))
    return torch.cat([read.select(base.blocks.logits(part)) for part in resid.split(size)])


def bytes_per_row(base: BaseRun, *, start: int) -> int:
    """Working memory of one intervention on one row, roughly: a layer's activations."""
    blocks = base.blocks
    n_columns = len(base.positions) - start
    attention = 3 * blocks.n_heads * (blocks.d_head + len(base.positions))
    return 4 * n_columns * (4 * blocks.d_model + attention + 2 * base.d_mlp)
