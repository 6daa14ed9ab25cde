"""What the topic-ordering study found, in sentences made from its numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from headspec.studies.factorial_result import FactorialEffects
from headspec.studies.hypotheses import HypothesisVerdict
from headspec.studies.topic_outcomes import learnt_share, middle_layer
from headspec.studies.topic_tables import outcome_means
from headspec.studies.topic_verdicts import describe_design

_ANSWERS = {
    "supported": "Topic-ordered training leaves a trace in the attention heads that is there after "
    "DroPE.",
    "not supported": "Topic-ordered training leaves no trace in the attention heads after DroPE "
    "that is as large as the margins stated in advance.",
    "not decided": "Whether topic-ordered training leaves a trace in the attention heads after "
    "DroPE is not decided by these runs.",
}


def conclude_topic_study(verdicts: Sequence[HypothesisVerdict], outcomes: pd.DataFrame) -> str:
    """The answer in one or two sentences, from the first verdict.

    Args:
        verdicts: of `judge_topic_study`.
        outcomes: rows of `run_outcomes`.
    """
    words = {"supported": "holds", "not supported": "does not hold", "not decided": "is open"}
    findings = ", ".join(
        f"{number} {words[verdict.verdict]}"
        for number, verdict in zip((3, 4, 5), verdicts[1:], strict=True)
    )
    return (
        f"{_ANSWERS[verdicts[0].verdict]} Of the published findings {findings}. "
        f"{describe_design(outcomes)}"
    )


def describe_topic_study(
    frame: pd.DataFrame,
    outcomes: pd.DataFrame,
    references: pd.DataFrame,
    effects: FactorialEffects,
) -> list[str]:
    """What the models learnt, what DroPE changed, what the published way would have said.

    Args:
        frame: rows of `measure_topic_model`, with the columns of conditions.
        outcomes: `run_outcomes(frame)`.
        references: rows of `reference_rows`.
        effects: `design_effects(outcomes)`.
    """
    return [
        _learnt(outcomes, references),
        _dropped(outcomes),
        _passing(effects),
        _probed(frame, outcomes, references),
        *_published(frame, outcomes),
        _clustered(frame),
    ]


def _learnt(outcomes: pd.DataFrame, references: pd.DataFrame) -> str:
    known = references.set_index("metric")["value"].astype(float).to_dict()
    rope = outcomes.loc[outcomes["position"] == "rope"]
    losses = rope.loc[rope["metric"] == "validation_loss", "value"].to_numpy(float)
    said = f"Validation losses with RoPE: {losses.min():.3f} to {losses.max():.3f} nats per token"
    top = known["ln_vocab"]
    if "bayes_loss" not in known:
        return f"{said}; a uniform guess has {top:.3f}."
    least = known["bayes_loss"]
    share = learnt_share(outcomes, references)
    return (
        f"{said}; a uniform guess has {top:.3f}, a reader who knows the languages {least:.3f}: "
        f"{share:.0%} of what can be learnt."
    )


def _dropped(outcomes: pd.DataFrame) -> str:
    means = outcome_means(outcomes, "position")

    def change(metric: str, form: str) -> str:
        return f"{means[metric, 'rope']:{form}} to {means[metric, 'drope']:{form}}"

    return (
        f"DroPE and recalibration change, on average: loss {change('validation_loss', '.3f')}, "
        f"entropy {change('entropy', '.2f')} nats, distance {change('distance', '.1f')} tokens, "
        f"within-topic attention {change('within_topic_mass', '.1%')}, beyond the heads' reach "
        f"{change('topic_excess', '+.1%')}."
    )


def _passing(effects: FactorialEffects) -> str:
    if len(effects.blocks) < 2:
        return effects.summary()
    rows = effects.to_frame()
    passed = rows.loc[rows["q"] <= 0.05]
    said = f"Of {len(rows)} main effects and interactions {len(passed)} pass (q <= .05)"
    counts = passed["effect"].value_counts()
    named = ", ".join(f"{effect.replace(':', ' x ')} {n}" for effect, n in counts.items())
    return f"{said}{': ' + named if named else ''}."


def _probed(frame: pd.DataFrame, outcomes: pd.DataFrame, references: pd.DataFrame) -> str:
    known = references.set_index("metric")["value"].astype(float).to_dict()
    means = outcome_means(outcomes, "position")
    right, selective = (
        [means[metric, side] for side in ("rope", "drope")]
        for metric in ("probe_accuracy", "selectivity")
    )
    said = (
        f"Probes at layer {middle_layer(frame)} read the topic of {right[0]:.1%} of tokens with "
        f"RoPE and {right[1]:.1%} after DroPE (selectivity {selective[0]:+.1%} and "
        f"{selective[1]:+.1%})"
    )
    if "ideal_topic_accuracy" not in known:
        return f"{said}; the largest topic has {known['largest_topic']:.1%}."
    return (
        f"{said}; an ideal reader {known['ideal_topic_accuracy']:.1%}, one who sees single tokens "
        f"without their order {known['unigram_topic_accuracy']:.1%}, the largest topic "
        f"{known['largest_topic']:.1%}."
    )


def _published(frame: pd.DataFrame, outcomes: pd.DataFrame) -> list[str]:
    """Pitfalls of the published analysis, on these very models."""
    entropy = frame.loc[frame["metric"] == "published_entropy"]
    values = entropy["value"].to_numpy(float)
    ceiling = frame.loc[frame["metric"] == "entropy", "null_mean"].to_numpy(float).mean()
    means = outcome_means(outcomes, "position")
    within = frame.loc[frame["metric"] == "within_topic_mass"]
    uniform = within["null_mean"].to_numpy(float).mean()
    window = within["window_baseline"].to_numpy(float).mean()
    leak = [
        means["published_probe_accuracy", side]
        - means["published_probe_accuracy_by_sequence", side]
        for side in ("rope", "drope")
    ]
    return [
        f"Published way, no mask: {np.count_nonzero(values > ceiling)} of {len(values)} heads have "
        f"an entropy above {ceiling:.2f} nats, which no causal attention can have.",
        f"Published way, no baseline: within-topic attention goes from "
        f"{means['published_within_topic_mass', 'rope']:.1%} to "
        f"{means['published_within_topic_mass', 'drope']:.1%} with DroPE; uniform causal attention "
        f"has {uniform:.1%} and a window of 32 tokens {window:.1%} without knowing any topic.",
        "Published way, probes split by token: their accuracy is that of the same probes split by "
        f"sequence and {leak[0]:+.1%} with RoPE, {leak[1]:+.1%} after.",
    ]


def _clustered(frame: pd.DataFrame) -> str:
    said = []
    for feature in ("qk", "ov"):
        rows = frame.loc[frame["metric"] == f"{feature}.silhouette"]
        clear = np.count_nonzero(rows["p"].to_numpy(float) < 0.05)
        said.append(f"{clear} of {len(rows)} layers by {feature.upper()} circuits")
    return (
        "Heads fall into clusters more clearly than random directions (p < .05, not corrected; 5 % "
        f"by chance) in {' and '.join(said)}. Grouped query heads share their values: their OV "
        "circuits are alike by construction."
    )
