"""`build_task`: families of prompt pairs, hundreds of distinct ones each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias, get_args

from headspec.errors import InputError, check_choice
from headspec.tasks.number_families import arithmetic_pairs, comparison_pairs
from headspec.tasks.pairs import PromptPair
from headspec.tasks.prompts import Task

Family = Literal["decimal_comparison", "version_comparison", "arithmetic"]
"""What can be built."""

Wording = Literal["plain", "qa", "two_formats", "abc", "micro"]
"""How it is asked; each family has some of these."""

Builder: TypeAlias = Callable[..., list[PromptPair]]

_FORMATS = ("plain", "qa", "two_formats", "micro")
_FAMILIES: dict[str, tuple[tuple[str, ...], Builder]] = {
    "decimal_comparison": (_FORMATS, partial(comparison_pairs, "decimal")),
    "version_comparison": (_FORMATS, partial(comparison_pairs, "version")),
    "arithmetic": (("plain", "qa", "micro"), arithmetic_pairs),
}


def build_task(family: Family, *, n: int = 100, wording: Wording = "plain", seed: int = 0) -> Task:
    """A task of one family: distinct prompt pairs that differ in little, drawn by a seed.

    Args:
        family: what is asked.
        n: how many pairs.
        wording: the prompt format.
        seed: of the draw.

    Raises:
        InputError: a family or wording that does not exist, or more pairs than there are.
    """
    check_choice("family", family, get_args(Family))
    check_choice("wording", wording, get_args(Wording))
    wordings, builder = _FAMILIES[family]
    if wording not in wordings:
        raise InputError(
            expected=f"wording of {family} out of {', '.join(map(repr, wordings))}",
            got=repr(wording),
            fix="Choose one of these, or another family.",
        )
    pairs = tuple(builder(n, wording=wording, seed=seed))
    bos = True if wording == "micro" else None
    return Task(family, pairs, prepend_bos=bos, seed=seed)
