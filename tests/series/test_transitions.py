"""Transitions: goldens, what leaves the verdict alone, an independent fit, controls."""

import doctest
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from series_curves import as_frame, doubling, jump, lambada, logistic

from headspec import results
from headspec.errors import InputError
from headspec.series import transitions
from headspec.series.curve import read_curve
from headspec.series.step_test import run_step_tests
from headspec.series.transitions import find_transition

QUICK = {"n_null": 200}


def noisy(seed: int, n: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


def step_test(frame, *, axis="log_step", drift="both", noise_sd=None, n_null=200):
    curve = read_curve(frame, "m", noise_sd=noise_sd)
    found = run_step_tests(
        curve.values[None],
        curve.steps,
        noise_sd=curve.noise_sd,
        axis=axis,
        drift=drift,
        n_null=n_null,
        seed=0,
        floor=0.0,
    )
    return SimpleNamespace(**{name: value[0] for name, value in vars(found).items()})


def test_golden_of_five_points():
    found = find_transition(as_frame([0, 1, 3, 7, 15], [1.0, 2.0, 1.5, 4.0, 3.5]), "m")
    assert (found.step_before, found.step_after) == (3, 7)
    assert found.size == 2.5
    assert found.share == pytest.approx(2.5 / (1 + 0.5 + 2.5 + 0.5))
    assert found.rate == pytest.approx(2.5 / np.log(2))  # log 8 - log 4
    assert found.exceeds_threshold
    assert found.kind == "none"
    assert "too few" in found.reason
    assert np.isnan(found.p_value)


def test_size_is_signed_and_the_studys_rule_is_strict():
    steps = [0, 1, 2, 3]
    assert find_transition(as_frame(steps, [1, 1, 0.5, 0.5]), "m").size == -0.5
    assert not find_transition(
        as_frame(steps, [0, 0, 0.5, 0.5]), "m", threshold=0.5
    ).exceeds_threshold
    assert find_transition(as_frame(steps, [0, 0, 0.5, 0.5]), "m", threshold=0.4).exceeds_threshold


@pytest.mark.parametrize("axis", ["log_step", "step"])
@pytest.mark.parametrize("height", [12.0, -12.0])
def test_a_clear_jump_is_sudden_and_placed(axis, height):
    values = noisy(3, 16) + jump(16, 9, height)
    found = find_transition(as_frame(doubling(16), values), "m", axis=axis)
    assert found.kind == "sudden"
    assert (found.step_before, found.step_after) == (128, 256)
    assert (found.jump_before, found.jump_after) == (128, 256)
    assert found.jump_size == pytest.approx(height, abs=5)
    assert found.p_value <= 0.01
    assert "Sudden" in found.summary()


@pytest.mark.parametrize("width", [4, 6, 8])
@pytest.mark.parametrize("sd", [0.0, 0.02])
def test_a_sigmoid_over_several_checkpoints_is_gradual(width, sd):
    found = find_transition(as_frame(doubling(16), logistic(16, width) + sd * noisy(1, 16)), "m")
    assert found.kind == "gradual"
    assert "Gradual" in found.summary()


@pytest.mark.parametrize("x", [np.log1p(doubling(16)), doubling(16) / 2.0**14])
@pytest.mark.parametrize("sd", [0.0, 1e-3])
def test_drift_along_either_axis_is_gradual(x, sd):
    assert find_transition(as_frame(doubling(16), 3 * x + sd * noisy(2, 16)), "m").kind == "gradual"


def test_a_small_jump_on_a_large_drift_is_gradual():
    values = 10 * np.log1p(doubling(20)) + jump(20, 10, 12.0) + 0.1 * noisy(0, 20)
    found = find_transition(as_frame(doubling(20), values), "m")
    assert found.p_value <= 0.05
    assert found.jump_share < 0.5
    assert found.kind == "gradual"
    assert "holds only" in found.reason


def test_an_outlier_is_no_transition_although_the_studys_rule_fires():
    values = 0.01 * noisy(5, 16)
    values[8] += 0.5
    found = find_transition(as_frame(doubling(16), values), "m")
    assert found.exceeds_threshold
    assert found.kind == "none"
    assert "not distinguishable from noise" in found.summary()


def test_known_noise_tightens():
    frame = as_frame(doubling(8), jump(8, 5, 5.0) + noisy(4, 8), se=1.0)
    found = find_transition(frame, "m")
    assert find_transition(frame, "m", noise_sd="se").p_value < found.p_value
    assert find_transition(frame, "m", noise_sd=50.0).kind == "none"


def test_zero_standard_errors_take_the_smallest_positive_one():
    values, se = jump(10, 5) + 0.1 * noisy(2, 10), np.r_[0, 0, np.full(8, 0.1)]
    floored = np.full(10, 0.1)
    one, two = (
        find_transition(as_frame(doubling(10), values, se=s), "m", noise_sd="se")
        for s in (se, floored)
    )
    assert one == two
    with pytest.raises(InputError, match="zeros only"):
        find_transition(as_frame(doubling(10), values), "m", noise_sd=0.0)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shift=st.floats(-100, 100),
    log_scale=st.floats(-3, 3),
    slope=st.floats(-20, 20),
    slope_step=st.floats(-20, 20),
)
def test_p_ignores_shift_scale_sign_and_tilt(seed, shift, log_scale, slope, slope_step):
    steps = doubling(12)
    values = noisy(seed) + jump(12, 6, 3.0)
    tilt = slope * np.log1p(steps) + slope_step * steps / 1024
    moved = shift + 10**log_scale * (values + tilt)
    one, two, mirrored = (step_test(as_frame(steps, v)) for v in (values, moved, -values))
    assert two.p_jump == one.p_jump == mirrored.p_jump
    assert two.before == one.before == mirrored.before
    assert two.size == pytest.approx(10**log_scale * one.size, rel=1e-5, abs=1e-6 * 10**log_scale)
    assert mirrored.size == pytest.approx(-one.size)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), at=st.integers(2, 10))
