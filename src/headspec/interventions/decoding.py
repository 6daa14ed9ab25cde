"""Next-token logits under edits that stay in their columns, with cached keys and values or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.interventions.edits import Edit, Intervention, Site
from headspec.interventions.full_forward import edit_hooks
from headspec.interventions.placed_edits import place_edit
from headspec.lens.blocks import Blocks, UnsupportedBlocks, open_blocks
from headspec.lens.hooks import evaluating, has_caller_hooks, run_logits


@runtime_checkable
class Decoder(Protocol):
    """Takes columns in turn; gives the logits of the last one."""

    def advance(
        self, tokens: Int[Tensor, "batch new"], edits: Intervention
    ) -> Float[Tensor, "batch d_vocab"]: ...


class FullDecoder:
    """Whole forward passes over all columns so far; edits are placed at their absolute columns."""

    def __init__(self, model: Any, mask: Tensor | None) -> None:
        self.model, self.mask = model, mask
        self._tokens: Tensor | None = None
        self._edits: list[tuple[Edit, int, int]] = []

    def advance(
        self, tokens: Int[Tensor, "batch new"], edits: Intervention
    ) -> Float[Tensor, "batch d_vocab"]:
        """Logits after the new columns; `edits` hold values of these columns."""
        before = 0 if self._tokens is None else self._tokens.shape[1]
        self._edits += [(edit, before, tokens.shape[1]) for edit in edits]
        known = tokens if self._tokens is None else torch.cat([self._tokens, tokens], 1)
        self._tokens = known
        total = known.shape[1]
        placed = tuple(
            place_edit(edit, start=start, n=n, total=total, n_rows=len(known))
            for edit, start, n in self._edits
        )
        mask = extended(self.mask, total)
        return run_logits(self.model, known, edit_hooks(placed), attention_mask=mask)[:, -1].float()


class CachedDecoder:
    """Only new columns are run, against the keys and values of the earlier ones."""

    def __init__(self, model: Any, blocks: Blocks, mask: Tensor | None) -> None:
        self.model, self.blocks, self.mask = model, blocks, mask
        self._tokens: Tensor | None = None
        self._cache: list[tuple[Tensor, Tensor] | None] = [None] * blocks.n_layers

    def advance(
        self, tokens: Int[Tensor, "batch new"], edits: Intervention
    ) -> Float[Tensor, "batch d_vocab"]:
        """Logits after the new columns; `edits` hold values of these columns."""
        known = tokens if self._tokens is None else torch.cat([self._tokens, tokens], 1)
        self._tokens = known
        n_new = tokens.shape[1]
        columns = torch.arange(known.shape[1] - n_new, known.shape[1], device=tokens.device)
        stream = self._embedded(known)[:, -n_new:]
        for layer in range(self.blocks.n_layers):
            stream = self._layer(layer, stream, columns, edits)
        return self.blocks.logits(stream[:, -1]).float()

    def _embedded(self, tokens: Tensor) -> Float[Tensor, "batch pos d_model"]:
        """What enters the first layer, which attention mask and position decide together."""
        mask = extended(self.mask, tokens.shape[1])
        extra = {} if mask is None else {"attention_mask": mask}
        with evaluating(self.model):
            return self.model(tokens, stop_at_layer=0, **extra)

    def _layer(self, layer: int, stream: Tensor, columns: Tensor, edits: Intervention) -> Tensor:
        blocks = self.blocks
        here = [edit for edit in edits if edit.layer == layer]
        stream = _edited(here, "resid_pre", stream)
        q, k, v = blocks.project(layer, stream)
        q, k, v = _edited(here, "q", q), _edited(here, "k", k), _edited(here, "v", v)
        q = blocks.position(layer, q, columns, "q")
        k = blocks.position(layer, k, columns, "k")
        v = blocks.position(layer, v, columns, "v")
        if (cached := self._cache[layer]) is not None:
            k, v = torch.cat([cached[0], k], 1), torch.cat([cached[1], v], 1)
        self._cache[layer] = (k, v)
        pattern = _edited(here, "pattern", self._pattern(layer, q, k, columns))
        grouped = pattern.unflatten(1, (blocks.n_kv_heads, -1))
        z = torch.einsum("bgnqk,bkgd->bqgnd", grouped, v).flatten(2, 3)
        attn_out = blocks.write(layer, _edited(here, "z", z))
        mid = stream + attn_out
        mlp_out = blocks.mlp(layer, stream if blocks.is_parallel(layer) else mid)
        return mid + _edited(here, "mlp_out", mlp_out)

    def _pattern(
        self, layer: int, q: Tensor, k: Tensor, columns: Tensor
    ) -> Float[Tensor, "batch head query key"]:
        blocks = self.blocks
        grouped = q.unflatten(2, (blocks.n_kv_heads, -1))
        scores = torch.einsum("bqgnd,bkgd->bgnqk", grouped, k).flatten(1, 2)
        keys = torch.arange(k.shape[1], device=k.device)
        allowed = columns[:, None] >= keys[None]
        if self.mask is not None:
            # A query in the padding may see itself, else it would see nothing; nobody reads it.
            seen = extended(self.mask, len(keys)).bool()[:, None] | (columns[:, None] == keys)
            allowed = (allowed & seen)[:, None]
        scores = (scores * blocks.scores_scale(layer)).float()
        scores = scores.masked_fill(~allowed, torch.finfo(torch.float32).min)
        return scores.softmax(-1).to(q.dtype)


def open_decoder(
    model: Any, tokens: Int[Tensor, "batch pos"], mask: Tensor | None, *, total: int, cached: bool
) -> tuple[Decoder, str]:
    """A decoder with a cache where the model's layers are known, else one without, and why.

    Args:
        model: a hooked model of either class.
        tokens: the prompts, on which both are compared.
        mask: 1 for tokens, 0 for padding on the left.
        total: the most columns there will be.
        cached: whether a cache is wanted.
    """
    full = FullDecoder(model, mask)
    if not cached:
        return full, "cached=False"
    if has_caller_hooks(model):
        return full, "hooks of the caller's own stand on the model"
    try:
        blocks = open_blocks(model, n_pos=total)
    except UnsupportedBlocks as unsupported:
        return full, unsupported.reason
    row = 0 if mask is None else int(mask.sum(1).argmin())
    part = None if mask is None else mask[row : row + 1]
    one = tokens[row : row + 1]
    whole = FullDecoder(model, part).advance(one, ())
    error = (CachedDecoder(model, blocks, part).advance(one, ()) - whole).abs().max()
    allowed = 1e-4 if blocks.dtype in (torch.float32, torch.float64) else 0.1
    if not bool(error <= allowed * whole.std().clamp_min(1e-6)):
        return full, f"its blocks compute something else (error {float(error):.2g})"
    return CachedDecoder(model, blocks, mask), ""


def extended(mask: Tensor | None, total: int) -> Any:
    """The attention mask for a longer text: what follows is not padding."""
    if mask is None:
        return None
    return torch.nn.functional.pad(mask, (0, total - mask.shape[1]), value=1)


def _edited(edits: Sequence[Edit], site: Site, activation: Tensor) -> Tensor:
    for edit in edits:
        if edit.site == site:
            activation = edit.apply(activation)
    return activation
