"""`head_weights`: the attention heads of a model in memory, whichever class it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from headspec.errors import InputError, UnsupportedArchitectureError
from headspec.head_tensors import HeadWeights, Rotary
from headspec.heads import check_layer
from headspec.layouts import LAYOUTS, head_weights_from_tensors
from headspec.layouts import rotary as rotary_of_config
from headspec.lens.processing import origin_of
from headspec.lens.rope import stands_still

_MATRICES = ("W_Q", "W_K", "W_V", "W_O")
_BIASES = ("b_Q", "b_K", "b_V", "b_O")


def head_weights(model: torch.nn.Module, layer: int) -> HeadWeights:
    """Weights of one layer's attention heads, from a model in memory.

    Unprocessed models of every class give the same, bit for bit, as the checkpoint's files. Keys
    and values keep their native heads: HookedTransformer shows them expanded to query heads,
    which would count each one several times in any statistic over heads. Where weights were
    processed (layer norm folded, writing weights centred), `processing` says so; statistics of
    folded and of raw weights are not comparable.

    Args:
        model: a HookedTransformer, a TransformerBridge, or a Hugging Face model whose
            architecture is in `headspec.layouts.LAYOUTS`.
        layer: layer index from 0.

    Returns:
        Detached views of the model's parameters where possible, in their dtype and on their
        device: training the model further changes them. `.to(...)` with another dtype copies.

    Raises:
        InputError: another kind of model, or a layer it does not have.
        UnsupportedArchitectureError: attention that has no query, key, value and output matrices
            per head, or rotary embeddings of an architecture without a layout.

    Example:
        >>> model = load_model("EleutherAI/pythia-70m")  # doctest: +SKIP
        >>> head_weights(model, 3).W_Q.shape  # doctest: +SKIP
        torch.Size([8, 512, 64])
    """
    if hasattr(model, "cfg") and hasattr(model, "blocks"):
        return _from_hooked(model, layer)
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        raise InputError(
            expected="a HookedTransformer, a TransformerBridge or a Hugging Face model",
            got=type(model).__name__,
            fix="For tensors, use headspec.layouts.head_weights_from_tensors.",
        )
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    if any("_original_component" in name for name in tensors):
        raise InputError(
            expected="a Hugging Face model of its own",
            got="one that is inside a TransformerBridge, which rearranged it",
            fix="Pass the Bridge.",
        )
    name = getattr(config, "name_or_path", "") or type(model).__name__
    return head_weights_from_tensors(config.to_dict(), layer, tensors, model=name)


def _from_hooked(model: Any, layer: int) -> HeadWeights:
    check_layer(layer, n_layers=model.cfg.n_layers)
    is_bridge = hasattr(model, "original_model")
    config = model.original_model.config.to_dict() if is_bridge else {}
    attention = model.blocks[layer].attn
    found = {name: _parameter(attention, name) for name in (*_MATRICES, *_BIASES)}
    odd = [name for name in _MATRICES if getattr(found[name], "ndim", 0) != 3]
    if odd:
        raise UnsupportedArchitectureError(
            expected="attention with W_Q, W_K, W_V and W_O per head",
            got=f"{type(attention).__name__} in layer {layer} without {', '.join(odd)}",
            fix="Look at such layers with the model's own modules.",
        )
    if not is_bridge:
        found = _without_placeholder_biases(found, model.cfg)
    gains = {name: _gain(attention, name, model.cfg.d_head) for name in ("q_norm", "k_norm")}
    origin = origin_of(model)
    return HeadWeights(
        **found,  # type: ignore[arg-type]
        **gains,
        qk_norm_eps=_epsilon(model.cfg, config, has_gains=gains["q_norm"] is not None),
        qkv_clip=_clip(config.get("clip_qkv", getattr(model.cfg, "clip_qkv", None))),
        rotary=_rotary(model, config, layer),
        processing=origin.processing,
        model=origin.model,
        step=origin.step,
        layer=layer,
    )


def _parameter(attention: Any, name: str) -> Tensor | None:
    """A parameter, native where HookedTransformer would expand it, None where there is none."""
    try:
        value = getattr(attention, f"_{name}", None)  # grouped keys and values
        value = getattr(attention, name) if value is None else value
    except (AttributeError, TypeError):  # how a Bridge says that there is no bias
        return None
    return None if value is None else value.detach()


def _without_placeholder_biases(
    found: Mapping[str, Tensor | None], cfg: Any
) -> dict[str, Tensor | None]:
    """HookedTransformer has zeros where the architecture has no biases: None, as elsewhere."""
    kind = _layout_name(str(getattr(cfg, "original_architecture", "")))
    row = LAYOUTS.get(kind)
    kept = dict(found)
    for name in _BIASES:
        bias = kept[name]
        if row is None or bias is None:
            continue
        has = row.o_bias if name == "b_O" else row.qkv_bias
        may_lack = has == "never" or (has == "config" and not row.attention_bias)
        if may_lack and not bool(bias.any()):
            kept[name] = None
    return kept


def _layout_name(architecture: str) -> str:
    """`"Qwen2ForCausalLM"` -> `"qwen2"`, `"GPTNeoXForCausalLM"` -> `"gpt_neox"`."""
    base = architecture.removesuffix("ForCausalLM").removesuffix("LMHeadModel").lower()
    return {"gptneox": "gpt_neox"}.get(base, base)


def _gain(attention: Any, name: str, d_head: int) -> Tensor | None:
    norm = getattr(attention, name, None)
    gain = getattr(norm, "w", None)  # HookedTransformer
    gain = getattr(norm, "weight", None) if gain is None else gain
    if not isinstance(gain, Tensor):
        return None
    gain = gain.detach()
    return gain if gain.numel() == d_head else gain.unflatten(0, (-1, d_head))


def _epsilon(cfg: Any, config: Mapping[str, Any], *, has_gains: bool) -> float:
    if config or not has_gains:
        return float(config.get("rms_norm_eps", 1e-6))
    return float(cfg.eps)  # HookedTransformer: one epsilon for all norms


def _clip(value: Any) -> float | None:
    return None if value is None else float(value)


def _rotary(model: Any, config: Mapping[str, Any], layer: int) -> Rotary | None:
    cfg = model.cfg
    if config.get("model_type") in LAYOUTS:
        return rotary_of_config(config, layer=layer)
    if getattr(cfg, "positional_embedding_type", None) != "rotary":
        return None
    if config:  # a Bridge does not say which dimensions turn together
        raise UnsupportedArchitectureError(
            expected=f"rotary embeddings of a known kind ({', '.join(sorted(LAYOUTS))})",
            got=repr(config.get("model_type")),
            fix="Add a row for it to headspec.layouts.LAYOUTS.",
        )
    if stands_still(model.blocks[layer].attn):
        return None
    return Rotary(
        dim=int(getattr(cfg, "rotary_dim", None) or cfg.d_head),
        base=float(getattr(cfg, "rotary_base", None) or 10000.0),
        pairing="adjacent" if getattr(cfg, "rotary_adjacent_pairs", False) else "halves",
        scaling="llama3" if getattr(cfg, "use_NTK_by_parts_rope", False) else None,
    )
