"""Do statistics of the weights turn when capabilities emerge?"""

from __future__ import annotations

from typing import get_args

import numpy as np
import pandas as pd

from headspec.results import tidy
from headspec.series.coincidence import coincidence_test
from headspec.series.inflections import Turn, inflection_steps
from headspec.stats import false_discovery_rate
from headspec.studies.weight_curves import mean_over_layers


def turns_near_emergence(
    curves: pd.DataFrame, emergence: pd.DataFrame, *, within: float | int = 0.5
) -> pd.DataFrame:
    """How many statistics turn near the emergence of each capability, against shifted turns.

    Turns of every matrix and statistic, averaged over layers: where the curve changes fastest, and
    where its change sets in (acceleration) and ends (deceleration).

    Args:
        curves: of `weight_curves`, of one model or several.
        emergence: of `emergence_table`; capabilities that do not emerge within the run are left
            out.
        within: how near is near, in e-folds of 1 + step.

    Returns:
        Rows of `Coincidence.to_frame`, one a model, capability and kind of turn (`turn`):
        `value` is the share of turns near the emergence, `null_mean` that of shifted ones; `q` is
        adjusted over all rows. Empty where nothing emerges.

    What it does not show: a link of one statistic, or what came first. Matrices turn together, and
    the null counts what turns together as one event, so that p is seldom small.
    """
    means = mean_over_layers(curves)
    emerged = emergence.loc[(emergence["status"] == "emerged") & emergence["step"].notna()]
    parts = []
    for turn in get_args(Turn):
        turns = inflection_steps(means, turn=turn).dropna(subset=["step"])
        for model, capability, step in emerged[["model", "capability", "step"]].to_numpy():
            own = turns.loc[turns["model"] == model, "step"]
            if own.empty:
                continue
            steps = curves.loc[curves["model"] == model, "step"].to_numpy(int)
            if not steps.min() <= step <= steps.max():
                continue
            found = coincidence_test(
                own.tolist(), [int(step)], steps=np.unique(steps), within=within
            ).to_frame()
            parts.append(found.assign(model=model, capability=capability, turn=turn, step=step))
    if not parts:
        return tidy([]).assign(**dict.fromkeys(("capability", "turn", "least_p", "q"), np.nan))
    table = pd.concat(parts, ignore_index=True)
    return tidy(table.assign(q=false_discovery_rate(table["p"])))
