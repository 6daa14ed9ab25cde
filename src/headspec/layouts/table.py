"""One row per architecture: what its matrices are called, and how they lie.

The table is open. An architecture that names its tensors like a known one needs one line:

    from headspec.layouts import LAYOUTS
    LAYOUTS["roberta"] = LAYOUTS["bert"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Layout:
    """How one architecture stores the weights of a layer, and its embeddings.

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
        mlp: `"mlp_in" "mlp_out"`, and `"mlp_gate"` where the MLP is gated, to the tensor's name
            below the model's own prefix, with `{layer}` in it and without `.weight`. Empty where
            only attention heads are described.
        embeddings: `"embed" "unembed"`, and `"pos_embed" "token_type_embed"` where there are such
            tables, to the tensor's name under any prefix, without `.weight`; several where it
            depends on the version that saved it.
        tied: whether the unembedding is the embedding, transposed, where the config does not say
            (`tie_word_embeddings`).
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
    mlp: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    tied: bool = False


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
        mlp={
            "mlp_in": "layers.{layer}.mlp.up_proj",
            "mlp_gate": "layers.{layer}.mlp.gate_proj",
            "mlp_out": "layers.{layer}.mlp.down_proj",
        },
        embeddings={"embed": "embed_tokens", "unembed": "lm_head"},
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
        mlp={
            "mlp_in": "layers.{layer}.mlp.dense_h_to_4h",
            "mlp_out": "layers.{layer}.mlp.dense_4h_to_h",
        },
        embeddings={"embed": "embed_in", "unembed": ("embed_out", "lm_head")},
    ),
    "gpt2": Layout(
        module="h.{layer}.attn",
        names={"qkv": "c_attn", "o": "c_proj"},
        fused="matrix_major",
        transposed=True,
        qkv_bias="always",
        o_bias="always",
        rotary=False,
        mlp={"mlp_in": "h.{layer}.mlp.c_fc", "mlp_out": "h.{layer}.mlp.c_proj"},
        embeddings={"embed": "wte", "unembed": "lm_head", "pos_embed": "wpe"},
        tied=True,
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
        mlp={
            "mlp_in": "encoder.layer.{layer}.intermediate.dense",
            "mlp_out": "encoder.layer.{layer}.output.dense",
        },
        embeddings={
            "embed": "embeddings.word_embeddings",
            "unembed": "cls.predictions.decoder",
            "pos_embed": "embeddings.position_embeddings",
            "token_type_embed": "embeddings.token_type_embeddings",
        },
        tied=True,
    ),
}
"""Layout of every supported architecture, by `model_type` of its config.json."""
