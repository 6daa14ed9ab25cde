"""A task as token ids: rows whose prompts end in one column, and the metrics of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.tasks.answer_metrics import AnswerAccuracy, AnswerScore, Kind
from headspec.tasks.encoding import Alignment, EncodedPair, encode_pairs, shown
from headspec.tasks.pairs import COLUMNS, PromptPair
from headspec.tasks.token_rows import lay_out, pad_token

Answers = Literal["whole", "first_token"]
"""`"whole"`: all tokens of either answer; `"first_token"`: only the one where the two part."""


@dataclass(frozen=True, eq=False)
class TokenisedTask:
    """Token ids of both runs, in which corresponding columns are known.

    A row holds padding on the left, the prompt, tokens that both answers begin with (they cancel
    in a difference), and, where an answer goes on, its further tokens. The last token before the
    answers part stands in column `end` in every row. If all answers part and end in one token (or
    `answers="first_token"`), a row is an example; else rows 2i and 2i + 1 are example i with the
    correct and with the wrong answer.

    Attributes:
        name: of the task.
        pairs: those that the tokenizer leaves whole.
        broken: the others, as `Task.check` shows them.
        clean, corrupt: token ids; `corrupt` rows continue with the same answers.
        clean_mask, corrupt_mask: 0 for padding on the left, else 1.
        is_token: where `clean` holds tokens of prompt or answer, not padding on either side. What
            stands right of the answers is read by nothing, but would count in a mean.
        end: the column.
        positions, corrupt_positions: column of the last token of each named part, row by row, and
            `"end"`. The two agree where clean and corrupt have the same words in the same places.
        position_map: for each corrupt column the clean one, -1 for none; the same column, unless
            lengths differ.
        correct, wrong: token ids of the answers of each example.
        n_common: how many tokens both answers begin with.
        rows_per_example: 1 or 2.
        answers: as asked for.
    """

    name: str
    pairs: tuple[PromptPair, ...]
    broken: pd.DataFrame
    clean: Int[Tensor, "row pos"]
    corrupt: Int[Tensor, "row pos"]
    clean_mask: Int[Tensor, "row pos"]
    corrupt_mask: Int[Tensor, "row pos"]
    is_token: Bool[Tensor, "row pos"]
    end: int
    positions: dict[str, Tensor]
    corrupt_positions: dict[str, Tensor]
    position_map: Int[Tensor, "row pos"]
    correct: tuple[tuple[int, ...], ...]
    wrong: tuple[tuple[int, ...], ...]
    n_common: tuple[int, ...]
    rows_per_example: int
    answers: str

    @property
    def n_examples(self) -> int:
        """Distinct prompt pairs."""
        return len(self.pairs)

    @property
    def attention_mask(self) -> Int[Tensor, "row pos"] | None:
        """The mask of both runs; None when no row is padded.

        Raises:
            InputError: clean and corrupt are padded differently: each has its own mask then.
        """
        if not torch.equal(self.clean_mask, self.corrupt_mask):
            raise InputError(
                expected="clean and corrupt prompts of equal length for a common attention mask",
                got="unequal lengths, aligned by position_map",
                fix="Use clean_mask and corrupt_mask, each with its run.",
            )
        return None if bool(self.clean_mask.all()) else self.clean_mask

    def metric(self, kind: Kind = "log_prob_difference") -> AnswerScore | AnswerAccuracy:
        """A metric of the answers, one number for each example; for clean and corrupt runs alike.

        Args:
            kind: with answers of tokens c and w, each given the prompt and the tokens before it:

                - `"log_prob_difference"`: sum log p(c) - sum log p(w), in nats. Longer answers
                  tend to have lower log-probability: compare examples, not answers.
                - `"logit_difference"`: the same number from two logits, without a normaliser;
                  only where both answers go on with one token.
                - `"preference"`: 1 where that difference is positive, 1/2 where it is 0, else 0.
                - `"accuracy"`: 1 where every token of the correct answer is the most probable
                  one, which is when greedy decoding gives it.
                - `"loss"`: - sum log p(c), in nats for the whole answer.

        Returns:
            A `Metric`. With `answers="first_token"`, accuracy and loss are of the tokens up to the
            one where the answers part.

        Raises:
            InputError: another kind, or a logit difference of answers of several tokens.
        """
        check_choice("kind", kind, get_args(Kind))
        if kind == "accuracy":
            positions, targets = self._whole_answers()
            return AnswerAccuracy(kind, "", positions, targets, self.rows_per_example)
        if kind == "loss":
            positions, targets = self._whole_answers()
            judged = (targets >= 0) & self._correct_rows()[:, None]
            return self._score(kind, positions, targets[..., None], -judged[..., None].float())
        if self.rows_per_example == 1:
            rests = zip(self.correct, self.wrong, self.n_common, strict=True)
            columns = torch.tensor([[[c[n], w[n]]] for c, w, n in rests])
            weights = torch.tensor([1.0, -1.0]).expand(columns.shape)
            positions = torch.full((len(columns), 1), self.end)
            return self._score(kind, positions, columns, weights, log_probs=False)
        if kind == "logit_difference":
            raise InputError(
                expected="answers that differ in one token for a logit difference",
                got="answers of several tokens, whose log-probabilities are summed",
                fix="task.tokenise(..., answers='first_token'), or kind='log_prob_difference'.",
            )
        positions, targets = self._rests()
        sign = torch.where(self._correct_rows(), 1.0, -1.0)[:, None]
        weights = torch.where(targets >= 0, sign, 0.0)
        return self._score(kind, positions, targets[..., None], weights[..., None])

    def summary(self) -> str:
        """How many pairs there are, and why others were left out."""
        text = f"{self.name}: {self.n_examples} distinct prompt pairs, {len(self.clean)} rows."
        if len(self.broken):
            reasons = self.broken["reason"].str.split(":").str[0].value_counts()
            listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            text += f" {len(self.broken)} left out: {listed}."
        return text

    def _score(
        self,
        kind: Kind,
        positions: Tensor,
        columns: Tensor,
        weights: Tensor,
        *,
        log_probs: bool = True,
    ) -> AnswerScore:
        return AnswerScore(
            kind,
            "" if kind == "preference" else "nats",
            positions,
            columns.clamp_min(0),
            weights,
            log_probs=log_probs,
            rows_per_example=self.rows_per_example,
            preference=kind == "preference",
        )

    def _correct_rows(self) -> Bool[Tensor, " row"]:
        return torch.arange(len(self.clean)) % self.rows_per_example == 0

    def _rests(self) -> tuple[Int[Tensor, "row read"], Int[Tensor, "row read"]]:
        """Where the tokens from the parting on are predicted, and these tokens."""
        rows = [
            answer[n:]
            for c, w, n in zip(self.correct, self.wrong, self.n_common, strict=True)
            for answer in (c, w)
        ]
        return self._reads(rows, [0] * len(rows))

    def _whole_answers(self) -> tuple[Int[Tensor, "row read"], Int[Tensor, "row read"]]:
        """Where the tokens of each correct answer are predicted, and these tokens."""
        cut = [
            c if self.answers == "whole" else c[: n + 1]
            for c, n in zip(self.correct, self.n_common, strict=True)
        ]
        rows = [answer for answer in cut for _ in range(self.rows_per_example)]
        common = [n for n in self.n_common for _ in range(self.rows_per_example)]
        return self._reads(rows, common)

    def _reads(
        self, rows: Sequence[Sequence[int]], n_before: Sequence[int]
    ) -> tuple[Int[Tensor, "row read"], Int[Tensor, "row read"]]:
        """Columns and targets; the first is predicted `n_before` columns before `end`."""
        width = max(map(len, rows))
        targets = torch.full((len(rows), width), -1)
        positions = torch.full((len(rows), width), self.end)
        for row, (answer, before) in enumerate(zip(rows, n_before, strict=True)):
            start = self.end - before
            targets[row, : len(answer)] = torch.tensor(answer)
            positions[row, : len(answer)] = torch.arange(start, start + len(answer))
        return positions, targets


def tokenise_task(
    name: str,
    pairs: Sequence[PromptPair],
    tokenizer: Any,
    *,
    answers: Answers = "whole",
    alignment: Alignment = "equal_length",
    prepend_bos: bool | None = None,
    on_broken: Literal["drop", "raise"] = "drop",
    n_ctx: int | None = None,
) -> TokenisedTask:
    """`Task.tokenise` for a name and pairs."""
    check_choice("answers", answers, get_args(Answers))
    check_choice("on_broken", on_broken, ("drop", "raise"))
    encoded = encode_pairs(
        pairs, tokenizer, alignment=alignment, prepend_bos=prepend_bos, n_ctx=n_ctx
    )
    broken = [row for row, one in enumerate(encoded) if one.reason]
    if broken and (on_broken == "raise" or len(broken) == len(encoded)):
        which = encoded[broken[0]].reason
        raise InputError(
            expected=f"prompt pairs that this tokenizer leaves whole ({name})",
            got=f"{len(broken)} broken of {len(encoded)}; pair {broken[0]}: {which}",
            fix="task.check(tokenizer) lists all. For prompts of unequal length give a position "
            "map (PromptPair.shared) and alignment='explicit'.",
        )
    kept = [(pair, one) for pair, one in zip(pairs, encoded, strict=True) if not one.reason]
    good = [one for _, one in kept]
    single = answers == "first_token" or all(
        len(one.correct) == len(one.wrong) == one.n_common + 1 for one in good
    )
    return TokenisedTask(
        name=name,
        pairs=tuple(pair for pair, _ in kept),
        broken=_broken_frame(pairs, encoded, tokenizer),
        correct=tuple(one.correct for one in good),
        wrong=tuple(one.wrong for one in good),
        n_common=tuple(one.n_common for one in good),
        rows_per_example=1 if single else 2,
        answers=answers,
        **lay_out(good, single=single, pad=pad_token(tokenizer)),
    )


def _broken_frame(
    pairs: Sequence[PromptPair], encoded: Sequence[EncodedPair], tokenizer: Any
) -> pd.DataFrame:
    rows = [
        {
            "pair": i,
            **{c: getattr(pair, c) for c in COLUMNS},
            "reason": one.reason,
            "clean_tokens": shown(one.clean, tokenizer),
            "corrupt_tokens": shown(one.corrupt, tokenizer),
        }
        for i, (pair, one) in enumerate(zip(pairs, encoded, strict=True))
        if one.reason
    ]
    names = ["pair", *COLUMNS, "reason", "clean_tokens", "corrupt_tokens"]
    return pd.DataFrame(rows, columns=pd.Index(names))
