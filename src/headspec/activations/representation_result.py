"""The result of `representation_similarity`: one number beside unpaired samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd

from headspec.results import tidy
from headspec.stats import NullSummary

SimilarityKind = Literal["cka", "debiased_cka", "cosine", "procrustes"]
KINDS: tuple[SimilarityKind, ...] = get_args(SimilarityKind)


@dataclass(frozen=True, kw_only=True)
class RepresentationSimilarity:
    """How alike two representations of the same samples are.

    Attributes:
        kind: `"cka"`, `"debiased_cka"`, `"cosine"` or `"procrustes"`.
        value: the similarity, 1 for the same; nan where a representation does not vary (or for
            the cosine, where no sample has two directions).
        distance: of `"procrustes"` 2 - 2 value, the squared distance after the best rotation
            (Ding et al.), 0 to 2; of the others 1 - value.
        null: `value` beside what it is with the samples of one representation shuffled, p for
            values as large.
        n_samples: rows of both.
        widths: columns of each.
        n_null, seed: shuffles and their seed.
    """

    kind: SimilarityKind
    value: float
    distance: float
    null: NullSummary
    n_samples: int
    widths: tuple[int, int]
    n_null: int
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Two rows: `similarity_<kind>` with its null, `distance_<kind>`."""
        null = self.null
        rows = [
            {
                "metric": f"similarity_{self.kind}",
                "value": self.value,
                "null_mean": null.mean,
                "null_sd": null.sd,
                "p": null.p_value,
            },
            {"metric": f"distance_{self.kind}", "value": self.distance},
        ]
        return tidy(rows, n=self.n_samples, seed=self.seed if self.n_null else None)

    def summary(self) -> str:
        """The number in words, beside its null."""
        null = (
            f" (samples shuffled: {self.null.mean:.4f}, sd {self.null.sd:.4f}, "
            f"p {self.null.p_value:.3g})"
            if self.n_null
            else ""
        )
        return (
            f"{self.kind.replace('_', ' ')} of {self.n_samples} samples, {self.widths[0]} and "
            f"{self.widths[1]} wide: similarity {self.value:.4f}{null}, distance "
            f"{self.distance:.4g}."
        )
