"""`attention_statistics`: what every head's attention is like, streamed over batches and layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from headspec.activations.attention_blocks import AttendedQueries
from headspec.activations.attention_reference import AttentionBaselines, attention_baselines
from headspec.activations.attention_totals import AttentionTotals
from headspec.errors import InputError, check_choice
from headspec.lens.block_parts import UnsupportedBlocks
from headspec.lens.hooks import evaluating
from headspec.lens.observe_result import AttentionStatistics
from headspec.lens.observe_sources import (
    open_checked,
    run_blocks,
    run_module,
    run_module_patterns,
    run_patterns,
)
from headspec.lens.processing import Origin, origin_of
from headspec.lens.token_ids import check_vocabulary, whole_numbers

Method = Literal["auto", "patterns", "blockwise"]
_TOKENS = 8192  # of one batch, unless one sequence has more


def attention_statistics(
    model: Any,
    tokens: Integer[Tensor, "batch pos"] | Integer[np.ndarray, "batch pos"],
    *,
    labels: Integer[Tensor, "*labelled"] | Integer[np.ndarray, "*labelled"] | None = None,
    attention_mask: Integer[Tensor, "*masked"] | Integer[np.ndarray, "*masked"] | None = None,
    method: Literal["auto", "patterns", "blockwise"] = "auto",
    causal: bool = True,
    window: int = 32,
    n_exchanged: int = 19,
    batch_size: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> AttentionStatistics:
    """Entropy, reach, sink and topics of every head's attention, with errors and baselines.

    Sequences are run in batches, and each batch layer by layer with attention by blocks of
    queries (`attend_in_blocks`): H = ln Z - E[score]. No pattern is ever held, so memory does not
    grow with the number of layers nor with the square of the length: 16,384 tokens fit on a CPU.
    Every figure is summed in float64. **What is compared with what:**

    - *uniform* causal attention on the same labels (`null_mean`): the ceiling of entropy, and the
      within-topic mass that takes no knowledge at all;
    - attention to the last `window` tokens and to the first: local and resting heads;
    - *exchanged labels*: the same attention read with the labels of another sequence, which have
      the same statistics and nothing to do with its text. It gives each head its own reach, so that
      `topic_excess`, the difference, is what the head's attention has to do with topics. Its p is
      (1 + #{exchanges as high}) / (1 + n_exchanged).

    Errors are over sequences: tokens of one are not independent.

    Args:
        model: a HookedTransformer, a TransformerBridge, or a Hugging Face model. Left as it is.
        tokens: token ids, one row a sequence.
        labels: topic of each token, shaped as the tokens; negative: none (special tokens). Queries
            without a topic are left out of the metrics of topics, and mass on keys without one is
            neither within nor across.
        attention_mask: 1 for tokens, 0 for padding, which must be on the right: causal attention
            never looks there, and queries there do not count.
        method: `"blockwise"`, `"patterns"` (the model's own patterns, whole), or `"auto"`:
            blockwise where the model's layers can be taken apart and give what the model gives (a
            short prompt is compared first), else patterns; the result says which and why.
        causal: False for masked language models, from patterns.
        window: tokens of the windowed baseline.
        n_exchanged: other sequences whose labels each sequence is read with; 0: none. Each costs
            what one value dimension a topic costs.
        batch_size: sequences in one pass; None: about 8,192 tokens.
        level: of the intervals.
        seed: of the choice of other sequences.

    Returns:
        `AttentionStatistics`. Half-precision models are computed in float32 from queries and keys
        on, which is closer to the truth than their own patterns.

    What it does not show: what a head does with what it reads. And labels must be independent
    between sequences: with labels that are alike in all of them, exchanging changes nothing.

    Raises:
        InputError: shapes that differ, tokens of another vocabulary, padding on the left, a model
            that `method="blockwise"` cannot run, attention that is not causal.

    References:
        Entropy by log-sum-exp: the running normalisation of Milakov and Gimelshein, "Online
        normalizer calculation for softmax", 2018. Sinks: Xiao et al. 2024.

    Example:
        >>> import torch, headspec as hs
        >>> model = hs.open_suite("micro-tiny").model(6144)
        >>> tokens = torch.randint(0, 256, (4, 32), generator=torch.Generator().manual_seed(0))
        >>> found = hs.attention_statistics(model, tokens)
        >>> found.method, bool((found.entropy < found.ceiling).all())
        ('blockwise', True)
    """
    check_choice("method", method, get_args(Method))
    ids = whole_numbers(tokens)
    topics = None if labels is None else whole_numbers(labels)
    mask = None if attention_mask is None else whole_numbers(attention_mask)
    counted = _counted(ids, topics, mask)
    _check_numbers(level=level, n_exchanged=n_exchanged, batch_size=batch_size)
    if not causal and (method == "blockwise" or not counted.all()):
        raise InputError(
            expected="causal=True for method='blockwise' and for padding",
            got=f"causal=False, method={method!r}, {int((~counted).sum())} positions of padding",
            fix="Use method='patterns' and sequences of equal length.",
        )
    hooked = hasattr(model, "cfg") and hasattr(model, "blocks")
    if not hooked and not hasattr(getattr(model, "config", None), "num_hidden_layers"):
        raise InputError(
            expected="a HookedTransformer, a TransformerBridge or a Hugging Face language model",
            got=f"a {type(model).__name__}",
            fix="Load one by headspec.load_model, or a step of a suite by suite.model(step).",
        )
    check_vocabulary(ids, model)
    new_totals = partial(
        AttentionTotals,
        counted,
        topics,
        n_layers=model.cfg.n_layers if hooked else model.config.num_hidden_layers,
        n_heads=model.cfg.n_heads if hooked else model.config.num_attention_heads,
        n_exchanged=n_exchanged,
        causal=causal,
        seed=seed,
    )
    size = batch_size or max(1, _TOKENS // ids.shape[1])
    totals, used, reason = _observe(
        model, ids, new_totals, size=size, method=method, hooked=hooked, causal=causal
    )
    origin = origin_of(model) if hooked else Origin(model=model.config.name_or_path)
    return _result(
        totals,
        attention_baselines(
            ids.shape[1] if topics is None else topics,
            window=window,
            causal=causal,
            counted=counted,
        ),
        level=level,
        method=used,
        reason=reason,
        seed=seed,
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
    )


def _observe(
    model: Any,
    ids: Tensor,
    new_totals: Callable[[], AttentionTotals],
    *,
    size: int,
    method: str,
    hooked: bool,
    causal: bool,
) -> tuple[AttentionTotals, str, str]:
    """Sums over all batches, how they were got, and why not blockwise."""
    reason = "" if causal else "its attention is not causal"
    if method != "patterns" and causal:
        try:
            with evaluating(model):
                if hooked:
                    blocks = open_checked(model, ids[:1].to(_device(model)))
                    run = partial(run_blocks, model, blocks)
                else:
                    run = partial(run_module, model)
                return _stream(run, model, ids, new_totals(), size), "blockwise", ""
        except UnsupportedBlocks as error:
            reason = error.reason
            if method == "blockwise":
                raise InputError(
                    expected="a model whose attention can be run by blocks",
                    got=f"a model that cannot: {reason}",
                    fix="Use method='patterns', which runs the model's own attention.",
                ) from error
    run = partial(run_patterns if hooked else run_module_patterns, model, causal=causal)
    return _stream(run, model, ids, new_totals(), size), "patterns", reason


def _stream(
    run: Callable[..., None], model: Any, ids: Tensor, totals: AttentionTotals, size: int
) -> AttentionTotals:
    device = _device(model)
    for start in range(0, len(ids), size):
        rows = slice(start, start + size)
        columns = totals.columns(rows)
        columns = None if columns is None else columns.to(device)
        run(ids[rows].to(device), columns, partial(_take, totals, rows))
    return totals


def _take(totals: AttentionTotals, rows: slice, layer: int, figures: AttendedQueries) -> None:
    totals.add(layer, rows, figures)


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device


def _result(
    totals: AttentionTotals, baselines: AttentionBaselines, *, level: float, **more: Any
) -> AttentionStatistics:
    found = totals.estimates(level)
    by_query = totals.query_means()
    highest = baselines.by_query["entropy"][0] + 1e-3
    if (np.nan_to_num(by_query["entropy"]) > np.nan_to_num(highest, nan=np.inf)).any():
        raise InputError(
            expected="entropies below those of uniform attention",
            got=f"up to {np.nanmax(by_query['entropy']):.4g} nats at {baselines.n_pos} tokens",
            fix="The attention is not causal; for masked language models pass causal=False.",
        )
    draws = totals.exchanged()
    null_sd = p_values = np.full(found["entropy"].value.shape, np.nan)
    if draws:
        null, own = draws["within_topic_mass"], found["within_topic_mass"].value
        null_sd = null.std(0, ddof=1) if len(null) > 1 else null_sd
        p_values = (1 + (null >= own - 1e-12).sum(0)) / (1 + len(null))
    return AttentionStatistics(
        means={name: each.value for name, each in found.items()},
        se={name: each.se for name, each in found.items()},
        low={name: each.low for name, each in found.items()},
        high={name: each.high for name, each in found.items()},
        by_query=by_query,
        by_topic=totals.topic_means(),
        exchanged={name: values.mean(0) for name, values in draws.items()},
        excess_null_sd=null_sd,
        excess_p=p_values,
        baselines=baselines,
        n=len(totals.counted),
        level=level,
        **more,
    )


def _counted(ids: Tensor, topics: Tensor | None, attention_mask: Tensor | None) -> Tensor:
    """Positions that are no padding."""
    given = {"labels": topics, "attention_mask": attention_mask}
    odd = [name for name, each in given.items() if each is not None and each.shape != ids.shape]
    if odd or ids.ndim != 2 or not ids.numel():
        raise InputError(
            expected="tokens, one row a sequence, and labels and mask of the same shape",
            got=f"tokens {list(ids.shape)}"
            + "".join(f", {name} {list(given[name].shape)}" for name in odd),  # type: ignore[union-attr]
            fix="Give one sequence as tokens[None], and every token a label; negative for none.",
        )
    if attention_mask is None:
        return torch.ones(ids.shape, dtype=torch.bool)
    counted = attention_mask.bool()
    if (counted[:, 1:] & ~counted[:, :-1]).any() or not counted[:, 0].all():
        raise InputError(
            expected="padding on the right",
            got="an attention mask with padding before tokens, or a row without tokens",
            fix="Set tokenizer.padding_side = 'right': positions then count from the first token.",
        )
    return counted


def _check_numbers(*, level: float, n_exchanged: int, batch_size: int | None) -> None:
    if not 0 < level < 1 or n_exchanged < 0 or (batch_size is not None and batch_size < 1):
        raise InputError(
            expected="a level between 0 and 1, n_exchanged from 0 up, batch_size from 1 up",
            got=f"level={level}, n_exchanged={n_exchanged}, batch_size={batch_size}",
            fix="Use level=0.95; leave batch_size out for about 8,192 tokens a batch.",
        )
