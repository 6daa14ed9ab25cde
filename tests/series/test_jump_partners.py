"""Coordination of layers: by hand, calibrated under a falling rate, and with power."""

import doctest
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from published_jumps import GRID, jumps_at, needs_published, published_jumps

import headspec as hs
from headspec import results
from headspec.errors import InputError
from headspec.series import jump_partners
from headspec.series.jump_partners import _windows


def independent_layers(rng, *, early, n_layers=5, k=15, clumped=False):
    """Layers that do not know each other; early: rates fall with a time constant of 30 of 400."""
    at = np.arange(1, 400)
    weights = np.exp(-at / 30) if early else np.ones(399)
    layers = []
    for i in range(n_layers):
        own = rng.choice(at, k, replace=False, p=weights / weights.sum())
        if clumped:
            own = np.unique((own[: k // 3, None] + np.arange(3)).clip(1, 399))
        layers.append(jumps_at(5 * own, layer=f"l{i}"))
    return pd.concat(layers, ignore_index=True)


def p_values(*, n=80, null="windowed_shift", **kind):
    rng = np.random.default_rng(1)
    options = {"n_steps": 2000, "steps": GRID, "n_null": 99, "null": null}
    return np.array(
        [
            hs.jump_coordination(
                independent_layers(rng, **kind), seed=i, **options
            ).expected.p_value
            for i in range(n)
        ]
    )


def test_example():
    assert doctest.testmod(jump_partners).failed == 0


def test_share_by_hand():
    jumps = pd.concat([jumps_at([100, 500, 900]), jumps_at([105, 700], layer="b")])
    found = hs.jump_coordination(jumps, n_steps=2000, steps=GRID, tolerance=5, n_null=19)
    assert found.share == pytest.approx(2 / 5)  # 100 and 105
    pairs = found.pairs.set_index(["first", "second"])["value"]
    assert pairs["a", "b"] == pytest.approx(1 / 3)
    assert pairs["b", "a"] == pytest.approx(1 / 2)
    none = hs.jump_coordination(jumps, n_steps=2000, steps=GRID, tolerance=0, n_null=19)
    assert none.share == 0
    assert none.expected.p_value == 1


def test_expected_share_is_that_of_chance():
    """One jump against k in a circle: k (2 t + 1) / places without overlaps, in a circle."""
    jumps = pd.concat([jumps_at([1000]), jumps_at(range(100, 1900, 200), layer="b")])
    found = hs.jump_coordination(
        jumps, n_steps=2000, steps=GRID, tolerance=10, null="circular_shift", n_null=4999
    )
    pairs = found.pairs.set_index(["first", "second"])
    assert pairs.loc[("a", "b"), "null_mean"] == pytest.approx(9 * 5 / 399, abs=0.015)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("clumped", [True, False])
def test_calibrated_on_independent_layers(early, clumped):
    p = p_values(early=early, clumped=clumped)
    assert np.mean(p <= 0.05) <= 0.125  # of 80: at most 10 where 4 are expected
    assert np.mean(p <= 0.5) >= 0.25


def test_shifting_over_all_of_training_calls_early_layers_coordinated():
    """Pitfall: every layer jumps early, so a null that spreads the jumps rejects always."""
    assert np.mean(p_values(early=True, n=40, null="circular_shift") <= 0.05) > 0.9
    assert np.mean(p_values(early=False, n=40, null="circular_shift") <= 0.05) < 0.2


@pytest.mark.parametrize("early", [True, False])
def test_power_on_planted_coordination(early):
    rng = np.random.default_rng(2)
    p = []
    for i in range(30):
        jumps = independent_layers(rng, early=early)
        shared = jumps["step"][jumps["layer_name"] == "l0"].to_numpy()[: 12 if early else 8]
        for name in ("l1", "l2", "l3", "l4"):  # that follow the first
            own = jumps.index[jumps["layer_name"] == name][: len(shared)]
            jumps.loc[own, "step"] = shared
            jumps.loc[own, "step_before"] = shared - 5
        jumps = jumps.drop_duplicates(["layer_name", "step"])
        found = hs.jump_coordination(
            jumps, n_steps=2000, steps=GRID, tolerance=0, n_null=99, seed=i
        )
        p.append(found.expected.p_value)
    assert np.mean(np.array(p) <= 0.05) > 0.8


def test_windows_cover_every_place_once():
    for reach in (0, 5, 40):
        windows = _windows(GRID, reach)
        assert windows[0][0] == 1
        assert windows[-1][1] == len(GRID)
        assert all(a[1] == b[0] for a, b in pairwise(windows))
        assert min(b - a for a, b in windows) >= min(len(GRID) - 1, 4 * (2 * reach // 5 + 1))


def test_runs_and_metrics_are_apart(tmp_path):
    one = pd.concat([jumps_at([100]), jumps_at([100], layer="b")])
    apart = pd.concat([one, jumps_at([500], seed=1), jumps_at([500], layer="b", seed=2)])
    found = hs.jump_coordination(apart, n_steps=2000, steps=GRID, n_null=19)
    assert found.share == pytest.approx(2 / 4)
    assert found.runs["value"].tolist() == [1, 0, 0]
    assert found.to_frame()["model"].tolist()[-1] == "all"
    other_metric = pd.concat([one, jumps_at([700]), jumps_at([700], layer="b", metric="other")])
    assert hs.jump_coordination(other_metric, n_steps=2000, steps=GRID).share == pytest.approx(0.5)
    for suffix in ("json", "parquet"):
        results.save(found, tmp_path / f"x.{suffix}")
        back = results.load(tmp_path / f"x.{suffix}")
        pd.testing.assert_frame_equal(back.to_frame(), found.to_frame())
        assert back.summary() == found.summary()


def test_seeded():
    jumps = independent_layers(np.random.default_rng(0), early=True)
    options = {"n_steps": 2000, "steps": GRID, "n_null": 50}
    first, again, other = (
        hs.jump_coordination(jumps, seed=seed, **options).expected for seed in (3, 3, 4)
    )
    assert first == again
    assert first.mean != other.mean


@needs_published
def test_published_transformer_against_the_study():
    """The study gives 0.0 % coordination (among its five jumps); the 174 have many partners."""
    jumps = published_jumps()
    own = jumps[jumps["experiment"] == "transformer_deep_mnist"]
    found = hs.jump_coordination(own, n_steps=2000, steps=GRID, n_null=199)
    assert found.share > 0.3
    assert 0.2 < found.expected.mean < found.share + 0.1


def test_errors():
    with pytest.raises(InputError, match="jumps in two layers"):
        hs.jump_coordination(jumps_at([5, 10]), n_steps=100)
    with pytest.raises(InputError, match="at measured steps"):
        hs.jump_coordination(jumps_at([7]), n_steps=2000, steps=GRID)
