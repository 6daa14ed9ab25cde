"""The battery: matching as ndtracker has it, its fixtures as an oracle, and what each rule gets."""

import doctest

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ndt.validity import fixtures, validate_detector
from ndt.validity.harness import _match

from headspec.errors import InputError
from headspec.results import TIDY_COLUMNS
from headspec.series import jump_battery
from headspec.series.jump_battery import match_jumps, score_detector
from headspec.series.jump_battery_curves import HARD_CURVES, NULL_CURVES, PLANTED_CURVES
from headspec.series.jumps import detect_jumps

points = st.lists(st.integers(0, 60), max_size=8)


def by_method(method):
    return lambda values: detect_jumps(np.asarray(values), method=method).to_frame()["step"]


def test_docstring_runs():
    assert doctest.testmod(jump_battery).failed == 0


@settings(max_examples=100, deadline=None)
@given(found=points, truth=points, tolerance=st.integers(0, 9))
def test_matching_equals_ndtracker(found, truth, tolerance):
    found, truth = sorted(found), sorted(truth)
    assert match_jumps(found, truth, tolerance) == _match(found, truth, tolerance)


@pytest.mark.parametrize(
    ("method", "valid"),
    [("calibrated", True), ("study", False), ("trailing_window", False), ("changepoints", False)],
)
def test_verdict_of_ndtrackers_own_battery(method, valid):
    report = validate_detector(by_method(method), name=method)
    assert report.valid is valid
    assert report.mean_recall == 1.0  # jumps of 10 to 33 standard deviations: all rules find them


def test_calibrated_rule_on_many_of_ndtrackers_fixtures():
    """20 draws of each fixture, and the planted ones again at three standard deviations."""
    false, n_points, hits, n_jumps = 0, 0, 0, 0
    for seed in range(20):
        small = fixtures.planted_transition(seed=seed, after=10.9)
        several = fixtures.planted_multi(seed=seed, levels=(10.0, 10.9, 10.0, 10.9))
        null = [fixtures.pure_noise(seed=seed), fixtures.drift_no_jump(seed=seed)]
        report = validate_detector(by_method("calibrated"), [small, several, *null])
        false += sum(result.false_positives for result in report.results)
        n_points += sum(result.n_steps for result in report.results)
        hits += sum(result.true_positives for result in report.results)
        n_jumps += sum(result.n_ground_truth for result in report.results)
    assert 1000 * false / n_points <= 2
    assert hits / n_jumps >= 0.95


def test_frame_by_hand():
    """A rule that always says 100 and 300: finds one of three jumps, and is wrong once or twice."""
    frame = score_detector(
        lambda _: [100, 300], n_series=5, n_points=400, curves=["white noise", "three jumps"]
    )
    assert list(frame.columns[: len(TIDY_COLUMNS)]) == list(TIDY_COLUMNS)
    value = frame.set_index(["series", "metric"])["value"]
    assert value["white noise", "false_positives"] == 2 / 400 * 1000
    # jumps are at 100, 220 and 300
    assert value["three jumps", "false_positives"] == 0
    assert value["three jumps", "recall"] == pytest.approx(2 / 3)
    assert (frame["se"] == 0).all()
    assert (frame["low"] == frame["value"]).all()


def test_the_same_curves_for_every_rule_and_the_seed_decides():
    seen = []

    def look(values):
        seen.append(values)
        return []

    options = {"n_series": 3, "n_points": 50, "curves": ["random walk"]}
    for seed in (0, 0, 1):
        score_detector(look, seed=seed, **options)
    assert np.array_equal(seen[0], seen[3])
    assert not np.array_equal(seen[0], seen[6])
    alone = score_detector("study", **options)
    assert alone["value"].equals(score_detector(by_method("study"), **options)["value"])


def test_rules_by_name_and_by_function_agree():
    options = {"n_series": 10, "curves": ["one jump", "straight drift, 33 sd"]}
    for method in ("calibrated", "trailing_window"):
        named = score_detector(method, **options)
        given_ = score_detector(by_method(method), name=method, **options)
        pd.testing.assert_frame_equal(named, given_)


def test_noise_of_the_curves_is_what_they_say():
    rng = np.random.default_rng(3)
    for name, draw in (NULL_CURVES | HARD_CURVES).items():
        values = draw(rng, 5, 60)
        assert values.shape == (5, 60), name
        assert np.isfinite(values).all(), name
    values, at = PLANTED_CURVES["one jump"](rng, 400, 100, 3.0)
    assert at == [50]
    change = np.abs(values[:, 50:].mean(axis=1) - values[:, :50].mean(axis=1))
    assert change.mean() == pytest.approx(3.0, abs=0.05)
    for name in ("white noise", "Student t noise, 3 df"):
        assert NULL_CURVES[name](rng, 200, 400).std() == pytest.approx(1, abs=0.1)


def test_what_each_rule_gets_at_three_standard_deviations():
    """The table of docs/jump_detection.md in small: the calibrated rule alone has both."""
    curves = ["white noise", "random walk", "straight drift, 33 sd", "one jump", "three jumps"]
    frames = [
        score_detector(method, n_series=40, curves=curves)
        for method in ("calibrated", "study", "trailing_window", "changepoints")
    ]
    frame = pd.concat(frames)
    null = frame[frame["kind"] == "null"]
    worst = null.groupby("method")["value"].max()
    recall = frame[frame["metric"] == "recall"].groupby("method")["value"].min()
    assert worst["calibrated"] <= 2
    assert recall["calibrated"] >= 0.9
    assert worst["study"] > 30
    assert recall["study"] < 0.75
    assert worst["trailing_window"] > 5
    assert worst["changepoints"] > 30
    assert recall["changepoints"] > 0.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"curves": ["noise"]}, "curves out of 'white noise'"),
        ({"n_series": 1}, "n_series of at least 2"),
        ({"detect": lambda values: [len(values)]}, "indices from 0 to 399"),
    ],
)
def test_errors_say_what_to_do(options, words):
    options = {"detect": lambda _: [], "n_series": 2, "curves": ["white noise"]} | options
    with pytest.raises(InputError, match=words):
        score_detector(options.pop("detect"), **options)
