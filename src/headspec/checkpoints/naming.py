"""Names of a checkpoint's tensors: their order, patterns, and what to say when none fits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from headspec.errors import InputError


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names sorted with digits as numbers: layer 2 before layer 10."""
    return tuple(sorted(names, key=_key))


def match_names(names: Iterable[str], pattern: str | re.Pattern[str]) -> list[str]:
    """Names that fit a pattern.

    Args:
        names: names of tensors.
        pattern: with `*`, `?`, `[...]` for the whole name, or a compiled regular expression that
            is searched for.
    """
    if isinstance(pattern, str):
        return [name for name in names if fnmatchcase(name, pattern)]
    return [name for name in names if pattern.search(name)]


def no_match(
    pattern: str | re.Pattern[str], names: Sequence[str], vectors: Sequence[str]
) -> InputError:
    """The error for a pattern that fits no matrix.

    Args:
        pattern: what was asked for.
        names: every name there is.
        vectors: names that fit, but are not matrices.
    """
    text = pattern if isinstance(pattern, str) else pattern.pattern
    close = get_close_matches(text, names, n=4, cutoff=0.3) or list(names[:4])
    return InputError(
        expected=f"a pattern that fits the name of a matrix, out of {len(names)} tensors",
        got=f"{text!r}" + (f", which fits vectors only ({vectors[0]} ...)" if vectors else ""),
        fix=f"Similar names: {', '.join(close)}. suite.tensor_names(step) lists all.",
    )


def _key(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]
