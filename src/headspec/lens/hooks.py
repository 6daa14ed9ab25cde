"""Hooks that always come off, forward passes in evaluation mode, and the names of sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError

HookFunction: TypeAlias = Callable[[Tensor], Tensor | None]
"""Takes an activation; gives what replaces it, or None to leave it."""

_OF_BLOCK = ("mlp_out", "resid_pre", "resid_post", "attn_out")


def check_hooked(model: Any) -> None:
    """Raise unless it is a HookedTransformer or a TransformerBridge.

    Raises:
        InputError: for anything else, such as a Hugging Face model.
    """
    if not all(hasattr(model, name) for name in ("cfg", "blocks", "hook_dict")):
        raise InputError(
            expected="a HookedTransformer or TransformerBridge",
            got=f"a {type(model).__name__}",
            fix="Load it by headspec.load_model, or wrap it: headspec.wrap_model(hf_model).",
        )


def hook_name(layer: int, site: str) -> str:
    """transformer-lens's name of a site of a layer, the same on both model classes.

    Example:
        >>> hook_name(3, "z"), hook_name(3, "mlp_out")
        ('blocks.3.attn.hook_z', 'blocks.3.hook_mlp_out')
    """
    return f"blocks.{layer}." + ("" if site in _OF_BLOCK else "attn.") + f"hook_{site}"


def heads_of_site(cfg: Any, site: str) -> int:
    """Heads that the activations of a site have.

    For `k` and `v` these are key-value heads, unless a HookedTransformer repeats them for every
    query head before its hooks (`ungroup_grouped_query_attention`); query heads otherwise.

    Args:
        cfg: config of a hooked model of either class.
        site: `"q"`, `"k"`, `"v"`, `"z"`, `"pattern"`; sites of whole layers count as `"z"`.
    """
    shared = getattr(cfg, "n_key_value_heads", None)
    if site not in ("k", "v") or not shared:
        return cfg.n_heads
    return cfg.n_heads if getattr(cfg, "ungroup_grouped_query_attention", False) else shared


@contextmanager
def hooked(model: Any, functions: Mapping[str, HookFunction]) -> Iterator[None]:
    """Hooks on a model for the time of a block; the caller's own hooks stay.

    Args:
        model: a hooked model of either class.
        functions: hook name -> function of the activation.

    Raises:
        InputError: the model has no such hook.
    """
    missing = [name for name in functions if name not in model.hook_dict]
    if missing:
        raise InputError(
            expected="hooks that the model has",
            got=", ".join(missing),
            fix="Layers are counted from 0; see model.hook_dict for the names.",
        )
    pairs = [(name, _bound(function)) for name, function in functions.items()]
    with model.hooks(fwd_hooks=pairs):
        yield


def _bound(function: HookFunction) -> Callable[..., Tensor | None]:
    return lambda activation, hook=None: function(activation)


def run_logits(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    functions: Mapping[str, HookFunction] | None = None,
    *,
    attention_mask: Int[Tensor, "batch pos"] | None = None,
) -> Float[Tensor, "batch pos d_vocab"]:
    """Logits of a whole forward pass in evaluation mode, under hooks.

    Args:
        model: a hooked model of either class.
        tokens: token ids.
        functions: as in `hooked`.
        attention_mask: 1 for tokens, 0 for padding; None: no padding.
    """
    extra = {} if attention_mask is None else {"attention_mask": attention_mask}
    with evaluating(model), hooked(model, functions or {}):
        return model(tokens, return_type="logits", **extra)


def run_to_layer(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    functions: Mapping[str, HookFunction],
    *,
    layer: int,
    attention_mask: Int[Tensor, "batch pos"] | None = None,
) -> None:
    """Run the model's layers below `layer` under hooks; what later layers would do is not run."""
    extra = {} if attention_mask is None else {"attention_mask": attention_mask}
    with evaluating(model), hooked(model, functions):
        if layer < model.cfg.n_layers:
            model(tokens, return_type=None, stop_at_layer=layer, **extra)
        else:
            model(tokens, return_type=None, **extra)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode (no dropout) for the time of a block."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def has_caller_hooks(model: Any) -> bool:
    """Whether hooks stand on the model that the libraries did not put there themselves."""
    for module in model.modules():
        handles = [*getattr(module, "fwd_hooks", ()), *getattr(module, "bwd_hooks", ())]
        if any(not _internal(getattr(handle, "user_hook", None)) for handle in handles):
            return True
        if hasattr(module, "fwd_hooks"):  # the torch hooks of a hook point are those handles
            continue
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            if any(not _internal(hook) for hook in hooks.values()):
                return True
    return False


# headspec's own belong to the model: dropped rotations, which layers as functions know of.
_LIBRARIES = ("transformer_lens", "transformers", "headspec.lens.rope")


def _internal(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith(_LIBRARIES)
