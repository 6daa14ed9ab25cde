"""Swaps of two clusters on every test family, in the study's words and by their null."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from headspec.interventions.swap_result import ClusterSwap
from headspec.interventions.swapping import swap_clusters
from headspec.interventions.weight_swaps import SwapKind
from headspec.stats import false_discovery_rate
from headspec.studies.cluster_tasks import prompts_of
from headspec.tasks.tokenised import TokenisedTask
from headspec.weights.cluster_result import HeadClustering


def swap_on_tasks(
    model: Any,
    clustering: HeadClustering | Iterable[Any],
    tasks: Mapping[str, TokenisedTask],
    *,
    how: SwapKind = "qk",
    n_random: int = 199,
    n_pairings: int = 3,
    seed: int = 0,
) -> dict[str, ClusterSwap]:
    """Swap two clusters on the clean prompts of every task, read where the answer begins.

    Args:
        model: a hooked model.
        clustering: two clusters of the heads of one layer, as `swap_clusters` takes them.
        tasks: by name.
        how, n_random, n_pairings, seed: as in `swap_clusters`. Every task sees the same random
            sets.

    Returns:
        Name of the task -> `ClusterSwap`.
    """
    found = {}
    for name, task in tasks.items():
        tokens, mask = prompts_of(task)
        found[name] = swap_clusters(
            model,
            clustering,
            tokens,
            how=how,
            n_random=n_random,
            n_pairings=n_pairings,
            attention_mask=mask,
            seed=seed,
        )
    return found


def tabulate_swaps(swaps: Mapping[str, ClusterSwap], *, alpha: float = 0.05) -> pd.DataFrame:
    """The study's word for every swap, next to the verdict of its null.

    Args:
        swaps: by name of the task.
        alpha: false discovery rate to accept.

    Returns:
        One row a task: `task how n kl` (nats), `study_word`, `null_verdict`, `p q` (adjusted over
        the tasks), `null_mean null_q05 null_q95`, `null_same_word` (share of random sets that get
        the same word or a stronger one), the means of the controls `within_a between_a within_b
        between_b` (pairs inside a cluster; as many pairs between), `p_below` (of the other tail)
        and `p_least` (the smallest p that these draws allow).

    "More" is what the study asks. "Less" is a second one-sided test at `alpha`: of swaps that are
    like random ones, up to twice `alpha` get one of the two words.
    """
    rows = []
    for name, swap in swaps.items():
        row = {
            "task": name,
            "how": swap.how,
            "n": swap.n,
            "kl": swap.mean_kl,
            "study_word": swap.word,
            "null_verdict": "",
            "p": swap.p_value,
            "q": np.nan,
            "null_mean": swap.null.mean,
            "null_q05": swap.null.q05,
            "null_q95": swap.null.q95,
            "null_same_word": swap.null_word_share,
        }
        for letter, one in zip("ab", swap.within, strict=True):
            for kind, draws in (("within", one.draws), ("between", one.between)):
                row[f"{kind}_{letter}"] = float(draws.mean()) if len(draws) else np.nan
        row["p_below"] = swap.null.p_below
        row["p_least"] = 1 / (len(swap.null_draws) + (0 if swap.exact else 1))
        rows.append(row)
    table = pd.DataFrame(rows)
    table["q"] = false_discovery_rate(table["p"].to_numpy(float))
    less = false_discovery_rate(table["p_below"].to_numpy(float)) <= alpha
    words = np.where(less, "less than random sets", "not distinguishable")
    table["null_verdict"] = np.where(table["q"] <= alpha, "more than random sets", words)
    return table


def describe_swaps(table: pd.DataFrame) -> list[str]:
    """A sentence a task: the divergence, the study's word for it, and the null.

    Args:
        table: of `tabulate_swaps`.
    """
    sentences = []
    for row in table.to_dict("records"):
        inside = ""
        if not np.isnan(row["within_a"]) and not np.isnan(row["within_b"]):
            inside = (
                f" Inside the clusters: {row['within_a']:.2g} and {row['within_b']:.2g} nats, as "
                f"many pairs between them {row['between_a']:.2g} and {row['between_b']:.2g}."
            )
        sentences.append(
            f"Swapping {row['how']} on {row['task']}: {row['kl']:.2g} nats, which the study calls "
            f"{row['study_word']}; random sets of these sizes give {row['null_mean']:.2g} (90 % "
            f"between {row['null_q05']:.2g} and {row['null_q95']:.2g}), q = {row['q']:.2g}: "
            f"{row['null_verdict']}.{inside}"
        )
    return sentences
