"""The layers of a TransformerBridge, raw or in compatibility mode, as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from headspec.lens.block_parts import Function, Layer, Parts, UnsupportedBlocks
from headspec.lens.block_weights import Affine, LayerWeights, MlpWeights, Norm
from headspec.lens.rope import drops_rope

_BASES = {"gpt_neox": "gpt_neox", "gpt2": "transformer"}
_TYPES = ("gpt_neox", "gpt2", "llama", "mistral", "qwen2", "qwen3", "olmo")


def read_bridge(model: Any, n_pos: int) -> Parts:
    """The parts of a TransformerBridge; sub-modules are called, never their hooked parents.

    Raises:
        UnsupportedBlocks: another architecture, or a variant that is not plain causal attention.
    """
    config = getattr(model.original_model, "config", None)
    kind = getattr(config, "model_type", None)
    if kind not in _TYPES:
        raise UnsupportedBlocks(f"its architecture is {kind!r}, not one of {', '.join(_TYPES)}")
    if any(module.training for module in model.modules()):
        raise UnsupportedBlocks("it is in training mode; call model.eval()")
    _check_attention(config, n_pos)
    rotary = None if kind == "gpt2" else _rotary_table(model, kind, n_pos)
    layers = tuple(
        _layer(block, layer, kind=kind, config=config, n_heads=model.cfg.n_heads, rotary=rotary)
        for layer, block in enumerate(model.blocks)
    )
    key = _linear(model.blocks[0].attn.k)
    query = _linear(model.blocks[0].attn.q)
    n_kv_heads = model.cfg.n_heads * _weight(key).shape[0] // _weight(query).shape[0]

    def unembedding() -> tuple[Tensor, Tensor | None]:
        linear = model.unembed.original_component
        return linear.weight, getattr(linear, "bias", None)

    return Parts(
        layers=layers,
        n_kv_heads=n_kv_heads,
        final_norm=_norm(model.ln_final),
        unembedding=unembedding,
        final_weights=lambda: _norm_weights(model.ln_final),
    )


def _check_attention(config: Any, n_pos: int) -> None:
    kinds = getattr(config, "layer_types", None)
    odd = set(kinds or ()) - {"full_attention", "sliding_attention"}
    if odd:
        raise UnsupportedBlocks(f"it has layers of the types {', '.join(sorted(map(str, odd)))}")
    window = getattr(config, "sliding_window", None)
    slides = kinds is None or "sliding_attention" in kinds
    if window is not None and slides and n_pos > window:
        raise UnsupportedBlocks(f"its sliding window of {window} is shorter than {n_pos} tokens")
    if getattr(config, "add_cross_attention", False):
        raise UnsupportedBlocks("it has cross-attention")


def _layer(
    block: Any,
    layer: int,
    *,
    kind: str,
    config: Any,
    n_heads: int,
    rotary: Callable[[], tuple[Tensor, Tensor]] | None,
) -> Layer:
    attention = block.attn
    inner = attention.original_component
    d_head = _weight(_linear(attention.q)).shape[0] // n_heads
    if kind in _BASES:  # fused query, key and value, split by the Bridge
        scale = d_head**-0.5
        if getattr(config, "scale_attn_by_inverse_layer_idx", False):
            scale /= layer + 1
    else:
        scale = float(getattr(inner, "scaling", d_head**-0.5))
    clip = getattr(config, "clip_qkv", None)
    output = _linear(attention.o)
    norms = {
        role: _norm(getattr(attention, f"{role}_norm"))
        for role in ("q", "k")
        if getattr(attention, f"{role}_norm", None) is not None
    }
    norm2 = _norm(block.ln2)
    hf_layer = block.original_component
    return Layer(
        parallel=kind == "gpt_neox" and bool(hf_layer.use_parallel_residual),
        norm=_norm(block.ln1),
        heads={name: _heads(getattr(attention, name), d_head) for name in "qkv"},
        head_norms=norms,
        clip=None if clip is None else float(clip),
        rotary=None if drops_rope(hf_layer) else rotary,
        adjacent=False,
        scale=scale,
        out=lambda z: output(z),
        W_O=lambda: _weight(output).T.unflatten(0, (n_heads, -1)),
        mlp=lambda resid: block.mlp(norm2(resid)),
        weights=lambda: _layer_weights(block),
    )


def _layer_weights(block: Any) -> LayerWeights:
    attention = block.attn
    head_norms = {
        f"{role}_norm": _norm_weights(norm)
        for role in ("q", "k")
        if (norm := getattr(attention, f"{role}_norm", None)) is not None
    }
    return LayerWeights(
        norm=_norm_weights(block.ln1),
        q=_affine(attention.q),
        k=_affine(attention.k),
        v=_affine(attention.v),
        q_norm=head_norms.get("q_norm"),
        k_norm=head_norms.get("k_norm"),
        out=_affine(attention.o),
        mlp=_mlp_weights(block),
    )


def _mlp_weights(block: Any) -> MlpWeights:
    mlp = block.mlp
    inner = mlp.original_component
    gate = getattr(mlp, "gate", None)
    activation = getattr(inner, "act", None) or getattr(inner, "act_fn", None)
    if activation is None or getattr(mlp, "in", None) is None:
        raise UnsupportedBlocks(f"its MLP is a {type(inner).__name__}")
    return MlpWeights(
        norm=_norm_weights(block.ln2),
        into=_affine(getattr(mlp, "in")),
        gate=None if gate is None else _affine(gate),
        activation=activation,
        out=_affine(mlp.out),
    )


def _affine(component: Any) -> Affine:
    linear = _linear(component)
    return Affine(_weight(linear), linear.bias)


def _norm_weights(component: Any) -> Norm:
    """Gain, bias and eps that `_norm` runs with."""
    inner = component.original_component
    eps = [getattr(inner, name, None) for name in ("eps", "variance_epsilon")]
    native = [value for value in eps if value is not None]
    return Norm(
        gain=getattr(inner, "weight", None),
        bias=getattr(inner, "bias", None),
        centred=not component.uses_rms_norm,
        eps=float(native[0] if native else getattr(component.config, "eps", 1e-5)),
    )


def _heads(component: Any, d_head: int) -> Function:
    linear = _linear(component)
    return lambda x: linear(x).unflatten(-1, (-1, d_head))


def _linear(component: Any) -> Any:
    """The module under a Bridge's linear component, if it is a plain one."""
    linear = component.original_component
    if type(linear) not in (torch.nn.Linear, Conv1D):
        raise UnsupportedBlocks(f"a projection is a {type(linear).__name__}, not a linear layer")
    return linear


