"""Topics over a sequence: how segments are drawn, and the chance that one ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class SegmentPrior:
    """The distribution of topic labels along a sequence.

    The number of segments is uniform over `min_segments` to `max_segments`; given it, all ways of
    cutting the sequence into that many non-empty pieces are equally likely. The first topic is
    uniform over all, each further one uniform over the others.

    Attributes:
        n_topics, seq_len, min_segments, max_segments: as named.
    """

    n_topics: int
    seq_len: int
    min_segments: int
    max_segments: int

    def draw(self, n: int, rng: np.random.Generator) -> Int[np.ndarray, "sequence pos"]:
        """Topic labels of `n` sequences, as int16."""
        n_cuts = rng.integers(self.min_segments - 1, self.max_segments, size=n)
        used = np.arange(self.max_segments - 1) < n_cuts[:, None]
        cuts = self._distinct_cuts(n, rng)
        moves = np.zeros((n, self.seq_len), np.int16)
        moves[:, 0] = rng.integers(0, self.n_topics, size=n)
        rows, columns = np.nonzero(used)
        if len(rows):
            moves[rows, cuts[rows, columns]] = rng.integers(1, self.n_topics, size=len(rows))
        return np.cumsum(moves, axis=1, dtype=np.int16) % self.n_topics

    def _distinct_cuts(self, n: int, rng: np.random.Generator) -> Int[np.ndarray, "sequence cut"]:
        """Different places 1 to seq_len - 1 in each row, in random order: any first r are fair.

        The next cut is drawn among the places left and moved past those taken, in their order.
        """
        cuts = np.empty((n, self.max_segments - 1), np.int64)
        for drawn in range(cuts.shape[1]):
            place = rng.integers(1, self.seq_len - drawn, size=n)
            for taken in np.sort(cuts[:, :drawn], axis=1).T:
                place += place >= taken
            cuts[:, drawn] = place
        return cuts

    def start(self) -> Float[np.ndarray, "cuts_left topic"]:
        """Probability of each number of cuts still to come and topic at the first position."""
        start = np.zeros((self.max_segments, self.n_topics))
        start[self.min_segments - 1 :] = 1
        return start / start.sum()

    def advance(
        self, belief: Float[np.ndarray, "sequence cuts_left topic"], pos: int
    ) -> Float[np.ndarray, "sequence cuts_left topic"]:
        """Belief about cuts left and topic at `pos`, from that at `pos - 1`.

        Of r cuts left for the seq_len - pos places from `pos` on, one lies at `pos` with
        probability r / (seq_len - pos).
        """
        cut = np.arange(self.max_segments) / (self.seq_len - pos)
        ahead = belief * (1 - cut)[:, None]
        leaving = belief[:, 1:] * cut[1:, None]
        if self.n_topics > 1:
            others = leaving.sum(axis=2, keepdims=True) - leaving
            ahead[:, :-1] += others / (self.n_topics - 1)
        return ahead
