"""Tasks: prompt pairs that ask the same kind of question, from lists, files or families."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pandas as pd

from headspec.errors import InputError
from headspec.tasks.distinct import Duplicates, keep_distinct
from headspec.tasks.encoding import Alignment, check_pairs
from headspec.tasks.pairs import COLUMNS, PromptPair
from headspec.tasks.tokenised import Answers, TokenisedTask, tokenise_task

PairLike: TypeAlias = PromptPair | Mapping[str, str] | Sequence[str]
"""A pair; a mapping with the keys of `COLUMNS`; or four texts in that order."""


@dataclass(frozen=True)
class Task:
    """Prompt pairs that ask the same kind of question. `n` counts distinct pairs.

    Fifteen greedy trials of one prompt are one trial, so a pair that stands twice is refused.

    Attributes:
        name: for tables and figures.
        pairs: at least one; no (clean, corrupt) twice.
        prepend_bos: whether prompts start with the beginning-of-text token; None: as the
            tokenizer does (see `tokenise`).
        n_dropped: duplicates that were left out when the task was made.
        seed: of the draw, None for a task of your own.

    Example:
        >>> task = Task.from_pairs([("2+2=", "2+3=", "4", "5")], name="sums")
        >>> task.n, task.pairs[0].correct
        (1, '4')
    """

    name: str
    pairs: tuple[PromptPair, ...]
    prepend_bos: bool | None = None
    n_dropped: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.pairs:
            raise InputError(expected="at least one pair", got="none", fix="Add pairs.")
        first: dict[tuple[str, str], int] = {}
        for row, pair in enumerate(self.pairs):
            at = first.setdefault((pair.clean, pair.corrupt), row)
            if at != row:
                raise InputError(
                    expected="distinct prompt pairs: repeated trials of one prompt are one trial",
                    got=f"pairs {at} and {row} both {pair.clean!r} / {pair.corrupt!r}",
                    fix="Leave repeats out, or Task.from_pairs(..., duplicates='drop').",
                )

    @property
    def n(self) -> int:
        """How many distinct pairs."""
        return len(self.pairs)

    @staticmethod
    def from_pairs(
        pairs: Iterable[PairLike],
        *,
        name: str = "task",
        duplicates: Duplicates = "raise",
        prepend_bos: bool | None = None,
    ) -> Task:
        """A task of your own.

        Args:
            pairs: `PromptPair`s, mappings with keys clean, corrupt, correct, wrong, or tuples of
                four texts in that order.
            name: of the task.
            duplicates: what to do with a pair of prompts that stands twice: `"raise"`, or
                `"drop"`, counted in `n_dropped`.
            prepend_bos: as in `Task`.

        Raises:
            InputError: a missing part, a duplicate, or no pair at all.
        """
        return _collect(
            ((f"pair {i}", pair) for i, pair in enumerate(pairs)),
            name=name,
            duplicates=duplicates,
            prepend_bos=prepend_bos,
        )

    @staticmethod
    def from_csv(
        path: str | Path,
        *,
        name: str | None = None,
        duplicates: Duplicates = "raise",
        prepend_bos: bool | None = None,
    ) -> Task:
        """A task from a CSV file (UTF-8) with the columns clean, corrupt, correct, wrong.

        Cells are taken as they are, spaces at their ends included: an answer usually needs the
        space before it. Other columns are ignored.

        Args:
            path: of the file.
            name: of the task; the file's name unless given.
            duplicates, prepend_bos: as in `from_pairs`.

        Raises:
            InputError: a missing file or column, an empty cell or a duplicate, by line number.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(expected="a CSV file", got=str(path), fix="Check the path.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    expected=f"the columns {', '.join(COLUMNS)} in {path.name}",
                    got=f"{', '.join(reader.fieldnames or ()) or 'an empty file'}; "
                    f"no {' or '.join(missing)}",
                    fix="The first line of the file names its columns.",
                )
            rows = [(f"line {reader.line_num}", row) for row in reader]
        return _collect(
            rows, name=name or path.stem, duplicates=duplicates, prepend_bos=prepend_bos
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a pair: `task pair clean corrupt correct wrong`."""
        return pd.DataFrame(
            [
                {"task": self.name, "pair": i, **{c: getattr(pair, c) for c in COLUMNS}}
                for i, pair in enumerate(self.pairs)
            ]
        )

    def check(
        self,
        tokenizer: Any,
        *,
        alignment: Alignment = "equal_length",
        prepend_bos: bool | None = None,
        n_ctx: int | None = None,
    ) -> pd.DataFrame:
        """Which pairs this tokenizer breaks, and why.

        Args:
            tokenizer: a tokenizer of transformers.
            alignment, prepend_bos, n_ctx: as in `tokenise`.

        Returns:
            One row a pair: the columns of `to_frame`, `broken`, `reason` ("" if it is fine),
            `clean_tokens`, `corrupt_tokens`, `correct_tokens`, `wrong_tokens` (as text).
        """
        bos = self.prepend_bos if prepend_bos is None else prepend_bos
        found = check_pairs(
            self.pairs, tokenizer, alignment=alignment, prepend_bos=bos, n_ctx=n_ctx
        )
        return self.to_frame().join(found)

    def tokenise(
        self,
        tokenizer: Any,
        *,
        answers: Answers = "whole",
        alignment: Alignment = "equal_length",
        prepend_bos: bool | None = None,
        on_broken: Literal["drop", "raise"] = "drop",
        n_ctx: int | None = None,
    ) -> TokenisedTask:
        """The task as token ids, with the metrics that score its answers.

        Args:
            tokenizer: a tokenizer of transformers, such as `model.tokenizer`.
            answers: `"whole"` scores all tokens of either answer (two rows an example where an
                answer needs more than one token after the two part); `"first_token"` only the
                token where they part: one row an example.
            alignment: `"equal_length"`: clean and corrupt must have as many tokens;
                `"explicit"`: or a position map (`PromptPair.shared` or `.position_map`).
            prepend_bos: start every prompt with the beginning-of-text token. None: as the task
                says; else as the tokenizer by itself does. transformer-lens makes every
                tokenizer prepend it, also Pythia's; headspec's models remember what it did before.
            on_broken: `"drop"` leaves out pairs that the tokenizer breaks and lists them in
                `TokenisedTask.broken`; `"raise"` does not accept any.
            n_ctx: longest row the model takes; the tokenizer's `model_max_length` unless given.

        Raises:
            InputError: a broken pair with `on_broken="raise"`, or no pair left; the message shows
                both tokenisations.
        """
        bos = self.prepend_bos if prepend_bos is None else prepend_bos
        return tokenise_task(
            self.name,
            self.pairs,
            tokenizer,
            answers=answers,
            alignment=alignment,
            prepend_bos=bos,
            on_broken=on_broken,
            n_ctx=n_ctx,
        )


def _collect(
    rows: Iterable[tuple[str, PairLike]],
    *,
    name: str,
    duplicates: Duplicates,
    prepend_bos: bool | None,
) -> Task:
    pairs, n_dropped = keep_distinct(
        ((where, _as_pair(row, where)) for where, row in rows),
        lambda pair: (pair.clean, pair.corrupt),
        duplicates=duplicates,
        expected="distinct prompt pairs: repeated trials of one prompt are one trial",
    )
    return Task(name, pairs, prepend_bos=prepend_bos, n_dropped=n_dropped)


def _as_pair(row: Any, where: str) -> PromptPair:
    if isinstance(row, PromptPair):
        return row
    if isinstance(row, Mapping):
        parts: dict[str, Any] = {column: row.get(column) for column in COLUMNS}
    elif isinstance(row, Sequence) and not isinstance(row, str) and len(row) == len(COLUMNS):
        parts = dict(zip(COLUMNS, row, strict=True))
    else:
        parts = {}
    bad = [c for c in COLUMNS if not (isinstance(parts.get(c), str) and parts[c])]
    if bad:
        raise InputError(
            expected="texts for clean, corrupt, correct and wrong",
            got=f"no {' or '.join(bad)} in {where}: {row!r}",
            fix="Give a dict with these keys, or a tuple of the four in this order.",
        )
    return PromptPair(**parts)
