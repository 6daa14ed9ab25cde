"""Made-up measurements at jumps and controls, with planted effects."""

import numpy as np
import pandas as pd

from headspec.series.checkpoint_plan import plan_checkpoints


def moment_rows(
    effects,
    *,
    models=("mlp",),
    n_seeds=3,
    n_jumps=5,
    n_controls=2,
    noise=1.0,
    seed_sd=0.0,
    trend=5.0,
    n_steps=1000,
    phases=None,
    seed=0,
):
    """Rows as of `measure_moments`: metric -> mean change across jumps beyond that of controls.

    All changes of a run share a trend that fades over training; noise is that of one change.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for model in models:
        for run in range(n_seeds):
            places = np.linspace(0.04, 0.9, n_jumps) if phases is None else np.array(phases)
            shift = {metric: rng.normal(effect, seed_sd) for metric, effect in effects.items()}
            moment = 0
            for place in places:
                of = moment
                for number in range(1 + n_controls):
                    before = round(place * n_steps) + 8 * number
                    label = {
                        "model": model,
                        "seed": run,
                        "moment": moment,
                        "kind": "control" if number else "jump",
                        "matched": of if number else None,
                        "before": before,
                        "after": before + 4,
                        "phase": before / n_steps,
                    }
                    for metric in effects:
                        start = rng.standard_normal()
                        change = trend * np.exp(-5 * place) + noise * rng.standard_normal()
                        change += 0 if number else shift[metric]
                        for where, value in (("before", start), ("after", start + change)):
                            rows.append({**label, "place": where, "metric": metric, "value": value})
                    moment += 1
    return pd.DataFrame(rows)


def decaying_rows(rng, *, early=(1, 6), tau=100, noise=0.001, n_seeds=3, n_steps=1000):
    """Rows of a decaying curve at jumps that were put at random, most of them early."""
    grid = np.arange(0, n_steps + 1, 5)
    rows = []
    for run in range(n_seeds):
        at = np.unique(np.clip(rng.beta(*early, rng.integers(3, 9)) * len(grid), 1, len(grid) - 1))
        at = np.unique(at.astype(int))
        jumps = pd.DataFrame(
            {"step": grid[at], "step_before": grid[at - 1], "magnitude": rng.random(len(at))}
        )
        plan = plan_checkpoints(
            jumps, n_steps=n_steps, steps=grid, controls=1, seed=int(rng.integers(1e6))
        )
        curve = np.exp(-np.arange(n_steps + 1) / tau)
        curve += noise * np.cumsum(rng.standard_normal(n_steps + 1))
        moments = plan.moments.dropna(subset=["before", "after"]).drop(columns="metric")
        for place in ("before", "after"):
            values = curve[moments[place].astype(int)]
            labels = {"model": "mlp", "seed": run, "place": place, "metric": "loss"}
            rows.append(moments.assign(**labels, value=values))
    return pd.concat(rows, ignore_index=True)
