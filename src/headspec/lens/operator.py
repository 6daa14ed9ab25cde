"""The whole model as one linear operator of its embeddings, for given inputs."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.heads import check_layer
from headspec.lens.blocks import UnsupportedBlocks, read_parts
from headspec.lens.frozen_pass import forward_product, freeze
from headspec.lens.hooks import check_hooked, has_caller_hooks, run_logits, run_to_layer
from headspec.lens.operator_products import LinearOperator
from headspec.lens.processing import origin_of
from headspec.lens.token_ids import check_vocabulary

Target: TypeAlias = int | Literal["resid_post", "logits"]
"""A layer's `resid_post`, that of the last layer, or the logits."""

_TOLERANCE = 1e-3
_HALF_TOLERANCE = 0.1  # the model's own rounding, which a forgotten part exceeds


def linear_operator(
    model: Any, tokens: Int[Tensor, "row pos"], *, to: Target = "resid_post"
) -> LinearOperator:
    """Freeze one forward pass: from there on it is linear from the embeddings, plus a bias.

    For the given tokens every factor that depends on the input is kept as it is:

    - attention patterns (with QK-norm, rotary embedding and softmax inside them),
    - what norms multiply with, 1 / sqrt(mean square + eps); centring is linear and stays,
    - activations as ``act(z) = (act(z) / z) z``, the ratio frozen (at z = 0 its limit from the
      right), gated MLPs by ``act(gate)``; clipped values (OLMo) by the ratio.

    With x the embeddings (tokens plus learned positions), `row pos d_model`, the output is exactly

        out = A x + b,

    b what the biases of norms, projections and MLPs add through the frozen factors (0 for models
    without biases). A is kept as its factors: `apply` and `transpose_apply` are products with
    vectors, at about the cost of a forward pass each, `matrix` is for small models. Rows are
    independent inputs, each with an A of its own.

    Memory: the frozen factors take ``4 n (n_heads n + d_mlp + 2)`` bytes per layer and row of n
    tokens in float32 (`n_bytes`): GPT-2 small, 12 layers, 1,024 tokens: 755 MB; 128 tokens: 28 MB.
    The matrix would take ``4 (n d_model)^2``: 2.5 TB and 39 GB. Weights are the model's own where
    it is in float32: the operator holds for the model as it is, not after further training.

    Half-precision models are computed in float32, forward pass included, from their weights and
    embeddings as stored; the operator is that of this float32 model.

    **What it does not show.** It describes these tokens alone: other tokens have other patterns,
    scales and gates, so A says nothing of what the model would do with them. It is neither the
    Jacobian (which follows the patterns, scales and gates as they respond) nor a causal effect:
    when an embedding changes, attention to it changes, and here it cannot. Products of frozen
    factors also share the credit by convention: a gate that a token opened belongs to no one. Hold
    maps against interventions (`ablate_heads`, `patch_heads`) before reading them as mechanisms.

    Args:
        model: a HookedTransformer or TransformerBridge (GPT-2, GPT-NeoX, Llama, Mistral, Qwen2,
            Qwen3, OLMo, or a HookedTransformer of one's own config), without hooks of yours.
        tokens: token ids without padding.
        to: `"resid_post"`, the residual stream after the last layer (before the final norm); a
            layer index, the residual stream after that layer; or `"logits"`.

    Returns:
        A `LinearOperator` on the model's device, in float32 (float64 for float64 models).

    Raises:
        InputError: tokens of another shape, hooks on the model, a model whose layers cannot be
            taken apart, or one whose output is not rebuilt to 1e-3 (half precision: to 0.1).

    References:
        TensorLens: End-to-End Transformer Analysis via High-Order Attention Tensors, arXiv
        2601.17958.

    Example:
        >>> import torch, headspec as hs
        >>> model = hs.open_suite("micro-tiny").model(6144)
        >>> operator = hs.linear_operator(model, torch.tensor([[0, 70, 71, 72]]), to="logits")
        >>> rebuilt = operator.apply(operator.inputs) + operator.bias()
        >>> torch.allclose(rebuilt, operator.output, rtol=1e-4, atol=1e-4)
        True
    """
    _check(model, tokens, to)
    n_layers = to + 1 if isinstance(to, int) else model.cfg.n_layers
    try:
        parts = read_parts(model, tokens.shape[1])
        seen = _run(model, tokens, n_layers=n_layers, logits=to == "logits")
        dtype = torch.promote_types(seen["inputs"].dtype, torch.float32)
        inputs = seen["inputs"].to(dtype)
        frozen = freeze(parts, inputs, n_layers=n_layers, logits=to == "logits")
    except UnsupportedBlocks as error:
        raise InputError(
            expected="a model whose layers can be taken apart",
            got=error.reason,
            fix="Use a plain causal model of one of the architectures in the docstring.",
        ) from error
    with torch.no_grad():
        output = forward_product(frozen, inputs[None], bias=True)[0]
    origin = origin_of(model)
    return LinearOperator(
        frozen=frozen,
        inputs=inputs,
        output=output,
        tokens=tokens.to(inputs.device),
        to=str(to),
        n_heads=model.cfg.n_heads,
        rebuild_error=_rebuild_error(output, seen["output"]),
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
    )


def _check(model: Any, tokens: Tensor, to: Target) -> None:
    check_hooked(model)
    if tokens.ndim != 2 or not tokens.numel():
        raise InputError(
            expected="tokens shaped row, pos, with at least one of each",
            got=f"shape {tuple(tokens.shape)}",
            fix="Give one input as tokens[None].",
        )
    check_vocabulary(tokens, model)
    if isinstance(to, int):
        check_layer(to, n_layers=model.cfg.n_layers)
    else:
        check_choice("to", to, ("resid_post", "logits"))
    if has_caller_hooks(model):
        raise InputError(
            expected="a model without hooks of yours",
            got="hooks on it",
            fix="Call model.reset_hooks(): the operator is read off the weights and would "
            "leave out what hooks change.",
        )


def _run(model: Any, tokens: Tensor, *, n_layers: int, logits: bool) -> dict[str, Tensor]:
    """The model's own embeddings and output."""
    seen: dict[str, Tensor] = {}

    def keeping(name: str):
        def keep(activation: Tensor) -> None:
            seen[name] = activation.detach()

        return keep

    tokens = tokens.to(next(model.parameters()).device)
    functions = {"blocks.0.hook_resid_pre": keeping("inputs")}
    with torch.no_grad():
        if logits:
            seen["output"] = run_logits(model, tokens, functions).detach()
        else:
            functions[f"blocks.{n_layers - 1}.hook_resid_post"] = keeping("output")
            run_to_layer(model, tokens, functions, layer=n_layers)
    return seen


def _rebuild_error(output: Tensor, expected: Tensor) -> float:
    """Largest difference from the model's own output, relative to its largest entry."""
    difference = (output - expected.to(output.dtype)).abs().max()
    error = float(difference / expected.abs().max())
    tolerance = _TOLERANCE if expected.dtype == output.dtype else _HALF_TOLERANCE
    if not error <= tolerance:
        raise InputError(
            expected=f"weights that rebuild the model's output to {tolerance:g}",
            got=f"a relative error of {error:.2g}",
            fix="The model computes something that headspec does not read off its weights; "
            "modules of your own in it are not supported.",
        )
    return error
