"""Where the heads of a checkpoint look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Integer

from headspec.activations.target_positions import HEAD_KINDS, HeadKind
from headspec.checkpoints.checkpoint import Checkpoint
from headspec.lens.score_heads import head_scores


@dataclass(frozen=True)
class HeadScoreMeasure:
    """Previous-token, induction, duplicate-token and first-token scores of every head.

    Attributes:
        kinds, ignore, n_sequences, period, symbols, seed: as in `head_scores`.
        tokens: as in `head_scores`: the same at every checkpoint. None: repeated random tokens,
            the same at every checkpoint by their seed.

    Called with a checkpoint it gives `HeadScores.to_frame()`: `metric` is the kind, `null_mean`
    what uniform attention scores.

    What it does not show: see `head_scores`.

    Example:
        >>> import headspec as hs
        >>> measure = hs.HeadScoreMeasure(kinds=("induction",), n_sequences=2, period=12)
        >>> frame = measure(hs.open_suite("micro-tiny").checkpoint(0))
        >>> set(frame["metric"]), bool(frame["value"].max() < 0.3)
        ({'induction'}, True)
    """

    kinds: tuple[HeadKind, ...] = HEAD_KINDS
    tokens: Integer[np.ndarray, "batch pos"] | None = None
    ignore: tuple[int, ...] = ()
    n_sequences: int = 32
    period: int = 50
    symbols: tuple[int, ...] | None = None
    seed: int = 0

    def __call__(self, checkpoint: Checkpoint) -> pd.DataFrame:
        found = head_scores(
            checkpoint.model(),
            kinds=self.kinds,
            tokens=self.tokens,
            ignore=self.ignore,
            n_sequences=self.n_sequences,
            period=self.period,
            symbols=self.symbols,
            seed=self.seed,
        )
        return found.to_frame().assign(model=checkpoint.suite.name, step=checkpoint.step)
