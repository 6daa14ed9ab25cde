"""The base run of a model on some tokens, replayed under interventions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.heads import check_layer
from headspec.interventions.base_run import BaseRun
from headspec.interventions.edits import Intervention, Site, rows_of
from headspec.interventions.fast_forward import Stack, bytes_per_row, read_residual, read_stack
from headspec.interventions.full_forward import read_full
from headspec.interventions.replay_checks import check_edit, check_tokens, checked_mask
from headspec.interventions.replay_plan import (
    SlowReplayWarning,
    bytes_read,
    checks_of,
    group_by_start,
    reading_order,
    say_once,
    weights_key,
)
from headspec.lens.blocks import UnsupportedBlocks, open_blocks
from headspec.lens.capture import capture
from headspec.lens.hooks import has_caller_hooks, run_logits
from headspec.lens.logits import LogitRead, MetricLike, as_metric

MEMORY_BUDGET = 2**25
"""Default working memory of stacked interventions in bytes."""

__all__ = ["MEMORY_BUDGET", "Replay", "SlowReplayWarning"]


class Replay:
    """A base run of a model, replayed under interventions; only what can change is computed.

    Layers before the first edit, columns before the first edited one, and logits that the metric
    does not read are not computed; interventions that begin at the same place run stacked in one
    batch. The result equals that of whole forward passes with hooks (in float32 to about 1e-6 of
    the logits' scale). Where a model does not fit (hooks of the caller's own, sliding windows
    shorter than the text, unknown blocks), whole forward passes are run instead, with one warning.

    The base run is made at construction and assumes that the weights stay as they are.

    Args:
        model: a HookedTransformer or TransformerBridge.
        tokens: token ids. Rows are independent.
        attention_mask: 1 for tokens, 0 for padding on the left; None: no padding.
        memory_budget: bytes of working memory for stacked interventions, beside the base run.
            More makes larger batches, which pays on a GPU; a CPU gains nothing above the default.
        fast: False: always by whole forward passes.

    Attributes:
        model, tokens, attention_mask, memory_budget: as given.
        reason: why the fast path is not taken; `""` if it is.

    Raises:
        InputError: tokens that the model cannot read, or padding on the right.

    Example:
        >>> import headspec as hs
        >>> model = hs.open_suite("micro").model(6144)                     # doctest: +SKIP
        >>> replay = hs.Replay(model, tokens)                              # doctest: +SKIP
        >>> silent = hs.Edit(2, "z", torch.zeros(()), heads=(1,))          # doctest: +SKIP
        >>> replay.measure([(), (silent,)], metric)                        # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        tokens: Int[Tensor, "batch pos"],
        *,
        attention_mask: Int[Tensor, "batch pos"] | None = None,
        memory_budget: int = MEMORY_BUDGET,
        fast: bool = True,
    ) -> None:
        self.model = model
        self.tokens = tokens.to(model.cfg.device)
        self.attention_mask = checked_mask(attention_mask, self.tokens)
        check_tokens(self.tokens, model.cfg)
        self.memory_budget = memory_budget
        self._activations: dict[tuple[int, str], Tensor] = {}
        self._run, self.reason = self._open() if fast else (None, "fast=False")
        if self._run is None and fast:
            say_once(model, self.reason)

    @property
    def is_fast(self) -> bool:
        """Whether the fast path is taken."""
        return self._run is not None

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.model.cfg.n_layers

    @property
    def n_heads(self) -> int:
        """Query heads in a layer."""
        return self.model.cfg.n_heads

    def activation(self, layer: int, site: Site) -> Tensor:
        """An activation of the base run, shaped as `Edit.values`.

        In the padding it is not defined: nothing reads it.

        Raises:
            InputError: no such layer.
        """
        return self.activations([layer], site)[layer]

    def activations(self, layers: Iterable[int], site: Site) -> dict[int, Tensor]:
        """Activations of several layers; at most one forward pass for all of them."""
        layers = tuple(layers)
        for layer in layers:
            check_layer(layer, n_layers=self.n_layers)
        if self._run is not None:
            return {layer: self._run.activation(layer, site) for layer in layers}
        missing = [(one, site) for one in layers if (one, site) not in self._activations]
        if missing:
            mask = self.attention_mask
            self._activations |= capture(self.model, self.tokens, missing, attention_mask=mask)
        return {layer: self._activations[layer, site] for layer in layers}

    def read(
        self, interventions: Sequence[Intervention], read: LogitRead, *, grad: bool = False
    ) -> Float[Tensor, "intervention batch read column"]:
        """The read logits under each intervention.

        Args:
            interventions: each a tuple of edits; `()` is the base run itself.
            read: which logits.
            grad: keep the graph through the values of the edits.

        Returns:
            float32, on the model's device; log-probabilities if `read` asks for them.

        Raises:
            InputError: no interventions, or edits of layers, heads or shapes the model lacks.
        """
        self._check(interventions)
        if self._run is None:
            return read_full(
                self.model,
                self.tokens,
                interventions,
                read,
                attention_mask=self.attention_mask,
                grad=grad,
            )
        read = self._placed(read)
        results: list[Tensor | None] = [None] * len(interventions)
        with torch.set_grad_enabled(grad):
            for (layer, start), members in group_by_start(
                interventions, n_pos=self.tokens.shape[1]
            ).items():
                group = [interventions[index] for index in members]
                parts = self._read_group(group, read, layer=layer, start=start)
                for index, part in zip(members, parts, strict=True):
                    results[index] = part
            if any(part is None for part in results):
                base = self._read_base(self._run, read)
                return torch.stack([base if part is None else part for part in results])
            return torch.stack([part for part in results if part is not None])

    def measure(
        self, interventions: Sequence[Intervention], metric: MetricLike, *, grad: bool = False
    ) -> Float[Tensor, "intervention example"]:
        """The metric under each intervention.

        Args:
            interventions: each a tuple of edits; `()` is the base run itself.
            metric: what is measured, or a function of logits `batch pos d_vocab`.
            grad: keep the graph through the values of the edits.

        Returns:
            float32 on the CPU: one number for each intervention and example.
        """
        self._check(interventions)
        metric = as_metric(metric)
        read = metric.read(self.tokens.cpu())
        values: list[Tensor | None] = [None] * len(interventions)
        each = bytes_read(read, self.tokens, d_vocab=self.model.cfg.d_vocab)
        together = max(1, self.memory_budget // each)
        order = reading_order(interventions, n_pos=self.tokens.shape[1])
        with torch.set_grad_enabled(grad):
            for start in range(0, len(order), together):
                part = order[start : start + together]
                logits = self.read([interventions[index] for index in part], read, grad=grad)
                for index, one in zip(part, logits.cpu(), strict=True):
                    values[index] = metric(one)
            return torch.stack([one for one in values if one is not None]).float()

    def base(self, metric: MetricLike) -> Float[Tensor, " example"]:
        """The metric of the base run."""
        return self.measure([()], metric)[0]

    def _open(self) -> tuple[BaseRun | None, str]:
        if has_caller_hooks(self.model):
            return None, "hooks of the caller's own stand on the model"
        try:
            blocks = open_blocks(self.model, n_pos=self.tokens.shape[1])
        except UnsupportedBlocks as unsupported:
            return None, unsupported.reason
        run = BaseRun(blocks, self.model, self.tokens, attention_mask=self.attention_mask)
        checked = checks_of(self.model)
        key = weights_key(self.model, self.tokens.shape[1], self.attention_mask is None)
        if key in checked:
            return run, ""
        difference = self._difference(run)
        allowed = 1e-4 if run.final.dtype in (torch.float32, torch.float64) else 0.1
        if not difference <= allowed:
            return None, f"its blocks compute something else (relative error {difference:.2g})"
        checked.add(key)
        return run, ""

    @torch.no_grad()
    def _difference(self, run: BaseRun) -> float:
        """Largest error of the fast path's logits on one row, over the spread of its logits."""
        mask = self.attention_mask
        row = 0 if mask is None else int(mask.sum(1).argmin())
        chosen = slice(row, row + 1)
        part = None if mask is None else mask[chosen]
        whole = run_logits(self.model, self.tokens[chosen], attention_mask=part).float()
        ours = run.blocks.logits(run.final[chosen]).float()
        seen = slice(None) if mask is None else mask[row].bool()
        error, spread = (ours - whole)[0, seen].abs().max(), whole[0, seen].std()
        return (error / spread.clamp_min(1e-6)).item()

    def _placed(self, read: LogitRead) -> LogitRead:
        """The read with explicit positions, on the model's device."""
        device = self.tokens.device
        positions, columns = read.positions, read.columns
        if positions is None:
            every = torch.arange(self.tokens.shape[1], device=device)
            positions = every.expand(self.tokens.shape)
        columns = None if columns is None else columns.to(device)
        return replace(read, positions=positions.to(device), columns=columns)

    def _read_base(self, run: BaseRun, read: LogitRead) -> Tensor:
        assert read.positions is not None
        rows = torch.arange(len(run.final), device=run.final.device)[:, None]
        resid = run.final[rows, read.positions][None]
        return read_residual(run, resid, read, budget=self.memory_budget)[0]

    def _read_group(
        self, group: Sequence[Intervention], read: LogitRead, *, layer: int, start: int
    ) -> list[Tensor]:
        run, positions = self._run, read.positions
        assert run is not None
        assert positions is not None
        wanted = positions.unique()
        wanted = wanted[wanted >= start]
        if not len(wanted):
            return [self._read_base(run, read)] * len(group)
        n_rows = len(self.tokens)
        each = bytes_per_row(run, start=start)
        n_rows_together = max(1, min(n_rows, self.memory_budget // each))
        n_together = max(1, self.memory_budget // (each * n_rows_together))
        chunks = []
        for first in range(0, len(group), n_together):
            stacked = group[first : first + n_together]
            parts = []
            for row in range(0, n_rows, n_rows_together):
                rows = slice(row, min(row + n_rows_together, n_rows))
                whole = n_rows_together == n_rows
                stack = Stack(
                    run if whole else run.rows(rows),
                    stacked if whole else rows_of(stacked, rows, n_rows=n_rows),
                    layer=layer,
                    start=start,
                    wanted=wanted,
                )
                part = replace(
                    read,
                    positions=positions[rows],
                    columns=None if read.columns is None else read.columns[rows],
                )
                parts.append(read_stack(stack, part, budget=self.memory_budget))
            chunks.append(torch.cat(parts, 1))
        return list(torch.cat(chunks))

    def _check(self, interventions: Sequence[Intervention]) -> None:
        if not interventions:
            raise InputError(
                expected="one intervention or more", got="none", fix="`()` is the base run itself."
            )
        checked = set()
        for edit in (edit for edits in interventions for edit in edits):
            if id(edit) not in checked:
                checked.add(id(edit))
                check_edit(edit, self.model.cfg, self.tokens)
