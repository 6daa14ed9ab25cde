"""Hooked models: `load_model` from a name or folder, `wrap_model` from a Hugging Face model."""

from __future__ import annotations

import copy
from importlib.metadata import version
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch

from headspec.errors import InputError, check_choice
from headspec.lens.hooked_transformer import build_hooked_transformer
from headspec.lens.pretrained import load_pretrained
from headspec.lens.processing import (
    Origin,
    check_same_function,
    describe_flags,
    explain_failures,
    probe_log_probs,
    probe_tokens,
    processing_flags,
    record_origin,
)
from headspec.lens.protocols import HookedModel, ModelClass, Processing
from headspec.lens.rope import restore_dropped_rope


def load_model(
    name_or_path: str,
    *,
    step: int | None = None,
    model_class: ModelClass = "auto",
    processing: Processing = "none",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    cache_dir: str | None = None,
    offline: bool = False,
) -> HookedModel:
    """A hooked model from a local folder or the Hub, at one training step.

    Every call builds a fresh model: nothing is shared with one loaded before. (Loading another
    checkpoint's state dict into a living TransformerBridge is silently wrong on GPT-NeoX.)

    Args:
        name_or_path: a folder as `save_pretrained` writes it, or a Hub name such as
            `"EleutherAI/pythia-160m"`.
        step: training step. In a folder: its sub-folder `step{N}` or `checkpoint-{N}`. On the
            Hub: the revision `step{N}`, or `checkpoint-{N}` for stanford-crfm. None loads the
            folder itself, or the main revision.
        model_class: `"bridge"` (TransformerBridge; transformer-lens 3.9 and 4),
            `"hooked_transformer"` (transformer-lens 3 only), or `"auto"`, which is the Bridge
            everywhere, so that results do not depend on the release installed.
        processing: `"none"` keeps the weights as stored. `"compatibility"` is what transformer-lens
            does by default: layer norm folded into the weights that read, weights that write
            and the unembedding centred, value biases folded into the output bias, each where it is
            exact for the architecture. It changes every weight statistic, and is recorded in
            `HeadWeights.processing`.
        device: where to put the model; the CPU by default.
        dtype: dtype of the weights; float32 by default, whatever the checkpoint stores.
        cache_dir: the Hub's cache, if not the usual one.
        offline: use only what the cache holds.

    Returns:
        A HookedTransformer or TransformerBridge in eval mode.

    Raises:
        InputError: an unknown choice, or HookedTransformer with a release that has none.
        StepNotFoundError: no such step; the message lists what is there.
        CheckpointError: weights are missing, or the hooked model computes something else.
        HubUnreachableError: the Hub cannot give the model.

    Example:
        >>> model = load_model("EleutherAI/pythia-70m", step=1000)  # doctest: +SKIP
        >>> logits = model("Paris is the capital of")  # doctest: +SKIP
    """
    _check_choices(model_class, processing)  # before anything is downloaded
    dtype = torch.float32 if dtype is None else dtype
    hf_model, tokenizer = load_pretrained(
        name_or_path, step=step, dtype=dtype, cache_dir=cache_dir, offline=offline
    )
    return wrap_model(
        hf_model,
        tokenizer,
        model_class=model_class,
        processing=processing,
        device="cpu" if device is None else device,
        dtype=dtype,
        name=name_or_path,
        step=step,
    )


