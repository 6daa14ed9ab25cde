"""Rows of which none may come twice: repeated trials of one prompt are one trial."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeVar, get_args

from headspec.errors import InputError, check_choice

Duplicates = Literal["raise", "drop"]
Item = TypeVar("Item")


def keep_distinct(
    placed: Iterable[tuple[str, Item]],
    texts: Callable[[Item], tuple[str, str]],
    *,
    duplicates: Duplicates,
    expected: str,
) -> tuple[tuple[Item, ...], int]:
    """The items in order, each once, and how many repetitions were dropped.

    Args:
        placed: where an item stands (for the message), and the item.
        texts: the two texts that make an item what it is.
        duplicates: `"raise"` or `"drop"`.
        expected: for the message.

    Raises:
        InputError: a repetition, unless they are dropped.
    """
    check_choice("duplicates", duplicates, get_args(Duplicates))
    kept: dict[tuple[str, str], tuple[str, Item]] = {}
    n_dropped = 0
    for where, item in placed:
        key = texts(item)
        if key not in kept:
            kept[key] = (where, item)
        elif duplicates == "drop":
            n_dropped += 1
        else:
            raise InputError(
                expected=expected,
                got=f"{where} repeats {kept[key][0]}: {key[0]!r} / {key[1]!r}",
                fix="Leave it out, or duplicates='drop', which counts what it drops.",
            )
    return tuple(item for _, item in kept.values()), n_dropped
