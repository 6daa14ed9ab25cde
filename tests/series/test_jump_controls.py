"""Control steps: in the stratum, away from every jump, seeded, and what happens without room."""

import doctest

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_jumps import GRID, jumps_at, needs_published, published_jumps

import headspec as hs
from headspec.errors import InputError
from headspec.series import jump_controls
from headspec.series.jump_controls import _alternating, free_steps, match_controls
from headspec.series.jump_rows import jump_rows, measured_grid, phase_stratum, training_length


def test_example():
    assert doctest.testmod(jump_controls).failed == 0


def test_golden():
    """Measured every 5: with a guard of 10 the interval (85, 90) ends too close to 95."""
    jumps = jumps_at([100])
    found = hs.control_steps(jumps, n_steps=2000, steps=GRID, n_nearest=1, guard=10)
    assert found.tolist() == [115]  # 110 to 115 begins 10 after 100; 80 to 85 is further in log
    assert hs.control_steps(jumps, n_steps=2000, n_nearest=1, guard=0).tolist() == [105]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 399), min_size=1, max_size=25, unique=True), st.integers(0, 5))
def test_controls_are_free_of_jumps_and_in_the_stratum(places, seed):
    jumps = pd.concat(
        [jumps_at(5 * np.array(places[::2])), jumps_at(5 * np.array(places[1::2]), layer="b")]
    )
    options = {"n_steps": 2000, "steps": GRID, "guard": 10, "shortage": "mark", "seed": seed}
    found = hs.control_steps(jumps, **options)
    assert (hs.control_steps(jumps, **options) == found).all()
    for own, control in zip(jumps["step"], found, strict=True):
        if control >= 0:
            assert control in GRID
            assert (
                phase_stratum(np.array([own / 2000])) == phase_stratum(np.array([control / 2000]))
            ).all()
            for step in jumps["step"]:  # of any layer
                assert control - 5 >= step + 10 or control <= step - 5 - 10


def test_seed_draws_among_the_nearest():
    jumps = jumps_at([1000])
    found = {int(hs.control_steps(jumps, n_steps=2000, steps=GRID, seed=s)[0]) for s in range(40)}
    assert len(found) == 5
    assert all(abs(step - 1000) <= 40 for step in found)


def test_runs_do_not_block_each_other():
    jumps = pd.concat([jumps_at([1000]), jumps_at(range(900, 980, 5), seed=1)])
    alone = hs.control_steps(jumps[:1], n_steps=2000, steps=GRID, n_nearest=1, guard=0)
    both = hs.control_steps(jumps, n_steps=2000, steps=GRID, n_nearest=1, guard=0)
    assert alone[0] == both[0]


def test_shortage_is_an_error_or_marked():
    crowded = pd.concat([jumps_at(range(5, 205, 5)), jumps_at([1000], layer="b")])
    with pytest.raises(InputError, match="none for 40"):
        hs.control_steps(crowded, n_steps=2000, steps=GRID)
    marked = hs.control_steps(crowded, n_steps=2000, steps=GRID, shortage="mark")
    assert (marked[:40] == -1).all()
    assert marked[40] > 0


def test_without_reuse_every_step_has_its_own():
    jumps = jumps_at([500, 505, 510, 515])
    found = hs.control_steps(jumps, n_steps=2000, steps=GRID, reuse=False)
    assert len(set(found.tolist())) == 4
    layers = pd.concat([jumps_at([500]), jumps_at([500], layer="b")])
    same = hs.control_steps(layers, n_steps=2000, steps=GRID, reuse=False)
    assert same[0] == same[1]  # one moment


def test_sides_alternate_and_lie_apart():
    away = np.array([-0.3, -0.2, -0.1, 0.05, 0.4])
    assert _alternating(away).tolist() == [3, 2, 1, 4, 0]  # .05 | -.1; -.2 | .4; -.3
    found = match_controls(
        np.array([1000]),
        np.array([[995, 1000]]),
        GRID,
        n_steps=2000,
        guard=20,
        edges=(),
        n_controls=4,
        sides=True,
        apart=20,
        rng=np.random.default_rng(0),
    )[0]
    assert (np.diff(found) >= 20).all()
    assert (found < 1000).sum() == 2


def test_free_steps_by_hand():
    grid = np.arange(0, 50, 10)
    assert free_steps(np.array([[10, 20]]), grid, guard=0).tolist() == [10, 30, 40]
    assert free_steps(np.array([[10, 20]]), grid, guard=10).tolist() == [40]
    assert free_steps(np.empty((0, 2), dtype=int), grid, guard=None).tolist() == [10, 20, 30, 40]


def test_matching_in_phase_matters():
    """Pitfall: steps drawn from all of training are no controls for jumps that come early."""
    rng = np.random.default_rng(0)
    jumps = jumps_at(GRID[1:][rng.choice(60, 12, replace=False)])
    controls = hs.control_steps(jumps, n_steps=2000, steps=GRID, edges=(0.2,), shortage="mark")
    controls = controls[controls >= 0]
    anywhere = rng.choice(GRID, 12)
    assert controls.max() < 0.2 * 2000 < np.mean(anywhere)


def test_training_length():
    jumps = jumps_at([100, 600], n_steps=1000)
    assert training_length(jumps, jump_rows(jumps), None) == 1000
    with pytest.raises(InputError, match="Pass n_steps"):
        training_length(jumps, jump_rows(jumps.drop(columns="phase")), None)
    wrong = jumps.assign(phase=[0.1, 0.5])
    with pytest.raises(InputError, match=r"imply \[1000, 1200\]"):
        training_length(wrong, jump_rows(wrong), None)
    with pytest.raises(InputError, match="at least 600"):
        training_length(jumps, jump_rows(jumps), 500)


def test_grid_from_the_steps_of_the_jumps():
    rows = jump_rows(jumps_at([100, 135]))
    assert measured_grid(rows, 200, None).tolist() == list(range(0, 201, 5))
    with pytest.raises(InputError, match="two measured steps"):
        measured_grid(rows, 200, np.array([5]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 1.5}, "whole numbers"),
        ({"step_before": 5000}, "end before they begin"),
    ],
)
def test_wrong_frames(change, message):
    with pytest.raises(InputError, match=message):
        jump_rows(jumps_at([10]).assign(**change))


def test_missing_columns_and_numbers():
    with pytest.raises(InputError, match="without speed"):
        jump_rows(jumps_at([10]).drop(columns="speed"), needs=("speed",))
    with pytest.raises(InputError, match="finite speed"):
        jump_rows(jumps_at([10]).assign(speed=np.nan), needs=("speed",))
    with pytest.raises(InputError, match="guard of 0"):
        hs.control_steps(jumps_at([10]), n_steps=20, guard=-1)


def test_phase_zero_is_early_and_edges_belong_to_the_earlier():
    """Pitfall 21: (0, .1] left out 252 jumps at phase 0."""
    assert phase_stratum(np.array([0.0, 0.1, 0.1001, 0.5, 0.51, 1])).tolist() == [0, 0, 1, 1, 2, 2]


@needs_published
def test_published_transformer_has_controls_for_its_later_jumps():
    jumps = published_jumps()
    jumps = jumps[jumps["experiment"] == "transformer_deep_mnist"]
    found = hs.control_steps(jumps, n_steps=2000, steps=GRID, guard=5, shortage="mark")
    late = (jumps["phase"] > 0.5).to_numpy()
    assert (found[late] > 0).all()
    assert len(found) == 174
