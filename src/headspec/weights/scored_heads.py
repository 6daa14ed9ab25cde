"""One score a head beside its null draws: what copying and previous-token scores share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from headspec.heads import Head
from headspec.results import tidy
from headspec.stats import false_discovery_rate


@dataclass(frozen=True, kw_only=True)
class ScoredHeads:
    """One score a head, and its null.

    Attributes:
        scores: one a head.
        null_mean, null_sd, p_values: of the score under the null; nan without draws.
        heads: where each comes from.
        n_null, seed: of the null.
        model, step, processing: as in the weights.
    """

    scores: Float[np.ndarray, " head"]
    null_mean: Float[np.ndarray, " head"]
    null_sd: Float[np.ndarray, " head"]
    p_values: Float[np.ndarray, " head"]
    heads: tuple[Head, ...]
    n_null: int
    seed: int
    model: str = ""
    step: int | None = None
    processing: str = "none"

    @property
    def q_values(self) -> Float[np.ndarray, " head"]:
        """`p_values` after Benjamini-Hochberg over the heads."""
        return false_discovery_rate(self.p_values)

    def _rows(self, metric: str, **more: Any) -> pd.DataFrame:
        """One tidy row a head, with `q`, `n_null`, `processing` and the columns given."""
        return tidy(
            {
                "layer": [head.layer for head in self.heads],
                "head": [head.index for head in self.heads],
                "value": self.scores,
                "null_mean": self.null_mean,
                "null_sd": self.null_sd,
                "p": self.p_values,
                "q": self.q_values,
            }
            | more,
            model=self.model,
            step=self.step,
            metric=metric,
            seed=self.seed,
            n_null=self.n_null,
            processing=self.processing,
        )

    def _words(self, what: str, k: int) -> str:
        """How many heads stand above the null, and the `k` highest."""
        above = np.count_nonzero(self.q_values < 0.05)
        lines = [
            f"{what}: {above} of {len(self.scores)} heads above the null at a false discovery "
            f"rate of 5 % ({self.n_null} draws)."
            if self.n_null
            else f"{what} of {len(self.scores)} heads, without a null."
        ]
        for row in np.argsort(-self.scores, kind="stable")[:k]:
            beside = (
                f" (null {self.null_mean[row]:.3f} ± {self.null_sd[row]:.3f}, "
                f"p {self.p_values[row]:.2g})"
            )
            lines.append(
                f"  {self.heads[row]}: {self.scores[row]:.3f}{beside if self.n_null else ''}"
            )
        return "\n".join(lines)
