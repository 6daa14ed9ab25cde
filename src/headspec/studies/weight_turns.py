"""Do statistics of the weights turn when capabilities emerge?"""

from __future__ import annotations

from typing import get_args

import numpy as np
import pandas as pd

from headspec.results import tidy
from headspec.series.coincidence import coincidence_test
from headspec.series.inflections import Turn, inflection_steps
from headspec.stats import false_discovery_rate
from headspec.studies.weight_capabilities import emergence_windows
from headspec.studies.weight_curves import mean_over_layers


def turns_near_emergence(
    curves: pd.DataFrame, emergence: pd.DataFrame, *, within: float | int = 0.5
) -> pd.DataFrame:
    """How many statistics turn near the emergence of each capability, against shifted turns.

    Turns of every matrix and statistic, averaged over layers: where the curve changes fastest, and
    where its change sets in (acceleration) and ends (deceleration).

    Args:
        curves: of `weight_curves`, of one model or several.
        emergence: of `emergence_table`; its `emergence_windows` are used: where accuracies leave
            chance, where continuous measures rise most. Capabilities that do not emerge within
            the run are left out.
        within: how near to the window is near, in e-folds of 1 + step.

    Returns:
        Rows of `Coincidence.to_frame`, one a model, capability and kind of turn (`turn`):
        `value` is the share of turns near the emergence, `null_mean` that of shifted ones; `q` is
        adjusted over all rows; `step_before`, `step` are the window. Empty where nothing
        emerges.

    What it does not show: a link of one statistic, or what came first. Matrices turn together, and
    the null counts what turns together as one event, so that p is seldom small.
    """
    means = mean_over_layers(curves)
    emerged = emergence_windows(emergence).dropna(subset=["step_before", "step"])
    parts = []
    for turn in get_args(Turn):
        turns = inflection_steps(means, turn=turn).dropna(subset=["step"])
        columns = ["model", "capability", "step_before", "step"]
        for model, capability, before, step in emerged[columns].to_numpy():
            own = turns.loc[turns["model"] == model, "step"]
            if own.empty:
                continue
            steps = curves.loc[curves["model"] == model, "step"].to_numpy(int)
            if not steps.min() <= before < step <= steps.max():
                continue
            found = coincidence_test(
                own.tolist(), [(before, step)], steps=np.unique(steps), within=within
            ).to_frame()
            named = {"model": model, "capability": capability, "turn": turn}
            parts.append(found.assign(**named, step_before=before, step=step))
    if not parts:
        return tidy([]).assign(**dict.fromkeys(("capability", "turn", "least_p", "q"), np.nan))
    table = pd.concat(parts, ignore_index=True)
    return tidy(table.assign(q=false_discovery_rate(table["p"])))
