"""Do the weights of two clusters differ? Effect sizes, and p-values over heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
from jaxtyping import Int
from scipy import stats as scipy_stats

from headspec.errors import InputError
from headspec.head_tensors import HeadWeights
from headspec.results import tidy
from headspec.stats import NullSummary, summarise_null
from headspec.weights.features import Feature, head_factors
from headspec.weights.similarity import vector_norms
from headspec.weights.value_profiles import ValueProfiles, value_profiles


@dataclass(frozen=True)
class ClusterComparison:
    """Two clusters of heads, compared by the values of their weights.

    Attributes:
        effects: each effect with its null from relabelled heads and a p-value over heads:
            `ks_distance` (Kolmogorov-Smirnov distance of the weights, 0 to 1), `wasserstein` (in
            units of the weights), `cohens_d` (difference of mean weights in pooled standard
            deviations of a weight), `scale_ratio` (ratio of standard deviations of a weight),
            `norm_cohens_d` (difference of mean head norms in pooled standard deviations of a
            head's norm; nan where no cluster has two heads).
        over_weights: what tests that take every weight for an observation say: `ks_p_over_weights`,
            `t_over_weights`, `t_p_over_weights`. Not evidence: the weights of a head are not
            independent of each other, and with half a million of them any difference has p ~ 0.
        clusters: the two labels; differences are first minus second.
        sizes: heads in each.
        n_permutations: labellings compared with.
        exact: whether these are all labellings with these sizes.
        feature, seed: what was compared, and the seed of the labellings.
        model, step, layer, processing: as in the weights.
    """

    effects: dict[str, NullSummary]
    over_weights: dict[str, float]
    clusters: tuple[int, int]
    sizes: tuple[int, int]
    n_permutations: int
    exact: bool
    feature: Feature
    seed: int
    model: str = ""
    step: int | None = None
    layer: int | None = None
    processing: str = "none"

    def to_frame(self) -> pd.DataFrame:
        """One row an effect; `p` is over heads. Tests over weights are rows without a p.

        The extra column `note` says what a row is not.
        """
        rows = [
            {
                "metric": name,
                "value": one.observed,
                "null_mean": one.mean,
                "null_sd": one.sd,
                "p": one.p_value,
                "note": "",
            }
            for name, one in self.effects.items()
        ]
        rows += [
            {"metric": name, "value": value, "note": "not evidence: weights are not independent"}
            for name, value in self.over_weights.items()
        ]
        return tidy(
            rows,
            model=self.model,
            step=self.step,
            layer=self.layer,
            n=sum(self.sizes),
            seed=self.seed,
            feature=self.feature,
            processing=self.processing,
        )


def compare_clusters(
    weights: HeadWeights | Sequence[HeadWeights],
    labels: Int[np.ndarray, " head"],
    *,
    feature: Feature = "q",
    clusters: tuple[int, int] | None = None,
    n_permutations: int = 9999,
    seed: int = 0,
) -> ClusterComparison:
    """Compare the weights of two clusters of heads, with the head as unit of observation.

    Effect sizes come with a permutation p: labels are dealt out again over heads, keeping the
    cluster sizes (all ways where they are at most `n_permutations`, else random ones). With one
    head against eleven there are 12 ways and p cannot be below 1/12.

    **What it does not show.** If the labels were found by clustering these very weights, the
    clusters differ by construction and p is too small; use labels from elsewhere (another
    feature, another step, what the heads do). For found clusters the p-values of `cluster_heads`
    apply, whose null is clustered too.

    Args:
        weights: one layer's heads, or several layers.
        labels: cluster of each head; -1 for none.
        feature: which weights; the products are formed and held.
        clusters: which two; needed when there are more.
        n_permutations: most labellings to compare with.
        seed: of random labellings.

    Returns:
        A `ClusterComparison`.

    Raises:
        InputError: labels that do not fit the heads, or not two clusters.
    """
    factors = head_factors(weights, feature)
    labels = np.asarray(labels)
    first, second = _two_clusters(labels, clusters, factors.n_rows)
    chosen = np.flatnonzero((labels == first) | (labels == second))
    binary = (labels[chosen] == second).astype(np.int64)
    sizes = (int((binary == 0).sum()), int((binary == 1).sum()))
    if n_permutations < 1:
        raise InputError(
            expected="n_permutations of 1 or more", got=str(n_permutations), fix="9999 is usual."
        )
    exact = comb(len(chosen), sizes[0]) <= n_permutations
    relabelled = _relabellings(len(chosen), sizes[0], exact, n_permutations, seed)
    profiles = value_profiles(factors)
    profiles = replace(profiles, values=profiles.values[chosen], cdf=profiles.cdf[chosen])
    layer = weights if isinstance(weights, HeadWeights) else weights[0]
    return ClusterComparison(
        effects=_effects(profiles, vector_norms(factors)[chosen], binary, relabelled, exact),
        over_weights=_tests_over_weights(profiles, binary),
        clusters=(first, second),
        sizes=sizes,
        n_permutations=len(relabelled),
        exact=exact,
        feature=feature,
        seed=seed,
        model=layer.model,
        step=layer.step,
        layer=layer.layer if len(set(factors.layers)) == 1 else None,
        processing=layer.processing,
    )


def _two_clusters(
    labels: np.ndarray, clusters: tuple[int, int] | None, heads: int
) -> tuple[int, int]:
    present = sorted({int(label) for label in labels if label >= 0})
    pair = tuple(present) if clusters is None else tuple(clusters)
    if labels.shape != (heads,) or len(pair) != 2 or not set(pair) <= set(present):
        raise InputError(
            expected=f"one label for each of {heads} heads, and two clusters to compare",
            got=f"labels of shape {list(labels.shape)} with clusters {present}, asked for "
            f"{clusters}",
            fix="Name two of them with clusters=(a, b).",
        )
    return pair[0], pair[1]


def _relabellings(heads: int, size: int, exact: bool, count: int, seed: int) -> np.ndarray:
    """Labels `draw head` with `size` zeros: every way, or random ones."""

    def ways() -> Iterator[Sequence[int]]:
        if exact:
            yield from combinations(range(heads), size)
            return
        rng = np.random.default_rng(seed)
        for _ in range(count):
            yield rng.permutation(heads)[:size].tolist()

    zeros = np.array(list(ways()))
    labels = np.ones((len(zeros), heads), dtype=np.int64)
    np.put_along_axis(labels, zeros, 0, axis=1)
    return labels


def _effects(
    profiles: ValueProfiles,
    norms: np.ndarray,
    labels: np.ndarray,
    relabelled: np.ndarray,
    exact: bool,
) -> dict[str, NullSummary]:
    area, height = profiles.grid_distances(relabelled)
    own_area, own_height = (float(x[0]) for x in profiles.grid_distances(labels[None]))
    whole_area, (whole_height, _) = profiles.wasserstein(labels), _ks(profiles, labels)
    found = {
        "ks_distance": _with_p(whole_height, height, own_height, height, exact),
        "wasserstein": _with_p(whole_area, area, own_area, area, exact),
    }
    values = profiles.values.astype(np.float64, copy=False)
    moments = values.mean(1), (values**2).mean(1)
    null_d, null_ratio = _moment_effects(*moments, relabelled)
    own_d, own_ratio = (float(x[0]) for x in _moment_effects(*moments, labels[None]))
    found["cohens_d"] = _with_p(own_d, null_d, abs(own_d), np.abs(null_d), exact)
    found["scale_ratio"] = _with_p(
        own_ratio, null_ratio, abs(np.log(own_ratio)), np.abs(np.log(null_ratio)), exact
    )
    null_norm = _cohens_d_of_heads(norms, relabelled)
    own_norm = float(_cohens_d_of_heads(norms, labels[None])[0])
    found["norm_cohens_d"] = _with_p(own_norm, null_norm, abs(own_norm), np.abs(null_norm), exact)
    return found


def _with_p(
    value: float, null: np.ndarray, size: float, null_size: np.ndarray, exact: bool
) -> NullSummary:
    """An effect beside its null; p from its size (the effect without its sign)."""
    if np.isnan(value):
        return NullSummary.bare(value)
    tails = summarise_null(size, null_size, exact=exact)
    return replace(summarise_null(value, null), p_value=tails.p_value, p_below=tails.p_below)


def _moment_effects(
    mean: np.ndarray, square: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cohen's d and ratio of standard deviations over weights, for every labelling."""
    parts = []
    for cluster in (0, 1):
        members = (labels == cluster) / (labels == cluster).sum(1, keepdims=True)
        centre = members @ mean
        parts.append((centre, members @ square - centre**2, (labels == cluster).sum(1)))
    (mean_a, var_a, n_a), (mean_b, var_b, n_b) = parts
    pooled = np.sqrt((n_a * var_a + n_b * var_b) / (n_a + n_b))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (mean_a - mean_b) / pooled, np.sqrt(var_a / var_b)


def _cohens_d_of_heads(norms: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cohen's d of head norms between the two clusters, for every labelling."""
    ones = labels == 1
    n_b = ones.sum(1)
    n_a = labels.shape[1] - n_b
    mean_a, mean_b = ((~ones) @ norms) / n_a, (ones @ norms) / n_b
    squares = (~ones) @ norms**2 - n_a * mean_a**2 + ones @ norms**2 - n_b * mean_b**2
    spread = np.sqrt(np.maximum(squares, 0) / max(labels.shape[1] - 2, 1))
    empty = np.full(len(labels), np.nan)
    usable = (spread > 0) & (labels.shape[1] > 2)
    return np.divide(mean_a - mean_b, spread, out=empty, where=usable)


def _tests_over_weights(profiles: ValueProfiles, labels: np.ndarray) -> dict[str, float]:
    one, other = profiles.cluster_values(labels, 0), profiles.cluster_values(labels, 1)
    t, p_value = scipy_stats.ttest_ind(one, other, equal_var=False)
    return {
        "ks_p_over_weights": _ks(profiles, labels)[1],
        "t_over_weights": float(np.asarray(t)),
        "t_p_over_weights": float(np.asarray(p_value)),
    }


def _ks(profiles: ValueProfiles, labels: np.ndarray) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance of all weights, and its p-value over weights."""
    one, other = profiles.cluster_values(labels, 0), profiles.cluster_values(labels, 1)
    distance, p_value = scipy_stats.ks_2samp(one, other, method="asymp")
    return float(np.asarray(distance)), float(np.asarray(p_value))