def _weight(linear: Any) -> Tensor:
    """`out in`, whichever way the module stores it."""
    return linear.weight.T if isinstance(linear, Conv1D) else linear.weight


def _norm(component: Any) -> Function:
    """A norm without its hook points where the Bridge, too, runs the module under it."""
    folded = getattr(component.config, "layer_norm_folding", False)
    if not (getattr(component, "use_native_layernorm_autograd", False) or folded):
        return lambda x: component(x)
    return lambda x: component.original_component(x).to(x.dtype)


def _rotary_table(model: Any, kind: str, n_pos: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """Cosines and sines from the module that the model itself would ask, replaced or not."""
    hf_model = model.original_model
    base = getattr(hf_model, _BASES.get(kind, "model"))
    module = base.rotary_emb
    module = getattr(module, "original_component", None) or module
    parameter = next(hf_model.parameters())
    with torch.no_grad():
        hidden = parameter.new_zeros(1, n_pos, hf_model.config.hidden_size)
        positions = torch.arange(n_pos, device=parameter.device)[None]
        cos, sin = module(hidden, position_ids=positions)
    if cos.shape[-2] != n_pos:
        raise UnsupportedBlocks(f"its rotary module gave {tuple(cos.shape)} for {n_pos} tokens")
    table = cos[0], sin[0]  # float32 in half-precision OLMo
    return lambda: table
