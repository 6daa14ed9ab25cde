"""Made-up measurements at jumps and controls, with planted effects."""

import numpy as np
import pandas as pd


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
