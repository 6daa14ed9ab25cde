"""The result of clustering heads: numbers beside their null, and what they say in words."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headspec.results import tidy
from headspec.stats import NullSummary
from headspec.weights.cluster_metrics import long_head_silhouette

_NULL_WORDS = {
    "norm_matched": "random directions with the heads' norms",
    "initialisation": "the same architecture initialised anew",
    "permuted": "weights permuted over heads coordinate by coordinate",
}


@dataclass(frozen=True)
class HeadClustering:
    """Clusters of heads, their metrics, and what a null gives in their place.

    Attributes:
        labels: cluster of each head, 0 the largest; -1 for DBSCAN's noise.
        sizes: heads in each cluster.
        silhouette: mean silhouette; nan with fewer than two clusters (`notes` says why).
        null_mean, null_sd, null_quantiles, p_value: of the silhouette under the null, which goes
            through the same algorithm and the same choice of the number of clusters; quantiles
            are those at .05, .5 and .95. nan without a null. p of the lower tail, for heads less
            clearly clustered than the null: `metrics["silhouette"].p_below`.
        metrics: every metric with its null, see `cluster_metrics.partition_metrics`; also
            `stability`, `wasserstein`, `smallest_cluster`, and with a previous checkpoint
            `weight_divergence` (relative) and `ari_previous`. Only `silhouette`, `stability` and,
            with `unit_norm`, `separation_dimensionless` have a p-value: the others carry the
            scale of the weights, and the null's clusters, made by the longest heads, beat real
            ones at them (see `cluster_metrics.has_p_value`). Their null is there to be read.
        head_silhouettes: silhouette of each head.
        null_silhouettes: the draws.
        distances, norms: what was clustered.
        head_divergence: relative change of each head since the previous checkpoint, or None.
        feature, unit_norm, method, n_clusters, chosen: what was done; `chosen` is how the number
            of clusters came about (`"given"`, `"silhouette"` or `"density"`).
        null, n_null, seed: the null; None without.
        n_features: length of a head's vector.
        layers, heads: where each row comes from.
        notes: what could not be computed, and why.
        model, step, layer, processing: as in the weights.
    """

    labels: Int[np.ndarray, " head"]
    sizes: tuple[int, ...]
    silhouette: float
    null_mean: float
    null_sd: float
    null_quantiles: tuple[float, float, float]
    p_value: float
    metrics: dict[str, NullSummary]
    head_silhouettes: Float[np.ndarray, " head"]
    null_silhouettes: Float[np.ndarray, " null"]
    distances: Float[np.ndarray, "head head"]
    norms: Float[np.ndarray, " head"]
    head_divergence: Float[np.ndarray, " head"] | None
    feature: str
    unit_norm: bool
    method: str
    n_clusters: int
    chosen: str
    null: str | None
    n_null: int
    seed: int
    n_features: int
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    notes: tuple[str, ...] = field(default=())
    model: str = ""
    step: int | None = None
    layer: int | None = None
    processing: str = "none"

    @property
    def singletons(self) -> tuple[int, ...]:
        """Rows that are alone in their cluster."""
        alone = [label for label, size in enumerate(self.sizes) if size == 1]
        return tuple(int(row) for row in np.flatnonzero(np.isin(self.labels, alone)))

    @property
    def excess(self) -> float:
        """Silhouette minus its mean under the null: the size of what p speaks of."""
        return self.silhouette - self.null_mean

    def to_frame(self) -> pd.DataFrame:
        """One row a metric, then per-head rows of `cluster`, `head_silhouette`, `head_norm`.

        Extra columns: null quantiles, feature, method, null, unit_norm, processing. `n` counts
        heads, the unit of observation.
        """
        rows = [
            {
                "metric": name,
                "value": one.observed,
                "null_mean": one.mean,
                "null_sd": one.sd,
                "p": one.p_value,
                "null_q05": one.q05,
                "null_q50": one.q50,
                "null_q95": one.q95,
                "n_null": one.n,
            }
            for name, one in self.metrics.items()
        ]
        per_head = {
            "cluster": self.labels.astype(float),
            "head_silhouette": self.head_silhouettes,
            "head_norm": self.norms,
        }
        if self.head_divergence is not None:
            per_head["head_weight_divergence"] = self.head_divergence
        rows += [
            {"layer": layer, "head": head, "metric": name, "value": value}
            for name, values in per_head.items()
            for layer, head, value in zip(self.layers, self.heads, values, strict=True)
        ]
        return tidy(
            rows,
            model=self.model,
            step=self.step,
            layer=self.layer,
            n=len(self.labels),
            seed=self.seed,
            feature=self.feature,
            method=self.method,
            null=self.null,
            unit_norm=self.unit_norm,
            processing=self.processing,
        )

    @property
    def verdict(self) -> str:
        """What the null says of the silhouette, in words.

        "no clusters found", "not tested", "clearer than the null at p < .05", "less clear than the
        null" (the lower tail at p < .05) or, between the two, "not distinguishable from the null".
        """
        if np.isnan(self.silhouette):
            return "no clusters found"
        if self.null is None:
            return "not tested"
        if self.p_value < 0.05:
            return "clearer than the null at p < .05"
        if self.metrics["silhouette"].p_below < 0.05:
            return "less clear than the null"
        return "not distinguishable from the null"

    def summary(self) -> str:
        """The finding in plain sentences: the study's words, the null's verdict, the warnings."""
        parts = [self._what_was_found()]
        if not np.isnan(self.silhouette):
            parts += [self._study_words(), self._null_words(), *self._singleton_words()]
        parts += list(self.notes)
        return " ".join(part for part in parts if part)

    def _what_was_found(self) -> str:
        where = [f"step {self.step}"] if self.step is not None else []
        where += [f"layer {self.layer}"] if self.layer is not None else []
        where += [f"feature {self.feature}" + (" (unit norm)" if self.unit_norm else "")]
        start = ", ".join([*([self.model] if self.model else []), *where])
        sizes = " and ".join(map(str, self.sizes)) or "none"
        noise = int((self.labels < 0).sum())
        return f"{start}: {self.method} puts {len(self.labels)} heads into clusters of {sizes}" + (
            f", {noise} in none." if noise else "."
        )

    def _study_words(self) -> str:
        ratio = self.metrics["separation_ratio"].observed
        return (
            f"Silhouette {self.silhouette:.3f}: the study would call this clustering "
            f"{study_word(self.silhouette)} (> .5 strong, .3 to .5 moderate). Its separation "
            f"ratio is {ratio:,.4g}, in the study's words {study_separation_word(ratio)} (> 2, 1 "
            "to 2), but that ratio has no scale; as distance over within-cluster standard "
            f"deviation it is {self.metrics['separation_dimensionless'].observed:.3g}."
        )

    def _null_words(self) -> str:
        if self.null is None:
            return "No null was drawn, so this says nothing about whether there are clusters."
        low, _, high = self.null_quantiles
        small = self.p_value < 0.05 and self.excess < 0.05
        return (
            f"Null ({_NULL_WORDS[self.null]}, {self.n_null} draws): silhouette "
            f"{self.null_mean:.3f} on average, 90 % between {low:.3f} and {high:.3f}; "
            f"p = {self.p_value:.2g}: {self.verdict}"
            + (f", though by {self.excess:.3f} only." if small else ".")
            + self._less_clear_words()
        )

    def _less_clear_words(self) -> str:
        if self.verdict != "less clear than the null":
            return ""
        hint = " Long heads set this null: unit_norm=True looks past norms."
        p_below = self.metrics["silhouette"].p_below
        return f" (Lower tail: p = {p_below:.2g}.)" + (
            hint if self.null == "norm_matched" and not self.unit_norm else ""
        )

    def _singleton_words(self) -> list[str]:
        words = []
        for row in self.singletons:
            others = np.delete(self.norms, row)
            middle = float(np.sqrt(np.mean(others**2)))
            text = f"A cluster is a single head ({self._name(row)})"
            if self.unit_norm or middle == 0:
                words.append(text + ": a group of one says nothing about specialised groups.")
                continue
            relative = float(self.norms[row]) / middle
            text += f" of {relative:.2f} times the others' norm"
            if relative > 1 and self.n_clusters == 2:
                alone = long_head_silhouette(relative, len(self.labels))
                text += (
                    f". Unrelated heads of which one is that much longer have silhouette "
                    f"{alone:.3f} from the norm alone; unit_norm=True looks past norms"
                )
            words.append(text + ".")
        return words

    def _name(self, row: int) -> str:
        return f"L{self.layers[row]}H{self.heads[row]}"


def study_word(silhouette: float) -> str:
    """The study's word for a silhouette: strong above .5, moderate from .3, else weak or none.

    The word of the study (seed 000's interpretation guide), not a finding: a long head reaches
    "strong" by its norm alone.
    """
    return "strong" if silhouette > 0.5 else "moderate" if silhouette >= 0.3 else "weak or none"


def study_separation_word(ratio: float) -> str:
    """The study's word for a separation ratio; not a finding, since the ratio has no scale."""
    if np.isnan(ratio):
        return "not defined"
    return "well separated" if ratio > 2 else "moderate" if ratio >= 1 else "poor"
