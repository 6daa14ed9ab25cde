"""HookedTransformer (transformer-lens 3) from a Hugging Face model in memory.

`HookedTransformer.from_pretrained` takes official names only, and fixes some settings by name or
architecture: it ignores a rotary base on GPT-NeoX, a head width on Llama, and cuts the context of
Qwen3 and Mistral to 2048. Here every setting comes from the model's own config; the weight
conversion is transformer-lens's.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from headspec.errors import UnsupportedArchitectureError
from headspec.layouts import architecture, dimensions, rotary
from headspec.lens.processing import explain_failures, processing_flags
from headspec.lens.protocols import Processing
from headspec.lens.rope import stop_rotation

_ACTIVATION_KEYS = ("hidden_act", "activation_function")
_POST_NORM = ("olmo2",)


def build_hooked_transformer(
    hf_model: Any, tokenizer: Any, *, processing: Processing, name: str
) -> tuple[Any, dict[str, bool]]:
    """A HookedTransformer with the weights of `hf_model`, and the processing that took effect.

    Args:
        hf_model: a causal language model of transformers; not changed.
        tokenizer: its tokenizer or None.
        processing: as in `load_model`.
        name: recorded as the model's name.

    Raises:
        UnsupportedArchitectureError: transformer-lens has no conversion for it, or not for its
            rotary scaling or missing biases.
    """
    # By name, so that type checkers of either release are content.
    lens: Any = import_module("transformer_lens")
    loading: Any = import_module("transformer_lens.loading_from_pretrained")
    configs: Any = import_module("transformer_lens.config.hooked_transformer_config")

    settings = hooked_transformer_settings(hf_model.config.to_dict())
    kind = settings["normalization_type"]
    flags = processing_flags(
        processing,
        normalization=kind,
        folds=hf_model.config.model_type not in _POST_NORM,
        centers=not settings.get("final_rms", False),
        softcapped=False,
    )
    cfg = configs.HookedTransformerConfig.from_dict(
        {
            **settings,
            "normalization_type": f"{kind}Pre" if flags["fold_ln"] else kind,
            "original_architecture": type(hf_model).__name__,
            "model_name": name,
            "tokenizer_name": None,
            "init_weights": False,
            "dtype": hf_model.dtype,
            "device": str(hf_model.device),
        }
    )
    trainable = [parameter.requires_grad for parameter in hf_model.parameters()]
    with explain_failures(hf_model, "HookedTransformer"), warnings.catch_warnings():
        # The class was asked for by name: its farewell need not be repeated.
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        model = lens.HookedTransformer(cfg, tokenizer, move_to_device=False)
        # The path is only asked whether it exists: the model is given.
        state = loading.get_pretrained_state_dict(".", cfg, hf_model, dtype=hf_model.dtype)
        # Clones: folding would otherwise write into the given model.
        state = {key: value.detach().clone() for key, value in state.items()}
        model.load_and_process_state_dict(state, **flags)
    for layer in getattr(hf_model.config, "dropped_rope_layers", None) or ():
        stop_rotation(model.blocks[layer].attn, n_ctx=cfg.n_ctx)
    for parameter, flag in zip(hf_model.parameters(), trainable, strict=True):
        parameter.requires_grad_(flag)  # the conversion freezes the given model
    return model.to(hf_model.device, print_details=False), flags


def hooked_transformer_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of HookedTransformerConfig that reproduce a Hugging Face config.

    Args:
        config: the parsed config.json.

    Raises:
        UnsupportedArchitectureError: HookedTransformer cannot hold it.
    """
    known = {
        "gpt_neox": _gpt_neox,
        "gpt2": _gpt2,
        "llama": _gated,
        "mistral": _gated,
        "qwen2": _gated,
        "qwen3": _gated,
        "olmo": _gated,
        "olmo2": _gated,
    }
    kind = config.get("model_type")
    if kind not in known:
        raise UnsupportedArchitectureError(
            expected=f"one of {', '.join(known)} for HookedTransformer",
            got=repr(kind),
            fix="Use model_class='bridge'.",
        )
    sizes = dimensions(config)
    act = next(config[key] for key in _ACTIVATION_KEYS if config.get(key))
    common = {
        "d_model": sizes.d_model,
        "d_head": sizes.d_head,
        "n_heads": sizes.n_heads,
        "n_layers": sizes.n_layers,
        "n_ctx": config.get("max_position_embeddings") or config.get("n_positions"),
        "d_vocab": config["vocab_size"],
        "act_fn": act,
        "initializer_range": config.get("initializer_range", 0.02),
    }
    # transformer-lens converts every Qwen2 as if its keys and values were grouped.
    if sizes.n_kv_heads != sizes.n_heads or kind == "qwen2":
        common["n_key_value_heads"] = sizes.n_kv_heads
    return {**common, **_positions(config), **known[kind](config)}


def _positions(config: dict[str, Any]) -> dict[str, Any]:
    turned = rotary({**config, "dropped_rope_layers": None})  # dropped layer by layer, later
    if turned is None:
        return {}
    settings: dict[str, Any] = {
        "positional_embedding_type": "rotary",
        "rotary_dim": turned.dim,
        "rotary_base": turned.base,
        "rotary_adjacent_pairs": False,
    }
    if turned.scaling == "llama3":
        rope = config.get("rope_scaling") or config["rope_parameters"]
        settings |= {
            "use_NTK_by_parts_rope": True,
            "NTK_original_ctx_len": rope["original_max_position_embeddings"],
            "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
            "NTK_by_parts_factor": rope["factor"],
        }
    elif turned.scaling is not None:
        raise UnsupportedArchitectureError(
            expected="plain or llama3 rotary embeddings for HookedTransformer",
            got=f"rope_type {turned.scaling!r}",
            fix="Use model_class='bridge'.",
        )
    return settings


def _gpt_neox(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "d_mlp": config["intermediate_size"],
        "eps": config["layer_norm_eps"],
        "normalization_type": "LN",
        "parallel_attn_mlp": config.get("use_parallel_residual", True),
        "default_prepend_bos": False,
    }


def _gpt2(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "d_mlp": config.get("n_inner") or 4 * config["n_embd"],
        "eps": config["layer_norm_epsilon"],
        "normalization_type": "LN",
        "use_attn_scale": config.get("scale_attn_weights", True),
        "scale_attn_by_inverse_layer_idx": config.get("scale_attn_by_inverse_layer_idx", False),
    }


def _gated(config: dict[str, Any]) -> dict[str, Any]:
    kind = architecture(config)
    settings: dict[str, Any] = {
        "d_mlp": config["intermediate_size"],
        "eps": config.get("rms_norm_eps", 1e-5),  # OLMo's layer norm has a fixed epsilon
        "normalization_type": "LN" if kind == "olmo" else "RMS",
        "gated_mlp": True,
        "final_rms": kind in ("llama", "qwen2", "qwen3"),
        "use_qk_norm": kind == "qwen3",
    }
    if kind in ("qwen2", "qwen3"):
        settings |= {"tokenizer_prepends_bos": True, "default_prepend_bos": False}
    if kind == "olmo":
        settings["clip_qkv"] = config.get("clip_qkv")
    if window := config.get("sliding_window"):
        types = config.get("layer_types") or ["sliding_attention"] * dimensions(config).n_layers
        if "sliding_attention" in types:
            settings |= {
                "use_local_attn": True,
                "window_size": window,
                "attn_types": ["local" if t == "sliding_attention" else "global" for t in types],
            }
    return settings
