"""The result of observing attention: figures of every head beside what no knowledge would give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from headspec.activations.attention_reference import AttentionBaselines
from headspec.heads import Head
from headspec.results import tidy


@dataclass(frozen=True, kw_only=True)
class AttentionStatistics:
    """What every head's attention is like on given sequences, with errors and baselines.

    Metrics: `"entropy"` (nats), `"distance"` (tokens), `"sink_mass"`; with labels
    `"within_topic_mass"`, `"topic_ratio"`, `"topic_specialisation"`, and with two sequences or more
    `"topic_excess"`: the within-topic mass less that with labels of other sequences, which is what
    the head's reach gives it. Means are over all queries that count (with a topic, for metrics
    of topics) of all sequences.

    What they do not show: that a head uses what it looks at, or that its output matters.

    Attributes:
        means: metric -> `layer head`.
        se: metric -> standard errors over sequences, by jackknife (the excess: see
            `estimate_excess`); nan for one sequence.
        low, high: metric -> ends of intervals at `level` (t with n - 1 degrees of freedom; of the
            ratio on its logarithm).
        by_query: `"entropy" "distance" "sink_mass" "within_topic_mass"` -> `layer head q_pos`,
            mean over sequences.
        by_topic: `"entropy" "within_topic_mass" "topic_ratio"` of the queries of each topic ->
            `layer head topic`.
        exchanged: metrics of topics -> `layer head`, read with the labels of other sequences, mean
            over the exchanges; empty without labels or with one sequence.
        excess_null_sd, excess_p: of the within-topic mass over the exchanges, `layer head`: its
            standard deviation, and the share of exchanges at least as high as the true labels (the
            true ones counted in). nan without.
        baselines: uniform, windowed and first-token attention on the same queries and labels.
        n: sequences.
        level: of the intervals.
        method: `"blockwise"` or `"patterns"`, what was done.
        reason: why not blockwise, if that was refused.
        seed: of the choice of other sequences.
        model, step, processing: what was observed.
    """

    means: Mapping[str, Float[np.ndarray, "layer head"]]
    se: Mapping[str, Float[np.ndarray, "layer head"]]
    low: Mapping[str, Float[np.ndarray, "layer head"]]
    high: Mapping[str, Float[np.ndarray, "layer head"]]
    by_query: Mapping[str, Float[np.ndarray, "layer head q_pos"]]
    by_topic: Mapping[str, Float[np.ndarray, "layer head topic"]]
    exchanged: Mapping[str, Float[np.ndarray, "layer head"]]
    excess_null_sd: Float[np.ndarray, "layer head"]
    excess_p: Float[np.ndarray, "layer head"]
    baselines: AttentionBaselines
    n: int
    level: float
    method: str
    reason: str = ""
    seed: int = 0
    model: str = ""
    step: int | None = None
    processing: str = "none"

    @property
    def entropy(self) -> Float[np.ndarray, "layer head"]:
        """Mean entropy in nats."""
        return self.means["entropy"]

    @property
    def ceiling(self) -> float:
        """Largest mean entropy that attention can have here: that of uniform attention."""
        return self.baselines.uniform["entropy"]

    def to_frame(self) -> pd.DataFrame:
        """One row a layer, head and metric; `null_mean` is uniform attention, `n` sequences.

        Extra columns: `se`, `low`, `high`; `window_baseline`, `first_baseline` (the other two
        content-free attentions), `exchanged_baseline` (the same head, labels of other sequences);
        `n_pos`, `window`, `method`, `processing`. The excess has 0 for `null_mean`, `null_sd`
        and `p` over the exchanges, and no other baseline.
        """
        frames = []
        for metric, values in self.means.items():
            layer, head = np.indices(values.shape)
            others = self.exchanged.get(metric, np.full(values.shape, np.nan))
            columns = {
                "layer": layer,
                "head": head,
                "value": values,
                "se": self.se[metric],
                "low": self.low[metric],
                "high": self.high[metric],
                "exchanged_baseline": others,
            }
            if metric == "topic_excess":
                columns |= {"null_sd": self.excess_null_sd, "p": self.excess_p}
            frame = pd.DataFrame({name: column.ravel() for name, column in columns.items()})
            frames.append(frame.assign(metric=metric, **self._baselines_of(metric)))
        return tidy(
            pd.concat(frames, ignore_index=True),
            model=self.model,
            step=self.step,
            n=self.n,
            seed=self.seed,
            n_pos=self.baselines.n_pos,
            window=self.baselines.window,
            method=self.method,
            processing=self.processing,
        )

    def _baselines_of(self, metric: str) -> dict[str, float]:
        names = ("null_mean", "window_baseline", "first_baseline")
        values = self.baselines.means.get(metric, np.array([0.0, np.nan, np.nan]))
        return dict(zip(names, values.tolist(), strict=True))

    def summary(self, *, top: int = 3) -> str:
        """Ranges of each metric over heads beside the baselines, and the heads that lead."""
        n_layers, n_heads = self.entropy.shape
        lines = [
            f"Attention of {n_layers} x {n_heads} heads on {self.n} sequences of "
            f"{self.baselines.n_pos} tokens ({self.method}):"
        ]
        for metric, values in self.means.items():
            at = self._baselines_of(metric)
            beside = f"none gives {at['null_mean']:.3f}"
            if metric in self.baselines.means:
                beside = (
                    f"uniform {at['null_mean']:.3f}, last {self.baselines.window} tokens "
                    f"{at['window_baseline']:.3f}, first {at['first_baseline']:.3f}"
                )
            if not np.isfinite(values).any():
                lines.append(f"  {metric.replace('_', ' ')}: undefined here ({beside})")
                continue
            mean, low, high = np.nanmean(values), np.nanmin(values), np.nanmax(values)
            lines.append(
                f"  {metric.replace('_', ' ')}: mean {mean:.3f}, heads {low:.3f} to {high:.3f} "
                f"({beside})"
            )
        name = "topic_excess" if "topic_excess" in self.means else "entropy"
        ranked = np.argsort(-np.nan_to_num(self.means[name], nan=-np.inf), axis=None)[:top]
        heads = [divmod(int(i), n_heads) for i in ranked]
        named = [
            f"{Head(*at)} {self.means[name][at]:.3f} ± {self.se[name][at]:.3f}" for at in heads
        ]
        lines.append(f"  largest {name.replace('_', ' ')}: {', '.join(named)}")
        return "\n".join(lines)
