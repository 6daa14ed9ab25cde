"""False positives of rate correlations stay at the stated rate; planted links are found."""

import numpy as np
import pandas as pd
import pytest
from rate_curves import EMBEDDED, PYTHIA, frame_of, linked, saturating, walks
from scipy.stats import binom, false_discovery_control

from headspec.series.correlation import correlate_rates
from headspec.series.pooling import pool_models

CURVES = {
    "walk": walks,
    "equal increments": lambda *a: walks(*a, power=0.0),
    "noise": lambda rng, n, steps: rng.normal(size=(n, len(steps))),
    "saturating": saturating,
    "saturating, no noise": lambda *a: saturating(*a, noise=0.0),
}


def p_of(values, steps, **options):
    stats, capability = frame_of(values[1:], steps), frame_of(values[:1], steps, "c")
    found = correlate_rates(stats, capability, **{"n_null": 1000} | options)
    return found.to_frame()["p"].to_numpy(float)


@pytest.mark.parametrize("steps", [PYTHIA, EMBEDDED], ids=["pythia", "embedded"])
@pytest.mark.parametrize("name", CURVES)
def test_false_positives_stay_at_the_stated_rate(name, steps):
    reps = 15
    p = np.stack(
        [
            p_of(CURVES[name](np.random.default_rng([7, rep]), 51, steps), steps)
            for rep in range(reps)
        ]
    )
    assert np.mean(p <= 0.05) <= 0.05
    families = sum(false_discovery_control(each).min() <= 0.05 for each in p)
    assert families <= binom.ppf(0.99, reps, 0.05)


def test_nulls_that_do_not_hold_are_not_the_default():
    """Negative controls: what each part of the default is there for."""
    rng = [np.random.default_rng([8, rep]) for rep in range(12)]
    uneven = [walks(each, 51, PYTHIA, power=0.0) for each in rng]
    rises = [saturating(each, 51, PYTHIA) for each in rng]
    plain = {"partial": (), "leave_out": 0}
    spread = np.mean([p_of(v, PYTHIA, weights="equal", **plain) <= 0.05 for v in uneven])
    one_event = np.mean([p_of(v, PYTHIA, leave_out=0) <= 0.05 for v in rises])
    permuted = np.mean(
        [p_of(v, PYTHIA, null="permutation", weights="equal", **plain) <= 0.05 for v in rises]
    )
    assert min(spread, one_event, permuted) > 0.08
    held = np.mean([p_of(v, PYTHIA, leave_out=0) <= 0.05 for v in uneven])
    assert held <= 0.06  # weights and scale alone mend the uneven steps


@pytest.mark.parametrize(("lag", "lags"), [(0, (0,)), (1, (0, 1, 2, 3))])
def test_a_planted_link_is_found_nine_times_in_ten(lag, lags):
    reps, found = 30, 0
    rho = 0.8 if len(lags) == 1 else 0.9
    for rep in range(reps):
        values = linked(np.random.default_rng([9, rep]), 2, PYTHIA, rho, lag)
        q = false_discovery_control(p_of(values, PYTHIA, lag=lags))
        found += q[lags.index(lag)] <= 0.05
    assert found >= 0.9 * reps


def models(rng, rho, same=False):
    """Three models with one, two and three layers, ten statistics of which s0 is linked."""
    stats, goals, shared = [], [], walks(rng, 11, PYTHIA)
    for layers in (1, 2, 3):
        values = shared if same else walks(rng, 11, PYTHIA)
        for layer in range(layers):
            own = walks(rng, 10, PYTHIA) if not same else values[1:].copy()
            own[0] = rho * values[0] + np.sqrt(1 - rho**2) * own[0]
            stats.append(frame_of(own, PYTHIA, model=f"m{layers}", layer=layer))
        goals.append(frame_of(values[:1], PYTHIA, "c", model=f"m{layers}"))
    found = correlate_rates(pd.concat(stats), pd.concat(goals), n_null=500)
    return pool_models(found, n_null=1000).to_frame()


def test_pooling_is_calibrated_also_for_runs_that_repeat_each_other():
    p = [models(np.random.default_rng([10, rep]), 0.0)["p"] for rep in range(12)]
    assert np.mean(np.concatenate(p) <= 0.05) <= 0.05
    same = [models(np.random.default_rng([11, rep]), 0.0, same=True)["p"] for rep in range(12)]
    assert np.mean(np.concatenate(same) <= 0.05) <= 0.06


def test_a_link_in_every_model_is_found_by_pooling():
    found = [models(np.random.default_rng([12, rep]), 0.7) for rep in range(10)]
    hits = [table.set_index("metric").loc["s0"] for table in found]
    assert np.mean([row["q"] <= 0.05 for row in hits]) >= 0.9
    assert np.mean([row["sign_consistency"] for row in hits]) > 0.95
    assert np.mean([row["low"] <= 0.7 <= row["high"] for row in hits]) >= 0.9
