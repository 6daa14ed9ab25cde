"""The analysis of the jumps study from its measurements: tables, verdicts, sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headspec.errors import InputError
from headspec.results import save
from headspec.results.provenance import Provenance
from headspec.series.jump_losses import loss_around_jumps
from headspec.series.jump_partners import jump_coordination
from headspec.series.jump_phases import phase_shares
from headspec.series.jump_types import classify_jumps
from headspec.studies.hypotheses import HypothesisVerdict
from headspec.studies.jump_effects_matched import jump_effects
from headspec.studies.jump_hypotheses import judge_jump_hypotheses
from headspec.studies.jump_published_review import PublishedReview
from headspec.studies.jump_runs import JumpStudy
from headspec.studies.jump_study_findings import conclude_jump_study, describe_jump_study
from headspec.studies.jump_tables import (
    detailed_jumps,
    layer_counts,
    looked_into,
    metric_counts,
    moment_table,
    representative_jumps,
    run_table,
    with_several_jumps,
)

CSV_FILES = {
    "all_jumps_detailed": "jumps",
    "transformer_jumps_detailed": "transformer_jumps",
    "transformer_coordination_detailed": "transformer_coordination",
    "cnn_representative_jumps": "cnn_representatives",
    "mlp_representative_jumps": "mlp_representatives",
    "loss_correlations": "loss_moments",
    "published_claims": "claims",
}
"""The study's CSV files and the tables they hold; the last is not one of the study's."""

_SHOWN = {
    "claims": ["claim", "status", "published", "corrected"],
    "effects": ["model", "metric", "value", "low", "high", "p", "q", "n", "n_seeds", "decision"],
    "shares": ["model", "by", "part", "count", "value", "low", "high", "null_mean", "p"],
    "coordination": ["model", "of", "seed", "value", "null_mean", "null_sd", "p", "n"],
    "losses": [
        "part",
        "metric",
        "value",
        "low",
        "high",
        "p",
        "n",
        "n_moments",
        "jumps",
        "controls",
    ],
}


@dataclass(frozen=True, eq=False)
class JumpAnalysis:
    """What follows from the measurements.

    Attributes:
        tables: by name; those of `TITLES` (headspec.studies.jump_study_parts), and
            `measurements`, `jumps`, `curves`, `dimensionality`, `logs`, `accuracy`, `rates`,
            `hypotheses`. Those that need jumps are missing where there are none.
        parts: results behind them that figures take whole: `types`, `losses`, `coordination`.
        verdicts: on the four hypotheses.
        lead: the answer in a sentence or two.
        findings: more of it.
    """

    tables: dict[str, pd.DataFrame]
    parts: dict[str, Any]
    verdicts: tuple[HypothesisVerdict, ...]
    lead: str
    findings: tuple[str, ...]

    def report_table(self, name: str) -> pd.DataFrame:
        """A table as a page shows it: without columns that are empty or tell nothing."""
        table: Any = self.tables[name]
        if name == "representatives":
            table = looked_into(table)
        elif name == "coordination":
            table = with_several_jumps(table)
        table = table.dropna(axis="columns", how="all")
        shown = _SHOWN.get("effects" if name == "candidates" else name)
        return table if shown is None else table[[each for each in shown if each in table]]

    def write(self, folder: str | Path, *, provenance: Provenance | None = None) -> None:
        """Write every table as Parquet, and those that the study has under its names as CSV.

        Args:
            folder: missing folders are made.
            provenance: kept in the Parquet files.
        """
        path = Path(folder)
        for name, table in self.tables.items():
            text = {each: "str" for each in table if table[each].dtype == object}
            save(table.astype(text), path / f"{name}.parquet", provenance=provenance)
        for file, name in CSV_FILES.items():
            if name in self.tables:
                self.tables[name].to_csv(path / f"{file}.csv", index=False)


def analyse_jump_study(study: JumpStudy, review: PublishedReview | None = None) -> JumpAnalysis:
    """Everything that is said of a finished study, from its numbers alone.

    Args:
        study: of `run_jump_study`.
        review: of the published data, where they are there.
    """
    judged = judge_jump_hypotheses(study.moments, [study.jumps])
    parts = _jump_parts(study)
    tables = {
        "runs": run_table(study),
        "metrics": metric_counts(study),
        "layers": layer_counts(study),
        "effects": effect_rows(study, "jump"),
        "candidates": effect_rows(study, "candidate"),
        "representatives": moment_table(study),
        "measurements": study.moments,
        "dimensionality": study.dimensionality,
        "jumps": study.jumps.to_frame(),
        "curves": study.jumps.curves,
        "logs": study.logs,
        "accuracy": study.accuracy,
        "rates": judged.rates,
        "hypotheses": judged.to_frame(),
        "transformer_jumps": detailed_jumps(study, "transformer"),
        "cnn_representatives": representative_jumps(study, "cnn"),
        "mlp_representatives": representative_jumps(study, "mlp"),
        **_part_tables(parts),
    }
    if review is not None:
        tables |= {
            "claims": review.claims,
            "published_metrics": review.metrics,
            "published_plan": review.plan,
        }
    tables = {name: table for name, table in tables.items() if len(table)}
    return JumpAnalysis(
        tables=tables,
        parts=parts,
        verdicts=judged.verdicts,
        lead=conclude_jump_study(study, judged.verdicts),
        findings=tuple(describe_jump_study(study, tables, parts, review)),
    )


def effect_rows(study: JumpStudy, kind: str) -> pd.DataFrame:
    """Rows of `jump_effects` by architecture, without measures that nothing was compared in.

    Args:
        study: of `run_jump_study`.
        kind: "jump" or "candidate".
    """
    rows: Any = jump_effects(study.moments, kind=kind)
    return rows.loc[rows["n"] > 0].reset_index(drop=True)


def _jump_parts(study: JumpStudy) -> dict[str, Any]:
    """What is asked of the jumps themselves; nothing where there are too few to ask."""
    jumps: Any = study.jumps.to_frame()
    if not len(jumps):
        return {}
    options: dict[str, Any] = {"n_steps": study.scale.steps}
    options["steps"] = np.unique(study.dimensionality["step"].to_numpy(np.int64))
    transformer = jumps.loc[jumps["model"] == "transformer"]
    makers: dict[str, Callable[[], Any]] = {
        "shares": lambda: pd.concat(
            [
                phase_shares(jumps, by="step", interval="runs", **options),
                phase_shares(jumps, by="index", **options),
            ],
            ignore_index=True,
        ),
        "types": lambda: classify_jumps(jumps),
        "coordination": lambda: jump_coordination(jumps, **options),
        "transformer_coordination": lambda: jump_coordination(transformer, **options),
        "losses": lambda: loss_around_jumps(jumps, study.logs, column="loss", **options),
    }
    parts = {}
    for name, make in makers.items():
        try:
            parts[name] = make()
        except InputError:  # too few jumps to ask: no two layers, no controls
            continue
    return parts


def _part_tables(parts: dict[str, Any]) -> dict[str, pd.DataFrame]:
    tables = {}
    if "shares" in parts:
        tables["shares"] = parts["shares"]
    if "types" in parts:
        tables["types"] = parts["types"].types
    if "coordination" in parts:
        tables["coordination"] = parts["coordination"].to_frame()
    if "transformer_coordination" in parts:
        tables["transformer_coordination"] = parts["transformer_coordination"].pairs
    if "losses" in parts and len(parts["losses"].moments):
        tables["losses"] = parts["losses"].to_frame()
        tables["loss_moments"] = parts["losses"].moments
    return tables
