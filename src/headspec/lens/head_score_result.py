"""The result of scoring heads by where they look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from headspec.activations.target_positions import HeadKind
from headspec.errors import check_choice
from headspec.heads import Head
from headspec.results import tidy


@dataclass(frozen=True, kw_only=True)
class HeadScores:
    """How much of its attention every head puts where heads of a kind look.

    Attributes:
        kinds: such as `"induction"`, the first axis of what follows.
        scores: mean attention to the positions of the kind, 0 to 1.
        se: standard errors over sequences; nan for one sequence.
        uniform: what uniform attention over all tokens so far scores.
        control: attention to the same positions where they mean nothing (on other tokens); nan for
            kinds that are positions alone, and for one sequence.
        n_queries: queries with such a position, over all sequences.
        n: sequences.
        n_pos: tokens of each.
        data: `"repeated random tokens"` or `"given tokens"`.
        seed: of the random tokens.
        model, step, processing: what was measured.
    """

    kinds: tuple[str, ...]
    scores: Float[np.ndarray, "kind layer head"]
    se: Float[np.ndarray, "kind layer head"]
    uniform: Float[np.ndarray, " kind"]
    control: Float[np.ndarray, "kind layer head"]
    n_queries: tuple[int, ...]
    n: int
    n_pos: int
    data: str
    seed: int
    model: str = ""
    step: int | None = None
    processing: str = "none"

    def of_kind(self, kind: HeadKind) -> Float[np.ndarray, "layer head"]:
        """Scores of one kind.

        Raises:
            InputError: a kind that was not measured.
        """
        check_choice("kind", kind, self.kinds)
        return self.scores[self.kinds.index(kind)]

    def top_heads(self, kind: HeadKind, k: int = 5) -> tuple[Head, ...]:
        """The `k` heads with the highest scores of a kind, the highest first."""
        scores = self.of_kind(kind)
        order = np.argsort(-scores, axis=None, kind="stable")[:k]
        return tuple(
            Head(int(row), int(column))
            for row, column in zip(*np.unravel_index(order, scores.shape), strict=True)
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a kind and head: `metric` is the kind, `null_mean` that of uniform attention.

        Extra columns: `se`, `control`, `n_queries`, `n_pos`, `data`, `processing`. `n` counts
        sequences.
        """
        shape = self.scores.shape
        kind, layer, head = (index.ravel() for index in np.indices(shape))
        return tidy(
            {
                "layer": layer,
                "head": head,
                "metric": np.array(self.kinds)[kind],
                "value": self.scores.ravel(),
                "null_mean": self.uniform[kind],
                "se": self.se.ravel(),
                "control": self.control.ravel(),
                "n_queries": np.array(self.n_queries)[kind],
            },
            model=self.model,
            step=self.step,
            n=self.n,
            seed=self.seed,
            n_pos=self.n_pos,
            data=self.data,
            processing=self.processing,
        )

    def summary(self, *, k: int = 3) -> str:
        """The `k` highest heads of each kind, beside uniform attention and the control."""
        lines = [f"Attention of heads on {self.n} sequences of {self.n_pos} tokens ({self.data})."]
        for i, kind in enumerate(self.kinds):
            each = []
            for head in self.top_heads(kind, k):  # pyright: ignore[reportArgumentType]
                at = i, head.layer, head.index
                words = f"{head} {self.scores[at]:.3f}"
                words += "" if np.isnan(self.se[at]) else f" ± {self.se[at]:.3f}"
                control = self.control[at]
                each.append(words + ("" if np.isnan(control) else f" (elsewhere {control:.3f})"))
            name = kind.replace("_", " ")
            lines.append(f"  {name} (uniform {self.uniform[i]:.3f}): {', '.join(each)}")
        return "\n".join(lines)
