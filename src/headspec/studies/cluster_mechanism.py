"""Are clusters of heads specialised, and does it matter? The study's third hypothesis, judged.

The study ("Pythia weight clustering dynamics") swaps cluster assignments and reads the divergence
against fixed thresholds. Here the swap stands before swaps of random sets of heads, and
specialisation is the interaction of cluster and task before permuted labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from headspec.interventions.specialisation_result import ClusterEffects
from headspec.stats import false_discovery_rate
from headspec.studies.cluster_swaps import describe_swaps
from headspec.studies.hypotheses import SPECIALISATION, HypothesisVerdict, Verdict


@dataclass(frozen=True)
class _Part:
    """One of the things the hypothesis takes: whether it holds, and whether it could have."""

    holds: bool
    possible: bool
    words: str


def judge_specialisation(
    layers: pd.DataFrame,
    swaps: pd.DataFrame,
    effects: ClusterEffects,
    abilities: pd.DataFrame,
    *,
    alpha: float = 0.05,
) -> HypothesisVerdict:
    """Judge whether clusters of heads handle different inputs, and matter.

    *Supported* takes all of: clusters clearer than their null (q over the layers looked at); a
    swap that changes the output of some task more than swaps of random sets of the same sizes (q
    over tasks); an interaction of cluster and task beyond permuted labels. *Not supported* where
    one of these fails that could have held. *Not decided* where all that fail could not have held,
    since so few heads or draws allow no small p, or where the model cannot do two of the tasks.
    Tasks that the model cannot do have no part in swaps and interaction, whose q and p are over
    the others. The study's threshold of 1 nat has no say.

    Args:
        layers: of `tabulate_layers`, every layer that was looked at.
        swaps: of `tabulate_swaps`, one kind of swap.
        effects: of `cluster_effects`, on the same tasks, draws kept.
        abilities: of `measure_abilities`.
        alpha: error rate to accept for each part. All must hold, so that the whole errs less.

    Returns:
        The verdict, with the numbers that decided it.

    What it does not show: that clusters found in one layer of one model are found elsewhere. Nor
    which of the heads of a cluster do the work.
    """
    able = _able(abilities)
    claims = [_clustered(layers, effects.layer, alpha)]
    verdict: Verdict = "not decided"
    if able.holds:
        can = abilities.loc[abilities["can"].astype(bool), "task"]
        done = swaps.loc[swaps["task"].isin(can)]
        claims.append(_swapped(done, alpha))
        claims.append(_specialised(effects, [t for t in effects.tasks if t in set(can)], alpha))
        if all(claim.holds for claim in claims):
            verdict = "supported"
        elif any(claim.possible and not claim.holds for claim in claims):
            verdict = "not supported"
    parts = [able, *claims]
    return HypothesisVerdict(
        SPECIALISATION, verdict, " ".join(part.words for part in parts if part.words)
    )


def _clustered(layers: pd.DataFrame, layer: int, alpha: float) -> _Part:
    row = layers.loc[layers["layer"] == layer].iloc[0]
    holds = bool(row["q"] <= alpha)
    words = (
        f"Layer {layer} has clusters of {row['sizes'].replace('+', 'and')} heads, silhouette "
        f"{row['silhouette']:.3f} (null {row['null_mean']:.3f}, q = {row['q']:.2g}): "
        f"{row['null_verdict']}."
    )
    possible = row["n_clusters"] > 1 and row["p_least"] * len(layers) <= alpha
    return _Part(holds, bool(possible), words)


def _able(abilities: pd.DataFrame) -> _Part:
    can = abilities["can"].to_numpy(bool)
    cannot = ", ".join(abilities.loc[~can, "task"])
    words = f"The model cannot do: {cannot}, which tells nothing of clusters." if cannot else ""
    return _Part(bool(can.sum() >= 2), False, words)


def _swapped(swaps: pd.DataFrame, alpha: float) -> _Part:
    """Whether any swap does more than random sets, q over these; whether one could."""
    if not len(swaps):
        return _Part(False, False, "No swaps on tasks that it can do.")
    swaps = swaps.assign(q=false_discovery_rate(swaps["p"].to_numpy(float)))
    clear = swaps.loc[swaps["q"] <= alpha]
    possible = bool((swaps["p_least"] <= alpha / len(swaps)).any())
    words = [
        f"Swapping {row['how']} on {row['task']} changes the output by {row['kl']:.2g} nats "
        f"(random sets {row['null_mean']:.2g}, q = {row['q']:.2g})."
        for row in clear.to_dict("records")
    ]
    rest = swaps.loc[swaps["q"] > alpha]
    if len(rest):
        named = ", ".join(
            f"{row['task']} ({row['kl']:.2g} nats, {row['study_word']} in the study's words, "
            f"random sets {row['null_mean']:.2g})"
            for row in rest.to_dict("records")
        )
        words.append(f"Not more than swaps of random sets: {named}.")
    if not possible:
        words.append("So few swaps are possible here that none could stand out.")
    return _Part(len(clear) > 0, possible, " ".join(words))


def _specialised(effects: ClusterEffects, can: Sequence[str], alpha: float) -> _Part:
    """Whether clusters and tasks interact, over tasks that the model can do and heads change."""
    without = "With a single task there is no interaction."
    if len(can) < 2:
        return _Part(False, False, without)
    effects = effects.among(can)
    if np.isnan(effects.interaction.observed):
        return _Part(False, False, f"Heads of the layer hardly matter to the tasks. {without}")
    least = _least_p(effects)
    words = (
        f"Interaction of cluster and task: {effects.interaction.observed:.3g}, permuted labels "
        f"{effects.interaction.mean:.3g}, p = {effects.p_value:.2g}."
    )
    if least > alpha:
        words += f" These sizes allow no p below {least:.2g}."
    return _Part(effects.p_value <= alpha, least <= alpha, words)


def _least_p(effects: ClusterEffects) -> float:
    """The smallest p that the interaction can have.

    Names of clusters of equal size do not matter to it, so that each value comes up for all their
    orders.
    """
    n = len(effects.interaction_draws)
    sizes = [len(heads) for heads in effects.clusters]
    alike = np.prod([np.prod(np.arange(1, sizes.count(size) + 1)) for size in set(sizes)])
    return float(alike) / n if effects.exact else 1 / (1 + n)


def describe_mechanism(
    swaps: pd.DataFrame, effects: ClusterEffects, *, alpha: float = 0.05
) -> list[str]:
    """Plain sentences: which cluster matters for which task, and what each swap does.

    Args:
        swaps: of `tabulate_swaps`.
        effects: of `cluster_effects`.
        alpha: false discovery rate to accept for single effects.
    """
    sentences = []
    for c, heads in enumerate(effects.clusters):
        named = " ".join(str(head.index) for head in heads)
        clear = [t for t in range(len(effects.tasks)) if effects.cell_q[c, t] <= alpha]
        sentence = f"Cluster {c + 1} (heads {named} of layer {effects.layer}), ablated: "
        if clear:
            sentence += "; ".join(_effect_words(effects, c, t) for t in clear)
        else:
            sentence += "on no task different from random groups of its size"
        rest = len(effects.tasks) - len(clear)
        if clear and rest:
            sentence += f"; on {rest} other task{'s' * (rest > 1)} no different from these"
        sentences.append(sentence + ".")
    return [*sentences, *describe_swaps(swaps)]


def _effect_words(effects: ClusterEffects, c: int, t: int) -> str:
    """An effect beside that of random groups, and on which side of it."""
    value, null = float(effects.effects[c, t]), float(effects.null_mean[c, t])
    shown, other = (f"{number:+.3g}".replace("-", "−") for number in (value, null))
    return (
        f"{effects.tasks[t]} {f'{shown} {effects.units[t]}'.rstrip()}, "
        f"{'below' if value < null else 'above'} random groups ({other}, "
        f"q = {effects.cell_q[c, t]:.2g})"
    )
