"""DroPE: a model without its rotary position embeddings, in all layers or in some."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headspec.errors import InputError, UnsupportedArchitectureError
from headspec.heads import check_layer
from headspec.layouts import LAYOUTS

_KEY = "dropped_rope_layers"
_ARGUMENT = "position_embeddings"


def drop_rope(model: Any, *, layers: Sequence[int] | None = None) -> Any:
    """A copy of a Hugging Face model whose queries and keys are not rotated.

    Attention of a position t to a position s scores ``(R_t q) . (R_s k)``, with rotations R by
    angles proportional to the position. Here R is the identity: scores depend on the contents
    alone, and position is left only in what the causal mask lets a position see. Norms of queries
    and keys, the scale and the weights stay; no parameter is added or removed. Of scaled rotary
    embeddings (YaRN) the factor on queries and keys goes too.

    The layers are recorded in ``config.dropped_rope_layers``, which `save_pretrained` writes.
    `load_model`, `wrap_model` and ``open_suite(...).model(step)`` restore it, `head_weights` has
    no `Rotary` there. **transformers itself knows nothing of it**: what `from_pretrained` gives
    rotates again, without a word, until `restore_dropped_rope` is called. Copies and pickles of
    the model keep it. Drop before `torch.compile`, DDP and before a hooked model is made.

    **What it does not show.** A model that was trained with rotations computes something else
    without them, and is much worse at first: DroPE recalibrates by a short further training (about
    1 % of the steps). What differs right after the drop is the damage, not what the model knows
    without positions.

    Args:
        model: a Hugging Face model with rotary embeddings whose architecture is in
            `headspec.layouts.LAYOUTS` (GPT-NeoX, Llama, Mistral, Qwen2, Qwen3, OLMo, OLMo2);
            stays as it is.
        layers: layer indices from 0; all by default. Layers dropped before stay dropped.

    Returns:
        The copy, in the same mode (training or evaluation) and on the same device.

    Raises:
        InputError: a hooked model, or a layer that does not exist.
        UnsupportedArchitectureError: no rotary embeddings (GPT-2), or an unknown architecture.

    References:
        "Extending the Context of Pretrained LLMs by Dropping Their Positional Embeddings",
        arXiv 2512.12167.

    Example:
        >>> import torch, headspec as hs
        >>> model = hs.build_mini_qwen(hs.MiniQwenConfig.preset("debug")).eval()
        >>> bare = hs.drop_rope(model)
        >>> bare.config.dropped_rope_layers
        [0, 1, 2]
        >>> hs.head_weights(bare, 0).rotary is None
        True
    """
    n_layers = len(_rotated_layers(model))
    chosen = range(n_layers) if layers is None else layers
    for layer in chosen:
        check_layer(layer, n_layers=n_layers)
    changed = copy.deepcopy(model)
    before = getattr(model.config, _KEY, None) or ()
    setattr(changed.config, _KEY, sorted({*before, *(int(layer) for layer in chosen)}))
    restore_dropped_rope(changed)
    return changed


def restore_dropped_rope(hf_model: Any) -> None:
    """Make a Hugging Face model heed its ``config.dropped_rope_layers``, in place.

    For code of one's own that loads with `from_pretrained`; headspec's ways of loading call it.
    Calling it again, or for a model from which nothing was dropped, changes nothing.

    Args:
        hf_model: any Hugging Face model.

    Raises:
        InputError: the config names a layer that does not exist, or `hf_model` is a hooked model.
        UnsupportedArchitectureError: the config asks for it and the model has no rotary embeddings.

    Example:
        >>> model = AutoModelForCausalLM.from_pretrained("run/step1000")  # doctest: +SKIP
        >>> restore_dropped_rope(model)                                   # doctest: +SKIP
    """
    dropped = getattr(hf_model.config, _KEY, None)
    if not dropped:
        return
    layers = _rotated_layers(hf_model)
    for index in dropped:
        check_layer(index, n_layers=len(layers))
        if not drops_rope(layers[index]):
            layers[index].register_forward_pre_hook(_stand_still, with_kwargs=True)


def drops_rope(block: torch.nn.Module) -> bool:
    """Whether a transformer block of a Hugging Face model gives its attention no rotation."""
    return _stand_still in block._forward_pre_hooks.values()


def _stand_still(
    _block: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Forward pre-hook of a block: cosines one, sines zero. A module function: it is pickled."""
    given = kwargs.get(_ARGUMENT)
    if given is None:
        raise InputError(
            expected=f"the rotations under the name {_ARGUMENT}",
            got="a call of the block without them",
            fix="Call the whole model, or pass position_embeddings= by name.",
        )
    cos, sin = given
    return args, {**kwargs, _ARGUMENT: (torch.ones_like(cos), torch.zeros_like(sin))}


def _rotated_layers(model: Any) -> Any:
    """The blocks of a Hugging Face model, each of which is handed cosines and sines."""
    if hasattr(model, "cfg") and hasattr(model, "blocks"):
        raise InputError(
            expected="a Hugging Face model",
            got=f"a {type(model).__name__}",
            fix="Drop first, then wrap: headspec.wrap_model(headspec.drop_rope(hf_model)).",
        )
    kind = getattr(getattr(model, "config", None), "model_type", None)
    known = sorted(name for name, row in LAYOUTS.items() if row.rotary)
    base = getattr(model, "base_model", None)
    layers = getattr(base, "layers", None)
    handed = (
        kind in known
        and hasattr(base, "rotary_emb")
        and isinstance(layers, torch.nn.ModuleList)
        and all(_ARGUMENT in inspect.signature(layer.forward).parameters for layer in layers)
    )
    if not handed:
        learned = kind in LAYOUTS and kind not in known
        raise UnsupportedArchitectureError(
            expected=f"a Hugging Face model with rotary embeddings ({', '.join(known)})",
            got=f"{type(model).__name__}, model_type {kind!r}",
            fix="It has learned positions: there are no rotations to drop."
            if learned
            else "Its blocks must be given position_embeddings, as those of the ones listed are.",
        )
    return layers


def stop_rotation(attention: Any, *, n_ctx: int) -> None:
    """Identity rotation in one attention layer of a HookedTransformer, in place.

    The tables get all `n_ctx` rows: shorter ones would be extended with real rotations.
    """
    for name, value in (("rotary_cos", 1.0), ("rotary_sin", 0.0)):
        table: Tensor = getattr(attention, name)
        setattr(attention, name, table.new_full((n_ctx, table.shape[-1]), value))


def stands_still(attention: Any) -> bool:
    """Whether the tables of a HookedTransformer's attention rotate nothing."""
    return not bool(attention.rotary_sin[-1].any())
