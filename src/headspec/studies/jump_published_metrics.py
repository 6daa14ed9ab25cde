"""What the other published metrics say: jumps by the study's rule and by the calibrated one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from headspec.series.jump_result import Jumps
from headspec.series.jumps import detect_jumps
from headspec.studies.jump_published import N_STEPS


def published_metric_jumps(runs: pd.DataFrame) -> Jumps:
    """Jumps of every metric of the published runs, by the calibrated rule.

    The published stable rank is among them, and is refused for its resolution.

    Args:
        runs: frames of `load_ndt_run`, concatenated.
    """
    return detect_jumps(runs, n_steps=N_STEPS)


def metric_table(runs: pd.DataFrame, jumps: Jumps) -> pd.DataFrame:
    """Jumps of each published run and metric, by both rules.

    Args:
        runs: frames of `load_ndt_run`, concatenated.
        jumps: of `published_metric_jumps`.

    Returns:
        One row a run and metric: `model`, `metric`, `curves` and `refused` (below their
        resolution), `published rule` (|z| > 2 of first differences), `calibrated`, `by chance`
        (accepted false positives of the calibrated rule in as many points), `early`, `mid` and
        `late` (calibrated ones up to 10 %, up to 50 %, later) and `layers` that have one.
    """
    found: Any = jumps.to_frame()
    curves: Any = jumps.curves
    rate = (jumps.false_positives or 0.0) / 1000
    rows = []
    for (model, metric), group in curves.groupby(["model", "metric"], sort=False):
        here = found.loc[(found["model"] == model) & (found["metric"] == metric)]
        series: Any = runs.loc[(runs["model"] == model) & (runs["metric"] == metric)]
        examined = group.loc[group["verdict"] == "examined"]
        late = here["phase"] > 0.5
        early = here["phase"] <= 0.1
        rows.append(
            {
                "model": model,
                "metric": metric,
                "curves": len(group),
                "refused": int((group["verdict"] == "below resolution").sum()),
                "published rule": _by_published_rule(series),
                "calibrated": len(here),
                "by chance": round(rate * float(examined["n"].sum()), 1),
                "early": int(early.sum()),
                "mid": int((~early & ~late).sum()),
                "late": int(late.sum()),
                "layers": f"{here['layer_name'].nunique()} of {group['layer_name'].nunique()}",
            }
        )
    return pd.DataFrame(rows)


def _by_published_rule(series: Any) -> int:
    """How many first differences have a z-score above 2, over the layers of a run and metric."""
    wide = series.pivot_table(index="step", columns="layer_name", values="value")
    change = np.diff(wide.to_numpy(float), axis=0)
    away = np.abs(change - change.mean(axis=0))
    return int((away > 2 * change.std(axis=0)).sum())
