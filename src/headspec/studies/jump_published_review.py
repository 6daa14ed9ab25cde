"""Every published claim about jumps of dimensionality, recomputed from the published data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headspec.errors import InputError
from headspec.results import tidy
from headspec.series.jump_loss_result import LossAroundJumps
from headspec.series.jump_partners import JumpCoordination, jump_coordination
from headspec.series.jump_phases import phase_shares
from headspec.series.jump_result import Jumps
from headspec.studies.jump_published import (
    MEASURED_EVERY,
    N_STEPS,
    PUBLISHED_RUNS,
    load_ndt_log,
    load_ndt_run,
    load_published_jumps,
)
from headspec.studies.jump_published_claims import claim, count_claims, phase_claims
from headspec.studies.jump_published_layers import (
    TRANSFORMER,
    coordination_claim,
    layer_claims,
)
from headspec.studies.jump_published_losses import loss_claims, published_losses
from headspec.studies.jump_published_metrics import metric_table, published_metric_jumps
from headspec.studies.jump_published_plan import plan_claims, plan_table

JUMPS_FILE = "all_jumps_detailed.csv"


@dataclass(frozen=True, eq=False)
class PublishedReview:
    """What became of the published claims.

    Attributes:
        claims: one row a claim: `claim published recomputed corrected status reason`.
        jumps: the published jumps, with corrected phases.
        runs: the dimensionality frames of the three published runs.
        logs: their losses and gradient norms.
        shares: early, mid and late, as published and corrected (rows of `phase_shares`).
        coordination: of the transformer's jumps.
        losses: around the jumps of the three runs.
        metric_jumps: jumps of all published metrics by the calibrated rule.
        metrics: one row a run and metric, by both rules.
        plan: the jumps behind the published checkpoints, one row each.
    """

    claims: pd.DataFrame
    jumps: pd.DataFrame
    runs: pd.DataFrame
    logs: pd.DataFrame
    shares: pd.DataFrame
    coordination: JumpCoordination
    losses: LossAroundJumps
    metric_jumps: Jumps
    metrics: pd.DataFrame
    plan: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """Tidy rows: the shares of early, mid and late jumps, as published and corrected."""
        return self.shares.copy()

    def summary(self) -> str:
        """How many claims were confirmed, corrected, refuted or cannot be decided."""
        claims: Any = self.claims
        metrics: Any = self.metrics
        counts = claims["status"].value_counts()
        said = ", ".join(f"{count} {status}" for status, count in counts.items())
        refused = metrics.loc[metrics["metric"] == "published_stable_rank", "refused"]
        return (
            f"{len(claims)} published claims: {said}. All {int(refused.sum())} published "
            "curves of the stable rank are refused: they vary by less than float32 resolves."
        )


def review_published_jumps(folder: str | Path, *, seed: int = 0) -> PublishedReview:
    """Recompute every published claim, and what the same data say when computed right.

    Args:
        folder: holds `all_jumps_detailed.csv` and the JSON files of the three runs.
        seed: of nulls and controls.

    Returns:
        A `PublishedReview`.

    Raises:
        InputError: no such folder, or files missing.

    **What it does not show.** What networks do: the published series are functions of the norm of
    activations. Three of 55 trainings have their measurements published, one an architecture.
    """
    path = Path(folder)
    names = (JUMPS_FILE, *(f"{run}.json" for run in PUBLISHED_RUNS))
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise InputError(
            expected=f"the published data: {', '.join(names)}",
            got=f"no {', '.join(missing)} in {path}",
            fix="Give the folder that holds all of them, or leave the published data out.",
        )
    jumps = load_published_jumps(path / JUMPS_FILE)
    files = [path / f"{run}.json" for run in PUBLISHED_RUNS]
    runs = pd.concat([load_ndt_run(file) for file in files], ignore_index=True)
    logs = pd.concat([load_ndt_log(file) for file in files], ignore_index=True)
    own = jumps.loc[jumps["model"] == TRANSFORMER]
    grid = np.arange(0, N_STEPS, MEASURED_EVERY)
    coordination = jump_coordination(own, tolerance=0, n_steps=N_STEPS, steps=grid, seed=seed)
    losses = published_losses(jumps, logs, seed=seed)
    found = published_metric_jumps(runs)
    metrics = metric_table(runs, found)
    rows = [
        *count_claims(jumps),
        *phase_claims(jumps),
        *layer_claims(jumps),
        coordination_claim(
            coordination.share, coordination.expected.mean, coordination.expected.p_value
        ),
        *loss_claims(jumps, logs, losses),
        *plan_claims(jumps),
        *hypothesis_claims(jumps, metrics),
    ]
    return PublishedReview(
        claims=pd.DataFrame(rows),
        jumps=jumps,
        runs=runs,
        logs=logs,
        shares=share_rows(jumps),
        coordination=coordination,
        losses=losses,
        metric_jumps=found,
        metrics=metrics,
        plan=plan_table(jumps),
    )


def share_rows(jumps: pd.DataFrame) -> pd.DataFrame:
    """Early, mid and late shares by architecture, as published and by updates.

    Args:
        jumps: of `load_published_jumps`.

    Returns:
        Rows of `phase_shares`, `by` "published" and "step"; `seed` numbers the trainings so that
        runs of an architecture stay apart.
    """
    numbered = jumps.assign(
        seed=jumps.groupby("model").ngroup(), model=jumps["architecture"].to_numpy()
    )
    grid = np.arange(0, N_STEPS, MEASURED_EVERY)
    parts = [
        phase_shares(numbered, by="published", n_steps=N_STEPS, steps=grid),
        phase_shares(numbered, by="step", at="before", n_steps=N_STEPS, steps=grid),
    ]
    return tidy(pd.concat(parts, ignore_index=True))


def hypothesis_claims(jumps: pd.DataFrame, metrics: pd.DataFrame) -> list[dict[str, str]]:
    """The published verdicts on the study's hypotheses, and what its data can say of them.

    Args:
        jumps: of `load_published_jumps`.
        metrics: of `metric_table`.
    """
    table: Any = metrics.loc[metrics["metric"] == "participation_ratio_sigma"]
    rank = table.set_index("model")

    def said(run: str) -> str:
        row = rank.loc[run]
        return (
            f"{row['calibrated']} ({row['early']} early, {row['mid']} mid, {row['late']} late; "
            f"{row['by chance']} by chance)"
        )

    found = ", ".join(f"{run.split('_')[0]} {said(run)}" for run in PUBLISHED_RUNS)
    other = (
        f"The participation ratio of the same runs has jumps by the calibrated rule: {found}. One "
        "training each, every measurement on another batch."
    )
    every: Any = jumps
    late = int((every["phase"] > 0.5).sum())
    counts = every.groupby("architecture")["model"].agg(["size", "nunique"])
    rates = counts["size"] / counts["nunique"]
    return [
        claim(
            "Hypothesis 1: jumps of transformers are attention heads specialising.",
            "partially supported, medium confidence",
            "no attention was measured",
            corrected="nothing about attention is in the data",
            reason="No checkpoint and no attention pattern was kept.",
            status="cannot be decided",
        ),
        claim(
            "Hypothesis 2: convolutions let filters differentiate in discrete events.",
            "supported, high confidence",
            "45 against 18 jumps",
            corrected=f"{rates['cnn']:.1f} against {rates['mlp']:.1f} jumps a training",
            reason="The count is of norms, and no filter was looked at.",
            status="refuted",
        ),
        claim(
            "Hypothesis 3: early jumps are the escape from initialisation.",
            "strongly supported, very high confidence",
            "all jumps in the first half",
            corrected=f"{late} of {len(jumps):,} in the second half. {other}",
            reason="The phase was five times too small; what a calibrated rule finds in another "
            "metric is no more than chance gives, and not early.",
            status="refuted",
        ),
        claim(
            "Hypothesis 4: late jumps, capabilities acquired, do not exist.",
            "not supported, very high confidence",
            "0 late jumps",
            corrected=f"{late} late jumps of the published kind",
            reason="None could be seen: the phase ended at .1995. No capability was measured.",
            status="cannot be decided",
        ),
    ]
