"""Losses around jumps: by hand, at the stated rate on falling losses, with a planted effect."""

import doctest

import numpy as np
import pandas as pd
import pytest
from published_jumps import jumps_at

import headspec as hs
from headspec import results
from headspec.errors import InputError
from headspec.series import jump_losses
from headspec.series.jump_losses import _change, _episodes, _interpolating, _moments, _test

STEPS = np.arange(0, 2001, 5)


def falling(rng, *, early=False, effect=0.0, n_runs=3, k=15):
    """Jumps at random steps of noisy losses that fall fast at first; `effect` at each jump."""
    jumps, losses = [], []
    for run in range(n_runs):
        weights = 1 / np.arange(1, 401) if early else np.ones(400)
        at = STEPS[1:][rng.choice(400, k, replace=False, p=weights / weights.sum())]
        loss = 0.3 + 2 * np.exp(-STEPS / 150) + rng.normal(0, 0.02, 401)
        loss = loss - effect * (STEPS[:, None] >= at).sum(1)
        jumps.append(jumps_at(at, seed=run))
        losses.append(pd.DataFrame({"model": "m", "seed": run, "step": STEPS, "loss": loss}))
    return pd.concat(jumps), pd.concat(losses)


def around(jumps, losses, **more):
    options = {"n_steps": 2000, "steps": STEPS, "n_null": 199}
    return hs.loss_around_jumps(jumps, losses, **(options | more))


def part(found, metric="loss_change", name="all"):
    rows = found.parts[found.parts["part"] == name].set_index("metric")
    return rows.loc[f"{metric}.difference"]


def test_example():
    assert doctest.testmod(jump_losses).failed == 0


def test_change_by_hand():
    loss = pd.Series([5.0, 4, 3, 2, 1, 0], index=[0, 5, 10, 15, 20, 25])
    # windows [5, 10] and [15, 20]; then a window that the beginning cuts, and one the end cuts
    found = _change(loss, np.array([10, 0, 20]), np.array([15, 5, 25]), 5)
    assert found[0] == pytest.approx(1.5 - 3.5)
    assert np.isnan(found[1:]).all()


def test_moments_and_episodes_by_hand():
    jumps = pd.concat([jumps_at([100, 120, 500]), jumps_at([100], layer="b")])
    table = _moments(jumps.assign(run=0))
    assert table["step"].tolist() == [100, 120, 500]
    assert table["n_layers"].tolist() == [2, 1, 1]
    assert _episodes(table, 10).tolist() == [0, 0, 1]
    assert _episodes(table, 5).tolist() == [0, 1, 2]


def test_interpolation_by_hand():
    controls = np.array([[80, 125, -1], [80, 90, -1], [125, 130, 95], [-1, -1, -1]])
    weights = _interpolating(np.full(4, 100), controls)
    logs = np.log1p(np.maximum(controls, 0))
    assert (weights * logs).sum(1)[[0, 2]] == pytest.approx(np.log(101))
    assert weights.sum(1).tolist() == pytest.approx([1, 0, 1, 0])  # one side; none
    assert (weights >= 0).all()


def rejections(metric="loss_change", n=30, **kind):
    rng = np.random.default_rng(2)
    found = [part(around(*falling(rng, **kind), seed=i), metric) for i in range(n)]
    return np.mean([row["p"] <= 0.05 for row in found]), np.mean([row["value"] for row in found])


@pytest.mark.parametrize("early", [True, False])
def test_jumps_at_random_steps_are_found_at_the_stated_rate(early):
    rate, bias = rejections(early=early)
    assert rate <= 0.15  # of 30: at most 4 where 1.5 are expected
    assert abs(bias) < 0.003  # a tenth of the planted effect below


def test_intervals_of_few_units_hold_the_truth_and_agree_with_p():
    """A bootstrap of six units holds the truth in .8 and excludes 0 where p is above .05."""
    from scipy.stats import ttest_1samp

    from headspec.stats import bootstrap_interval

    rng = np.random.default_rng(0)
    draws = rng.standard_normal((300, 6))
    found = [_test(draw, n_null=199, level=0.95, seed=1) for draw in draws]
    held = np.array([row["low"] <= 0 <= row["high"] for row in found])
    assert held.mean() >= 0.92
    agree = [(row["p"] > 0.05) == inside for row, inside in zip(found, held, strict=True)]
    assert np.mean(agree) >= 0.92
    naive = [bootstrap_interval(draw, n_resamples=199) for draw in draws[:100]]
    assert np.mean([own.low <= 0 <= own.high for own in naive]) < 0.9  # negative control
    expected = ttest_1samp(draws[0], 0).confidence_interval(0.95)
    assert (found[0]["low"], found[0]["high"]) == pytest.approx((expected.low, expected.high))
    assert np.isnan(_test(draws[0, :1], n_null=199, level=0.95, seed=1)["low"])


