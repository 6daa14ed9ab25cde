"""Perplexity: how well a model predicts texts, by token, byte and character."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Integer

from headspec.errors import InputError
from headspec.lens.processing import origin_of
from headspec.results.capability_rows import capability_rows
from headspec.tasks.scored_tokens import encode_texts, token_log_probs

Texts: TypeAlias = str | Sequence[str] | Integer[np.ndarray, "row pos"]
"""A text, several, or rows of token ids."""


@dataclass(frozen=True, eq=False)
class TextLosses:
    """Losses of documents, summed, and the means over tokens, bytes and characters.

    Attributes:
        name: of the collection.
        nats: sum of -log p over the scored tokens, nats, of each document.
        n_tokens: scored tokens of each document.
        n_bytes, n_chars: of each document in UTF-8; 0 for documents given as token ids.
        d_vocab: size of the vocabulary.
        window, stride: as used.
        model, step, processing: of the model.
    """

    name: str
    nats: Float[np.ndarray, " document"]
    n_tokens: Int[np.ndarray, " document"]
    n_bytes: Int[np.ndarray, " document"]
    n_chars: Int[np.ndarray, " document"]
    d_vocab: int
    window: int
    stride: int
    model: str
    step: int | None
    processing: str

    @property
    def n(self) -> int:
        """Documents."""
        return len(self.nats)

    @property
    def nats_per_token(self) -> float:
        """Mean loss of a token. Depends on the tokenizer."""
        return self.mean_and_error(self.n_tokens)[0]

    @property
    def nats_per_byte(self) -> float:
        """Mean loss of a byte of text, which compares across tokenizers. NaN for token ids."""
        return self.mean_and_error(self.n_bytes)[0]

    @property
    def perplexity(self) -> float:
        """exp(nats per token)."""
        return float(np.exp(self.nats_per_token))

    def mean_and_error(self, per: Int[np.ndarray, " document"]) -> tuple[float, float]:
        """Sum of losses by sum of units, and its standard error over documents.

        The error is that of a ratio, sqrt(n / (n - 1) sum (loss_i - r units_i)^2) / sum units: it
        holds for documents of unequal length, and is the usual one for equal lengths.
        """
        total, n = int(per.sum()), len(per)
        if total == 0:
            return np.nan, np.nan
        ratio = float(self.nats.sum() / total)
        if n == 1:
            return ratio, np.nan
        residual = ((self.nats - ratio * per) ** 2).sum()
        return ratio, float(np.sqrt(n / (n - 1) * residual) / total)

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows `{name}.nats_per_token`, `.nats_per_byte`, `.nats_per_char`, `.perplexity`.

        `chance` is the loss of a uniform guess over the vocabulary, where it is known. Less is
        better. Measures by byte and character are left out for documents of token ids.
        """
        chances = {"token": float(np.log(self.d_vocab)), "byte": np.nan, "char": np.nan}
        rows = []
        for unit, chance in chances.items():
            value, se = self.mean_and_error(getattr(self, f"n_{unit}s"))
            row = {"measure": f"nats_per_{unit}", "value": value, "se": se, "chance": chance}
            rows += [row] if np.isfinite(value) else []
        value, se = self.mean_and_error(self.n_tokens)
        scaled = {"value": np.exp(value), "se": np.exp(value) * se, "chance": float(self.d_vocab)}
        rows.append({"measure": "perplexity", **scaled})
        return capability_rows(
            [{"task": self.name, **row} for row in rows],
            model=self.model or None,
            step=self.step,
            n=self.n,
            processing=self.processing,
        )

    def summary(self) -> str:
        """One plain sentence."""
        value, se = self.mean_and_error(self.n_tokens)
        text = f"{self.name}: {value:.4g} ± {se:.2g} nats per token"
        if self.n_bytes.any():
            by_byte = self.mean_and_error(self.n_bytes)
            text += f", {by_byte[0]:.4g} ± {by_byte[1]:.2g} per byte"
        return (
            f"{text}, perplexity {self.perplexity:.4g} ({self.n} documents, "
            f"{int(self.n_tokens.sum())} tokens, standard errors over documents)."
        )


