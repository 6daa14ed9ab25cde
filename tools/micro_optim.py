"""Muon for the hidden matrices, AdamW for the rest, with GPT-NeoX's fused matrix taken apart.

Muon orthogonalises the update of a matrix as a whole. GPT-NeoX keeps queries, keys and values in
one matrix, so queries and keys would share one orthogonalised update with the values; here each
third is stepped on its own. In the one trial made, induction came about 1.5 times later with a
joint step (`micro_suite.md`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class SplitMuon:
    """One optimiser for a `GPTNeoXForCausalLM`: call `step(scale)` after `backward`.

    Args:
        model: the model; its fused query-key-value matrices are updated in place.
        muon_lr: peak learning rate of the hidden matrices.
        adam_lr: peak learning rate of embedding, unembedding, norms and biases.
        weight_decay: of the hidden matrices.
    """

    def __init__(self, model: Any, *, muon_lr: float, adam_lr: float, weight_decay: float) -> None:
        self.muon_lr, self.adam_lr = muon_lr, adam_lr
        self.n_heads = model.config.num_attention_heads
        hidden, self.rest, self.fused = [], [], []
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and ".layers." in name:
                (self.fused if "query_key_value" in name else hidden).append(parameter)
            else:
                self.rest.append(parameter)
        self.thirds = [[nn.Parameter(part) for part in self._take(p.data)] for p in self.fused]
        self.muon = torch.optim.Muon(
            [*hidden, *(part for parts in self.thirds for part in parts)],
            lr=muon_lr,
            weight_decay=weight_decay,
            momentum=0.95,
        )
        self.adam = torch.optim.AdamW(self.rest, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0)

    def _take(self, fused: torch.Tensor) -> list[torch.Tensor]:
        d_model = fused.shape[1]
        by_head = fused.view(self.n_heads, 3, -1, d_model)
        return [by_head[:, i].reshape(-1, d_model).clone() for i in range(3)]

    def step(self, scale: float) -> None:
        """Update with both learning rates multiplied by ``scale``, then clear the gradients."""
        nn.utils.clip_grad_norm_(self.rest, 1.0)
        for optimizer, lr in ((self.muon, self.muon_lr), (self.adam, self.adam_lr)):
            for group in optimizer.param_groups:
                group["lr"] = lr * scale
        for fused, parts in zip(self.fused, self.thirds, strict=True):
            assert fused.grad is not None
            for part, gradient in zip(parts, self._take(fused.grad), strict=True):
                part.grad = gradient
        self.muon.step()
        self.adam.step()
        self._write_back()
        self.muon.zero_grad(set_to_none=True)
        self.adam.zero_grad(set_to_none=True)
        for fused in self.fused:
            fused.grad = None

    @torch.no_grad()
    def _write_back(self) -> None:
        for fused, parts in zip(self.fused, self.thirds, strict=True):
            by_head = fused.data.view(self.n_heads, 3, -1, fused.shape[1])
            for i, part in enumerate(parts):
                by_head[:, i] = part.view(self.n_heads, -1, fused.shape[1])

    def state_dict(self) -> dict[str, Any]:
        """Both optimisers' states and the thirds (equal to the fused matrices)."""
        return {
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "thirds": [[part.data for part in parts] for parts in self.thirds],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`; the model's own weights must have been loaded already."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        for parts, saved in zip(self.thirds, state["thirds"], strict=True):
            for part, value in zip(parts, saved, strict=True):
                part.data.copy_(value)
