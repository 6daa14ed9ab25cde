"""What a config.json says about attention: architecture, dimensions, rotary embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headspec.errors import InputError, UnsupportedArchitectureError
from headspec.head_tensors import Rotary
from headspec.layouts.table import LAYOUTS, Layout


@dataclass(frozen=True)
class Dimensions:
    """Sizes of a model, as its config gives them.

    Attributes:
        n_layers: number of layers.
        n_heads: query heads of a layer.
        n_kv_heads: key-value heads of a layer (fewer under grouped-query attention).
        d_model: width of the residual stream.
        d_head: width of one head; not always `d_model / n_heads` (Qwen3, Mistral).
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int


def architecture(config: Mapping[str, Any]) -> str:
    """Name of the architecture, its `model_type` in config.json, such as `"gpt_neox"`.

    Args:
        config: the parsed config.json, or `model.config.to_dict()`.

    Raises:
        UnsupportedArchitectureError: no layout is known for it; the message lists those that are.

    Example:
        >>> architecture({"model_type": "gpt_neox"})
        'gpt_neox'
    """
    name = config.get("model_type")
    if name in LAYOUTS:
        return str(name)
    similar = "for weights in the Hugging Face format use the '-hf' twin of the model, or "
    raise UnsupportedArchitectureError(
        expected=f"model_type to be one of {', '.join(sorted(LAYOUTS))}",
        got=f"{name!r}" if name else "a config without model_type",
        fix=("Fix: " + (similar if name == "hf_olmo" else ""))
        + "add a row that says where its attention tensors lie: "
        f"headspec.layouts.LAYOUTS[{str(name or 'my_model')!r}] = Layout(...), or an existing row "
        "where the names agree.",
    )


def layout(config: Mapping[str, Any]) -> Layout:
    """The row of `LAYOUTS` that describes this config."""
    return LAYOUTS[architecture(config)]


def dimensions(config: Mapping[str, Any]) -> Dimensions:
    """Layers, heads and widths of a model.

    Raises:
        UnsupportedArchitectureError: as `architecture`.
        InputError: a size is missing or does not divide.

    Example:
        >>> dimensions({"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768}).d_head
        64
    """
    row = layout(config)
    heads = _size(config, "num_attention_heads", "n_head")
    d_model = _size(config, "hidden_size", "n_embd")
    d_head = config.get("head_dim") or row.head_dim
    if d_head is None:
        if d_model % heads:
            raise InputError(
                expected="hidden_size to be a multiple of num_attention_heads, or head_dim",
                got=f"hidden_size {d_model} and {heads} heads",
                fix="Correct config.json, or give head_dim there.",
            )
        d_head = d_model // heads
    return Dimensions(
        n_layers=_size(config, "num_hidden_layers", "n_layer"),
        n_heads=heads,
        n_kv_heads=int(config.get("num_key_value_heads") or heads),
        d_model=d_model,
        d_head=int(d_head),
    )


def n_layers(config: Mapping[str, Any]) -> int:
    """Number of layers. Raises as `dimensions`."""
    return dimensions(config).n_layers


def n_heads(config: Mapping[str, Any]) -> int:
    """Number of query heads in a layer. Raises as `dimensions`."""
    return dimensions(config).n_heads


def rotary(config: Mapping[str, Any], *, layer: int = 0) -> Rotary | None:
    """What rotary embeddings do to queries and keys, or None without them.

    Reads both the `rope_parameters` of transformers 5 and the older keys (`rotary_pct`,
    `rotary_emb_base`, `rope_theta`, `rope_scaling`), with the precedence transformers gives them.
    As there, `partial_rotary_factor` counts only where the architecture or the scaling heeds it:
    a Llama or Qwen3 with plain rotary embeddings rotates whole heads whatever the config says.
    None in layers that `headspec.drop_rope` recorded.

    Args:
        config: the parsed config.json.
        layer: some models rotate sliding-window layers differently from full ones.
    """
    row = layout(config)
    if not row.rotary or layer in (config.get("dropped_rope_layers") or ()):
        return None
    rope = _rope_parameters(config, layer)
    scaling = rope.get("rope_type") or rope.get("type")
    scaling = None if scaling in (None, "default") else str(scaling)
    base = _first(rope.get("rope_theta"), config.get("rotary_emb_base"), config.get("rope_theta"))
    fraction = 1.0
    if row.rotary_fraction is not None or scaling is not None:
        fraction = _first(
            rope.get("partial_rotary_factor"),
            config.get("rotary_pct"),
            config.get("partial_rotary_factor"),
            row.rotary_fraction,
        )
        fraction = 1.0 if fraction is None else float(fraction)
    rotated = int(dimensions(config).d_head * fraction)
    return Rotary(
        dim=rotated + rotated % 2,  # dimensions turn in pairs
        base=10000.0 if base is None else float(base),
        scaling=scaling,
    )


def _rope_parameters(config: Mapping[str, Any], layer: int) -> Mapping[str, Any]:
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    types = config.get("layer_types") or ()
    if layer < len(types) and isinstance(rope.get(types[layer]), Mapping):
        return rope[types[layer]]
    return rope


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _size(config: Mapping[str, Any], *keys: str) -> int:
    for key in keys:
        if isinstance(config.get(key), int) and config[key] > 0:
            return config[key]
    raise InputError(
        expected=f"a positive whole number under {' or '.join(keys)} in the config",
        got=", ".join(f"{key}={config.get(key)!r}" for key in keys),
        fix="Give the complete config.json of the checkpoint.",
    )
