"""From named checkpoint tensors to a layer's matrices and the embeddings, by role."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from headspec.errors import UnsupportedArchitectureError
from headspec.layouts.configs import architecture, dimensions, layout
from headspec.layouts.finding import (
    check_layer,
    check_present,
    check_shape,
    find_tensor,
    model_prefix,
)
from headspec.layouts.reading import attention_shapes, rows_by_head

MATRICES = ("q", "k", "v", "o", "mlp_in", "mlp_gate", "mlp_out")
"""Roles of a layer's matrices, in this order; `"mlp_gate"` only where the MLP is gated."""

EMBEDDINGS = ("embed", "unembed", "pos_embed", "token_type_embed")
"""Roles of the tables outside of layers; the last two only where there are such tables."""


def layer_matrix_names(
    config: Mapping[str, Any], layer: int, available: Collection[str]
) -> dict[str, str]:
    """Names of the checkpoint tensors that hold one layer's matrices.

    Args:
        config: the parsed config.json.
        layer: layer index from 0.
        available: every tensor name of the checkpoint.

    Returns:
        Role to name: `"qkv"` or `"q" "k" "v"`, then `"o"`, `"mlp_in"`, `"mlp_gate"` where the MLP
        is gated, `"mlp_out"`. No biases, no norms.

    Raises:
        InputError: the layer does not exist.
        CheckpointError: a tensor is missing, or two modules of the checkpoint fit.
        UnsupportedArchitectureError: no layout is known, or its row of `LAYOUTS` has no MLP.

    Example:
        >>> config = {"model_type": "gpt_neox", "hidden_size": 8, "num_attention_heads": 2,
        ...           "num_hidden_layers": 1}
        >>> names = ["layers.0.attention.query_key_value.weight", "layers.0.attention.dense.weight",
        ...          "layers.0.mlp.dense_h_to_4h.weight", "layers.0.mlp.dense_4h_to_h.weight"]
        >>> list(layer_matrix_names(config, 0, names))
        ['qkv', 'o', 'mlp_in', 'mlp_out']
    """
    row = layout(config)
    check_layer(config, layer)
    if not row.mlp:
        raise _without(config, 'mlp={"mlp_in": ..., "mlp_out": ...}', "MLP")
    prefix = model_prefix(row, layer, available)
    module = row.module.format(layer=layer)
    names = {role: f"{prefix}{module}.{name}.weight" for role, name in row.names.items()}
    inside = {role: row.mlp[role] for role in MATRICES if role in row.mlp}
    names |= {role: f"{prefix}{name.format(layer=layer)}.weight" for role, name in inside.items()}
    check_present(names.values(), available)
    return names


