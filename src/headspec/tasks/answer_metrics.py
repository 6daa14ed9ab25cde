"""Metrics that score two answers from as few logits as they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headspec.errors import InputError
from headspec.lens.logits import LogitRead

Kind = Literal["log_prob_difference", "logit_difference", "accuracy", "preference", "loss"]
"""What `TokenisedTask.metric` makes: see there."""


@dataclass(frozen=True, eq=False)
class AnswerScore:
    """A weighted sum of read logits or log-probabilities: one number an example.

    Attributes:
        name: of the metric.
        unit: of the values.
        positions: columns read in each row.
        columns: vocabulary entries read there.
        weights: of each read number; unused reads have weight 0.
        log_probs: read log-probabilities instead of logits.
        rows_per_example: 2 where one row holds the correct and the next the wrong answer.
        preference: give 1 for a positive sum, 0 for a negative one and 1/2 for a tie.
    """

    name: str
    unit: str
    positions: Int[Tensor, "batch read"]
    columns: Int[Tensor, "batch read column"]
    weights: Float[Tensor, "batch read column"]
    log_probs: bool
    rows_per_example: int
    preference: bool = False

    def read(self, tokens: Int[Tensor, "batch pos"]) -> LogitRead:
        """The tokens of the answers, at the positions before them."""
        check_rows(tokens, len(self.positions), self.name)
        return LogitRead(self.positions, self.columns, log_probs=self.log_probs)

    def __call__(self, logits: Float[Tensor, "batch read column"]) -> Float[Tensor, " example"]:
        weights = self.weights.to(logits.device)
        parts = torch.where(weights == 0, 0.0, weights * logits.float()).sum((1, 2))
        values = parts.view(-1, self.rows_per_example).sum(1)
        return (values.sign() + 1) / 2 if self.preference else values


@dataclass(frozen=True, eq=False)
class AnswerAccuracy:
    """1 where every token of the correct answer is the most probable one, else 0.

    Given the right tokens before it, that is what greedy decoding needs to produce the answer.
    A tie counts for the smaller token id, as in decoding.

    Attributes:
        name, unit: of the metric.
        positions: columns read in each row.
        targets: the token that should follow; -1: this read is not used.
        rows_per_example: as in `AnswerScore`; only the first row of an example is judged.
    """

    name: str
    unit: str
    positions: Int[Tensor, "batch read"]
    targets: Int[Tensor, "batch read"]
    rows_per_example: int

    def read(self, tokens: Int[Tensor, "batch pos"]) -> LogitRead:
        """The whole vocabulary at the positions before the correct answer's tokens."""
        check_rows(tokens, len(self.positions), self.name)
        return LogitRead(self.positions)

    def __call__(self, logits: Float[Tensor, "batch read column"]) -> Float[Tensor, " example"]:
        rows = slice(None, None, self.rows_per_example)
        targets = self.targets[rows].to(logits.device)
        return ((logits[rows].argmax(-1) == targets) | (targets < 0)).all(1).float()


def check_rows(tokens: Tensor, n_rows: int, name: str) -> None:
    """Raise unless the tokens have as many rows as the metric was made for."""
    if len(tokens) != n_rows:
        raise InputError(
            expected=f"the {n_rows} rows that {name} was made for",
            got=f"{len(tokens)} rows",
            fix="Use the tokens and the metric of the same TokenisedTask.",
        )
