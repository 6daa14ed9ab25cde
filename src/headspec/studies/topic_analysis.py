"""The analysis of the topic-ordering study from its measurements: tables, verdicts, sentences."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from headspec.studies.hypotheses import HypothesisVerdict
from headspec.studies.topic_findings import conclude_topic_study, describe_topic_study
from headspec.studies.topic_outcomes import design_effects, ordering_effects, run_outcomes
from headspec.studies.topic_runs import TopicStudy
from headspec.studies.topic_tables import (
    baseline_table,
    circuit_table,
    condition_table,
    correction_rows,
    probe_differences,
)
from headspec.studies.topic_verdicts import FAMILY, judge_topic_study

TITLES = {
    "conditions": "Means over seeds ± half of a 95 % interval (t)",
    "baselines": "The same columns without any training",
    "after_drope": "Topic-ordered less shuffled training, after DroPE: what the verdicts rest on",
    "probes_after_drope": "Probe accuracy after DroPE, topic-ordered less shuffled, by layer",
    "circuits": "Circuits and clusters of heads",
}
"""Tables that a report shows, and their headings."""


@dataclass(frozen=True)
class TopicAnalysis:
    """What follows from the measurements.

    Attributes:
        tables: by name: `measurements`, `outcomes` (a row a run and outcome), `references`,
            `logs`, `effects` (of the whole design), `after_drope`, `conditions`, `baselines`,
            `circuits`, `probes_after_drope`, `corrections`.
        verdicts: on the hypothesis and on findings 3, 4 and 5.
        lead: the answer in a sentence or two.
        findings: more of it.
    """

    tables: dict[str, pd.DataFrame]
    verdicts: tuple[HypothesisVerdict, ...]
    lead: str
    findings: tuple[str, ...]

    def report_table(self, name: str) -> pd.DataFrame:
        """A table as a page shows it: without columns that are empty or the same everywhere."""
        table = self.tables[name].dropna(axis="columns", how="all")
        if name != "after_drope":
            return table
        shown = ["metric", "value", "low", "high", "p", "q", "n", "each seed"]
        return table.loc[:, [column for column in shown if column in table]]


def analyse_topic_study(study: TopicStudy) -> TopicAnalysis:
    """Everything that is said of a finished study, from its numbers alone.

    Args:
        study: of `run_topic_study`.
    """
    outcomes = run_outcomes(study.frame)
    effects = design_effects(outcomes)
    verdicts = judge_topic_study(study.frame, outcomes, study.references)
    return TopicAnalysis(
        tables={
            "measurements": study.frame,
            "outcomes": outcomes,
            "references": study.references,
            "logs": study.logs,
            "effects": effects.to_frame(),
            "after_drope": ordering_effects(outcomes, FAMILY),
            "conditions": condition_table(outcomes),
            "baselines": baseline_table(study.frame, study.references),
            "circuits": circuit_table(study.frame, outcomes),
            "probes_after_drope": probe_differences(study.frame),
            "corrections": correction_rows(study.frame, outcomes),
        },
        verdicts=verdicts,
        lead=conclude_topic_study(verdicts, outcomes),
        findings=tuple(describe_topic_study(study.frame, outcomes, study.references, effects)),
    )
