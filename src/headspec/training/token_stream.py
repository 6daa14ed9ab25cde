"""Batches of token data in a chosen order, as a function of the step alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from headspec.errors import InputError, check_choice
from headspec.training.token_data import TokenData

Ordering = Literal["shuffled", "topic_ordered"]


@dataclass(frozen=True, eq=False)
class TokenStream:
    """An endless stream of batches; batch number `step` is always the same.

    Nothing is remembered between calls, so that training resumes exactly from the step alone.
    Sequences are numbered on from epoch to epoch, each epoch in an order of its own that holds
    every sequence once; a batch may hold the end of one epoch and the beginning of the next.

    Args:
        data: one split, see `open_token_data`.
        batch_size: sequences a batch.
        ordering: "shuffled", or "topic_ordered": sequences sorted by dominant topic as in the
            study. Which topic comes first is drawn once from `seed` and stays over epochs; inside
            a topic each epoch has an order of its own.
        seed: of the orders.
        steps: how many batches will be read, where that is known. An epoch of which only a part
            will be read then holds, in both orderings, the same sequences: those that the shuffled
            epoch begins with. Without it, a topic-ordered epoch that is cut short lacks whole
            topics, and what is compared with a shuffled run is not the order alone.

    What the ordering means: a topic-ordered stream shows about 1 / n_topics of an epoch before
    the dominant topic changes. The first steps are no sample of the data: stopping after them
    (such as 1 % of the steps) leaves one topic seen only.

    Raises:
        InputError: for an empty split, a batch size below one, a negative seed or step.

    Example:
        >>> from headspec.training.token_data import LabelledTokens
        >>> rows = np.arange(6)[:, None].repeat(2, 1)
        >>> data = TokenData(rows, rows // 3, vocab_size=6, n_topics=2, seq_len=2)
        >>> stream = TokenStream(data, batch_size=3, ordering="topic_ordered", seed=1)
        >>> [sorted(stream.batch(step)[:, 0].tolist()) for step in range(2)]
        [[0, 1, 2], [3, 4, 5]]
    """

    data: TokenData
    batch_size: int = field(kw_only=True)
    ordering: Ordering = field(default="shuffled", kw_only=True)
    seed: int = field(default=0, kw_only=True)
    steps: int | None = field(default=None, kw_only=True)
    _orders: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("ordering", self.ordering, get_args(Ordering))
        if self.batch_size < 1 or len(self.data) < 1:
            raise InputError(
                expected="at least one sequence, in the data and in a batch",
                got=f"{len(self.data)} and batch_size={self.batch_size}",
                fix="Choose a positive batch_size and data that hold sequences.",
            )
        if self.seed < 0:
            raise InputError(expected="a seed from 0 on", got=str(self.seed), fix="Raise seed.")

    @property
    def steps_per_epoch(self) -> float:
        """Batches in which every sequence comes once; a fraction where they do not divide."""
        return len(self.data) / self.batch_size

    def rows(self, step: int) -> Int[np.ndarray, " batch"]:
        """Which sequences of the data make up a batch.

        Args:
            step: number of the batch, from 0 on.

        Raises:
            InputError: for a negative step.
        """
        if not 0 <= step < (step + 1 if self.steps is None else self.steps):
            raise InputError(
                expected="a step from 0 on" + (f" below {self.steps}" if self.steps else ""),
                got=str(step),
                fix="Count from 0, and give the stream all steps that will be read.",
            )
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, within = np.divmod(places, len(self.data))
        rows = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = self._order(int(epoch))[within[here]]
        return rows

    def batch(self, step: int) -> Int64[Tensor, "batch seq_len"]:
        """Tokens of a batch.

        Args:
            step: number of the batch, from 0 on.
        """
        return torch.from_numpy(self.data.tokens[self.rows(step)].astype(np.int64))

    def labels(self, step: int) -> Int64[Tensor, "batch seq_len"]:
        """Topics of the tokens of a batch.

        Args:
            step: number of the batch, from 0 on.
        """
        return torch.from_numpy(self.data.labels[self.rows(step)].astype(np.int64))

    def _order(self, epoch: int) -> Int[np.ndarray, " sequence"]:
        """Every sequence once, as one epoch has them; of the last epoch what will be read."""
        if epoch not in self._orders:
            order = np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.data))
            if self.steps is not None:
                order = order[: max(0, self.steps * self.batch_size - epoch * len(self.data))]
            if self.ordering == "topic_ordered":
                ranks = np.random.default_rng([self.seed, 0]).permutation(self.data.n_topics)
                order = order[np.argsort(ranks[self.data.dominant_topics[order]], kind="stable")]
            for old in list(self._orders)[:-1]:  # the epoch before is all a batch can need besides
                self._orders.pop(old, None)
            self._orders[epoch] = order
        return self._orders[epoch]