def test_time_reversed_on_even_steps(seed, at):
    steps, values = np.arange(12) * 10, noisy(seed) + jump(12, at, 4.0)
    one, two = (
        step_test(as_frame(steps, v), axis="step", drift="axis") for v in (values, values[::-1])
    )
    assert two.size == pytest.approx(-one.size)
    assert two.before == 10 - one.before
    assert two.share == pytest.approx(one.share)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(12)))
def test_rows_in_any_order(seed, order):
    frame = as_frame(doubling(12), noisy(seed), se=0.5)
    shuffled = frame.iloc[list(order)]
    assert find_transition(shuffled, "m", **QUICK) == find_transition(frame, "m", **QUICK)


def plain_fit(steps, values, sd=1.0):
    """Best jump by ordinary least squares, one model a change point, no shared code."""
    drift = [np.ones(len(steps)), np.log1p(steps), np.asarray(steps, float)]

    def loss(extra):
        columns = np.stack([*drift, *extra], axis=1) / sd
        columns /= np.abs(columns).max(axis=0)
        fit, *_ = np.linalg.lstsq(columns, values / sd, rcond=None)
        return float(((values / sd - columns @ fit) ** 2).sum())

    x, n = np.log1p(steps), len(steps)
    jumps = [loss([(np.arange(n) >= k).astype(float)]) for k in range(2, n - 1)]
    ramps = [
        loss([np.interp(x, [x[i], x[j]], [0.0, 1.0])]) for i in range(n) for j in range(i + 3, n)
    ]
    return loss([]), np.array(jumps), min(ramps)


@pytest.mark.parametrize("seed", range(6))
def test_oracle_ordinary_least_squares(seed):
    steps, values = doubling(9), noisy(seed, 9) + jump(9, 4, 2.0)
    _, jumps, ramp = plain_fit(steps, values)
    found = step_test(as_frame(steps, values))
    assert found.before == int(jumps.argmin()) + 1
    assert (found.p_jump == 1.0) == (ramp < jumps.min())


def test_oracle_p_by_plain_simulation():
    steps, sd = doubling(8), 0.7
    values = np.array([0.1, -0.6, 0.4, 0.2, 2.0, 1.6, 1.5, 0.9])
    none, jumps, ramp = plain_fit(steps, values, sd)
    observed = none - jumps.min()
    assert jumps.min() < ramp
    rng, reached, draws = np.random.default_rng(1), 0, 1500
    for _ in range(draws):
        none, jumps, ramp = plain_fit(steps, sd * rng.standard_normal(8), sd)
        reached += jumps.min() < ramp and none - jumps.min() >= observed
    p = step_test(as_frame(steps, values), noise_sd=sd, n_null=4000).p_jump
    assert p == pytest.approx(reached / draws, abs=4 * np.sqrt(p * (1 - p) / draws))


