"""A pair of prompts that differ in little, with a right and a wrong answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from headspec.errors import InputError
from headspec.tasks.alignment import PositionMap

COLUMNS = ("clean", "corrupt", "correct", "wrong")
"""What a pair is made of."""


@dataclass(frozen=True)
class Span:
    """A named part of both prompts, such as the first number.

    Attributes:
        name: of the position.
        clean, corrupt: start and end in either prompt: characters, or tokens where the pair holds
            token ids.
    """

    name: str
    clean: tuple[int, int]
    corrupt: tuple[int, int]


@dataclass(frozen=True)
class PairIds:
    """A pair as token ids of one tokenizer, without a beginning-of-text token.

    Attributes:
        clean, corrupt: the prompts.
        correct, wrong: the answers.
    """

    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    correct: tuple[int, ...]
    wrong: tuple[int, ...]


@dataclass(frozen=True)
class PromptPair:
    """Two prompts that differ in little, and two answers.

    Attributes:
        clean: the prompt to which `correct` is the right continuation.
        corrupt: its twin, which the model should answer otherwise (with `wrong`, mostly).
        correct, wrong: continuations, with the space or newline that belongs to them.
        spans: named parts, for positions.
        shared: texts that stand in both prompts, token for token; from these a position map is
            made where they stand in other columns (of prompts of equal length, too).
        position_map: which clean token corresponds to which corrupt one, if not by `shared`.
        ids: exact token ids, for prompts that are no text; the texts are then only shown.
    """

    clean: str = ""
    corrupt: str = ""
    correct: str = ""
    wrong: str = ""
    spans: tuple[Span, ...] = field(default=(), kw_only=True)
    shared: tuple[str, ...] = field(default=(), kw_only=True)
    position_map: PositionMap | None = field(default=None, kw_only=True)
    ids: PairIds | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.ids is not None:
            for name in COLUMNS:
                if not getattr(self, name):
                    text = " ".join(f"<{token}>" for token in getattr(self.ids, name))
                    object.__setattr__(self, name, text)
        empty = [name for name in COLUMNS if not getattr(self, name)]
        if empty:
            raise InputError(
                expected="a pair with clean, corrupt, correct and wrong",
                got=f"nothing for {' and '.join(empty)} in {self.clean!r}, {self.corrupt!r}",
                fix="A metric compares two answers: give both, and both prompts.",
            )
