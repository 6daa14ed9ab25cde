"""The base run of a model on some tokens, replayed under interventions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.interventions.edits import Intervention, Site
from headspec.interventions.full_forward import read_full
from headspec.lens.capture import capture
from headspec.lens.logits import LogitRead, MetricLike, as_metric


class Replay:
    """A base run, and what changes under interventions.

    Attributes:
        model, tokens, attention_mask: as given.
        is_fast: whether later layers and positions alone are recomputed.
        reason: why not, if not.
    """

    def __init__(
        self,
        model: Any,
        tokens: Int[Tensor, "batch pos"],
        *,
        attention_mask: Int[Tensor, "batch pos"] | None = None,
        memory_budget: int = 2**29,
        fast: bool = True,
    ) -> None:
        self.model = model
        self.tokens = tokens.to(model.cfg.device)
        self.attention_mask = attention_mask
        self.memory_budget = memory_budget
        self.is_fast, self.reason = False, "not built yet"
        self._activations: dict[tuple[int, str], Tensor] = {}

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.model.cfg.n_layers

    @property
    def n_heads(self) -> int:
        """Query heads in a layer."""
        return self.model.cfg.n_heads

    def activation(self, layer: int, site: Site) -> Tensor:
        """An activation of the base run, shaped as `Edit.values`."""
        if (layer, site) not in self._activations:
            found = capture(
                self.model, self.tokens, [(layer, site)], attention_mask=self.attention_mask
            )
            self._activations |= found
        return self._activations[layer, site]

    def read(
        self, interventions: Sequence[Intervention], read: LogitRead, *, grad: bool = False
    ) -> Float[Tensor, "intervention batch read column"]:
        """The read logits under each intervention, in float32."""
        if not interventions:
            raise InputError(
                expected="one intervention or more", got="none", fix="`()` is the base run itself."
            )
        return read_full(
            self.model,
            self.tokens,
            interventions,
            read,
            attention_mask=self.attention_mask,
            grad=grad,
        )

    def measure(
        self, interventions: Sequence[Intervention], metric: MetricLike, *, grad: bool = False
    ) -> Float[Tensor, "intervention example"]:
        """The metric under each intervention, float32 on the CPU."""
        metric = as_metric(metric)
        with torch.set_grad_enabled(grad):
            logits = self.read(interventions, metric.read(self.tokens), grad=grad)
            return torch.stack([metric(part) for part in logits]).float().cpu()

    def base(self, metric: MetricLike) -> Float[Tensor, " example"]:
        """The metric of the base run."""
        return self.measure([()], metric)[0]
