"""Sequences of micro-languages, many at once, and the sizes they can have."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from headspec.errors import InputError
from headspec.training.alias_tables import AliasTables
from headspec.training.token_data import LabelledTokens
from headspec.training.topic_segments import SegmentPrior

_CHUNK = 16_384  # sequences drawn together, from one random stream


def draw_sequences(
    n: int,
    *,
    prior: SegmentPrior,
    first: AliasTables,
    following: AliasTables,
    special_tokens: int,
    seeds: tuple[int, ...],
) -> Iterator[LabelledTokens]:
    """Draw labels, then tokens position by position, for thousands of sequences together.

    Args:
        n: sequences.
        prior: of the labels.
        first: a row for each topic: the first token.
        following: a row for each topic and token, topic by topic: the next token.
        special_tokens: added to every token.
        seeds: name the random streams; the number of the piece is appended.

    Yields:
        Pieces of at most 16,384 sequences, int32 tokens and int16 labels.
    """
    n_rows = following.packed.shape[1]
    for piece, begin in enumerate(range(0, n, _CHUNK)):
        rng = np.random.default_rng([*seeds, piece])
        labels = prior.draw(min(_CHUNK, n - begin), rng)
        topics = labels.T.astype(np.int64, order="C")  # `pos sequence`: a position lies together
        tokens = np.empty(topics.shape, np.int32)
        current = first.draw(topics[0], rng)
        tokens[0] = current
        for pos in range(1, prior.seq_len):
            current = following.draw(topics[pos] * n_rows + current, rng)
            tokens[pos] = current
        tokens += special_tokens
        yield LabelledTokens(np.ascontiguousarray(tokens.T), labels)


def check_sizes(languages: Any, special_tokens: int) -> None:
    """Raise `InputError` unless every topic has a block and neighbours can differ."""
    for name in ("n_topics", "vocab_size", "seq_len", "min_segments", "max_segments", "seed"):
        value = getattr(languages, name)
        _check(type(value) is int, f"{name} to be a whole number (Python's int)", repr(value))
    fewest = 1 if languages.max_segments == 1 else 2
    _check(
        fewest <= languages.n_topics <= 255,
        f"{fewest} to 255 topics, so that neighbouring segments can differ",
        f"n_topics={languages.n_topics}, max_segments={languages.max_segments}",
    )
    _check(
        languages.vocab_size - special_tokens >= 2 * languages.n_topics,
        f"at least {2 * languages.n_topics} tokens besides the {special_tokens} special ones, two "
        "for each topic",
        f"vocab_size={languages.vocab_size}",
    )
    _check(
        1 <= languages.min_segments <= languages.max_segments <= languages.seq_len,
        "1 <= min_segments <= max_segments <= seq_len",
        f"{languages.min_segments}, {languages.max_segments} and {languages.seq_len}",
    )
    _check(
        0 < languages.concentration < math.inf and 0 < languages.dirichlet < math.inf,
        "a positive, finite concentration and dirichlet",
        f"{languages.concentration} and {languages.dirichlet}",
    )
    _check(languages.seed >= 0, "a seed from 0 on", f"seed={languages.seed}")
    half = languages.block_size // 2
    _check(
        0 <= languages.n_signatures <= half,
        f"0 to {half} signature bigrams (half a block)",
        f"n_signatures={languages.n_signatures}",
    )


def check_draw(n: int, seed: int) -> None:
    """Raise `InputError` unless there is something to draw, and a seed that NumPy can take."""
    _check(n >= 1, "one sequence or more", f"n={n}")
    _check(seed >= 0, "a seed from 0 on", f"seed={seed}")


def _check(holds: bool, expected: str, got: str) -> None:
    if not holds:
        raise InputError(expected=expected, got=got, fix="Change these arguments.")
