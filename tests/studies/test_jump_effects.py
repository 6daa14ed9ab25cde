"""Effects at jumps: by hand, against SciPy, calibrated where jumps are put at random."""

import doctest
import importlib

import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test
from synthetic_moments import decaying_rows, moment_rows

from headspec.errors import InputError
from headspec.studies.jump_effects_blocks import (
    MatchedBlock,
    arrange_events,
    matched_blocks,
    permuted_means,
    resampled_means,
)
from headspec.studies.jump_effects_changes import moment_changes, without_trend
from headspec.studies.jump_effects_matched import jump_effects

FAST = {"n_null": 499, "n_resamples": 300}


def moments(*rows):
    columns = ["moment", "kind", "matched", "before", "after"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(during=(frame["before"] + frame["after"]) / 2)


def test_a_change_is_after_less_before_and_across_is_itself():
    rows = [
        {"layer_name": "a", "place": "before", "metric": "m", "value": 1.0},
        {"layer_name": "a", "place": "after", "metric": "m", "value": 4.0},
        {"layer_name": "b", "place": "before", "metric": "m", "value": 2.0},
        {"layer_name": "b", "place": "after", "metric": "m", "value": 1.0},
        {"layer_name": "c", "place": "before", "metric": "m", "value": np.nan},
        {"layer_name": "c", "place": "after", "metric": "m", "value": 90.0},
        {"layer_name": "a", "place": "during", "metric": "m", "value": 50.0},
        {"layer_name": "a", "place": "across", "metric": "cka", "value": 0.8},
    ]
    label = {"model": "mlp", "seed": 0, "moment": 0, "kind": "jump", "before": 1, "after": 2}
    frame = pd.DataFrame(rows).assign(**label, moment_layer="b.linear1")
    found = moment_changes(frame).set_index("metric")["value"]
    assert found.to_dict() == {"m": 1.0, "cka": 0.8}  # (3 - 1) / 2; c has one end only
    own = moment_changes(frame, layers="own").set_index("metric")["value"]
    assert own.to_dict() == {"m": -1.0}


def test_blocks_join_what_shares_training_or_controls():
    events = arrange_events(
        moments(
            (0, "jump", None, 10, 20),
            (1, "jump", None, 15, 25),  # overlaps 0: one event
            (2, "jump", None, 100, 110),
            (3, "jump", None, 200, 210),
            (4, "control", 0, 40, 50),
            (5, "control", 2, 120, 130),
            (6, "control", 3, 128, 138),  # overlaps 5: blocks of 2 and 3 are one
            (7, "control", 3, 202, 212),  # holds the middle of jump 3: no control
            (8, "jump", None, 300, 310),  # without a control
            (9, "candidate", None, 400, 410),
        )
    ).set_index("moment")
    assert set(events.index) == {0, 1, 2, 3, 4, 5, 6}
    assert events.loc[0, "event"] == events.loc[1, "event"]
    assert events.loc[5, "event"] == events.loc[6, "event"]
    block = events["block"].to_dict()
    assert block[0] == block[1] == block[4] != block[2]
    assert block[2] == block[3] == block[5] == block[6]


def test_a_block_by_hand():
    events = pd.DataFrame({"event": [0, 0, 1, 2], "block": 0, "jump": [True, True, False, False]})
    (block,) = matched_blocks(np.array([1.0, 3.0, 0.0, 1.0]), events)
    assert block.difference == 2 - 0.5
    assert sorted(block.relabelled(np.random.default_rng(0), 9)) == [-1.5, 0.0, 1.5]
    assert matched_blocks(np.array([1.0, 3.0, np.nan, np.nan]), events) == []


def test_labels_of_pairs_are_exchanged_as_scipy_does():
    rng = np.random.default_rng(0)
    jumps, controls = rng.normal(0.5, 1, 8), rng.normal(0, 1, 8)
    pairs = zip(jumps[:, None], controls[:, None], strict=True)
    draws, exact = permuted_means([[MatchedBlock(*pair) for pair in pairs]], n_null=9, seed=0)
    oracle = permutation_test(
        (jumps, controls),
        lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert exact
    assert len(draws) == 2**8
    np.testing.assert_allclose(np.sort(draws), np.sort(oracle.null_distribution), atol=1e-12)


def test_drawn_labels_agree_with_all_of_them():
    rng = np.random.default_rng(1)
    blocks = [MatchedBlock(rng.normal(size=1), rng.normal(size=2)) for _ in range(12)]
    draws, exact = permuted_means([blocks], n_null=20_000, seed=0)
    assert not exact
    alone = [permuted_means([[block]], n_null=9, seed=0)[0] for block in blocks]
    assert draws.mean() == pytest.approx(0, abs=0.01)
    assert draws.var() == pytest.approx(sum(a.var() for a in alone) / 12**2, rel=0.05)


def test_resampling_runs_and_blocks():
    one = MatchedBlock(np.array([1.0]), np.array([0.0]))
    two = MatchedBlock(np.array([3.0]), np.array([0.0]))
    runs = [[one] * 5, [two] * 5]  # nothing varies inside of a run
    draws = resampled_means(runs, n_resamples=4000, seed=0)
    assert set(draws.round(6)) == {1.0, 2.0, 3.0}
    assert (draws == 2).mean() == pytest.approx(0.5, abs=0.03)


def test_a_trend_is_taken_off_and_an_effect_is_left():
    place = np.array([10.0, 20, 40, 80, 160, 320])
    trend = 3 - np.log1p(place)
    jump = np.array([1.0, 0, 0, 1, 1, 0])
    (flat,) = without_trend([trend], [place], ["a"])
    assert np.ptp(flat) < 1e-12
    left = without_trend([trend + jump, trend], [place, place], ["a", "b"])
    assert np.ptp(left[1]) < 1e-12  # models have slopes of their own
    assert left[0][jump == 1].mean() - left[0][jump == 0].mean() == pytest.approx(1, abs=0.2)
    few = without_trend([trend[:3]], [place[:3]], ["a"])
    np.testing.assert_array_equal(few[0], trend[:3])


def test_three_seeds_with_a_jump_each_cannot_be_significant():
    """Flips of three signs allow no p below 1/8, whatever the effect."""
    found = jump_effects(
        moment_rows({"m": 50.0}, n_jumps=1, n_controls=1), family={"m": 1}, adjust=False
    ).iloc[0]
    assert found["p"] == found["least_p"] == 1 / 8
    assert found["decision"] == "open"


def test_a_planted_effect_is_there_and_its_direction_counts():
    frame = moment_rows({"up": 2.0, "down": -2.0, "none": 0.0})
    found = jump_effects(frame, family={"up": 1, "down": 1, "none": 1}, **FAST)
    assert found["decision"].tolist() == ["there", "absent", "absent"]
    assert found["n"].tolist() == [15] * 3
    assert (found["n_seeds"] == 3).all()
    turned = jump_effects(frame, family={"down": -1}, **FAST).iloc[0]
    assert turned["decision"] == "there"
    assert turned["low"] <= turned["value"] <= turned["high"] < 0
    free = jump_effects(frame, **FAST).set_index("metric")
    assert free["decision"].to_dict()["down"] == free["decision"].to_dict()["up"] == "there"


def test_fewer_than_three_seeds_decide_nothing():
    """Pitfall 18: one seed shows some sign."""
    found = jump_effects(moment_rows({"m": 9.0}, n_seeds=2), family={"m": 1}, **FAST).iloc[0]
    assert found["p"] < 0.01
    assert np.isnan(found["low"])
    assert found["decision"] == "open"


def test_seeds_must_agree():
    frame = moment_rows({"m": 3.0}, noise=0.3)
    frame.loc[
        (frame["seed"] == 1) & (frame["kind"] == "jump") & (frame["place"] == "after"), "value"
    ] -= 3.6
    found = jump_effects(frame, family={"m": 1}, **FAST).iloc[0]
    assert found["p"] < 0.05
    assert found["n_agree"] == 2
    assert found["decision"] == "open"


def test_pooled_models_and_phases():
    frame = moment_rows({"m": 2.0}, models=("cnn", "mlp"))
    assert len(jump_effects(frame, family={"m": 1}, **FAST)) == 2
    pooled = jump_effects(frame, family={"m": 1}, by=(), **FAST).iloc[0]
    assert (pooled["n"], pooled["n_runs"], pooled["n_seeds"]) == (30, 6, 3)
    early = jump_effects(frame, family={"m": 1}, by=(), phases=(0, 0.1), **FAST).iloc[0]
    late = jump_effects(frame, family={"m": 1}, by=(), phases=(0.5, 1), **FAST).iloc[0]
    assert (early["n"], late["n"]) == (6, 12)


def test_candidates_are_no_jumps():
    frame = moment_rows({"m": 2.0})
    frame["kind"] = frame["kind"].replace("jump", "candidate")
    found = jump_effects(frame, family={"m": 1}, **FAST).iloc[0]
    assert found["decision"] == "no moments"
    asked = jump_effects(frame, family={"m": 1}, kind="candidate", **FAST).iloc[0]
    assert asked["decision"] == "there"


def test_calibrated_where_labels_mean_nothing():
    there = []
    for draw in range(40):
        frame = moment_rows(dict.fromkeys("abcd", 0.0), seed=draw)
        found = jump_effects(frame, family=dict.fromkeys("abcd", 1), seed=draw, **FAST)
        there.append((found["decision"] == "there").any())
    assert np.mean(there) <= 0.1  # 5 % nominal, 40 draws


def test_calibrated_where_jumps_crowd_early_and_training_decays():
    """Controls then lie later, where everything changes less: a jump seems to bring a change."""
    plain, adjusted = [], []
    for draw in range(40):
        frame = decaying_rows(np.random.default_rng(draw))
        options = {"family": {"loss": -1}, **FAST}
        plain.append(jump_effects(frame, adjust=False, **options)["p"].iloc[0] <= 0.05)
        adjusted.append(jump_effects(frame, **options)["decision"].iloc[0] == "there")
    assert np.mean(adjusted) <= 0.075
    assert np.mean(plain) >= 0.125  # negative control: the naive difference does not hold 5 %


def test_nothing_to_compare():
    assert not len(jump_effects(pd.DataFrame()))
    frame = moment_rows({"m": 0.0})
    controls = frame.loc[frame["kind"] == "control"]
    assert jump_effects(controls, family={"m": 1})["decision"].tolist() == ["no moments"]
    jumps = frame.loc[frame["kind"] == "jump"]
    found = jump_effects(jumps, family={"m": 1}).iloc[0]
    assert (found["n"], found["n_left_out"]) == (0, 15)


def test_what_cannot_be_used():
    with pytest.raises(InputError, match="directions"):
        jump_effects(moment_rows({"m": 0.0}), family={"m": 2})
    with pytest.raises(InputError, match="no column place"):
        jump_effects(moment_rows({"m": 0.0}).drop(columns="place"))


def test_the_examples_in_docstrings():
    name = "headspec.studies.jump_effects_matched"
    assert doctest.testmod(importlib.import_module(name)).failed == 0
