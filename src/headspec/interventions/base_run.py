"""The base run, layer by layer: what an intervention does not change is read from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.interventions.edits import Site
from headspec.lens.blocks import Blocks
from headspec.lens.capture import capture


@dataclass(frozen=True)
class BaseLayer:
    """What is kept of one layer.

    Attributes:
        resid_pre: residual stream before the layer, `batch pos d_model`.
        key: keys after normalisation and rotary embedding, `batch pos kv_head d_head`.
        value: `batch pos kv_head d_head`.
        z: what each head read, `batch pos head d_head`.
    """

    resid_pre: Float[Tensor, "batch pos d_model"]
    key: Float[Tensor, "batch pos kv_head d_head"]
    value: Float[Tensor, "batch pos kv_head d_head"]
    z: Float[Tensor, "batch pos head d_head"]


class BaseRun:
    """A forward pass of some rows by `Blocks`, keeping what replays need.

    Attributes:
        blocks: the model's layers as functions.
        layers: of each layer, what is kept.
        final: residual stream after the last layer, `batch pos d_model`.
        keys_seen: which keys a query may attend to, before causality: `batch pos`; None: all.
    """

    def __init__(
        self,
        blocks: Blocks,
        model: Any,
        tokens: Int[Tensor, "batch pos"],
        *,
        attention_mask: Int[Tensor, "batch pos"] | None = None,
    ) -> None:
        self.blocks = blocks
        self.positions = torch.arange(tokens.shape[1], device=tokens.device)
        self.d_vocab, self.d_mlp = model.cfg.d_vocab, model.cfg.d_mlp or 0
        self.keys_seen = None if attention_mask is None else attention_mask.bool()
        resid = capture(model, tokens, [(0, "resid_pre")], attention_mask=attention_mask)
        stream = resid[0, "resid_pre"]
        layers = []
        with torch.no_grad():
            for layer in range(blocks.n_layers):
                q, k, v = blocks.project(layer, stream)
                every = self.positions
                q, k, v = self.turn(layer, q, k, v, queries=every, keys=every)
                z = self.mix(self.pattern(layer, q, k, queries=every), v)
                layers.append(BaseLayer(resid_pre=stream, key=k, value=v, z=z))
                stream = self.finish_layer(layer, stream, blocks.write(layer, z))
        self.layers = tuple(layers)
        self.final = stream

    def rows(self, chosen: slice) -> BaseRun:
        """The same run of some rows only (views)."""
        part = object.__new__(BaseRun)
        part.blocks, part.positions = self.blocks, self.positions
        part.d_vocab, part.d_mlp = self.d_vocab, self.d_mlp
        part.keys_seen = None if self.keys_seen is None else self.keys_seen[chosen]
        part.layers = tuple(
            BaseLayer(**{name: value[chosen] for name, value in vars(layer).items()})
            for layer in self.layers
        )
        part.final = self.final[chosen]
        return part

    def resid_post(self, layer: int) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream after a layer."""
        later = layer + 1
        return self.layers[later].resid_pre if later < len(self.layers) else self.final

    def turn(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, queries: Tensor, keys: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the scores and the mixture take of projections of some columns."""
        turned = self.blocks.position
        if self.blocks.clips_values(layer):
            v = turned(layer, v, keys, "v")
        return turned(layer, q, queries, "q"), turned(layer, k, keys, "k"), v

    def finish_layer(
        self, layer: int, resid_pre: Tensor, attn_out: Tensor, mlp_out: Tensor | None = None
    ) -> Tensor:
        """Residual stream after a layer, from its input and what attention wrote."""
        mid = resid_pre + attn_out
        if mlp_out is None:
            mlp_out = self.blocks.mlp(layer, self.mlp_input(layer, resid_pre, mid))
        return mid + mlp_out

    def mlp_input(self, layer: int, resid_pre: Tensor, mid: Tensor) -> Tensor:
        """The stream that the MLP reads: that of the attention in parallel blocks."""
        return resid_pre if self.blocks.is_parallel(layer) else mid

    def pattern(
        self,
        layer: int,
        q: Float[Tensor, "... batch query head d_head"],
        k: Float[Tensor, "... batch new kv_head d_head"],
        *,
        queries: Int[Tensor, " query"],
        start: int = 0,
    ) -> Float[Tensor, "... batch head query pos"]:
        """Attention patterns of queries over the base run's keys before `start` and new ones.

        Args:
            layer: whose base keys to take.
            q: queries, turned; of the columns `queries`.
            k: keys of the columns from `start` on, turned.
            queries: absolute columns of the queries.
            start: the first column that is not as in the base run.
        """
        blocks = self.blocks
        grouped = q.unflatten(-2, (blocks.n_kv_heads, -1))  # ... batch query kv group d
        grouped = grouped.movedim(-4, -2)  # ... batch kv group query d
        scores = _scores(grouped, k)
        if start:
            before = _shared_scores(grouped, self.layers[layer].key[:, :start])
            scores = torch.cat([before, scores], -1)
        scores = scores * blocks.scores_scale(layer)
        allowed = self._allowed(queries)
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        pattern = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
        return pattern.flatten(-4, -3)

    def mix(
        self,
        pattern: Float[Tensor, "... batch head query pos"],
        v: Float[Tensor, "... batch new kv_head d_head"],
        *,
        layer: int | None = None,
        start: int = 0,
    ) -> Float[Tensor, "... batch query head d_head"]:
        """What heads read: values, of the base run before `start` and new ones after, mixed."""
        grouped = pattern.unflatten(-3, (self.blocks.n_kv_heads, -1))
        mixed = grouped[..., start:].flatten(-3, -2) @ v.movedim(-2, -3)  # ... kv (g q) d
        if start:
            assert layer is not None
            values = self.layers[layer].value[:, :start]
            mixed = mixed + _shared_mix(grouped[..., :start], values)
        mixed = mixed.unflatten(-2, grouped.shape[-3:-1])  # ... batch kv group query d
        return mixed.movedim(-2, -4).flatten(-3, -2)

    def _allowed(self, queries: Tensor) -> Tensor:
        """Which keys each query may see: broadcasts to `batch kv group query pos`."""
        causal = queries[:, None] >= self.positions
        if self.keys_seen is None:
            return causal
        # A query in the padding would see nothing; it may see itself, and nobody reads it.
        seen = self.keys_seen[:, None, :] | (queries[:, None] == self.positions)
        return (causal & seen)[:, None, None]

    def activation(self, layer: int, site: Site) -> Tensor:
        """An activation of the base run, shaped as `Edit.values`."""
        kept, blocks = self.layers[layer], self.blocks
        if site == "z":
            return kept.z
        if site == "resid_pre":
            return kept.resid_pre
        with torch.no_grad():
            if site in ("q", "k", "v"):
                return blocks.project(layer, kept.resid_pre, site)[0]
            if site == "pattern":
                every = self.positions
                q = blocks.position(
                    layer, blocks.project(layer, kept.resid_pre, "q")[0], every, "q"
                )
                return self.pattern(layer, q, kept.key, queries=every)
            mid = kept.resid_pre + blocks.write(layer, kept.z)
            return blocks.mlp(layer, self.mlp_input(layer, kept.resid_pre, mid))


def _scores(
    q: Float[Tensor, "... batch kv_head group query d_head"],
    k: Float[Tensor, "... batch key kv_head d_head"],
) -> Float[Tensor, "... batch kv_head group query key"]:
    flat = q.flatten(-3, -2) @ k.movedim(-2, -3).mT
    return flat.unflatten(-2, q.shape[-3:-1])


def _shared_scores(
    q: Float[Tensor, "... batch kv_head group query d_head"],
    k: Float[Tensor, "batch key kv_head d_head"],
) -> Float[Tensor, "... batch kv_head group query key"]:
    """Scores over keys that all stacked interventions share, which are not copied for each."""
    lead = q.shape[:-5]
    stacked = q.reshape(-1, *q.shape[-5:]).permute(1, 2, 0, 3, 4, 5)  # batch kv stack group query d
    flat = stacked.flatten(2, 4) @ k.movedim(-2, -3).mT
    scores = flat.unflatten(2, stacked.shape[2:5]).permute(2, 0, 1, 3, 4, 5)
    return scores.reshape(*lead, *scores.shape[1:])


def _shared_mix(
    pattern: Float[Tensor, "... batch kv_head group query key"],
    v: Float[Tensor, "batch key kv_head d_head"],
) -> Float[Tensor, "... batch kv_head group_query d_head"]:
    """Values that all stacked interventions share, mixed by the pattern of each."""
    lead = pattern.shape[:-5]
    stacked = pattern.reshape(-1, *pattern.shape[-5:]).permute(1, 2, 0, 3, 4, 5)
    flat = stacked.flatten(2, 4) @ v.movedim(-2, -3)
    mixed = flat.unflatten(2, stacked.shape[2:5]).permute(2, 0, 1, 3, 4, 5)
    return mixed.reshape(*lead, *mixed.shape[1:]).flatten(-3, -2)
