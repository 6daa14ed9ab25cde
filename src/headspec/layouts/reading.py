"""From named checkpoint tensors to the `HeadWeights` of one layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from headspec.head_tensors import HeadWeights
from headspec.layouts.configs import Dimensions, dimensions, layout, rotary
from headspec.layouts.finding import check_layer, check_present, check_shape, model_prefix
from headspec.layouts.table import Layout


def head_tensor_names(
    config: Mapping[str, Any], layer: int, available: Collection[str]
) -> dict[str, str]:
    """Names of the checkpoint tensors that hold one layer's attention heads.

    The model's own prefix is found, not assumed: `gpt_neox.layers.0...`, `model.layers.0...`,
    `bert.encoder...` and names without any prefix all work.

    Args:
        config: the parsed config.json.
        layer: layer index from 0.
        available: every tensor name of the checkpoint.

    Returns:
        Role to name. Roles: `"qkv"`, or `"q" "k" "v"`; `"o"`; the same with `_bias`; `"q_norm"`
        and `"k_norm"`. Only roles that the architecture and config have.

    Raises:
        InputError: the layer does not exist.
        CheckpointError: a tensor is missing, or two modules of the checkpoint fit.
        UnsupportedArchitectureError: as `architecture`.

    Example:
        >>> config = {"model_type": "gpt_neox", "hidden_size": 8, "num_attention_heads": 2,
        ...           "num_hidden_layers": 1, "attention_bias": False}
        >>> names = ["layers.0.attention.query_key_value.weight", "layers.0.attention.dense.weight"]
        >>> sorted(head_tensor_names(config, 0, names))
        ['o', 'qkv']
    """
    row = layout(config)
    check_layer(config, layer)
    inside = _names_inside_module(row, config)
    module = model_prefix(row, layer, available) + row.module.format(layer=layer)
    names = {role: f"{module}.{name}" for role, name in inside.items()}
    check_present(names.values(), available, hint=" (attention_bias says whether there are biases)")
    return names


def head_weights_from_tensors(
    config: Mapping[str, Any],
    layer: int,
    tensors: Mapping[str, Tensor],
    *,
    model: str = "",
    step: int | None = None,
) -> HeadWeights:
    """Head weights of one layer from the tensors of a checkpoint, as stored: no processing.

    The results are views into `tensors` where shapes allow, in their dtype; nothing is copied.
    GPT-2's `scale_attn_by_inverse_layer_idx` (a constant factor on scores) is not part of them.

    Args:
        config: the parsed config.json.
        layer: layer index from 0.
        tensors: name to tensor; at least those `head_tensor_names` lists. More do not harm.
        model: a name to carry along.
        step: the training step to carry along.

    Raises:
        CheckpointError: a tensor is missing or has a shape the config does not allow.
        InputError, UnsupportedArchitectureError: as `head_tensor_names`.

    References:
        GPT-NeoX stores the fused projection as `[head, 3, d_head]`: Black et al. 2022,
        arXiv:2204.06745, and `GPTNeoXAttention` of transformers. Reading it as
        `[3, head, d_head]` mixes queries, keys and values of different heads.
    """
    row, sizes = layout(config), dimensions(config)
    names = head_tensor_names(config, layer, tensors.keys())
    shapes = attention_shapes(row, sizes)
    for role, name in names.items():
        check_shape(name, tensors[name], shapes[role], sizes=sizes)
    parts = _split({role: tensors[name] for role, name in names.items()}, row, sizes)
    return HeadWeights(
        **parts,
        qk_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        qkv_clip=None if config.get("clip_qkv") is None else float(config["clip_qkv"]),
        rotary=rotary(config, layer=layer),
        model=model,
        step=step,
        layer=layer,
    )


def _names_inside_module(row: Layout, config: Mapping[str, Any]) -> dict[str, str]:
    follow = bool(config.get("attention_bias", row.attention_bias))
    has_bias = {"always": True, "never": False, "config": follow}
    inside = {}
    for role, name in row.names.items():
        inside[role] = f"{name}.weight"
        if has_bias[row.o_bias if role == "o" else row.qkv_bias]:
            inside[f"{role}_bias"] = f"{name}.bias"
    if row.qk_norm is not None:
        inside |= {role: f"{role}.weight" for role in ("q_norm", "k_norm")}
    return inside


def attention_shapes(row: Layout, sizes: Dimensions) -> dict[str, tuple[int, ...]]:
    """Role of a stored attention tensor to its shape in the file."""
    width, kv_width = sizes.n_heads * sizes.d_head, sizes.n_kv_heads * sizes.d_head
    out_in = {
        "qkv": (3 * width, sizes.d_model),
        "q": (width, sizes.d_model),
        "k": (kv_width, sizes.d_model),
        "v": (kv_width, sizes.d_model),
        "o": (sizes.d_model, width),
    }
    biases = {f"{role}_bias": shape[:1] for role, shape in out_in.items()}
    whole = row.qk_norm == "projection"
    gains = {
        "q_norm": (width if whole else sizes.d_head,),
        "k_norm": (kv_width if whole else sizes.d_head,),
    }
    stored = {k: v[::-1] for k, v in out_in.items()} if row.transposed else out_in
    return {**stored, **biases, **gains}


def _split(found: Mapping[str, Tensor], row: Layout, sizes: Dimensions) -> dict[str, Any]:
    """Cut the stored tensors into heads; every step is a view."""
    # From here every matrix is [out, in].
    stored = {k: v.T if row.transposed and v.ndim == 2 else v for k, v in found.items()}
    parts: dict[str, Any] = {}
    for end, kind in (("", "W"), ("_bias", "b")):
        for role, rows in rows_by_head(stored, end, row, sizes).items():
            parts[f"{kind}_{role.upper()}"] = rows.transpose(1, 2) if kind == "W" else rows
    parts["W_O"] = stored["o"].unflatten(1, (sizes.n_heads, sizes.d_head)).permute(1, 2, 0)
    parts["b_O"] = stored.get("o_bias")
    for role in ("q_norm", "k_norm"):
        gain = stored.get(role)
        if gain is not None and row.qk_norm == "projection":
            gain = gain.unflatten(0, (-1, sizes.d_head))
        parts[role] = gain
    return parts


def rows_by_head(
    stored: Mapping[str, Tensor], end: str, row: Layout, sizes: Dimensions
) -> dict[str, Tensor]:
    """Rows of q, k, v as `[head, d_head, ...]`; `end` is "" for matrices, "_bias" for biases."""
    heads, kv_heads, d_head = sizes.n_heads, sizes.n_kv_heads, sizes.d_head
    if (fused := stored.get(f"qkv{end}")) is not None:
        if row.fused == "head_major":
            q, k, v = fused.unflatten(0, (heads, 3, d_head)).unbind(1)
        else:
            q, k, v = fused.unflatten(0, (3, heads, d_head)).unbind(0)
        return {"q": q, "k": k, "v": v}
    counts = {"q": heads, "k": kv_heads, "v": kv_heads}
    return {
        role: stored[f"{role}{end}"].unflatten(0, (count, d_head))
        for role, count in counts.items()
        if f"{role}{end}" in stored
    }
