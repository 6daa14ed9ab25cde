"""The result of pooling correlations of rates over models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from headspec.results import tidy


@dataclass(frozen=True)
class PooledRates:
    """Correlations of rates over model sizes, one row a statistic, capability and lag.

    Attributes:
        table: what `to_frame` gives.
        models: which models were pooled.
        by: the columns that say which curves of different models belong together.
        level: of the intervals.
    """

    table: pd.DataFrame
    models: tuple[str, ...]
    by: tuple[str, ...]
    level: float

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows: `metric`, `value` the pooled r, `p` two-sided, `n` the number of models.

        Further columns: `capability`, `lag`, `low`, `high`, `q` (p adjusted over all rows),
        `sign_consistency` (share of models whose r has the sign of the pooled one), `n_models`,
        `tau` (spread between models, in Fisher's z) and those of `by`.
        """
        return tidy(self.table)

    def summary(self, *, alpha: float = 0.05, n_rows: int = 5) -> str:
        """What holds over models, in plain words."""
        table = self.to_frame()
        p, q = (np.asarray(table[name], dtype=float) for name in ("p", "q"))
        found = int((q <= alpha).sum())
        lines = [
            f"{int(np.isfinite(p).sum())} statistics by capabilities pooled over "
            f"{len(self.models)} models ({', '.join(self.models)}); {found} with q <= {alpha:g}."
        ]
        for row in table.iloc[np.argsort(p, kind="stable")[:n_rows]].to_dict("records"):
            lines.append(
                f"{row['metric']} with {row['capability']}, lag {row['lag']}: r = "
                f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f}), same sign in "
                f"{row['sign_consistency']:.0%} of {row['n_models']} models, p = {row['p']:.2g}, "
                f"q = {row['q']:.2g}."
            )
        return "\n".join(lines)
