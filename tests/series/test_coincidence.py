"""Turns near emergence: hand-made counts, exact nulls against brute force, calibration."""

import itertools

import numpy as np
import pandas as pd
import pytest
from rate_curves import PYTHIA, frame_of
from series_curves import as_frame, lambada

from headspec import results
from headspec.errors import InputError
from headspec.series.coincidence import coincidence_test
from headspec.series.inflections import inflection_steps

END = np.log1p(PYTHIA[-1])


def test_count_and_exact_p_by_hand():
    found = coincidence_test([2.0], [5.0], steps=[0, 10], within=3, axis="step")
    assert (found.count, found.n) == (1, 1)
    assert found.p_value == pytest.approx(0.6)  # shifts that bring it into 2 to 8, of 10
    assert found.null_mean == pytest.approx(0.6)
    # two turns three apart: both are near after 3 of 10 shifts
    both = coincidence_test([2.0, 5.0], [5.0], steps=[0, 10], within=3, axis="step")
    assert (both.count, both.p_value) == (2, pytest.approx(0.3))
    assert both.least_p == pytest.approx(0.3)


def test_turns_near_a_window_by_hand():
    """Within the window or 1 beside it: 4 of the 10 shifts of one turn, from 2 to 6."""
    found = coincidence_test([2.0, 5.5, 9.0], [(3, 5)], steps=[0, 10], within=1, axis="step")
    assert (found.count, found.emergences) == (2, (5.0,))
    assert found.null_mean == pytest.approx(3 * 0.4)
    one = coincidence_test([6.0], [(3, 5)], steps=[0, 10], within=1, axis="step")
    assert (one.count, one.p_value) == (1, pytest.approx(0.4))
    as_point = coincidence_test([6.0], [(5, 5)], steps=[0, 10], within=1, axis="step")
    assert as_point == coincidence_test([6.0], [5], steps=[0, 10], within=1, axis="step")


def test_windows_of_other_capabilities():
    options = {"steps": [0, 10], "within": 0.5, "axis": "step", "null": "other_capabilities"}
    found = coincidence_test([4.0], [(3, 5)], pool=[(0, 2), (3, 5), (8, 9), 7], **options)
    assert (found.count, found.p_value) == (1, pytest.approx(1 / 4))
    missing = coincidence_test([4.0], [(3, 5)], pool=[(0, 2), (3, 4), 7], **options)
    assert missing.p_value == pytest.approx(2 / 4)  # its own window is added to the pool
    with pytest.raises(InputError, match="emergences between the first and the last step"):
        coincidence_test([4.0], [(3, 11)], **options)


def test_turns_at_the_very_edge_give_no_p_of_zero():
    """Only one shift, of no length, has both turns exactly 100 from the emergence."""
    found = coincidence_test([100, 300], [200], steps=[0, 1000], within=100, axis="step")
    assert found.count == 2
    assert found.p_value == pytest.approx(0.4)  # as if one of them were near
    assert found.least_p == pytest.approx(0.4)


def test_exact_shifts_agree_with_many_shifts():
    rng = np.random.default_rng(0)
    here, near = rng.uniform(0, 10, 7), rng.uniform(0, 10, 3)
    found = coincidence_test(here, near, steps=[0, 10], within=0.6, axis="step")
    moved = (here + np.linspace(0, 10, 20_001)[:-1, None]) % 10
    counts = (np.abs(moved[..., None] - near).min(-1) <= 0.6).sum(1)
    assert found.null_mean == pytest.approx(counts.mean(), abs=2e-3)
    assert found.null_sd == pytest.approx(counts.std(), abs=2e-3)
    assert found.p_value == pytest.approx((counts >= found.count).mean(), abs=2e-3)


def test_the_pool_of_other_capabilities_is_counted_in_full():
    turns, pool = [3.0, 3.2, 7.0], [1.0, 3.1, 5.0, 7.1, 9.0]
    found = coincidence_test(
        turns, [3.1], steps=[0, 10], within=0.5, axis="step", null="other_capabilities", pool=pool
    )
    assert (found.count, found.exact) == (2, True)
    assert found.p_value == pytest.approx(1 / 5)
    pair = coincidence_test(
        turns, [3.1, 7.1], steps=[0, 10], within=0.5, axis="step",
        null="other_capabilities", pool=pool,
    )  # fmt: skip
    counts = [
        sum(min(abs(t - e) for e in chosen) <= 0.5 for t in turns)
        for chosen in itertools.combinations(pool, 2)
    ]
    assert pair.p_value == pytest.approx(np.mean(np.array(counts) >= 3))
    many = coincidence_test(
        turns, pool[:4], steps=[0, 50], within=0.5, axis="step", n_null=500,
        null="other_capabilities", pool=[*pool, *range(10, 50)],
    )  # fmt: skip
    assert not many.exact
    assert many.p_value >= 1 / 501


