"""What an ideal reader of a micro-language knows: exact forward recursion over topics and cuts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, Int

from headspec.errors import InputError
from headspec.training.topic_segments import SegmentPrior

Likelihood = Callable[[Int[np.ndarray, "sequence pos"], int], Float[np.ndarray, "sequence topic"]]
_CHUNK = 2048  # sequences at a time: the belief over cuts and topics stays in the cache


def filter_topics(
    tokens: Int[np.ndarray, "sequence pos"],
    prior: SegmentPrior,
    likelihood: Callable[
        [Int[np.ndarray, "sequence pos"], int], Float[np.ndarray, "sequence topic"]
    ],
) -> tuple[Float[np.ndarray, "sequence pos"], Float[np.ndarray, "sequence pos topic"]]:
    """Loss of the ideal predictor, and its belief about the topic, at every position.

    The hidden state is (cuts still to come, topic): 25 states for five segments and topics. Each
    position multiplies the belief by the probability of its token under each topic; the sum is the
    token's predictive probability.

    Args:
        tokens: token numbers as `likelihood` wants them, at most `prior.seq_len` a row.
        prior: of the labels.
        likelihood: given rows of tokens and a position, the probability of the token there under
            each topic, given the token before.

    Returns:
        -ln p(token | tokens before), nats; p(topic of this token | tokens up to it).
    """
    n, length = tokens.shape
    losses = np.empty((n, length))
    topics = np.empty((n, length, prior.n_topics), np.float32)
    for first in range(0, n, _CHUNK):
        part = slice(first, first + _CHUNK)
        rows = tokens[part]
        belief = np.broadcast_to(prior.start(), (len(rows), *prior.start().shape))
        for pos in range(length):
            if pos:
                belief = prior.advance(belief, pos)
            belief = belief * likelihood(rows, pos)[:, None, :]
            total = belief.sum(axis=(1, 2))
            with np.errstate(divide="ignore", invalid="ignore"):
                belief = belief / total[:, None, None]
                losses[part, pos] = -np.log(total)
            topics[part, pos] = belief.sum(axis=1)
    return losses, topics


def read_sequences(
    numbers: Int[np.ndarray, "sequence pos"],
    *,
    prior: SegmentPrior,
    first: Float[np.ndarray, "topic token"],
    following: Float[np.ndarray, "topic from to"] | None,
    special_tokens: int,
) -> tuple[Float[np.ndarray, "sequence pos"], Float32[np.ndarray, "sequence pos topic"]]:
    """`filter_topics` for Markov chains.

    Args:
        numbers: tokens less `special_tokens`.
        prior: of the labels.
        first: probability of each token at the start.
        following: transition probabilities; None reads every token by `first` alone.
        special_tokens: for the words of errors.

    Raises:
        InputError: for tokens that are not of the chains, or rows too long.
    """
    last = first.shape[1]
    if numbers.size and (numbers.min() < 0 or numbers.max() >= last):
        raise InputError(
            expected=f"tokens from {special_tokens} to {last + special_tokens - 1}",
            got=f"{numbers.min() + special_tokens} to {numbers.max() + special_tokens}",
            fix="Read sequences of these languages; they hold no special tokens.",
        )
    if not 1 <= numbers.shape[1] <= prior.seq_len:
        raise InputError(
            expected=f"1 to {prior.seq_len} tokens a row (seq_len)",
            got=str(numbers.shape[1]),
            fix="Make the languages with the seq_len of these sequences.",
        )

    def likelihood(rows: np.ndarray, pos: int) -> np.ndarray:
        if pos == 0 or following is None:
            return first[:, rows[:, pos]].T
        return following[:, rows[:, pos - 1], rows[:, pos]].T

    return filter_topics(numbers, prior, likelihood)
