"""Verdicts of the topic-ordering study, by rules that were stated before any result was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from headspec.studies.hypotheses import HypothesisVerdict, Verdict
from headspec.studies.topic_conditions import varied_factors
from headspec.studies.topic_outcomes import (
    design_effects,
    learnt_share,
    middle_layer,
    ordering_effects,
)
from headspec.studies.topic_tables import probe_differences

Decision = Literal["there", "absent", "open"]
Effect = Mapping[str, float]
"""`value low high p q` of an effect."""

MARGINS = {
    "entropy": 0.05,
    "within_topic_mass": 0.01,
    "topic_excess": 0.01,
    "probe_accuracy_mean": 0.01,
    "head_spread": 0.01,
}
"""The least effects that would matter: nats of entropy, one point of attention or accuracy."""

HEADS = ("within_topic_mass", "topic_excess", "entropy")
"""Outcomes that speak of what the heads attend to."""

FAMILY = (*HEADS, "probe_accuracy_mean")
"""The outcomes whose differences after DroPE are corrected together."""

LEAST_LEARNT = 0.1
"""Below this share of what can be learnt, no verdict is given."""

RULES = """The rules were fixed before the results of the larger scales were seen. What decides
is topic-ordered less shuffled training, measured after DroPE, averaged over the kinds of
attention: one number a seed. An effect is absent if its whole 95 % interval over seeds lies
within a margin (.05 nats of entropy, one point of attention or accuracy), there if it does not
and q (p corrected by Holm's method for four outcomes) is at most .05, and open otherwise. A
trace is supported if one of the three outcomes of attention is there, and not supported if all
three are absent. Nothing is decided by models that learnt less than a tenth of what can be
learnt."""
"""What the page says of them."""
_TRACE = "Topic-ordered training leaves a trace in the attention heads that is there after DroPE."
_SPECIALISED = (
    "Finding 3: head specialisation is real but positional: heads differ in within-topic attention "
    "with RoPE and become alike after DroPE (half as far apart, or less)."
)
_PROBES = (
    "Finding 4: after DroPE the topic is better read by probes where training was topic-ordered, "
    "at all layers, {}."
)
_WITHIN = (
    "Finding 5: within-topic attention after DroPE does not depend on the order of training data."
)
_NAMES = {
    "entropy": "attention entropy",
    "within_topic_mass": "within-topic attention",
    "topic_excess": "within-topic attention beyond the heads' reach",
    "probe_accuracy_mean": "probe accuracy over layers",
    "head_spread": "spread of within-topic attention over heads",
}


def judge_topic_study(
    frame: pd.DataFrame,
    outcomes: pd.DataFrame,
    references: pd.DataFrame | None = None,
    *,
    alpha: float = 0.05,
) -> tuple[HypothesisVerdict, ...]:
    """Judge the study's hypothesis and its key findings 3, 4 and 5.

    An effect is an average over the kinds of attention, one number a seed, with a 95 % interval by
    t over seeds. It is *absent* where the whole interval lies inside the margin (`MARGINS`: .05
    nats, one point), *there* where it does not and q <= alpha, and *open* else; with one seed
    everything is open (pitfall: the published study had one, and its repeat had the opposite
    sign). q is p corrected by Holm's method for four outcomes of topic-ordered less shuffled
    training after DroPE: within-topic attention, the same beyond the heads' reach, entropy, and
    probe accuracy averaged over layers. Finding 3 asks about one effect, that of the position, and
    takes its p.

    | claim | supported | not supported | not decided |
    |---|---|---|---|
    | trace in the heads | one of the three attention outcomes is there | all three absent | else |
    | 3 | spread over heads at least halves with DroPE: there | absent, or it falls less | else |
    | 4 | probe effect there, positive, in each layer and attention | absent, or negative | else |
    | 5 | effect on within-topic attention absent | there | else |

    Args:
        frame: rows of `measure_topic_model`, with the columns of conditions.
        outcomes: `run_outcomes(frame)`.
        references: rows of `reference_rows`, if known: where the models with RoPE learnt less than
            `LEAST_LEARNT` of what can be learnt, every verdict is "not decided".
        alpha: largest probability of a false effect among the four.

    Returns:
        Four verdicts, the hypothesis first.

    **What it does not show.** That a trace is of topics and not of what was read last: a
    topic-ordered stream ends on one topic, and a short recalibration need not undo that.
    """
    effects = by_name(ordering_effects(outcomes, FAMILY), "metric")
    decided: dict[str, Decision] = {
        name: decide(effects[name], name, alpha=alpha) for name in FAMILY
    }
    verdicts = (
        _judge_trace(outcomes, effects, decided),
        _judge_specialisation(frame, outcomes, alpha),
        _judge_probes(frame, effects, decided["probe_accuracy_mean"]),
        _judge_within(effects, decided["within_topic_mass"]),
    )
    learnt = np.nan if references is None else learnt_share(outcomes, references)
    if not learnt < LEAST_LEARNT:
        return verdicts
    why = f"The models learnt {learnt:.0%} of what can be learnt, too little to tell. "
    return tuple(
        replace(each, verdict="not decided", evidence=why + each.evidence) for each in verdicts
    )


def by_name(effects: pd.DataFrame, column: str) -> dict[str, Effect]:
    """Rows of effects by the name in a column: `value low high p q` of each."""
    numbers = effects.set_index(column)[["value", "low", "high", "p", "q"]].astype(float)
    return {str(name): dict(row) for name, row in numbers.to_dict("index").items()}  # type: ignore[arg-type]


def decide(effect: Effect, metric: str, *, alpha: float | int = 0.05) -> Decision:
    """Whether an effect is there, absent within its margin, or open.

    Args:
        effect: with `low high q`.
        metric: names the margin.
        alpha: level for `q`.

    Example:
        >>> decide({"low": -0.004, "high": 0.006, "q": 0.6}, "topic_excess")
        'absent'
    """
    low, high, margin = effect["low"], effect["high"], MARGINS[metric]
    if -margin < low and high < margin:
        return "absent"
    return "there" if effect["q"] <= alpha else "open"


def _judge_trace(
    outcomes: pd.DataFrame, effects: dict[str, Effect], decided: dict[str, Decision]
) -> HypothesisVerdict:
    found = [decided[name] for name in HEADS]
    verdict: Verdict = "not decided"
    if "there" in found:
        verdict = "supported"
    elif set(found) == {"absent"}:
        verdict = "not supported"
    before = by_name(ordering_effects(outcomes, HEADS, position="rope"), "metric")
    towards = {
        "there": "towards topics" if effects["topic_excess"]["value"] > 0 else "away from topics",
        "absent": "neither towards topics nor away from them",
        "open": "in a direction that is open",
    }[decided["topic_excess"]]
    said = [
        ". ".join(effect_words(these[name], name, q=after) for name in HEADS)
        for these, after in ((effects, True), (before, False))
    ]
    return HypothesisVerdict(
        _TRACE,
        verdict,
        f"Topic-ordered less shuffled, after DroPE. {said[0]}: attention is drawn {towards}. "
        f"Before it, with RoPE. {said[1]}.",
    )


def _judge_specialisation(
    frame: pd.DataFrame, outcomes: pd.DataFrame, alpha: float
) -> HypothesisVerdict:
    found = by_name(design_effects(outcomes, ("head_spread",)).to_frame(), "effect")["position"]
    effect = {**found, "q": found["p"]}  # one effect is asked about
    decision = decide(effect, "head_spread", alpha=alpha)
    spread, reach = (_by_position(outcomes, name) for name in ("head_spread", "reach_spread"))
    halves = spread[1] <= spread[0] / 2
    verdict: Verdict = "not decided"
    if decision != "open":
        verdict = "supported" if decision == "there" and halves else "not supported"
    excess = _by_position(outcomes, "topic_excess")
    layer = min(1, middle_layer(frame))
    with_rope = (
        (frame["metric"] == "within_topic_mass")
        & (frame["position"] == "rope")
        & (frame["layer"] == layer)
    )
    values = frame.loc[with_rope, "value"].to_numpy(float)
    window = frame.loc[with_rope, "window_baseline"].to_numpy(float).mean()
    return HypothesisVerdict(
        _SPECIALISED,
        verdict,
        f"{effect_words(effect, 'head_spread', q=False)}; {spread[0]:.3f} with RoPE, "
        f"{spread[1]:.3f} after. Of it the heads' reach alone, read with the labels of other "
        f"sequences, gives {reach[0]:.3f} and {reach[1]:.3f}. Layer {layer} with RoPE: heads from "
        f"{values.min():.2f} to {values.max():.2f}, a window of 32 tokens {window:.2f}. Beyond "
        f"reach: {excess[0]:+.1%} of attention with RoPE, {excess[1]:+.1%} after.",
    )


def _by_position(outcomes: pd.DataFrame, metric: str) -> tuple[float, float]:
    means = outcomes.loc[outcomes["metric"] == metric].groupby("position")["value"].mean()
    return float(means["rope"]), float(means["drope"])


def _judge_probes(
    frame: pd.DataFrame, effects: dict[str, Effect], decision: Decision
) -> HypothesisVerdict:
    effect = effects["probe_accuracy_mean"]
    differences = probe_differences(frame)
    everywhere = bool((differences["value"] > 0).all())
    verdict: Verdict = "not decided"
    if decision == "absent" or (decision == "there" and effect["value"] < 0):
        verdict = "not supported"
    elif decision == "there" and everywhere:
        verdict = "supported"
    higher = np.count_nonzero(differences["value"] > 0)
    kinds = sorted(set(differences["attention"]), reverse=True)
    which = "for both kinds of attention" if len(kinds) > 1 else f"with {kinds[0].upper()}"
    return HypothesisVerdict(
        _PROBES.format(which),
        verdict,
        f"{effect_words(effect, 'probe_accuracy_mean')}. Higher in {higher} of "
        f"{len(differences)} layers and kinds of attention, by {differences['value'].min():+.1%} "
        f"to {differences['value'].max():+.1%}. Split by sequence.",
    )


def _judge_within(effects: dict[str, Effect], decision: Decision) -> HypothesisVerdict:
    verdicts: dict[Decision, Verdict] = {
        "absent": "supported",
        "there": "not supported",
        "open": "not decided",
    }
    words = effect_words(effects["within_topic_mass"], "within_topic_mass")
    margin = MARGINS["within_topic_mass"]
    return HypothesisVerdict(
        _WITHIN,
        verdicts[decision],
        f"{words}; no difference would be an interval within {100 * margin:g} point of 0.",
    )


def effect_words(effect: Effect, metric: str, *, q: bool = True) -> str:
    """An effect with its interval and the seeds it comes from, in words."""
    unit = "nats" if metric == "entropy" else "points"
    scale = 1 if metric == "entropy" else 100
    value, low, high = (scale * effect[name] for name in ("value", "low", "high"))
    words = f"{_NAMES[metric].capitalize()} {value:+.2f} {unit}"
    if np.isnan(low):
        return f"{words} (one seed: no interval)"
    words += f" [{low:+.2f}, {high:+.2f}]"
    return words + (f", q = {effect['q']:.2g}" if q else f", p = {effect['p']:.2g}")


def describe_design(outcomes: pd.DataFrame) -> str:
    """How many factors, seeds and models the verdicts rest on, in a sentence."""
    n_seeds, n_runs = len(set(outcomes["seed"])), len(set(outcomes["condition"]))
    factors = " x ".join(varied_factors(outcomes))
    seeds = f"{n_seeds} seeds" if n_seeds > 1 else "one seed: nothing can be decided by it"
    return f"{n_runs} conditions ({factors}), {seeds}, {n_runs * n_seeds} models."
