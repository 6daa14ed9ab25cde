"""Families of prompts that continue a sequence: patterns, random repeats, prose."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Integer

from headspec.checkpoints.micro import held_out_tokens, micro_tokenizer
from headspec.checkpoints.micro_tasks import repeat_symbols
from headspec.tasks.pairs import COLUMNS, PairIds, PromptPair, Span
from headspec.tasks.templates import Part, check_count, draw, make_pair
from headspec.tasks.word_lists import WORDS

PERIOD = 12
"""Items of a random sequence before it repeats."""

CONTEXT = 48
"""Tokens of a passage of prose, the beginning-of-text token not counted."""


def pattern_pairs(n: int, *, wording: str, seed: int) -> list[PromptPair]:
    """ "K T K T K" and then T; in the corrupt twin another letter stands wherever T does.

    Letters or digits (`"plain"`), or symbols of the embedded suite (`"micro"`, as token ids), two
    or three in turn, shown twice and up to the last before the repeat. `wrong` is the corrupt
    prompt's right answer. Positions: `previous` (the last place of the changed item) and `end`.
    """
    if wording == "micro":
        check_count(n, 1000)
        symbols = repeat_symbols(_tokenizer())
        drawn = _rows_of_symbols(symbols, 2 * n, width=4, seed=seed)
        pairs = [_repeat_ids(row, period=2 + i % 2, n_periods=2) for i, row in enumerate(drawn)]
        return list({pair.clean: pair for pair in pairs}.values())[:n]
    rng = np.random.default_rng(seed)
    n_digits = n // 2
    drawn = [(item, string.ascii_uppercase) for item in draw(_LETTERS, n - n_digits, seed=seed)]
    if n_digits:
        drawn += [(item, _FIGURES) for item in draw(_DIGITS, n_digits, seed=seed)]
    return [
        _pattern(item, str(rng.choice([one for one in alphabet if one not in item])))
        for item, alphabet in drawn
    ]


_FIGURES = string.digits[1:]
_LETTERS = [*permutations(string.ascii_uppercase, 2), *permutations(string.ascii_uppercase[:12], 3)]
_DIGITS = [*permutations(_FIGURES, 2), *permutations(_FIGURES, 3)]


def _pattern(items: tuple[str, ...], other: str) -> PromptPair:
    """Items in turn; `other` replaces the last of them."""
    start, last = " ".join(items[:-1]), items[-1]

    def prompt(item: str) -> list[Part]:
        return [f"{start} {item} {start} ", ("previous", item), f" {start}"]

    return make_pair(prompt(last), prompt(other), correct=f" {last}", wrong=f" {other}")


def repeated_pairs(n: int, *, wording: str, seed: int) -> list[PromptPair]:
    """Random items repeated: what followed the current one before follows again.

    Common words (`"plain"`) or the symbols that the embedded suite's repeats are made of
    (`"micro"`, as token ids): `PERIOD` of them, and the same again up to a place that differs from
    prompt to prompt. In the corrupt twin the item that stood after the current one's first
    occurrence is another: copying predicts `wrong`. Positions: `induction` (that item) and `end`.

    References:
        Olsson et al., In-context Learning and Induction Heads, 2022.
    """
    check_count(n, 10_000)
    rng = np.random.default_rng(seed)
    stops = rng.integers(1, PERIOD, size=n)
    if wording == "micro":
        symbols = repeat_symbols(_tokenizer())
        rows = _rows_of_symbols(symbols, n, width=PERIOD + 1, seed=seed)
        return [
            _repeat_ids(row, period=PERIOD, n_periods=1, stop=int(stop))
            for row, stop in zip(rows, stops, strict=True)
        ]
    rows = _rows_of_symbols(np.arange(len(WORDS)), n, width=PERIOD + 1, seed=seed)
    return [
        _repeat_words([WORDS[i] for i in row], int(stop))
        for row, stop in zip(rows, stops, strict=True)
    ]


def _rows_of_symbols(
    symbols: Integer[np.ndarray, " symbol"], n: int, *, width: int, seed: int
) -> list[tuple[int, ...]]:
    """Rows of distinct symbols, no two rows alike."""
    check_count(n, 10_000)
    rng = np.random.default_rng(seed)
    rows: dict[tuple[int, ...], None] = {}
    while len(rows) < n:
        rows[tuple(int(i) for i in rng.permutation(symbols)[:width])] = None
    return list(rows)


def _repeat_ids(
    row: Sequence[int], *, period: int, n_periods: int, stop: int | None = None
) -> PromptPair:
    """Periods of token ids, then the first `stop` again (default: all but the last)."""
    stop = period - 1 if stop is None else stop
    clean, new = tuple(row[:period]), row[period]
    corrupt = (*clean[:stop], new, *clean[stop + 1 :])
    at = (n_periods - 1) * period + stop
    span = (at, at + 1)
    ids = PairIds(
        clean * n_periods + clean[:stop],
        corrupt * n_periods + corrupt[:stop],
        (clean[stop],),
        (new,),
    )
    name = "induction" if n_periods == 1 else "previous"
    return _with_text(ids, (Span(name, span, span),))


def _with_text(ids: PairIds, spans: tuple[Span, ...] = ()) -> PromptPair:
    texts = [_tokenizer().decode(getattr(ids, name)) for name in COLUMNS]
    return PromptPair(*texts, spans=spans, ids=ids)


@cache
def _tokenizer() -> Any:
    return micro_tokenizer()


def _repeat_words(row: Sequence[str], stop: int) -> PromptPair:
    words, new = row[:PERIOD], row[PERIOD]

    def prompt(item: str) -> list[Part]:
        start = "".join(f" {word}" for word in words[:stop])
        rest = "".join(f" {word}" for word in words[stop + 1 :])
        return [start, " ", ("induction", item), rest, start]

    return make_pair(prompt(words[stop]), prompt(new), correct=f" {words[stop]}", wrong=f" {new}")


def prose_pairs(n: int, *, seed: int) -> list[PromptPair]:
    """Held-out prose of the embedded suite, and the token that truly comes next.

    `wrong` is another token about as frequent in that prose. In the corrupt twin the last token of
    the passage is one about as frequent as its own. One passage a row of the held-out text.
    """
    tokens = held_out_tokens().astype(np.int64)
    check_count(n, len(tokens))
    rng = np.random.default_rng(seed)
    counts = np.bincount(tokens[:, 1:].ravel(), minlength=tokens.max() + 1)
    by_frequency = np.argsort(-counts, kind="stable")
    by_frequency = by_frequency[counts[by_frequency] > 0]
    rank = {int(token): place for place, token in enumerate(by_frequency)}

    def neighbour(token: int) -> int:
        place = rank[token]
        window = [p for p in range(place - 3, place + 4) if 0 <= p < len(rank) and p != place]
        return int(by_frequency[window[int(rng.integers(len(window)))]])

    pairs = []
    for row in rng.permutation(len(tokens))[:n]:
        start = 1 + int(rng.integers(tokens.shape[1] - CONTEXT - 1))
        passage = [int(token) for token in tokens[row, start : start + CONTEXT + 1]]
        *context, last, following = passage
        other = (*context, neighbour(last))
        ids = PairIds((*context, last), other, (following,), (neighbour(following),))
        pairs.append(_with_text(ids))
    return pairs