def test_below_the_resolution_of_the_dtype_nothing_is_a_transition():
    """The 2,991 published jumps: "stable rank" 1 - 1e-10 / |A|^2, steps of 8.5e-9 at most."""
    values = 1 - 1e-10 / np.r_[np.full(10, 1.0), np.full(10, 0.1) + 1e-4 * noisy(0, 10)] ** 2
    frame = as_frame(doubling(20), values)
    naive = np.abs(np.diff(values)).max() / np.diff(values)[:8].std(ddof=1).clip(1e-18)
    assert naive > 3  # a z-score calls it a jump
    found = find_transition(frame, "m")
    assert found.kind == "none"
    assert "below the resolution of float32" in found.summary()
    assert find_transition(frame, "m", dtype="float64").kind == "sudden"


def test_constant_and_short_curves_have_a_verdict():
    constant = find_transition(as_frame(doubling(10), np.full(10, 0.3)), "m")
    assert (constant.kind, constant.size, constant.share) == ("none", 0.0, 0.0)
    assert "constant" in constant.reason
    assert np.isnan(constant.p_value)
    with pytest.raises(InputError, match="at least 3 steps"):
        find_transition(as_frame([0, 1], [0.0, 1.0]), "m")


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (as_frame([0, 1, 1, 2], [0, 1, 2, 3], layer=[0, 0, 1, 0]), r"by=\['layer'\]"),
        (as_frame([0, 1, 1, 2], [0, 1, 2, 3]), "several at step 1"),
        (as_frame([0, 1, 2, 3], [0, np.nan, 2, 3]), "nan at step 1"),
        (as_frame([0, 1, 2, 3], [0, None, 2, 3]), "at step 1"),
        (as_frame([0, 1, 2, 3], [0, np.inf, 2, 3]), "inf at step 1"),
        (as_frame([-1, 1, 2, 3], [0, 1, 2, 3]), "from 0 up"),
        (as_frame([0.5, 1, 2, 3], [0, 1, 2, 3]), "whole numbers"),
        (as_frame([0, 1, 2], [0, 1, 2]).assign(metric="silhouete"), "Did you mean"),
        (pd.DataFrame({"step": [0, 1, 2], "m": [0, 1, 2]}), "melt"),
    ],
)
def test_what_cannot_be_used_is_named(frame, match):
    with pytest.raises(InputError, match=match):
        find_transition(frame, "m")


@pytest.mark.parametrize(
    "option", [{"alpha": 0.0}, {"min_share": 2.0}, {"n_null": 5}, {"threshold": -1}]
)
def test_options_out_of_range(option):
    with pytest.raises(InputError, match=next(iter(option))):
        find_transition(as_frame(doubling(8), noisy(0, 8)), "m", **option)


def test_unknown_noise_column():
    with pytest.raises(InputError, match="standard errors"):
        find_transition(as_frame(doubling(8), noisy(0, 8)), "m", noise_sd="stderr")


def test_same_seed_same_result_and_global_generator_untouched():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    frame = as_frame(doubling(14), noisy(0, 14))
    assert find_transition(frame, "m", seed=3) == find_transition(frame, "m", seed=3)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_frame_and_files(tmp_path):
    frame = as_frame(doubling(16), jump(16, 9) + 0.1 * noisy(1, 16), model="micro", layer=2)
    found = find_transition(frame, "m")
    table = found.to_frame()
    assert tuple(table.columns[:11]) == results.TIDY_COLUMNS
    row = table.iloc[0]
    assert (row["step"], row["layer"], row["model"]) == (256, 2, "micro")
    assert row["metric"] == "m.transition"
    assert row["value"] == found.size
    assert row["null_mean"] < found.size
    results.save(found, tmp_path / "found.json")
    assert results.load(tmp_path / "found.json") == found


def test_examples():
    assert doctest.testmod(transitions).failed == 0


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ("70m", (3000, 13000)),
        ("160m", (1000, 3000)),
        ("410m", (1000, 3000)),
        ("1.4b", (1000, 3000)),
    ],
)
def test_lambada_of_pythia(size, window):
    found = find_transition(lambada(size), "m")
    assert (found.step_before, found.step_after) == window
    assert found.kind == "gradual"  # rises over 512 .. 13000 on the log axis
    with_errors = find_transition(lambada(size), "m", noise_sd="se")
    assert (with_errors.step_before, with_errors.step_after) == window
    assert with_errors.p_change < 0.01
