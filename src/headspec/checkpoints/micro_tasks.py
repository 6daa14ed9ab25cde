"""The behaviours that the embedded suite was trained on: text formats and seeded samplers.

Four behaviours sit beside the English prose. Their formats are::

    Which number is bigger: 9.8 or 9.11? Answer: 9.8
    Which version is newer: 9.8 or 9.11? Answer: 9.11
    37+45=82
    k q d w k q d w ...        (a random sequence of distinct symbols, repeated)

The two comparison formats have the same number of tokens, so for a pair such as 9.8 and 9.11 they
are a clean and a corrupt prompt with opposite answers. One tenth of all pairs and sums, chosen by
hash, was never trained on: `split="held_out"` draws from those alone.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Integer

from headspec.errors import InputError

Kind = Literal["decimal", "version"]
Split = Literal["train", "held_out"]

QUESTIONS: dict[str, str] = {
    "decimal": "Which number is bigger",
    "version": "Which version is newer",
}
"""The wording of either comparison."""

N_SYMBOLS = 64
"""How many vocabulary items the repeated random sequences are drawn from."""


@dataclass(frozen=True)
class Example:
    """A prompt and its answer.

    Attributes:
        prompt: text up to the answer.
        answer: the right continuation, with the newline that ends it.
        distractor: the other number of a comparison, in the same form ("" for additions).
    """

    prompt: str
    answer: str
    distractor: str = ""


def is_held_out(key: str) -> bool:
    """Whether a pair or a sum belongs to the tenth that was never trained on.

    Args:
        key: the two operands in sorted order, with a space between them: ``"9.11 9.8"``.
    """
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % 10 == 0


def compare(kind: Kind, first: str, second: str) -> str:
    """The bigger number, or the newer version, of two strings such as "9.8" and "9.11".

    Example:
        >>> compare("decimal", "9.8", "9.11"), compare("version", "9.8", "9.11")
        ('9.8', '9.11')

    Raises:
        InputError: when the two are equal in this reading.
    """
    a, b = (_reading(kind, text) for text in (first, second))
    if a == b:
        raise InputError(
            expected="two different values",
            got=f"{first!r} and {second!r}, equal when read as {kind}",
            fix="Draw pairs with `sample_comparisons`, which skips ties.",
        )
    return first if a > b else second


def _reading(kind: Kind, text: str) -> tuple[int, int]:
    whole, fraction = text.split(".")
    return int(whole), int(fraction.ljust(2, "0") if kind == "decimal" else fraction)


def comparison(kind: Kind, first: str, second: str) -> Example:
    """One comparison question with its answer.

    Example:
        >>> comparison("version", "9.8", "9.11").prompt
        'Which version is newer: 9.8 or 9.11? Answer: '
    """
    answer = compare(kind, first, second)
    other = second if answer == first else first
    prompt = f"{QUESTIONS[kind]}: {first} or {second}? Answer: "
    return Example(prompt, f"{answer}\n", f"{other}\n")


def addition(a: int, b: int) -> Example:
    """One sum of two-digit numbers, such as ``37+45=`` and ``82``."""
    return Example(f"{a}+{b}=", f"{a + b}\n")


def sample_pairs(
    n: int, *, split: Split, conflict: float = 1.0, seed: int = 0
) -> list[tuple[str, str]]:
    """Pairs of numbers for comparison questions.

    Args:
        n: how many.
        split: "train", or "held_out" for pairs the suite never saw in either order or format.
        conflict: share of pairs on which the two readings disagree (9.8 and 9.11: one digit after
            the point against two, the first of which is smaller). The rest differ in any way.
        seed: of the draw.

    Returns:
        ``n`` ordered pairs; no pair ties in either reading. Pairs may repeat.
    """
    rng = np.random.default_rng(seed)
    pairs: list[tuple[str, str]] = []
    while len(pairs) < n:
        a, b = _draw_conflict(rng) if rng.random() < conflict else _draw_any(rng)
        if any(_reading(kind, a) == _reading(kind, b) for kind in ("decimal", "version")):
            continue
        if is_held_out(" ".join(sorted((a, b)))) == (split == "held_out"):
            pairs.append((a, b) if rng.random() < 0.5 else (b, a))
    return pairs


def _draw_conflict(rng: np.random.Generator) -> tuple[str, str]:
    whole, small = rng.integers(0, 10), rng.integers(1, 9)
    big = rng.integers(small + 1, 10)
    return f"{whole}.{big}", f"{whole}.{small}{rng.integers(0, 10)}"


def _draw_any(rng: np.random.Generator) -> tuple[str, str]:
    first, second = rng.integers(0, 10, size=2)
    if rng.random() < 0.5:
        second = first
    fractions = [rng.integers(1, 10) if rng.random() < 0.5 else rng.integers(10, 100) for _ in "ab"]
    return f"{first}.{fractions[0]}", f"{second}.{fractions[1]}"


def sample_comparisons(
    kind: Kind, n: int, *, split: Split, conflict: float = 1.0, seed: int = 0
) -> list[Example]:
    """Comparison questions of one kind; arguments as in `sample_pairs`.

    The same ``seed`` gives the same pairs for both kinds, so the two lists are clean and corrupt
    prompts of each other, with opposite answers when ``conflict`` is 1.
    """
    pairs = sample_pairs(n, split=split, conflict=conflict, seed=seed)
    return [comparison(kind, a, b) for a, b in pairs]


def sample_additions(n: int, *, split: Split, seed: int = 0) -> list[Example]:
    """Sums of two numbers from 10 to 99. A held-out sum is held out in both orders."""
    rng = np.random.default_rng(seed)
    sums: list[Example] = []
    while len(sums) < n:
        a, b = (int(x) for x in rng.integers(10, 100, size=2))
        if is_held_out(" ".join(sorted((str(a), str(b))))) == (split == "held_out"):
            sums.append(addition(a, b))
    return sums


def repeat_symbols(tokenizer: Any) -> Integer[np.ndarray, " symbol"]:
    """Ids of the symbols of repeated sequences: the first word-like entries of the vocabulary.

    Args:
        tokenizer: the suite's tokenizer.

    Returns:
        `N_SYMBOLS` ids of entries that are a space and three or more lower-case letters.
    """
    vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    ids = [i for i, text in enumerate(vocabulary) if re.fullmatch("Ġ[a-z]{3,}", text)]
    return np.array(ids[:N_SYMBOLS], dtype=np.int64)


def interleave_topics(
    passages: list[Integer[np.ndarray, " pos"]], *, length: int, seed: int = 0
) -> tuple[Integer[np.ndarray, " length"], Integer[np.ndarray, " length"]]:
    """Segments of several passages in turn, each passage going on where it was left.

    Args:
        passages: token ids of two or more passages, one a topic, together at least ``length`` long.
        length: tokens to return.
        seed: of the segment lengths (8 to 32 tokens).

    Returns:
        Token ids, and for each token the index of its passage: the labels for
        measures of attention within a topic.
    """
    rng = np.random.default_rng(seed)
    tokens, labels = [], []
    used = [0] * len(passages)
    filled, turn = 0, int(rng.integers(len(passages)))
    while filled < length:
        piece = passages[turn][used[turn] : used[turn] + int(rng.integers(8, 33))]
        if len(piece) == 0 and all(u >= len(p) for u, p in zip(used, passages, strict=True)):
            raise InputError(
                expected=f"passages of at least {length} tokens together",
                got=f"{sum(len(p) for p in passages)} tokens",
                fix="Pass longer passages or a smaller length.",
            )
        tokens.append(piece)
        labels.append(np.full(len(piece), turn))
        used[turn] += len(piece)
        filled += len(piece)
        turn = (turn + 1) % len(passages)
    return np.concatenate(tokens)[:length], np.concatenate(labels)[:length]
