"""Tables of the jumps study: runs, counts, layers, places in the training, moments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from headspec.studies.jump_runs import JumpStudy
from headspec.studies.topic_tables import with_interval

METRICS = {
    "stable_rank": "Stable rank",
    "participation_ratio": "Participation ratio",
    "participation_ratio_sigma": "Participation ratio of singular values",
    "effective_rank": "Effective rank",
    "components_90": "Components for 90 %",
    "nuclear_ratio": "Nuclear ratio",
}
"""Metrics of dimensionality and their names in a table."""

NAMES = {"transformer": "Transformer", "cnn": "CNN", "mlp": "MLP"}


def run_table(study: JumpStudy) -> pd.DataFrame:
    """One row an architecture: what was trained, and how many jumps each run has.

    Means over seeds with half of a 95 % interval (t). "By chance" is what the calibrated rule
    accepts in as many points of curves without jumps; jumps of a layer's metrics are not
    independent of each other.
    """
    counts: Any = run_counts(study)
    logs: Any = study.logs
    accuracy: Any = study.accuracy
    final = accuracy.loc[accuracy["step"] == study.scale.steps]
    rate = float(study.scale.false_positives) / 1000
    rows = []
    for model in study.scale.models:
        here = counts.loc[counts["model"] == model]
        losses = logs.loc[logs["model"] == model].dropna(subset="validation_loss")
        last = losses.groupby("seed")["validation_loss"].last().to_numpy(float)
        right = final.loc[final["model"] == model]
        correct = (right["value"] * right["n"]).groupby(right["seed"]).sum()
        shares = (correct / right.groupby("seed")["n"].sum()).to_numpy(float)
        points = here["points"].to_numpy(float)
        jumps = here["jumps"].to_numpy(float)
        rows.append(
            {
                "model": NAMES[model],
                "seeds": len(study.seeds),
                "Validation loss": with_interval(last, ".3f"),
                "Accuracy": with_interval(shares, ".1%"),
                "Curves": int(here["curves"].iloc[0]),
                "Jumps a run": with_interval(jumps, ".1f"),
                "By chance": f"{rate * points.mean():.1f}",
                "Per 1,000 points": with_interval(1000 * jumps / points, ".2f"),
            }
        )
    return pd.DataFrame(rows)


def run_counts(study: JumpStudy) -> pd.DataFrame:
    """One row a run: `model seed curves points jumps` and, of the curves, `refused`."""
    curves: Any = study.jumps.curves
    rows = []
    for (model, seed), run in curves.groupby(["model", "seed"], sort=False):
        examined = run.loc[run["verdict"] == "examined"]
        rows.append(
            {
                "model": model,
                "seed": int(seed),
                "curves": len(run),
                "refused": int((run["verdict"] == "below resolution").sum()),
                "points": int(examined["n"].sum()),
                "jumps": int(run["n_jumps"].sum()),
            }
        )
    return pd.DataFrame(rows)


def metric_counts(study: JumpStudy) -> pd.DataFrame:
    """One row an architecture and metric: jumps of all its runs, and when they happen."""
    found: Any = study.jumps.to_frame()
    curves: Any = study.jumps.curves
    rows = []
    for (model, metric), group in curves.groupby(["model", "metric"], sort=False):
        phase = found.loc[(found["model"] == model) & (found["metric"] == metric), "phase"]
        early, late = phase <= 0.1, phase > 0.5
        rows.append(
            {
                "model": NAMES.get(str(model), str(model)),
                "metric": METRICS.get(str(metric), str(metric)),
                "curves": len(group),
                "refused": int((group["verdict"] == "below resolution").sum()),
                "jumps": len(phase),
                "early": int(early.sum()),
                "mid": int((~early & ~late).sum()),
                "late": int(late.sum()),
                "mean phase": float(phase.mean()) if len(phase) else np.nan,
            }
        )
    return pd.DataFrame(rows)


def layer_counts(study: JumpStudy) -> pd.DataFrame:
    """One row an architecture and layer: jumps over all metrics and seeds, and their share."""
    found: Any = study.jumps.to_frame()
    curves: Any = study.jumps.curves
    rows = []
    for (model, name), group in curves.groupby(["model", "layer_name"], sort=False):
        of_model = found.loc[found["model"] == model]
        here = of_model.loc[of_model["layer_name"] == name]
        rows.append(
            {
                "model": NAMES.get(str(model), str(model)),
                "layer": name,
                "curves": len(group),
                "jumps": len(here),
                "share": len(here) / max(1, len(of_model)),
                "increases": float((here["direction"] == "increase").mean())
                if len(here)
                else np.nan,
                "mean phase": float(here["phase"].mean()) if len(here) else np.nan,
            }
        )
    return pd.DataFrame(rows)


def moment_table(study: JumpStudy) -> pd.DataFrame:
    """The plans of all runs, a row a moment, as the second passes kept them."""
    columns = ["model", "seed", "moment", "kind", "matched", "layer_name", "metric"]
    columns += ["before", "during", "after", "phase", "magnitude", "type"]
    plans: Any = study.plans
    return plans[[name for name in columns if name in plans]]


def looked_into(moments: pd.DataFrame) -> pd.DataFrame:
    """Jumps and candidates of a table of moments, with the number of controls beside each."""
    rows: Any = moments
    controls = rows.loc[rows["kind"] == "control"].groupby(["model", "seed", "matched"]).size()
    found = rows.loc[rows["kind"].isin(["jump", "candidate"])].drop(columns=["matched", "type"])
    keys = found[["model", "seed", "moment"]].itertuples(index=False, name=None)
    return found.assign(controls=[int(controls.get(key, 0)) for key in keys])


def with_several_jumps(coordination: pd.DataFrame, least: int = 5) -> pd.DataFrame:
    """Rows of coordination that rest on several jumps, and the one of all of them."""
    rows: Any = coordination
    return rows.loc[(rows["n"] >= least) | (rows["model"] == "all")]


def detailed_jumps(study: JumpStudy, model: str) -> pd.DataFrame:
    """All jumps of an architecture, a row each, without the columns that are empty."""
    found: Any = study.jumps.to_frame()
    return found.loc[found["model"] == model].dropna(axis="columns", how="all")


def representative_jumps(study: JumpStudy, model: str) -> pd.DataFrame:
    """The jumps of an architecture that the second pass looked into."""
    rows: Any = moment_table(study)
    return rows.loc[(rows["model"] == model) & (rows["kind"] == "jump")].reset_index(drop=True)
