"""`build_task`: families of prompt pairs, hundreds of distinct ones each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias, get_args

from headspec.errors import InputError, check_choice
from headspec.tasks.language_families import agreement_pairs, cloze_pairs, indirect_object_pairs
from headspec.tasks.number_families import arithmetic_pairs, comparison_pairs
from headspec.tasks.pairs import PromptPair
from headspec.tasks.prompts import Task
from headspec.tasks.sequence_families import pattern_pairs, prose_pairs, repeated_pairs

Family = Literal[
    "decimal_comparison",
    "version_comparison",
    "arithmetic",
    "agreement",
    "cloze",
    "pattern_completion",
    "indirect_object",
    "repeated_tokens",
]
"""What is asked."""

Wording = Literal["plain", "qa", "two_formats", "abc", "micro"]
"""How it is asked; each family has some of these."""

Builder: TypeAlias = Callable[..., list[PromptPair]]


def _agreement(n: int, *, wording: str, seed: int) -> list[PromptPair]:
    return agreement_pairs(n, seed=seed)


def _cloze_or_prose(n: int, *, wording: str, seed: int) -> list[PromptPair]:
    return prose_pairs(n, seed=seed) if wording == "micro" else cloze_pairs(n, seed=seed)


_FORMATS = ("plain", "qa", "two_formats", "micro")
_FAMILIES: dict[str, tuple[tuple[str, ...], Builder]] = {
    "decimal_comparison": (_FORMATS, partial(comparison_pairs, "decimal")),
    "version_comparison": (_FORMATS, partial(comparison_pairs, "version")),
    "arithmetic": (("plain", "qa", "micro"), arithmetic_pairs),
    "agreement": (("plain",), _agreement),
    "cloze": (("plain", "micro"), _cloze_or_prose),
    "pattern_completion": (("plain", "micro"), pattern_pairs),
    "indirect_object": (("plain", "abc"), indirect_object_pairs),
    "repeated_tokens": (("plain", "micro"), repeated_pairs),
}


def build_task(family: Family, *, n: int = 100, wording: Wording = "plain", seed: int = 0) -> Task:
    """A task of one family: distinct prompt pairs that differ in little, drawn by a seed.

    | family | clean prompt, correct / wrong | corrupt twin |
    |---|---|---|
    | decimal_comparison | Which is bigger: 9.8 or 9.11? 9.8 / 9.11 | smaller |
    | version_comparison | Which version is newer: 9.8 or 9.11? 9.11 / 9.8 | older |
    | arithmetic | 37+45= 82 / 92 | 47+45= |
    | agreement | The keys near the car are / is | The key near the car |
    | cloze | The capital of France is Paris / Rome | The capital of Italy is |
    | pattern_completion | K T K T K T / B | K B K B K |
    | indirect_object | When Mary and John ..., John gave a drink to Mary / John | ..., Mary gave |
    | repeated_tokens | random words, repeated | one word of the first period is another |

    Wordings: `"plain"`; `"qa"` ("Q: ...\\nA:"); `"two_formats"`, clean plain and corrupt in the
    other format, of unequal lengths: tokenise with `alignment="explicit"`; `"abc"`, indirect
    objects whose corrupt twin has three other names; `"micro"`, the formats that the embedded
    suite was trained on, drawn from what it was *not* trained on: there the corrupt twin of a
    comparison is the other comparison of the same two numbers, `cloze` is the next token of
    held-out prose, sequences are of the suite's own symbols (as token ids; its repeats had periods
    of 8 and more, so patterns of 2 and 3 are new to it), and prompts start with the
    beginning-of-text token.

    Args:
        family: what is asked.
        n: how many pairs; no pair of prompts occurs twice.
        wording: how it is asked.
        seed: of the draw. The first plain decimal and version pair is 9.8 and 9.11 whatever it is.

    Returns:
        A `Task`. What it does not promise: that a model can do it, or that a tokenizer leaves all
        pairs whole (see `Task.check`). Pairs of one family are alike: intervals over them speak of
        this family's prompts.

    Raises:
        InputError: a family or wording that does not exist, or more pairs than there are.

    Example:
        >>> task = build_task("decimal_comparison", n=3)
        >>> task.pairs[0].clean, task.pairs[0].correct
        ('Which is bigger: 9.8 or 9.11?\\nAnswer:', ' 9.8')
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
