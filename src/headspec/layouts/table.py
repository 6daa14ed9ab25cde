"""One row per architecture: where the attention tensors are called what, and how they lie.

The table is open. An architecture that names its tensors like a known one needs one line:

    from headspec.layouts import LAYOUTS
    LAYOUTS["roberta"] = LAYOUTS["bert"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Layout:
    """How one architecture stores the attention weights of a layer.

    Attributes:
        module: the attention module below the model's own prefix, with `{layer}` in it.
        names: role to tensor name inside that module, without `.weight` or `.bias`. Roles are
            `"q" "k" "v" "o"`, or `"qkv" "o"` where the three are fused.
        fused: how the rows of a fused `qkv` are ordered: `"head_major"` is `[head, 3, d_head]`
            (GPT-NeoX), `"matrix_major"` is `[3, head, d_head]` (GPT-2), None where not fused.
        transposed: True where matrices are stored `[in, out]` (GPT-2's Conv1D) and not
            `[out, in]` as linear layers do.
        qkv_bias, o_bias: whether the projections have biases: `"always"`, `"never"`, or
            `"config"` to follow `attention_bias` of the config.
        attention_bias: what `attention_bias` is where the config does not say.
        qk_norm: None; `"head"` where one gain of length d_head serves every head (Qwen3);
            `"projection"` where all heads are normalised together (OLMo2).
        rotary: whether positions enter by rotary embeddings.
        rotary_fraction: fraction of each head that is rotated where the config does not say;
            None where the architecture always rotates whole heads, whatever the config says.
        head_dim: d_head where the config does not say; None means hidden size / heads.
    """

    module: str
    names: Mapping[str, str]
    fused: Literal["head_major", "matrix_major"] | None = None
    transposed: bool = False
    qkv_bias: Literal["always", "never", "config"] = "never"
    o_bias: Literal["always", "never", "config"] = "never"
    attention_bias: bool = False
    qk_norm: Literal["head", "projection"] | None = None
    rotary: bool = True
    rotary_fraction: float | None = None
    head_dim: int | None = None


_LLAMA_NAMES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}


def _llama(
    *,
    qkv_bias: Literal["always", "never", "config"] = "config",
    o_bias: Literal["always", "never", "config"] = "config",
    qk_norm: Literal["head", "projection"] | None = None,
    head_dim: int | None = None,
) -> Layout:
    return Layout(
        module="layers.{layer}.self_attn",
        names=_LLAMA_NAMES,
        qkv_bias=qkv_bias,
        o_bias=o_bias,
        qk_norm=qk_norm,
        head_dim=head_dim,
    )


LAYOUTS: dict[str, Layout] = {
    "gpt_neox": Layout(
        module="layers.{layer}.attention",
        names={"qkv": "query_key_value", "o": "dense"},
        fused="head_major",
        qkv_bias="config",
        o_bias="config",
        attention_bias=True,
        rotary_fraction=0.25,
    ),
    "gpt2": Layout(
        module="h.{layer}.attn",
        names={"qkv": "c_attn", "o": "c_proj"},
        fused="matrix_major",
        transposed=True,
        qkv_bias="always",
        o_bias="always",
        rotary=False,
    ),
    "llama": _llama(),
    "mistral": _llama(qkv_bias="never", o_bias="never"),
    "qwen2": _llama(qkv_bias="always", o_bias="never"),
    "qwen3": _llama(qk_norm="head", head_dim=128),
    "olmo": _llama(),
    "olmo2": _llama(qk_norm="projection"),
    "bert": Layout(
        module="encoder.layer.{layer}.attention",
        names={"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"},
        qkv_bias="always",
        o_bias="always",
        rotary=False,
    ),
}
"""Layout of every supported architecture, by `model_type` of its config.json."""
