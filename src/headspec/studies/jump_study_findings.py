"""The findings of the jumps study, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from headspec.studies.hypotheses import HypothesisVerdict
from headspec.studies.jump_published_review import PublishedReview
from headspec.studies.jump_runs import JumpStudy
from headspec.studies.jump_tables import NAMES, run_counts


def conclude_jump_study(study: JumpStudy, verdicts: Sequence[HypothesisVerdict]) -> str:
    """The answer in two sentences.

    Args:
        study: of `run_jump_study`.
        verdicts: on the four hypotheses.
    """
    counts: Any = run_counts(study)
    points, jumps = int(counts["points"].sum()), int(counts["jumps"].sum())
    accepted = float(study.scale.false_positives) * points / 1000
    held = [one.verdict for one in verdicts]
    return (
        f"{', '.join(NAMES[model] for model in study.scale.models)} on {_data(study)}, "
        f"{_seeds(study)}, {study.scale.steps} updates: {jumps} jumps of "
        f"dimensionality in {len(study.jumps.curves)} curves, where the detector may find "
        f"{accepted:.0f} in curves without any. The study's four hypotheses: "
        f"{held.count('supported')} supported, {held.count('not supported')} not supported, "
        f"{held.count('not decided')} not decided."
    )


def describe_jump_study(
    study: JumpStudy,
    tables: Mapping[str, pd.DataFrame],
    parts: Mapping[str, Any],
    review: PublishedReview | None,
) -> list[str]:
    """What was found, in sentences, the most important first.

    Args:
        study: of `run_jump_study`.
        tables, parts: of the analysis.
        review: of the published data, if they are there.
    """
    found = [] if review is None else describe_published(review)
    found += _rates(study)
    if "shares" in parts:
        found.append(_when(parts["shares"]))
    if "coordination" in parts:
        found.append(parts["coordination"].summary())
    if "losses" in tables:
        found.append(parts["losses"].summary())
    if "types" in parts:
        found.append(parts["types"].summary().split("\n")[0])
    found.append(_effects(tables.get("effects"), "jumps"))
    if "candidates" in tables:
        found.append(_effects(tables["candidates"], "the largest changes that are no jumps"))
    found.append(
        "Both passes of every training had the same losses, number for number: the models looked "
        "into are those whose jumps were found."
    )
    return found


def describe_published(review: PublishedReview) -> list[str]:
    """What became of the published claims, in sentences.

    Args:
        review: of `review_published_jumps`.
    """
    jumps: Any = review.jumps
    metrics: Any = review.metrics
    others = metrics.loc[metrics["metric"] != "published_stable_rank"]
    largest = jumps["magnitude"].max()
    phases = [int((jumps["phase"] <= 0.1).sum()), int((jumps["phase"] > 0.5).sum())]
    return [
        review.summary(),
        f"As published: {len(jumps):,} jumps, the largest {largest:.1e}, of a stable rank that is "
        "1 - 1e-10 / |A|² whatever the rank: what jumped is the norm of the activations, through "
        "a constant that guards a division.",
        f"As published none is late. Counted in updates {phases[0]:,} are early and {phases[1]} "
        "late: the phase left out that every fifth update was measured. The 34 planned checkpoints "
        "have the same error and lie five times too early.",
        f"Other published metrics of the same runs: the published rule marks "
        f"{others['published rule'].sum():,} jumps, the calibrated one {others['calibrated'].sum()}"
        f", where it may find {others['by chance'].sum():.0f} in curves without any.",
    ]


def _rates(study: JumpStudy) -> list[str]:
    counts: Any = run_counts(study)
    said = []
    for model in study.scale.models:
        here = counts.loc[counts["model"] == model]
        rate = 1000 * here["jumps"].sum() / max(1, here["points"].sum())
        each = ", ".join(str(n) for n in here["jumps"])
        refused = int(here["refused"].sum())
        said.append(
            f"{NAMES[model]} {rate:.2f} ({each} jumps by seed, {refused} curves refused for their "
            "resolution)"
        )
    return [
        "Jumps per 1,000 points of all curves: "
        + "; ".join(said)
        + f". The detector accepts {study.scale.false_positives:g} in curves without jumps."
    ]


def _when(shares: Any) -> str:
    rows = shares.loc[shares["by"] == "step"]
    names = set(rows["model"])
    rows = rows.loc[rows["model"] == ("all" if "all" in names else next(iter(names)))]
    parts = ", ".join(
        f"{row['value']:.0%} {row['part']} ({row['null_mean']:.0%} if spread evenly)"
        for row in rows.to_dict("records")
    )
    return f"When jumps come, by updates: {parts}."


def _effects(effects: pd.DataFrame | None, what: str) -> str:
    if effects is None or not len(effects):
        return f"Nothing could be compared across {what}: none has a control."
    rows: Any = effects
    there = rows.loc[rows["decision"] == "there"]
    absent = int((rows["decision"] == "absent").sum())
    named = ", ".join(
        f"{NAMES.get(row['model'], row['model'])} {str(row['metric']).replace('_', ' ')} "
        f"{row['value']:+.3g} [{row['low']:+.3g} to {row['high']:+.3g}]"
        for row in there.to_dict("records")
    )
    return (
        f"Across {what} {len(there)} of {len(rows)} measures change more than across matched "
        f"controls{': ' + named if named else ''}; {absent} do not, within an interval that would "
        f"show it; {len(rows) - len(there) - absent} are open."
    )


def _seeds(study: JumpStudy) -> str:
    return "one seed" if len(study.seeds) == 1 else f"{len(study.seeds)} seeds"


def _data(study: JumpStudy) -> str:
    config = study.run(study.scale.models[0], study.seeds[0]).config
    return config.data.rsplit(":", 1)[-1]
