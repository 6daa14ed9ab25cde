"""The scores of all pairs of heads, beside what unrelated heads would score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from headspec.heads import Head
from headspec.results import tidy
from headspec.stats import false_discovery_rate

_NULL_WORDS = {
    "orientation": "heads with the same singular values and random directions",
    "gaussian": "heads of Gaussian weights of the same shape",
}


@dataclass(frozen=True)
class CompositionScores:
    """A number for every pair of an upstream and a downstream head, and its null.

    Attributes:
        scores: `upstream downstream`; nan where the first head does not come before the second.
        null_mean, null_sd: of the score under the null.
        p_values: chance of such a score or a larger one under the null. Below about 1e-3 the
            law is extrapolated: read the size of the excess instead.
        metric: `"q_composition"`, `"k_composition"`, `"v_composition"`, or an overlap such as
            `"overlap_o_k"`.
        null: which null.
        upstream, downstream: where rows and columns come from.
        d_model: dimension of the residual stream.
        seed: of the null where it is simulated.
        model, step, processing: as in the weights.
    """

    scores: Float[np.ndarray, "upstream downstream"]
    null_mean: Float[np.ndarray, "upstream downstream"]
    null_sd: Float[np.ndarray, "upstream downstream"]
    p_values: Float[np.ndarray, "upstream downstream"]
    metric: str
    null: str
    upstream: tuple[Head, ...]
    downstream: tuple[Head, ...]
    d_model: int
    seed: int = 0
    model: str = ""
    step: int | None = None
    processing: str = "none"

    @property
    def excess(self) -> Float[np.ndarray, "upstream downstream"]:
        """Score minus its mean under the null; negative where heads avoid each other."""
        return self.scores - self.null_mean

    @property
    def q_values(self) -> Float[np.ndarray, "upstream downstream"]:
        """`p_values` after Benjamini-Hochberg over all pairs."""
        return false_discovery_rate(self.p_values)

    def to_frame(self) -> pd.DataFrame:
        """One row a pair. `layer` and `head` name the upstream head.

        Extra columns: `layer_2` and `head_2` (the downstream head), `excess`, `q`, `null`,
        `processing`.
        """
        rows, columns = np.nonzero(~np.isnan(self.scores))
        first = [self.upstream[row] for row in rows]
        second = [self.downstream[column] for column in columns]
        at = (rows, columns)
        return tidy(
            {
                "layer": [head.layer for head in first],
                "head": [head.index for head in first],
                "value": self.scores[at],
                "null_mean": self.null_mean[at],
                "null_sd": self.null_sd[at],
                "p": self.p_values[at],
                "layer_2": [head.layer for head in second],
                "head_2": [head.index for head in second],
                "excess": self.excess[at],
                "q": self.q_values[at],
            },
            model=self.model,
            step=self.step,
            metric=self.metric,
            seed=self.seed,
            null=self.null,
            processing=self.processing,
        )

    def summary(self, *, k: int = 5) -> str:
        """How many pairs stand above the null, and the `k` that do most, as text."""
        found = self.to_frame()
        above = np.count_nonzero(found["q"].to_numpy() < 0.05)
        top = found.sort_values("excess", ascending=False, kind="stable").head(k)
        lines = [
            f"{self.metric}: {above} of {len(found)} pairs above the null at a false discovery "
            f"rate of 5 % (null: {_NULL_WORDS[self.null]}).",
            f"Median score {found['value'].median():.3f}, null {found['null_mean'].median():.3f}.",
        ]
        for row in top.to_dict("records"):
            pair = f"L{row['layer']}H{row['head']} -> L{row['layer_2']}H{row['head_2']}"
            lines.append(
                f"  {pair}: {row['value']:.3f} (null {row['null_mean']:.3f} "
                f"± {row['null_sd']:.3f}, q {row['q']:.2g})"
            )
        return "\n".join(lines)
