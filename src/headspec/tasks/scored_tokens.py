"""Log-probabilities of every token of rows of unequal length, in batches that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from headspec.errors import InputError
from headspec.lens.hooks import run_logits

_ROUNDING = 4 * 2.0**-23  # of a float32 sum, relative to its size


@torch.no_grad()
def token_log_probs(
    model: Any, rows: Sequence[Sequence[int]], *, memory_budget: int = 2**28
) -> list[Float[np.ndarray, " pos_1"]]:
    """log p(token | the tokens before it), in nats, of each token of each row but the first.

    Rows are sorted by length and padded on the right, behind everything that is read, so padding
    changes no number. Logits are taken in float32 whatever the model computes in.

    Args:
        model: a hooked model of either class, causal.
        rows: token ids, two or more a row, at most `n_ctx`.
        memory_budget: bytes for the logits of a batch and their normalisation.

    Raises:
        InputError: a row that is too short or too long, or a model that looks ahead.
    """
    _check(model, rows)
    found: list[np.ndarray] = [np.empty(0)] * len(rows)
    device = model.cfg.device
    for batch in _batches(rows, memory_budget // (8 * model.cfg.d_vocab)):
        width = max(len(rows[i]) for i in batch)
        tokens = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for at, i in enumerate(batch):
            tokens[at, : len(rows[i])] = torch.as_tensor(np.asarray(rows[i], dtype=np.int64))
            mask[at, : len(rows[i])] = 1
        tokens = tokens.to(device)
        logits = run_logits(model, tokens, attention_mask=mask.to(device))[:, :-1].float()
        chosen = logits.gather(-1, tokens[:, 1:, None])[..., 0] - logits.logsumexp(-1)
        for at, (i, values) in enumerate(zip(batch, chosen.double().cpu().numpy(), strict=True)):
            found[batch[at]] = values[: len(rows[i]) - 1].copy()
    return found


def start_token(tokenizer: Any) -> int:
    """What a text is conditioned on, so that its first token counts: begin or end of text.

    Raises:
        InputError: no tokenizer, or one that has neither.
    """
    for name in ("bos_token_id", "eos_token_id"):
        if (token := getattr(tokenizer, name, None)) is not None:
            return token
    raise InputError(
        expected="a tokenizer with a beginning- or end-of-text token",
        got="none" if tokenizer is None else "neither",
        fix="Give rows of token ids.",
    )


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, each behind the start token, without further special tokens."""
    start = start_token(tokenizer)
    return [
        [start, *ids]
        for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    ]


def mean_and_error(values: Float[np.ndarray, " example"]) -> tuple[float, float]:
    """Mean and its standard error over examples; the error of a single one is NaN."""
    n = len(values)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan


def without_rounding(
    difference: Float[np.ndarray, " example"], size: Float[np.ndarray, " example"]
) -> Float[np.ndarray, " example"]:
    """Differences of float32 sums as large as `size`; 0 where rounding alone can make them."""
    return np.where(np.abs(difference) <= _ROUNDING * np.abs(size), 0.0, difference)


def _check(model: Any, rows: Sequence[Sequence[int]]) -> None:
    lengths = [len(row) for row in rows]
    if not rows or min(lengths) < 2 or max(lengths) > model.cfg.n_ctx:
        raise InputError(
            expected=f"rows of 2 to {model.cfg.n_ctx} tokens, what the model's context holds",
            got=f"{min(lengths)} to {max(lengths)}" if rows else "no row",
            fix="Leave empty texts out; `perplexity` cuts long ones into windows.",
        )
    wrapped = type(getattr(model, "original_model", None)).__name__
    both_ways = getattr(model.cfg, "attention_dir", "causal") != "causal"
    if both_ways or wrapped.endswith("ForMaskedLM"):  # transformer-lens 3.9 calls BERT causal
        raise InputError(
            expected="a causal model, which predicts each token from those before it",
            got="a bidirectional one",
            fix="Masked models need another score.",
        )


def _batches(rows: Sequence[Sequence[int]], most_tokens: int) -> Iterator[list[int]]:
    """Indices of rows, longest first, so many that padded rows hold `most_tokens` or one row."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    while order:
        size = max(1, most_tokens // len(rows[order[0]]))
        yield order[:size]
        order = order[size:]
