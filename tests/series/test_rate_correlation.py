"""Correlations of rates: hand-made numbers, independent oracles, pitfalls 26 and 27."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rate_curves import EMBEDDED, PYTHIA, frame_of, linked, saturating, walks
from scipy.stats import false_discovery_control, pearsonr, spearmanr

from headspec import results
from headspec.errors import InputError
from headspec.results import TIDY_COLUMNS
from headspec.series.correlation import correlate_rates
from headspec.series.curve_table import read_curves
from headspec.series.surrogates import surrogates, width_scale

PLAIN = {"weights": "equal", "partial": (), "leave_out": 0}


def some(n=4, steps=EMBEDDED, seed=0):
    values = walks(np.random.default_rng(seed), n, steps)
    return frame_of(values[1:], steps), frame_of(values[:1], steps, "c")


def test_r_and_p_by_hand():
    steps = [0, 1, 3, 7, 15, 31, 63]  # log(1 + step) evenly spaced
    here, there = np.array([1.0, 0, 0, 2, 0, 0]), np.array([2.0, 0, 3, 1, 0, 0])
    stats = frame_of(np.r_[0, here.cumsum()], steps)
    capability = frame_of(np.r_[0, there.cumsum()], steps, "c")
    found = correlate_rates(stats, capability, null="circular_shift", **PLAIN).to_frame().iloc[0]
    shifted = [pearsonr(here, np.roll(there, by))[0] for by in range(6)]
    assert found["value"] == pytest.approx(shifted[0])
    assert found["p"] == pytest.approx(np.mean(np.abs(shifted) >= abs(shifted[0]) - 1e-12))
    assert found["least_p"] == pytest.approx(1 / 6)
    assert (found["n"], found["lag"], found["capability"]) == (6, 0, "c0")
    assert found["null_mean"] == pytest.approx(np.mean(shifted))


@pytest.mark.parametrize("axis", ["log_step", "step"])
def test_weighted_partial_r_is_that_of_least_squares(axis):
    stats, capability = some()
    found = correlate_rates(stats, capability, axis=axis, n_null=50).to_frame()
    x = np.log1p(EMBEDDED)
    place = x if axis == "log_step" else EMBEDDED.astype(float)
    widths, middle = np.diff(place), (x[1:] + x[:-1]) / 2
    trend = np.stack([np.ones(16), middle, middle**2], axis=1) * np.sqrt(widths)[:, None]
    rates = np.diff([capability["value"], *stats["value"].to_numpy().reshape(3, -1)]) / widths
    rates = rates * np.sqrt(widths)
    left = [each - trend @ np.linalg.lstsq(trend, each, rcond=None)[0] for each in rates]
    expected = [left[0] @ e / np.linalg.norm(left[0]) / np.linalg.norm(e) for e in left[1:]]
    np.testing.assert_allclose(found["value"], expected, atol=1e-9)


def test_partial_on_loss_is_the_textbook_partial_correlation():
    values = walks(np.random.default_rng(1), 3, EMBEDDED)
    stats, capability, loss = (
        frame_of(each, EMBEDDED, x) for each, x in zip(values, "scl", strict=True)
    )
    found = correlate_rates(
        stats, capability, partial=("loss",), loss=loss, weights="equal", leave_out=0, n_null=20
    ).to_frame()
    rates = np.diff(values) / np.diff(np.log1p(EMBEDDED))
    (_, sc, sl), (_, _, cl), _ = np.corrcoef(rates)
    expected = (sc - sl * cl) / np.sqrt((1 - sl**2) * (1 - cl**2))
    assert found["value"].iloc[0] == pytest.approx(expected)


def test_raw_and_plain_r_stand_beside_it():
    stats, capability = some()
    raw = [pearsonr(v, capability["value"])[0] for v in stats["value"].to_numpy().reshape(3, -1)]
    found = correlate_rates(stats, capability, n_null=20, **PLAIN).to_frame()
    np.testing.assert_allclose(found["raw_r"], raw)
    np.testing.assert_allclose(found["plain_r"], found["value"])
    ranks = correlate_rates(stats, capability, n_null=20, method="spearman", **PLAIN).to_frame()
    rates = np.diff(stats["value"].to_numpy().reshape(3, -1)) / np.diff(np.log1p(EMBEDDED))
    goal = np.diff(capability["value"]) / np.diff(np.log1p(EMBEDDED))
    np.testing.assert_allclose(ranks["value"], [spearmanr(each, goal)[0] for each in rates])


def test_a_positive_lag_means_that_the_statistic_leads():
    values = linked(np.random.default_rng(0), 2, PYTHIA, 0.95, lag=2)
    stats, capability = frame_of(values[1], PYTHIA), frame_of(values[0], PYTHIA, "c")
    found = correlate_rates(stats, capability, lag=(-2, 0, 2), n_null=500).to_frame()
    assert found["lag"].tolist() == [-2, 0, 2]
    assert found["n"].tolist() == [24, 26, 24]
    assert np.abs(found["value"]).idxmax() == 2
    swapped = correlate_rates(capability, stats, lag=(-2, 0, 2), n_null=500).to_frame()
    np.testing.assert_allclose(swapped["value"].to_numpy()[::-1], found["value"], atol=1e-9)


def test_small_changes_of_large_values_per_step_are_no_constant():
    """Changes of 1e-6 over 1,000 steps are rates of 1e-9, beside values of 100."""
    steps = np.r_[0, np.arange(1000, 18_000, 1000)]
    values = walks(np.random.default_rng(0), 2, steps, power=0.0)
    capability = frame_of(values[0], steps, "c")
    small = frame_of(values[1] * 1e-6 + 100, steps)
    found, scaled = (
        correlate_rates(each, capability, axis="step", n_null=20).to_frame()
        for each in (small, frame_of(values[1], steps))
    )
    np.testing.assert_allclose(found["value"], scaled["value"], atol=1e-5)
    line = frame_of(0.1 * steps, steps)  # and a straight line is one, but for rounding
    table = correlate_rates(line, capability, axis="step", n_null=20).to_frame()
    assert table[["value", "p", "plain_r"]].isna().all(axis=None)


def test_one_name_to_partial_out_is_enough():
    stats, capability = some(2)
    one = correlate_rates(stats, capability, lag=[1], partial="log_step", n_null=20)
    assert (one.lags, one.partial) == ((1,), ("log_step",))


def test_q_counts_every_statistic_capability_and_lag():
    values = walks(np.random.default_rng(3), 7, EMBEDDED)
    stats, capability = frame_of(values[2:], EMBEDDED), frame_of(values[:2], EMBEDDED, "c")
    table = correlate_rates(stats, capability, lag=(0, 1), n_null=200).to_frame()
    assert len(table) == 5 * 2 * 2
    np.testing.assert_allclose(table["q"], false_discovery_control(table["p"]))
    assert list(table.columns[: len(TIDY_COLUMNS)]) == list(TIDY_COLUMNS)
    one = correlate_rates(stats, capability, metric="c1", n_null=200).to_frame()
    assert set(one["capability"]) == {"c1"}


def test_only_shared_steps_count_unless_a_grid_is_asked_for():
    stats, capability = some(2)
    fewer = capability[capability["step"] != 512]
    found = correlate_rates(stats, fewer, n_null=20)
    assert 512 not in found.groups[0].steps
    assert not found.interpolated
    grid = [0, 10, 64, 100, 200, 300, 500, 700, 900, 1200, 2000, 3000, 6000]
    found = correlate_rates(stats, fewer, steps=grid, n_null=20)
    assert found.interpolated
    assert found.groups[0].steps.tolist() == grid
    curve = read_curves(stats)[0].at(np.array([0, 100, 6144]), interpolate=True)
    x, y = np.log1p(stats["step"]), stats["value"]
    np.testing.assert_allclose(curve.values[0], np.interp(np.log1p([0, 100, 6144]), x, y))
    with pytest.raises(InputError, match="never extrapolated"):
        correlate_rates(stats, fewer, steps=[*grid, 7000])


def test_models_are_matched_and_never_mixed():
    stats, capability = some(2)
    two = pd.concat([stats.assign(model="a"), stats.assign(model="b")])
    goals = pd.concat([capability.assign(model="b"), capability.assign(model="a", value=0.0)])
    found = correlate_rates(two, goals, n_null=50).to_frame().set_index("model")
    assert np.isnan(found.loc["a", "p"])  # constant: not a test
    assert np.isnan(found.loc["a", "q"])
    assert np.isfinite(found.loc["b", "p"])
    assert len(correlate_rates(two, capability, n_null=50).to_frame()) == 2
    with pytest.raises(InputError, match="model 'a'"):
        correlate_rates(two, goals[goals["model"] == "b"])


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        ({}, {"partial": ("loss",)}, "no loss"),
        ({}, {"leave_out": 0.6}, "leave_out"),
        ({}, {"metric": "other"}, "metrics out of"),
        ({}, {"lag": 10}, "intervals or more"),
        ({}, {"lag": ()}, "one lag or more"),
        ({}, {"trend_degree": -1}, "trend_degree of 0"),
        ({"value": np.nan}, {}, "finite values"),
        ({"step": 0}, {}, "one value a step"),
    ],
)
def test_errors_say_what_to_do(change, options, match):
    stats, capability = some(2)
    with pytest.raises(InputError, match=match):
        correlate_rates(stats.assign(**change), capability, **options)


def test_repeats_name_the_column_that_tells_them_apart():
    stats, capability = some(2)
    both = pd.concat([stats.assign(rank=1), stats.assign(rank=2)])
    with pytest.raises(InputError, match=r"by=\['rank'\]"):
        correlate_rates(both, capability)
    found = correlate_rates(both, capability, by=("rank",), n_null=20).to_frame()
    assert found["rank"].tolist() == [1, 2]


def test_it_round_trips_is_repeatable_and_leaves_the_global_generator_alone(tmp_path):
    stats, capability = some()
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    found = correlate_rates(stats, capability, n_null=100, seed=3)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    again = correlate_rates(stats, capability, n_null=100, seed=3)
    pd.testing.assert_frame_equal(found.to_frame(), again.to_frame())
    loaded = results.load(results.save(found, tmp_path / "rates.json"))
    pd.testing.assert_frame_equal(loaded.to_frame(), found.to_frame())
    assert "raw values, which is no evidence" in found.summary()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 100), st.floats(-100, 100), st.integers(0, 10))
def test_units_do_not_matter(scale, shift, seed):
    stats, capability = some(3, seed=seed)
    options = {"n_null": 200}
    first = correlate_rates(stats, capability, **options).to_frame()
    moved = stats.assign(value=stats["value"] * scale + shift)
    second = correlate_rates(moved, capability, **options).to_frame()
    np.testing.assert_allclose(first["value"], second["value"], atol=1e-7)
    np.testing.assert_allclose(first["p"], second["p"], atol=0.02)


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 30), st.integers(0, 100))
def test_surrogates_keep_what_they_promise(n, seed):
    values = np.random.default_rng(seed).normal(size=(2, n))
    values -= values.mean(axis=1, keepdims=True)
    drawn = surrogates(values, n_null=5, seed=seed)
    amplitudes = np.abs(np.fft.rfft(values))[:, None]
    np.testing.assert_allclose(np.abs(np.fft.rfft(drawn)), np.repeat(amplitudes, 5, 1), atol=1e-9)
    # drawn jointly: what two series have in common stays
    np.testing.assert_allclose(
        (drawn[0] * drawn[1]).sum(-1), (values[0] * values[1]).sum(), atol=1e-9
    )
    shifts = surrogates(values[0], null="circular_shift")
    np.testing.assert_allclose(shifts, [np.roll(values[0], by) for by in range(n)])
    mixed = surrogates(values[0], null="permutation", n_null=4, seed=seed)
    np.testing.assert_allclose(np.sort(mixed), np.tile(np.sort(values[0]), (4, 1)))


def test_the_size_of_changes_by_width_is_found():
    rng, widths = np.random.default_rng(0), np.diff(np.log1p(PYTHIA))
    rates = rng.normal(size=(500, 26)) * widths**-1.0
    slope = np.polyfit(np.log(widths), np.log(width_scale(rates, widths)).T, 1)[0]
    assert slope.mean() == pytest.approx(-1, abs=0.15)
    assert (width_scale(rates, np.ones(26)) == 1).all()


def test_pitfall_26_rates_per_step_and_per_log_step_are_different_questions():
    """Two curves that grow with log step and are linked by nothing else."""
    values = np.log1p(PYTHIA) + 0.05 * np.random.default_rng(0).normal(size=(2, 27))
    stats, capability = frame_of(values[1], PYTHIA), frame_of(values[0], PYTHIA, "c")
    per_step = correlate_rates(stats, capability, axis="step", n_null=20, **PLAIN)
    assert per_step.to_frame()["value"][0] > 0.95  # intervals of 1 and 10,000 steps
    per_log_step = correlate_rates(stats, capability, n_null=200).to_frame()
    assert abs(per_log_step["value"][0]) < 0.5
    assert per_log_step["p"][0] > 0.05


def test_pitfall_27_raw_correlation_is_no_evidence():
    """Curves that rise apart from each other: nearly all are correlated, none is linked."""
    rng = np.random.default_rng(0)
    values = np.abs(saturating(rng, 61, PYTHIA))
    raw = [pearsonr(values[0], each)[1] for each in values[1:]]
    stats, capability = frame_of(values[1:], PYTHIA), frame_of(values[:1], PYTHIA, "c")
    found = correlate_rates(stats, capability, n_null=2000).to_frame()
    assert np.mean(false_discovery_control(raw) <= 0.05) > 0.9  # negative control
    assert not (found["q"] <= 0.05).any()
    assert found["raw_r"].abs().median() > 0.6 > found["value"].abs().median()
