"""A model whose every number can be worked out by hand, beside the same sums in plain Python.

GPT-NeoX with two layers of two heads and eight features, each stored as a pair (f, -f) of the
residual stream. The mean of the stream is then 0, and with a large epsilon and a gain of its root
layer norm divides by nothing that depends on the input: it is the identity. The logits of a
position are its features. Token t brings feature 0 ("number") = t and feature 1 ("odd") = t % 2.

| head | attends | reads | writes to feature |
|---|---|---|---|
| L0H0 | evenly | number | 2 |
| L0H1 | twice as much to odd tokens | number | 3 |
| L1H0 | evenly | feature 2 (and 6) | 4 |
| L1H1 | 2 ** feature 2 of the key | number | 5 |

The MLP of layer 0 (sequential blocks) or layer 1 (parallel blocks) writes 2 * max(feature 2, 0)
to feature 6; the other one writes nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

N_FEATURES = 8
NUMBER, ODD, L0H0, L0H1, L1H0, L1H1, MLP = range(7)
D_HEAD = 8
EPSILON = 1e8


def micro_hf_model(*, parallel: bool = True) -> Any:
    """The Hugging Face model; `wrap_model(micro_hf_model(), None)` makes it a hooked one."""
    config = GPTNeoXConfig(
        hidden_size=2 * N_FEATURES,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=24,
        vocab_size=N_FEATURES,
        max_position_embeddings=16,
        rotary_pct=0.25,  # rotates the first 2 of 8 dimensions, which queries and keys leave 0
        hidden_act="relu",
        layer_norm_eps=EPSILON,
        use_parallel_residual=parallel,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPTNeoXForCausalLM._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm_gain = "norm" in name and name.endswith("weight")
            parameter.fill_(math.sqrt(EPSILON) if norm_gain else 0.0)
        base = model.gpt_neox
        for token in range(N_FEATURES):
            base.embed_in.weight[token] += token * _write(NUMBER) + token % 2 * _write(ODD)
            model.get_output_embeddings().weight[token] = _read(token)
        first, second = base.layers
        _set_head(first, 0, reads=[NUMBER], writes=L0H0)
        _set_head(first, 1, reads=[NUMBER], writes=L0H1, key=ODD)
        _set_head(second, 0, reads=[L0H0, MLP], writes=L1H0)
        _set_head(second, 1, reads=[NUMBER], writes=L1H1, key=L0H0)
        mlp = (second if parallel else first).mlp
        mlp.dense_h_to_4h.weight[0] = _read(L0H0)
        mlp.dense_4h_to_h.weight[:, 0] = 2 * _write(MLP)
    return model


def micro_features(
    tokens: list[int], *, parallel: bool = True, written: dict[str, list[float]] | None = None
) -> list[list[float]]:
    """Features (= logits) of each position, by plain sums.

    Args:
        tokens: one prompt, ids 0 to 7.
        parallel: as in `micro_hf_model`.
        written: replaces what a head (`"L0H1"`) or the MLP (`"MLP"`) writes, at every position;
            None in the list leaves a position as it is.
    """
    written = written or {}

    def replaced(name: str, values: list[float]) -> list[float]:
        new = written.get(name, [None] * len(values))
        return [old if value is None else value for old, value in zip(values, new, strict=True)]

    def attend(weights: list[float], values: list[float]) -> list[float]:
        sums = range(1, len(values) + 1)
        return [
            sum(w * v for w, v in zip(weights[:n], values[:n], strict=True)) / sum(weights[:n])
            for n in sums
        ]

    even = [1.0] * len(tokens)
    number = [float(token) for token in tokens]
    odd = [float(token % 2) for token in tokens]
    first = replaced("L0H0", attend(even, number))
    second = replaced("L0H1", attend([2.0**one for one in odd], number))
    mlp = replaced("MLP", [2 * max(one, 0.0) for one in first])
    read = first if parallel else [a + b for a, b in zip(first, mlp, strict=True)]
    third = replaced("L1H0", attend(even, read))
    fourth = replaced("L1H1", attend([2.0**one for one in first], number))
    nothing = [0.0] * len(tokens)
    columns = (number, odd, first, second, third, fourth, mlp, nothing)
    return [list(row) for row in zip(*columns, strict=True)]


def micro_logits(tokens: torch.Tensor, **arguments: Any) -> torch.Tensor:
    """`micro_features` of each row of tokens, as the logits `batch pos d_vocab`."""
    return torch.tensor([micro_features(row, **arguments) for row in tokens.tolist()])


def _write(feature: int) -> torch.Tensor:
    direction = torch.zeros(2 * N_FEATURES)
    direction[2 * feature], direction[2 * feature + 1] = 1.0, -1.0
    return direction


def _read(feature: int) -> torch.Tensor:
    return _write(feature) / 2


def _set_head(layer: Any, head: int, *, reads: list[int], writes: int, key: int | None = None):
    fused = layer.attention.query_key_value
    start = head * 3 * D_HEAD
    if key is not None:  # score = ln 2 * the key's feature, in a dimension without rotation
        fused.bias[start + 2] = math.log(2) * math.sqrt(D_HEAD)
        fused.weight[start + D_HEAD + 2] = _read(key)
    fused.weight[start + 2 * D_HEAD] = sum(_read(feature) for feature in reads)
    layer.attention.dense.weight[:, head * D_HEAD] = _write(writes)
