"""The weights of one layer's attention heads, in one layout for every architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headspec.errors import InputError


@dataclass(frozen=True)
class Rotary:
    """How rotary position embeddings act on queries and keys.

    Attributes:
        dim: how many of the first `d_head` dimensions are rotated (0: none).
        base: theta, the base of the frequencies.
        pairing: `"halves"` rotates dimension i with i + dim/2 (GPT-NeoX, Llama, Qwen),
            `"adjacent"` rotates 2i with 2i+1 (GPT-J).
        scaling: the name of a frequency scaling such as `"llama3"` or `"yarn"`; None if plain.
    """

    dim: int
    base: float = 10000.0
    pairing: Literal["halves", "adjacent"] = "halves"
    scaling: str | None = None


@dataclass(frozen=True)
class HeadWeights:
    """Weights of the attention heads of one layer.

    A head computes q = x W_Q + b_Q, k = x W_K + b_K, v = x W_V + b_V from the (normalised)
    residual stream x, applies QK-norm and rotary embeddings where the model has them, and writes
    z W_O; `b_O` is added once per layer. Under grouped-query attention keys and values keep
    their native `kv_head` axis: query head h reads key-value head `h // group_size`.

    Attributes:
        W_Q: `head d_model d_head`.
        W_K, W_V: `kv_head d_model d_head`.
        W_O: `head d_head d_model`.
        b_Q, b_K, b_V, b_O: biases, None where the architecture has none.
        q_norm, k_norm: gains of QK-norm, None where there is none. Shape `d_head` where each
            head is normalised by itself (Qwen3), `head d_head` / `kv_head d_head` where the
            whole projection is normalised together (OLMo2).
        qk_norm_eps: epsilon of QK-norm.
        qkv_clip: queries, keys and values are clamped to [-qkv_clip, qkv_clip] before anything
            else (some OLMo models); None elsewhere.
        rotary: what rotary embeddings do; None for learned or no positions.
        processing: weight processing already applied, `"none"` or a comma list such as
            `"fold_ln,center_writing_weights,fold_value_biases"`. Folding and centring change
            every weight statistic, so results carry it along.
        model, step, layer: where the weights come from, for `to_frame` of what is computed.
    """

    W_Q: Float[Tensor, "head d_model d_head"]
    W_K: Float[Tensor, "kv_head d_model d_head"]
    W_V: Float[Tensor, "kv_head d_model d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    b_Q: Float[Tensor, "head d_head"] | None = None
    b_K: Float[Tensor, "kv_head d_head"] | None = None
    b_V: Float[Tensor, "kv_head d_head"] | None = None
    b_O: Float[Tensor, " d_model"] | None = None
    q_norm: Float[Tensor, "*head d_head"] | None = None
    k_norm: Float[Tensor, "*kv_head d_head"] | None = None
    qk_norm_eps: float = 1e-6
    qkv_clip: float | None = None
    rotary: Rotary | None = None
    processing: str = "none"
    model: str = ""
    step: int | None = None
    layer: int = 0

    def __post_init__(self) -> None:
        shapes = {name: tuple(getattr(self, name).shape) for name in ("W_Q", "W_K", "W_V", "W_O")}
        heads, d_model, d_head = shapes["W_Q"]
        kv_heads = shapes["W_K"][0]
        right = {
            "W_Q": (heads, d_model, d_head),
            "W_K": (kv_heads, d_model, d_head),
            "W_V": (kv_heads, d_model, d_head),
            "W_O": (heads, d_head, d_model),
        }
        if shapes != right:
            raise InputError(
                expected="W_Q [head d_model d_head], W_K and W_V [kv_head d_model d_head], "
                "W_O [head d_head d_model]",
                got=", ".join(f"{k} {list(v)}" for k, v in shapes.items()),
                fix="Transpose the matrices (PyTorch linear layers store [out, in]).",
            )
        if kv_heads == 0 or heads % kv_heads:
            raise InputError(
                expected="a number of query heads that is a multiple of the key-value heads",
                got=f"{heads} query heads and {kv_heads} key-value heads",
                fix="Check num_attention_heads and num_key_value_heads of the model's config.",
            )

    @property
    def n_heads(self) -> int:
        """Number of query heads."""
        return self.W_Q.shape[0]

    @property
    def n_kv_heads(self) -> int:
        """Number of key-value heads (fewer than `n_heads` under grouped-query attention)."""
        return self.W_K.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.W_Q.shape[1]

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.W_Q.shape[2]

    @property
    def group_size(self) -> int:
        """Query heads per key-value head (1 without grouped-query attention)."""
        return self.n_heads // self.n_kv_heads

    def expand_kv(self) -> HeadWeights:
        """Repeat keys and values so that every query head has its own (`kv_head` == `head`)."""
        if self.group_size == 1:
            return self
        grow = {}
        for name in ("W_K", "W_V", "b_K", "b_V"):
            value = getattr(self, name)
            grow[name] = None if value is None else value.repeat_interleave(self.group_size, 0)
        if self.k_norm is not None and self.k_norm.ndim == 2:
            grow["k_norm"] = self.k_norm.repeat_interleave(self.group_size, 0)
        return replace(self, **grow)

    def to(
        self, dtype: torch.dtype | None = None, device: str | torch.device | None = None
    ) -> HeadWeights:
        """The same weights in another dtype or on another device."""
        moved = {
            name: value.to(dtype=dtype, device=device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)
