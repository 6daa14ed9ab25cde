"""Heads of several layers in pairs, upstream before downstream, and the factors they meet in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from headspec.errors import InputError
from headspec.head_tensors import HeadWeights
from headspec.heads import Head, layer_heads
from headspec.weights import circuit_factors
from headspec.weights.circuit_factors import ov_factors, qk_factors

CompositionKind = Literal["q", "k", "v"]


def as_layers(weights: HeadWeights | Sequence[HeadWeights]) -> list[HeadWeights]:
    """One layer or several of a checkpoint, with keys and values for every query head.

    Raises:
        InputError: no layer, layers of different shapes, a layer twice, or several steps.
    """
    layers = circuit_factors.as_layers(weights)
    places = [w.layer for w in layers]
    if len(set(places)) < len(places) or len({(w.model, w.step) for w in layers}) > 1:
        raise InputError(
            expected="layers of one checkpoint, once each",
            got=f"layers {places} of steps {[w.step for w in layers]}",
            fix="Call it for each step; say where hand-made weights stand with "
            "HeadWeights(layer=...).",
        )
    return [layer.expand_kv() for layer in layers]


def heads_of(layers: Sequence[HeadWeights]) -> tuple[Head, ...]:
    """Every head of the layers, in order."""
    return tuple(head for w in layers for head in layer_heads(w.layer, n_heads=w.n_heads))


def earlier_pairs(
    upstream: Sequence[HeadWeights], downstream: Sequence[HeadWeights]
) -> Bool[np.ndarray, "upstream_layer downstream_layer"]:
    """Which pairs of layers are in order: the first strictly before the second.

    Heads of one layer read the same stream, in parallel-attention models too: they do not compose.

    Raises:
        InputError: layers of different width, of two checkpoints, or not one pair in order.
    """
    check_stream(upstream, downstream)
    (model, step), (other, later) = ((w[0].model, w[0].step) for w in (upstream, downstream))
    if (model, step) != (other, later):
        raise InputError(
            expected="upstream and downstream heads of one checkpoint",
            got=f"step {step} of {model!r} and step {later} of {other!r}",
            fix="Heads of two checkpoints do not compose; call it for each step.",
        )
    first, second = ([w.layer for w in layers] for layers in (upstream, downstream))
    earlier = np.less.outer(first, second)
    if not earlier.any():
        raise InputError(
            expected="an upstream layer before a downstream layer",
            got=f"upstream layers {first}, downstream layers {second}",
            fix="Say where hand-made weights stand with HeadWeights(layer=...).",
        )
    return earlier


def check_stream(upstream: Sequence[HeadWeights], downstream: Sequence[HeadWeights]) -> None:
    """Raise `InputError` unless all heads share the width of one residual stream."""
    if upstream[0].d_model != downstream[0].d_model:
        raise InputError(
            expected="upstream and downstream heads of one residual stream",
            got=f"d_model {upstream[0].d_model} and {downstream[0].d_model}",
            fix="Give the HeadWeights of one model.",
        )


def reading_factors(
    weights: HeadWeights,
    kind: CompositionKind,
    *,
    offset: int = 0,
    frequencies: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Factors (A, B) of the downstream matrix A B^T that reads the stream through A, in float64.

    `"q"`: A = W_Q, B = W_K; `"k"`: the other way round; `"v"`: A = W_V, B^T = W_O. See
    `circuit_factors` for gains and rotary turns.
    """
    if kind == "v":
        return ov_factors(weights, dtype=torch.float64)
    query, key = qk_factors(weights, offset=offset, frequencies=frequencies, dtype=torch.float64)
    return (query, key) if kind == "q" else (key, query)


def as_double(weights: HeadWeights, name: str) -> Tensor:
    """One matrix of all heads in float64.

    Raises:
        InputError: NaN or infinity, with the heads that hold them.
    """
    matrix = getattr(weights, name).detach().double()
    bad = ~torch.isfinite(matrix).flatten(1).all(1)
    if bad.any():
        raise InputError(
            expected=f"finite weights {name}",
            got=f"NaN or infinity in heads {torch.nonzero(bad).flatten().tolist()} of layer "
            f"{weights.layer}",
            fix="Check the checkpoint (`suite.verify()` names damaged ones).",
        )
    return matrix


def shared(layers: Sequence[HeadWeights], name: str) -> object:
    """A field that all layers share (`model`, `step`); None where they differ."""
    values = {getattr(w, name) for w in layers}
    return values.pop() if len(values) == 1 else None


def processing_of(layers: Sequence[HeadWeights]) -> str:
    """The processing of all layers."""
    return ",".join(dict.fromkeys(w.processing for w in layers))
