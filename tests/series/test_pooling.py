"""Pooling over models: random effects by hand, identities, errors."""

import numpy as np
import pandas as pd
import pytest
from rate_curves import EMBEDDED, PYTHIA, frame_of, walks

from headspec import results
from headspec.errors import InputError
from headspec.series.correlation import correlate_rates
from headspec.series.pooling import _random_effects, pool_models


def correlated(layers=(1, 2, 3), steps=EMBEDDED, seed=0, **options):
    rng, stats, goals = np.random.default_rng(seed), [], []
    for number, depth in enumerate(layers):
        for layer in range(depth):
            stats.append(frame_of(walks(rng, 3, steps), steps, model=f"m{number}", layer=layer))
        goals.append(frame_of(walks(rng, 1, steps), steps, "c", model=f"m{number}"))
    return correlate_rates(pd.concat(stats), pd.concat(goals), n_null=200, **options)


def test_random_effects_by_hand():
    z, variance = np.array([[0.1, 0.5, 0.9]]), np.array([[0.04, 0.04, 0.04]])
    value, tau2 = _random_effects(z, variance)
    assert value[0] == pytest.approx(0.5)
    assert tau2[0] == pytest.approx(0.16 - 0.04)  # spread of z less what chance gives
    value, tau2 = _random_effects(np.array([[0.3, 0.4]]), np.array([[0.1, 0.2]]))
    assert tau2[0] == 0
    assert value[0] == pytest.approx((0.3 / 0.1 + 0.4 / 0.2) / (1 / 0.1 + 1 / 0.2))
    value, _ = _random_effects(np.array([[0.3, np.nan]]), np.array([[0.1, np.nan]]))
    assert value[0] == pytest.approx(0.3)


def test_one_row_a_statistic_and_curves_of_a_model_are_averaged():
    found = correlated()
    pooled = pool_models(found, n_null=200).to_frame()
    assert pooled["metric"].tolist() == ["s0", "s1", "s2"]
    assert pooled["n_models"].tolist() == [3, 3, 3]
    table = found.to_frame()
    z = np.arctanh(table["value"].astype(float)).groupby([table["model"], table["metric"]]).mean()
    for row in pooled.to_dict("records"):
        own = z.xs(row["metric"], level=1)
        assert own.min() - 1e-9 <= np.arctanh(row["value"]) <= own.max() + 1e-9
        assert row["sign_consistency"] == pytest.approx(
            (np.sign(own) == np.sign(row["value"])).mean()
        )
        assert row["low"] <= row["value"] <= row["high"]


def test_depth_bins_match_layers_of_models_of_other_depth():
    pooled = pool_models(correlated((2, 4)), depth_bins=2, n_null=100).to_frame()
    assert pooled["depth_bin"].tolist() == [0, 1, 0, 1, 0, 1]
    assert (pooled["n_models"] == 2).all()


def test_what_one_model_alone_has_does_not_count_in_the_correction():
    stats, goals, rng = [], [], np.random.default_rng(4)
    for model, n in (("a", 12), ("b", 3)):
        values = walks(rng, n, EMBEDDED)
        stats.append(frame_of(values[1:], EMBEDDED, model=model))
        goals.append(frame_of(values[:1], EMBEDDED, "c", model=model))
    found = correlate_rates(pd.concat(stats), pd.concat(goals), n_null=100)
    pooled, every = (pool_models(found, n_null=100, min_models=n).to_frame() for n in (2, 1))
    assert pooled["n_models"].tolist() == [2, 2]
    assert sorted(every["n_models"]) == [1] * 9 + [2, 2]
    both = every.loc[every["n_models"] == 2]
    assert pooled["p"].tolist() == both["p"].tolist()
    assert (pooled["q"].to_numpy(float) <= both["q"].to_numpy(float)).all()
    with pytest.raises(InputError, match="that 3 models have"):
        pool_models(found, n_null=100, min_models=3)


def test_models_on_other_steps_are_pooled_too():
    stats, goals, rng = [], [], np.random.default_rng(4)
    for model, steps in (("a", EMBEDDED), ("b", PYTHIA)):
        values = walks(rng, 3, steps)
        stats.append(frame_of(values[1:], steps, model=model))
        goals.append(frame_of(values[:1], steps, "c", model=model))
    found = correlate_rates(pd.concat(stats), pd.concat(goals), n_null=100)
    assert pool_models(found, n_null=100).to_frame()["p"].between(0, 1).all()


def test_a_model_with_a_constant_capability_does_not_count():
    stats, goals, rng = [], [], np.random.default_rng(5)
    for model in "abc":
        values = walks(rng, 3, EMBEDDED)
        stats.append(frame_of(values[1:], EMBEDDED, model=model))
        goals.append(frame_of(values[:1] * (model != "c"), EMBEDDED, "c", model=model))
    found = correlate_rates(pd.concat(stats), pd.concat(goals), n_null=100)
    assert pool_models(found, n_null=100).to_frame()["n_models"].tolist() == [2, 2]


def test_it_is_repeatable_round_trips_and_says_what_it_found(tmp_path):
    found = correlated()
    pooled = pool_models(found, n_null=100)
    loaded = results.load(results.save(found, tmp_path / "found.json"))
    again = pool_models(loaded, n_null=100)
    pd.testing.assert_frame_equal(pooled.to_frame(), again.to_frame())
    kept = results.load(results.save(pooled, tmp_path / "pooled.json"))
    pd.testing.assert_frame_equal(kept.to_frame(), pooled.to_frame())
    assert "pooled over 3 models" in pooled.summary()


def test_intervals_hold_also_for_runs_that_repeat_each_other():
    """Each run's r is near the others', all of them far from the truth of 0."""
    held, naive = [], []
    for rep in range(8):
        rng, stats, goals = np.random.default_rng([3, rep]), [], []
        shared = walks(rng, 21, PYTHIA)
        for model in "abc":
            values = shared + 0.1 * walks(rng, 21, PYTHIA)
            stats.append(frame_of(values[1:], PYTHIA, model=model))
            goals.append(frame_of(values[:1], PYTHIA, "c", model=model))
        found = correlate_rates(pd.concat(stats), pd.concat(goals), n_null=100)
        table = pool_models(found, n_null=200).to_frame()
        held += list((table["low"] <= 0) & (table["high"] >= 0))
        z = np.arctanh(found.to_frame()["value"].astype(float)).to_numpy().reshape(3, -1)
        naive += list(np.abs(z.mean(0)) <= 4.303 * z.std(0, ddof=1) / np.sqrt(3))
    assert np.mean(held) >= 0.93
    assert np.mean(naive) < 0.5  # negative control: from the agreement of sizes alone


def test_errors_say_what_to_do():
    with pytest.raises(InputError, match="n_null of 20"):
        pool_models(correlated(), n_null=1)
    with pytest.raises(InputError, match="two models"):
        pool_models(correlated((2,)))
    with pytest.raises(InputError, match="circular shifts"):
        pool_models(correlated(null="circular_shift"))
    with pytest.raises(InputError, match="correlate_rates\\(by="):
        pool_models(correlated(), by=("metric", "matrix"))