def perplexity(
    model: Any,
    texts: Texts,
    *,
    name: str = "text",
    window: int | None = None,
    stride: int | None = None,
    memory_budget: int = 2**28,
) -> TextLosses:
    """Loss of predicting texts, token by token.

        nats per token = - sum log p(token | context) / number of tokens;   perplexity = exp of it

    A text stands behind the beginning-of-text token (else the end-of-text one), so that its first
    token counts too. A text longer than the window is read in windows that start every `stride`
    tokens; each token is scored once, in the first window that holds it, so with at least
    `window - stride` tokens before it except near the beginning of the text.

    Args:
        model: a hooked model of either class, causal; left as it is.
        texts: a text or several, each a document of its own; or rows of token ids, which are taken
            as they are (their first token is not scored).
        name: of the collection, for frames.
        window: tokens in a forward pass; None: what the model's context holds.
        stride: None: half a window. Smaller is slower and gives more context.
        memory_budget: bytes for the logits of a batch and their normalisation.

    Returns:
        `TextLosses`; standard errors are over documents, since tokens of a document are not
        independent.

    Raises:
        InputError: an empty text, or a window or stride that does not fit.

    What it does not show: anything across tokenizers, unless by byte: a token is another thing
    there. A text the model was trained on is predicted too well.

    References:
        Press, Smith, Lewis, "Shortformer", 2021, on windows and context.

    Example:
        >>> model = hs.open_suite("micro").model(6144)                         # doctest: +SKIP
        >>> hs.perplexity(model, "Return the sum of all.").nats_per_byte       # doctest: +SKIP
    """
    n_ctx = model.cfg.n_ctx
    width: int = n_ctx if window is None else window
    shift: int = max(width // 2, 1) if stride is None else stride
    if not 2 <= width <= n_ctx or not 1 <= shift < width:
        raise InputError(
            expected=f"2 <= window <= {n_ctx} and 1 <= stride < window",
            got=f"window {width}, stride {shift}",
            fix="Leave both out for the whole context and half of it.",
        )
    documents, n_bytes, n_chars = _documents(model, texts)
    pieces, owners, skipped = [], [], []
    for i, ids in enumerate(documents):
        for start, first in _windows(len(ids), width, shift):
            pieces.append(ids[start : start + width])
            owners.append(i)
            skipped.append(first)
    scored = token_log_probs(model, pieces, memory_budget=memory_budget)
    nats, n_tokens = np.zeros(len(documents)), np.zeros(len(documents), dtype=np.int64)
    for i, values, first in zip(owners, scored, skipped, strict=True):
        nats[i] -= values[first:].sum()
        n_tokens[i] += len(values) - first
    origin = origin_of(model)
    return TextLosses(
        name=name,
        nats=nats,
        n_tokens=n_tokens,
        n_bytes=n_bytes,
        n_chars=n_chars,
        d_vocab=model.cfg.d_vocab,
        window=width,
        stride=shift,
        model=origin.model,
        step=origin.step,
        processing=origin.processing,
    )


def _documents(model: Any, texts: Texts) -> tuple[list[list[int]], np.ndarray, np.ndarray]:
    """Token ids, bytes and characters of each document."""
    if isinstance(texts, np.ndarray):
        _check_ids(texts, model.cfg.d_vocab)
        nothing = np.zeros(len(texts), dtype=np.int64)
        return texts.astype(np.int64).tolist(), nothing, nothing
    listed = [texts] if isinstance(texts, str) else list(texts)
    odd = [i for i, text in enumerate(listed) if not isinstance(text, str) or not text]
    if odd or not listed:
        raise InputError(
            expected="texts that are not empty, or rows of token ids as a NumPy array",
            got=f"text {odd[0]}: {listed[odd[0]]!r:.60}" if odd else "none",
            fix="Leave empty ones out; rows of unequal length are texts or arrays of their own.",
        )
    sizes = [[len(text.encode()), len(text)] for text in listed]
    n_bytes, n_chars = np.array(sizes, dtype=np.int64).T
    return encode_texts(model.tokenizer, listed), n_bytes, n_chars


def _check_ids(ids: np.ndarray, d_vocab: int) -> None:
    whole = ids.ndim == 2 and ids.dtype.kind in "iu"
    if not whole or (ids.size and not 0 <= ids.min() <= ids.max() < d_vocab):
        raise InputError(
            expected=f"rows of token ids, whole numbers below {d_vocab}: [row pos]",
            got=f"shape {ids.shape}, {ids.dtype}"
            + (f", {ids.min()} to {ids.max()}" if ids.size else ""),
            fix="One row a document: ids[None] for a single one.",
        )


def _windows(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Start of each window, and how many of its predictions were scored before."""
    found, scored, start = [], 0, 0
    while True:
        end = min(start + window, length)
        found.append((start, scored - start))
        scored = end - 1
        if end == length:
            return found
        start += stride
