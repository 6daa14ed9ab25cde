"""The layers of a HookedTransformer (transformer-lens 3) as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from headspec.lens.block_parts import Function, Layer, Parts, UnsupportedBlocks
from headspec.lens.block_weights import Affine, LayerWeights, MlpWeights, Norm

_ARCHITECTURES = (
    "GPTNeoXForCausalLM",
    "GPT2LMHeadModel",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "OlmoForCausalLM",
    "neel",
)


def read_hooked(model: Any, n_pos: int) -> Parts:
    """The parts of a HookedTransformer, also one built from a config of the user's own.

    It has no dropout, so that its training mode changes nothing. Under an attention mask it
    counts positions without padding; rotary embeddings are relative, so absolute positions give
    the same attention, and learned position embeddings are in the residual stream already.

    Raises:
        UnsupportedBlocks: another architecture, or a variant that is not plain causal attention.
    """
    cfg = model.cfg
    _check_config(cfg, n_pos)
    layers = tuple(_layer(block, cfg=cfg, n_pos=n_pos) for block in model.blocks)
    return Parts(
        layers=layers,
        n_kv_heads=cfg.n_key_value_heads if _is_grouped(cfg) else cfg.n_heads,
        final_norm=(lambda x: x) if cfg.normalization_type is None else model.ln_final,
        unembedding=lambda: (model.unembed.W_U.T, model.unembed.b_U),
        final_weights=lambda: None if cfg.normalization_type is None else _norm(model.ln_final),
    )


def _check_config(cfg: Any, n_pos: int) -> None:
    architecture = getattr(cfg, "original_architecture", None)
    if architecture and architecture not in _ARCHITECTURES:
        raise UnsupportedBlocks(
            f"its architecture is {architecture!r}, not one of {', '.join(_ARCHITECTURES)}"
        )
    positions = cfg.positional_embedding_type
    train_length = getattr(cfg, "train_seq_length", None) or cfg.n_ctx
    stretched = getattr(cfg, "use_logn_attn", False) or getattr(cfg, "use_dynamic_ntk_rope", False)
    local = cfg.use_local_attn and "local" in (cfg.attn_types or ())
    reasons = {
        f"its position embeddings are {positions!r}": positions not in ("standard", "rotary"),
        "its attention is not causal": cfg.attention_dir != "causal",
        f"its window of {cfg.window_size} is shorter than {n_pos} tokens": (
            local and n_pos > (cfg.window_size or 0)
        ),
        "it caps attention scores": (cfg.attn_scores_soft_cap or -1) > 0,
        "it caps logits": (cfg.output_logits_soft_cap or -1) > 0,
        "it has attention sinks": getattr(cfg, "use_attention_sinks", False),
        "it has norms after its layers": cfg.use_normalization_before_and_after,
        "it has a mixture of experts": cfg.num_experts is not None,
        "its weights are quantised": cfg.load_in_4bit,
        "its attention changes beyond the training length": stretched and n_pos > train_length,
    }
    for reason, holds in reasons.items():
        if holds:
            raise UnsupportedBlocks(reason)


def _layer(block: Any, *, cfg: Any, n_pos: int) -> Layer:
    attention = block.attn
    prefix = "_" if _is_grouped(cfg) else ""
    norms = {}
    if cfg.use_qk_norm:
        norms = {"q": _head_norm(attention.q_norm), "k": _head_norm(attention.k_norm)}

    def out(z: Tensor) -> Tensor:
        return F.linear(z, attention.W_O.flatten(0, 1).T, attention.b_O)

    clip = getattr(cfg, "clip_qkv", None)
    return Layer(
        parallel=bool(cfg.parallel_attn_mlp),
        norm=block.ln1,
        heads={
            "q": _heads(attention, "W_Q", "b_Q"),
            "k": _heads(attention, f"{prefix}W_K", f"{prefix}b_K"),
            "v": _heads(attention, f"{prefix}W_V", f"{prefix}b_V"),
        },
        head_norms=norms,
        clip=None if clip is None else float(clip),
        rotary=_rotary(attention, n_pos) if cfg.positional_embedding_type == "rotary" else None,
        adjacent=bool(cfg.rotary_adjacent_pairs),
        scale=1 / float(attention.attn_scale),
        out=out,
        W_O=lambda: attention.W_O,
        mlp=None if cfg.attn_only else lambda resid: block.mlp(block.ln2(resid)),
        weights=lambda: _layer_weights(block, cfg),
    )


def _layer_weights(block: Any, cfg: Any) -> LayerWeights:
    attention = block.attn
    prefix = "_" if _is_grouped(cfg) else ""

    def heads(letter: str, prefix: str = "") -> Affine:
        weight = getattr(attention, f"{prefix}W_{letter}").transpose(1, 2).flatten(0, 1)
        return Affine(weight, getattr(attention, f"{prefix}b_{letter}").flatten())

    return LayerWeights(
        norm=_norm(block.ln1),
        q=heads("Q"),
        k=heads("K", prefix),
        v=heads("V", prefix),
        q_norm=_norm(attention.q_norm) if cfg.use_qk_norm else None,
        k_norm=_norm(attention.k_norm) if cfg.use_qk_norm else None,
        out=Affine(attention.W_O.flatten(0, 1).T, attention.b_O),
        mlp=None if cfg.attn_only else _mlp_weights(block),
    )


def _mlp_weights(block: Any) -> MlpWeights:
    mlp = block.mlp
    if getattr(mlp, "ln", None) is not None:
        raise UnsupportedBlocks("there is a norm inside its MLP")
    gated = hasattr(mlp, "W_gate")
    out = Affine(mlp.W_out.T, mlp.b_out)
    if gated:  # its b_in is added after the product
        out = Affine(mlp.W_out.T, mlp.b_out + mlp.b_in @ mlp.W_out)
    return MlpWeights(
        norm=_norm(block.ln2),
        into=Affine(mlp.W_in.T, None if gated else mlp.b_in),
        gate=Affine(mlp.W_gate.T, None) if gated else None,
        activation=mlp.act_fn,
        out=out,
    )


def _norm(module: Any) -> Norm | None:
    """Gain, bias and eps of a norm; None for the identity."""
    kind = type(module).__name__
    if kind == "Identity":
        return None
    return Norm(
        gain=getattr(module, "w", None),
        bias=getattr(module, "b", None),
        centred=kind.startswith("LayerNorm"),
        eps=float(module.eps),
    )


def _is_grouped(cfg: Any) -> bool:
    """Whether hooks show fewer key-value heads than query heads."""
    return cfg.n_key_value_heads is not None and not cfg.ungroup_grouped_query_attention


def _heads(attention: Any, weight_name: str, bias_name: str) -> Function:
    def project(x: Tensor) -> Tensor:
        weight = getattr(attention, weight_name)
        bias = getattr(attention, bias_name)
        flat = weight.transpose(1, 2).flatten(0, 1)
        return F.linear(x, flat, bias.flatten()).unflatten(-1, bias.shape)

    return project


def _head_norm(norm: Any) -> Function:
    return lambda x: norm(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def _rotary(attention: Any, n_pos: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """The layer's own buffers; where they are shorter, what it would make of them."""
    if len(attention.rotary_cos) >= n_pos:
        return lambda: (attention.rotary_cos, attention.rotary_sin)
    sin, cos = attention.calculate_sin_cos_rotary(
        attention.cfg.rotary_dim, n_pos, base=attention._rotary_base(), dtype=attention.cfg.dtype
    )
    table = cos.to(attention.rotary_cos.device), sin.to(attention.rotary_cos.device)
    return lambda: table
