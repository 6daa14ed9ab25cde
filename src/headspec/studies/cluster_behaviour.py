"""Do clusters found in the weights differ in what their heads attend to?"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import permutation_test

from headspec.errors import InputError
from headspec.stats import false_discovery_rate


def relate_clusters(
    frame: pd.DataFrame,
    head_scores: pd.DataFrame,
    *,
    n_permutations: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the heads of different clusters by scores that the clustering has not seen.

    At the last step the clusters come from weights alone, and scores (attention to the previous
    token, induction) from prompts. The statistic is the share of a score's variance over the heads
    of a layer that lies between clusters (eta squared); its null permutes heads over clusters,
    exactly where there are at most `n_permutations` orders.

    Args:
        frame: tidy frame of a sweep with per-head rows of `cluster`.
        head_scores: tidy frame with per-head rows of scores, at the same last step.
        n_permutations: how many orders to draw where there are more.
        seed: of the draws.

    Returns:
        One row a layer and score: `layer`, `step`, `score`, `eta2`, `p`, `q` (adjusted over all
        rows, Benjamini and Hochberg), `p_least` (the smallest p that clusters of these sizes can
        give) and the mean of each cluster, `mean_0`, `mean_1`, ... Heads in no cluster (noise of
        DBSCAN) are left out.

    Raises:
        InputError: if the two frames share no layer at the last step, or not the same heads
            (clusters of key-value heads have no scores of their own).

    What it does not show: that the clusters cause the difference, or that behaviour would change
    if they were swapped. Heads of one cluster can differ from the others in many ways at once.
    """
    columns = ["step", "layer", "head", "value"]
    clusters = frame.loc[frame["metric"] == "cluster", columns]
    last = clusters["step"].max()
    clusters = clusters.loc[clusters["step"] == last].rename(columns={"value": "cluster"})
    scores = head_scores.loc[
        (head_scores["step"] == last)
        & head_scores["layer"].isin(clusters["layer"])
        & head_scores["head"].notna(),
        [*columns, "metric"],
    ].dropna()
    scores = scores.merge(clusters, on=columns[:3], how="outer")
    if scores.isna().any(axis=None):
        raise InputError(
            expected=f"clusters and scores of the same heads at the last step, {last}",
            got=f"scores at steps {sorted(head_scores['step'].dropna().unique())}, or other heads",
            fix="Measure the scores at the steps of the sweep, for the heads that were clustered.",
        )
    rows = []
    for _, part in scores.loc[scores["cluster"] >= 0].groupby(["layer", "metric"]):
        labels, values = part["cluster"].to_numpy(float), part["value"].to_numpy(float)
        groups = {int(label): labels == label for label in np.unique(labels)}
        if len(groups) < 2 or len(part) < 3:
            continue
        found = permutation_test(
            (values,),
            partial(_eta_squared, groups=list(groups.values())),
            permutation_type="pairings",
            n_resamples=n_permutations,
            alternative="greater",
            vectorized=True,
            rng=np.random.default_rng(seed),
        )
        row = {"layer": part["layer"].iloc[0], "step": last, "score": part["metric"].iloc[0]}
        row |= {"eta2": float(found.statistic), "p": float(found.pvalue)}
        row["p_least"] = _least_p([int(group.sum()) for group in groups.values()])
        rows.append(row | {f"mean_{i}": values[group].mean() for i, group in groups.items()})
    if not rows:
        raise InputError(
            expected="two clusters or more in some layer",
            got="one in each",
            fix="Cluster with another method or number of clusters.",
        )
    table = pd.DataFrame(rows)
    table.insert(5, "q", false_discovery_rate(table["p"].to_numpy()))
    return table


def describe_behaviour(table: pd.DataFrame, *, alpha: float = 0.05) -> list[str]:
    """A sentence for each layer and score that differs between clusters, or one that none does.

    Args:
        table: of `relate_clusters`.
        alpha: false discovery rate to accept.
    """
    clear = table.loc[table["q"] <= alpha]
    sentences = []
    if clear.empty:
        names = " or ".join(name.replace("_", " ") for name in sorted(table["score"].unique()))
        sentences.append(
            f"In no layer do clusters differ clearly in {names} attention (against shuffled heads)."
        )
    small = sorted(table.loc[table["p_least"] > alpha, "layer"].unique())
    if small:
        layers = ", ".join(str(layer) for layer in small)
        sentences.append(f"Clusters too small to be compared by their attention: layer {layers}.")
    for row in clear.to_dict("records"):
        means = [row[name] for name in row if str(name).startswith("mean_")]
        against = " against ".join(f"{mean:.2f}" for mean in means if not np.isnan(mean))
        sentences.append(
            f"Layer {int(row['layer'])}: its clusters differ in {row['score'].replace('_', ' ')} "
            f"attention ({against} on average, {row['eta2']:.0%} of the variance over heads, "
            f"q = {row['q']:.2g})."
        )
    return sentences


def _least_p(sizes: list[int]) -> float:
    """Share of the orders that give the same groups, or the same but for groups of one size."""
    orders = math.prod(math.factorial(size) for size in [*sizes, *Counter(sizes).values()])
    return orders / math.factorial(sum(sizes))


def _eta_squared(values: np.ndarray, axis: int = -1, *, groups: list[np.ndarray]) -> np.ndarray:
    """Share of the variance between groups along the last axis; 0 where all values are equal."""
    centred = values - values.mean(axis=axis, keepdims=True)
    total = (centred**2).sum(axis=axis)
    between = sum(group.sum() * centred[..., group].mean(axis=axis) ** 2 for group in groups)
    return np.where(total > 0, between / np.where(total > 0, total, 1), 0.0)
