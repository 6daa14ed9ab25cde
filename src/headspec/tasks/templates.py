"""Prompts from parts, some of them named, and seeded draws of distinct ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from headspec.errors import InputError
from headspec.tasks.pairs import PromptPair, Span

Part: TypeAlias = str | tuple[str, str]
"""Text, or a name and its text."""

Item = TypeVar("Item")


def compose(parts: Sequence[Part]) -> tuple[str, dict[str, tuple[int, int]]]:
    """The text of parts in order, and where the named ones stand (characters).

    Example:
        >>> compose(["Is ", ("number", "9.8"), " big?"])
        ('Is 9.8 big?', {'number': (3, 6)})
    """
    text, spans = "", {}
    for part in parts:
        name, piece = part if isinstance(part, tuple) else ("", part)
        if name:
            spans[name] = (len(text), len(text) + len(piece))
        text += piece
    return text, spans


def make_pair(
    clean: Sequence[Part],
    corrupt: Sequence[Part],
    *,
    correct: str,
    wrong: str,
    shared: tuple[str, ...] = (),
) -> PromptPair:
    """A pair whose named parts are those that both prompts have."""
    (clean_text, one), (corrupt_text, other) = compose(clean), compose(corrupt)
    spans = tuple(Span(name, one[name], other[name]) for name in one if name in other)
    return PromptPair(clean_text, corrupt_text, correct, wrong, spans=spans, shared=shared)


def draw(items: Sequence[Item], n: int, *, seed: int, first: Sequence[Item] = ()) -> list[Item]:
    """`n` distinct items in random order, some before all others.

    Raises:
        InputError: there are fewer.
    """
    check_count(n, len(items))
    order = np.random.default_rng(seed).permutation(len(items))
    rest = (items[int(i)] for i in order)
    return list(dict.fromkeys([*first, *rest]))[:n]


def check_count(n: int, n_available: int) -> None:
    """Raise unless there are `n` distinct items."""
    if not 1 <= n <= n_available:
        raise InputError(
            expected=f"n from 1 to {n_available}, the distinct pairs there are",
            got=f"n={n}",
            fix="Repeating pairs would not be more evidence.",
        )