def layer_matrices_from_tensors(
    config: Mapping[str, Any], layer: int, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The matrices of one layer, each `[d_in d_out]` (x @ W), as stored: no processing.

    Q, K and V are cut out of a fused matrix, heads in order: columns `h * d_head` to
    `(h + 1) * d_head` of `"q"` are query head h. Views where the storage allows it; Q, K and V of
    GPT-NeoX, whose rows interleave by head, are copies.

    Args:
        config: the parsed config.json.
        layer: layer index from 0.
        tensors: name to tensor; at least those `layer_matrix_names` lists. More do not harm.

    Returns:
        Role (of `MATRICES`, in this order) to matrix: `"q" [d_model head*d_head]`, `"k" "v"
        [d_model kv_head*d_head]`, `"o" [head*d_head d_model]`, `"mlp_in" "mlp_gate"
        [d_model d_mlp]`, `"mlp_out" [d_mlp d_model]`.

    Raises:
        CheckpointError: a tensor is missing or has a shape the config does not allow.
        InputError, UnsupportedArchitectureError: as `layer_matrix_names`.

    **What it does not show.** Norm gains and biases are not in it; under layer-norm folding the
    matrices that read the residual stream would be others.
    """
    row, sizes = layout(config), dimensions(config)
    names = layer_matrix_names(config, layer, tensors.keys())
    found = {role: tensors[name] for role, name in names.items()}
    shapes = {**attention_shapes(row, sizes), **_mlp_shapes(config, found, row.transposed)}
    for role, name in names.items():
        check_shape(name, found[role], shapes[role], sizes=sizes)
    # From here every matrix is [out, in].
    stored = {role: tensor.T if row.transposed else tensor for role, tensor in found.items()}
    heads = rows_by_head(stored, "", row, sizes)
    stored |= {role: rows.flatten(0, 1) for role, rows in heads.items()}
    return {role: stored[role].T for role in MATRICES if role in stored}


def embedding_names(config: Mapping[str, Any], available: Collection[str]) -> dict[str, str]:
    """Names of the checkpoint tensors that hold the embeddings.

    Args:
        config: the parsed config.json.
        available: every tensor name of the checkpoint.

    Returns:
        Role (of `EMBEDDINGS`) to name. A tied unembedding has the embedding's name. Without
        `"unembed"` for a base model (`GPTNeoXModel`, names without `"gpt_neox."`) that has none.

    Raises:
        CheckpointError: a tensor is missing, or several fit.
        UnsupportedArchitectureError: no layout is known, or its row of `LAYOUTS` has no
            embeddings.

    Example:
        >>> config = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1}
        >>> embedding_names(config, ["wte.weight", "wpe.weight"])
        {'embed': 'wte.weight', 'unembed': 'wte.weight', 'pos_embed': 'wpe.weight'}
    """
    row = layout(config)
    if not row.embeddings:
        raise _without(config, 'embeddings={"embed": ..., "unembed": ...}', "embeddings")
    tied = config.get("tie_word_embeddings")
    tied = row.tied if tied is None else bool(tied)
    endings = {role: row.embeddings[role] for role in EMBEDDINGS if role in row.embeddings}
    if tied:
        endings["unembed"] = endings["embed"]
    names = {}
    for role, spellings in endings.items():
        spellings = (spellings,) if isinstance(spellings, str) else spellings
        first, *others = (f"{name}.weight" for name in spellings)
        headless = role == "unembed" and names["embed"] == f"{endings['embed']}.weight"
        if headless and not any(name in available for name in (first, *others)):
            continue
        names[role] = find_tensor(first, available, *others)
    return names


def embedding_matrices_from_tensors(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The embeddings, as stored: no processing, nothing copied.

    Args:
        config: the parsed config.json.
        tensors: name to tensor; at least those `embedding_names` lists. More do not harm.

    Returns:
        `"embed" [d_vocab d_model]`, `"unembed" [d_model d_vocab]` (where it is tied: the
        embedding, transposed; a base model without a head has none), and where there are such
        tables `"pos_embed" [n_positions d_model]` and `"token_type_embed" [n_types d_model]`.

    Raises:
        CheckpointError: a tensor is missing or has a shape the config does not allow.
        UnsupportedArchitectureError: as `embedding_names`.
    """
    sizes = dimensions(config)
    names = embedding_names(config, tensors.keys())
    found = {role: tensors[name] for role, name in names.items()}
    d_vocab = config.get("vocab_size", found["embed"].shape[0])
    for role, name in names.items():
        rows = d_vocab if role in ("embed", "unembed") else found[role].shape[0]
        check_shape(name, found[role], (rows, sizes.d_model), sizes=sizes)
    return {role: table.T if role == "unembed" else table for role, table in found.items()}


def _mlp_shapes(
    config: Mapping[str, Any], found: Mapping[str, Tensor], transposed: bool
) -> dict[str, tuple[int, ...]]:
    """Role to stored shape; d_mlp is what `mlp_in` has where the config does not say."""
    d_model = dimensions(config).d_model
    d_mlp = config.get("intermediate_size") or config.get("n_inner")
    if d_mlp is None:
        d_mlp = found["mlp_in"].shape[1 if transposed else 0]
    out_in = {"mlp_in": (d_mlp, d_model), "mlp_gate": (d_mlp, d_model), "mlp_out": (d_model, d_mlp)}
    return {role: shape[::-1] if transposed else shape for role, shape in out_in.items()}


def _without(config: Mapping[str, Any], argument: str, what: str) -> UnsupportedArchitectureError:
    name = architecture(config)
    return UnsupportedArchitectureError(
        expected=f"a row of LAYOUTS that says where the {what} of {name!r} lie",
        got="one that describes attention only",
        fix=f"Add {argument} to LAYOUTS[{name!r}], or read tensors by name: "
        "suite.matrices(step, pattern).",
    )