def wrap_model(
    hf_model: Any,
    tokenizer: Any = None,
    *,
    model_class: ModelClass = "auto",
    processing: Processing = "none",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    name: str = "",
    step: int | None = None,
) -> HookedModel:
    """A hooked model around a Hugging Face model that is already built.

    A TransformerBridge wraps `hf_model` *in place*: its modules are replaced, attention becomes
    eager, `device` and `dtype` are applied to it, and under `processing="compatibility"` its
    weights change. Do not use it on its own afterwards; pass `copy.deepcopy(hf_model)` to keep
    it. A HookedTransformer copies the weights and leaves `hf_model` as it is, except for `device`,
    `dtype`, and eager attention.

    The tokenizer is copied; transformer-lens would reload it by name, over the network.

    Args:
        hf_model: a causal or masked language model of transformers.
        tokenizer: its tokenizer, or None for a model that is only given token ids.
        model_class: as in `load_model`.
        processing: as in `load_model`.
        device: where to put the model; stays where it is by default.
        dtype: dtype of the parameters; stays as it is by default.
        name: model name that results carry; the config's name by default.
        step: training step that results carry.

    Returns:
        A HookedTransformer or TransformerBridge in eval mode.

    Raises:
        InputError: an unknown choice, or HookedTransformer with a release that has none.
        UnsupportedArchitectureError: the class cannot hold this architecture.
        CheckpointError: the hooked model computes something else than `hf_model`.
    """
    _check_choices(model_class, processing)
    if any("_original_component" in module for module, _ in hf_model.named_modules()):
        raise InputError(
            expected="a Hugging Face model of its own",
            got="one that is inside a TransformerBridge already",
            fix="Build a fresh model: a Bridge wraps its model in place.",
        )
    restore_dropped_rope(hf_model)
    _place(hf_model, device=device, dtype=dtype)
    hf_model.eval()
    hf_model.set_attn_implementation("eager")  # fused attention keeps no patterns to hook
    name = name or getattr(hf_model.config, "name_or_path", "") or type(hf_model).__name__
    tokenizer = None if tokenizer is None else _own_tokenizer(tokenizer)
    exact = processing == "none" and model_class != "hooked_transformer"
    tokens = probe_tokens(
        hf_model.config.vocab_size,
        n_ctx=hf_model.config.max_position_embeddings,
        device=hf_model.device,
    )
    before = None if exact else probe_log_probs(hf_model, tokens)
    # Construction draws random initial weights, which the loaded ones then replace.
    devices = [hf_model.device] if hf_model.device.type == "cuda" else []
    build = build_hooked_transformer if model_class == "hooked_transformer" else _build_bridge
    with torch.random.fork_rng(devices=devices):
        model, flags = build(hf_model, tokenizer, processing=processing, name=name)
    model.eval()
    if before is not None:
        what = f"{type(model).__name__} with processing={processing!r}"
        after = probe_log_probs(model, tokens)
        check_same_function(before, after, dtype=hf_model.dtype, what=what)
    record_origin(model, Origin(model=name, step=step, processing=describe_flags(flags)))
    return model


def _build_bridge(
    hf_model: Any, tokenizer: Any, *, processing: Processing, name: str
) -> tuple[Any, dict[str, bool]]:
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    architectures = [type(hf_model).__name__]
    with explain_failures(hf_model, "TransformerBridge"):
        if tokenizer is None:
            config = copy.deepcopy(hf_model.config)
            config.architectures = architectures
            bridge = build_bridge_from_module(
                hf_model, architectures[0], hf_config=config, model_name=name
            )
        else:
            bridge = TransformerBridge.boot_transformers(  # type: ignore[attr-defined]
                name,
                hf_model=hf_model,
                hf_config_overrides={"architectures": architectures},
                tokenizer=tokenizer,
                device=hf_model.device,
                dtype=hf_model.dtype,
            )
    adapter, cfg, dtype = bridge.adapter, bridge.cfg, hf_model.dtype
    flags = processing_flags(
        processing,
        normalization=cfg.normalization_type or "",
        folds=getattr(adapter, "supports_fold_ln", True) is not False,
        centers=getattr(adapter, "supports_center_writing_weights", True) is not False
        and not getattr(cfg, "final_rms", False),
        softcapped=(getattr(cfg, "output_logits_soft_cap", None) or -1.0) > 0,
    )
    if processing != "none":
        bridge.enable_compatibility_mode(disable_warnings=True, **flags)
        _place(bridge, device=None, dtype=dtype)  # release 3.9 leaves some weights in float32
    return bridge, flags


def _check_choices(model_class: str, processing: str) -> None:
    check_choice("model_class", model_class, get_args(ModelClass))
    check_choice("processing", processing, get_args(Processing))
    if model_class == "hooked_transformer" and int(version("transformer-lens").split(".")[0]) > 3:
        raise InputError(
            expected="model_class 'bridge' with this release of transformer-lens",
            got=f"'hooked_transformer' with transformer-lens {version('transformer-lens')}",
            fix="HookedTransformer ended with transformer-lens 3: use model_class='bridge', "
            "or install 'transformer-lens<4'.",
        )


def _place(hf_model: Any, *, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
    if dtype is not None:
        for parameter in hf_model.parameters():  # buffers, such as rotary frequencies, stay exact
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
    if device is not None:
        hf_model.to(device)


def _own_tokenizer(tokenizer: Any) -> Any:
    """A copy that transformer-lens takes as it is: loaded from files, asked to prepend BOS."""
    from transformers import AutoTokenizer

    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        if tokenizer.bos_token is None:
            own = AutoTokenizer.from_pretrained(folder)
        else:
            own = AutoTokenizer.from_pretrained(folder, add_bos_token=True)
    own.name_or_path = tokenizer.name_or_path
    own.prepended_bos = _prepends_bos(tokenizer)  # what it did before: tasks keep to that
    return own


def _prepends_bos(tokenizer: Any) -> bool:
    first = tokenizer("a").input_ids[:1]
    return tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]