@pytest.mark.parametrize("n", [4, 30])
def test_turns_anywhere_coincide_at_the_stated_rate(n):
    rng, p = np.random.default_rng(1), []
    for _ in range(400):
        near = np.expm1(rng.uniform(0, END, 2))
        middle = rng.uniform(0, END)  # matrices of one model turn together
        here = np.expm1((middle + rng.normal(0, 0.3, n)) % END)
        p.append(coincidence_test(here, near, steps=PYTHIA).p_value)
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2.4 * np.sqrt(0.05 * 0.95 / 400)
    # negative control: turns counted as if they were independent
    naive = np.mean([each <= 0.2 for each in p])
    assert naive <= 0.3


def test_where_all_happens_early_only_the_pool_holds():
    rng, shift, pooled = np.random.default_rng(2), [], []
    for _ in range(200):
        pool = np.expm1(rng.uniform(6, 8, 20))
        here = np.expm1(rng.uniform(6, 8, 20))
        shift.append(coincidence_test(here, pool[:1], steps=PYTHIA).p_value <= 0.05)
        found = coincidence_test(here, pool[:1], steps=PYTHIA, null="other_capabilities", pool=pool)
        pooled.append(found.p_value <= 0.05)
    assert np.mean(pooled) <= 0.05 + 2.4 * np.sqrt(0.05 * 0.95 / 200)
    assert np.mean(shift) > 0.08  # negative control


def test_planted_coincidences_are_found():
    rng, p = np.random.default_rng(3), []
    for _ in range(50):
        near = rng.uniform(1, END - 1, 3)
        here = np.r_[np.repeat(near, 2) + rng.normal(0, 0.05, 6), rng.uniform(0, END, 2)]
        found = coincidence_test(np.expm1(here), np.expm1(near), steps=PYTHIA, within=0.2)
        p.append(found.p_value)
    assert np.mean(np.array(p) <= 0.05) >= 0.9


def test_inflections_of_known_curves():
    x = np.log1p(PYTHIA)
    middles = np.array([3.0, 6.5])
    rises = np.array([1.0, -2.0])[:, None] / (1 + np.exp(-(x - middles[:, None]) / 0.4))
    found = inflection_steps(frame_of(rises, PYTHIA))
    for row, middle in zip(found.to_dict("records"), middles, strict=True):
        assert np.log1p(row["step_before"]) <= middle + 0.7
        assert np.log1p(row["step_after"]) >= middle - 0.7
    assert np.sign(found["value"]).tolist() == [1, -1]
    sets_in = inflection_steps(frame_of(rises, PYTHIA), turn="acceleration")
    ends = inflection_steps(frame_of(rises, PYTHIA), turn="deceleration")
    assert (sets_in["step"] < found["step_after"]).all()
    assert (ends["step"] > found["step_before"]).all()
    flat = inflection_steps(as_frame(PYTHIA, np.ones(27)))
    assert flat["step"].isna().all()


@pytest.mark.parametrize("size", ["160m", "410m", "1.4b"])
def test_lambada_turns_where_it_is_known_to(size):
    """And without a span, the noise of late checkpoints is taken for the turn: pitfall 26."""
    found = inflection_steps(lambada(size)).iloc[0]
    assert (found["step_before"], found["step_after"]) == (1000, 3000)
    noisy = inflection_steps(lambada("160m"), span=0).iloc[0]
    assert noisy["step_before"] > 50_000


def test_errors_and_words(tmp_path):
    with pytest.raises(InputError, match="turns between the first and the last"):
        coincidence_test([20.0], [5.0], steps=[0, 10], axis="step")
    with pytest.raises(InputError, match="a pool of more than 1"):
        coincidence_test([2.0], [5.0], steps=[0, 10], null="other_capabilities")
    with pytest.raises(InputError, match="within above zero"):
        coincidence_test([2.0], [5.0], steps=[0, 10], within=0)
    with pytest.raises(InputError, match="four steps"):
        inflection_steps(as_frame([0, 1, 2], [0.0, 1.0, 2.0]))
    found = coincidence_test([2.0, pd.NA], [5.0], steps=[0, 10], within=3, axis="step")
    assert "p could not have been below 0.6" in found.summary()
    assert results.load(results.save(found, tmp_path / "c.json")) == found
    assert found.to_frame()["value"].tolist() == [1.0]