@pytest.mark.parametrize("early", [True, False])
def test_a_planted_effect_is_found(early):
    rate, effect = rejections(early=early, effect=0.03, n=10)
    assert rate >= 0.9
    assert effect == pytest.approx(-0.03, abs=0.005)


def test_most_jumps_coincide_with_improvement_of_a_falling_loss():
    """Pitfall: "66 % of jumps improve the loss" is what any step of a falling loss does."""
    rng = np.random.default_rng(3)
    found = around(*falling(rng, n_runs=6))
    row = part(found, "loss_improves")
    assert row["jumps"] > 0.55
    assert row["controls"] > 0.55
    assert row["p"] > 0.05
    assert "of matched controls" in found.summary()


def test_controls_drawn_anywhere_would_find_an_effect():
    """Pitfall: against steps of the whole training, early jumps seem to lower the loss."""
    rng = np.random.default_rng(4)
    _, losses = falling(rng, n_runs=5)
    jumps = pd.concat([jumps_at(5 * rng.choice(np.arange(12, 60), 3), seed=r) for r in range(5)])
    found = around(jumps.drop_duplicates(["seed", "step"]), losses)
    one = losses[losses["seed"] == 0].set_index("step")["loss"]
    anywhere = rng.choice(STEPS[10:-10], 200)
    naive = found.moments["change"].mean() - np.nanmean(_change(one, anywhere - 5, anywhere, 20))
    row = part(found)
    assert naive < -0.05
    assert abs(row["value"]) < 0.02
    assert row["p"] > 0.05


def test_units_and_parts(tmp_path):
    jumps, losses = falling(np.random.default_rng(5), n_runs=4)
    found = around(jumps, losses)
    runs = around(jumps, losses, unit="run")
    assert part(runs)["n"] == 4
    assert part(found)["n"] == len(found.moments.groupby(["seed", "episode"]))
    assert found.moments["part"].value_counts().to_dict() == {
        name: part(found, name=name)["n_moments"] for name in ("early", "mid", "late")
    }
    assert found.n_left_out + len(found.moments) == 60
    assert "runs" in runs.summary()
    for suffix in ("json", "parquet"):
        results.save(found, tmp_path / f"x.{suffix}")
        back = results.load(tmp_path / f"x.{suffix}")
        pd.testing.assert_frame_equal(back.to_frame(), found.to_frame())
        pd.testing.assert_frame_equal(back.moments, found.moments)


def test_sign_flips_against_all_of_them():
    from itertools import product

    values = np.array([0.5, 0.2, 0.9, -0.1, 0.4, 0.3])
    signs = np.array(list(product([-1, 1], repeat=6)))
    exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-12)
    assert _test(values, n_null=4000, level=0.95, seed=0)["p"] == pytest.approx(exact, abs=0.012)


def test_without_comparable_moments():
    """Jumps of the first updates have nothing before them: left out and said so."""
    jumps = jumps_at([5, 10, 15])
    losses = pd.DataFrame({"step": STEPS, "loss": np.exp(-STEPS / 100.0)})
    found = around(jumps, losses)
    assert found.n_left_out == 3
    assert np.isnan(part(found)["p"])
    assert "3 moments left out" in found.summary()


def test_errors():
    jumps, losses = falling(np.random.default_rng(0), n_runs=2)
    with pytest.raises(InputError, match="without model, seed"):
        around(jumps, losses[["step", "loss"]])
    with pytest.raises(InputError, match="one loss at each step"):
        around(jumps[jumps["seed"] == 0], losses)
    with pytest.raises(InputError, match="without validation_loss"):
        around(jumps, losses, column="validation_loss")
    with pytest.raises(InputError, match="level between 0 and 1"):
        around(jumps, losses, level=95.0)
    with pytest.raises(InputError, match="0 jumps"):
        around(jumps[:0], losses)
