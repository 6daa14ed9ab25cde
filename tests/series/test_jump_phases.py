"""Early, mid and late: the published table, its correction, exact intervals, an even null."""

import doctest

import numpy as np
import pandas as pd
import pytest
from published_jumps import GRID, jumps_at, needs_published, published_jumps
from scipy.stats import beta, binom

import headspec as hs
from headspec import results
from headspec.errors import InputError
from headspec.series import jump_phases


def counts(frame, model="all"):
    return frame[frame["model"] == model]["count"].tolist()


def test_example():
    assert doctest.testmod(jump_phases).failed == 0


@needs_published
def test_published_jumps_by_architecture():
    jumps = published_jumps()
    assert len(jumps) == 2991
    sizes = jumps.groupby("model").size().to_dict()
    assert sizes == {"transformer": 1598, "mlp": 1096, "cnn": 297}


@needs_published
def test_published_table_and_its_correction():
    """Pitfall 21: phase by index ends at .1995, and phase 0 fell out of (0, .1]."""
    jumps = published_jumps()
    options = {"n_steps": 2000, "steps": GRID}
    published = hs.phase_shares(jumps, by="published", **options)
    assert counts(published) == [2241, 498, 0]
    assert counts(published, "transformer") == [1023, 478, 0]
    assert counts(published, "cnn") == [270, 0, 0]
    assert counts(published, "mlp") == [948, 20, 0]
    assert len(jumps) - sum(counts(published)) == 252  # those at index 0
    assert published["value"].tolist()[:3] != [0, 0, 0]
    by_index = hs.phase_shares(jumps, by="index", **options)
    assert counts(by_index) == [2241 + 252, 498, 0]
    late = by_index[by_index["part"] == "late"]
    assert (late["null_mean"] == 0).all()  # nothing can be late
    assert (late["p"] == 1).all()
    corrected = hs.phase_shares(jumps, at="before", **options)
    assert counts(corrected) == [1879, 614, 498]
    transformer = corrected[corrected["model"] == "transformer"].set_index("part")
    assert transformer.loc["late", "value"] == pytest.approx(0.299, abs=5e-4)
    late_null = corrected[corrected["part"] == "late"]["null_mean"].iloc[0]
    assert late_null == pytest.approx(0.5, abs=0.005)


@needs_published
def test_after_the_jump_shifts_few():
    jumps = published_jumps()
    after = hs.phase_shares(jumps, n_steps=2000, steps=np.arange(0, 2001, 5))
    assert sum(counts(after)) == 2991
    assert np.abs(np.array(counts(after)) - [1879, 614, 498]).max() < 30


def test_exact_interval_and_p_by_hand():
    jumps = jumps_at([5, 10, 15, 1000, 1500])
    found = hs.phase_shares(jumps, n_steps=2000, steps=np.arange(0, 2001, 5)).set_index("part")
    row = found.loc["early"]
    assert (row["count"], row["n"], row["null_mean"]) == (3, 5, 0.1)
    assert row["low"] == pytest.approx(beta.ppf(0.025, 3, 3))
    assert row["high"] == pytest.approx(beta.ppf(0.975, 4, 2))
    assert row["p"] == pytest.approx(binom.sf(2, 5, 0.1))  # the other tail has no so unlikely count
    assert row["null_sd"] == pytest.approx(np.sqrt(0.09 / 5))


def test_even_jumps_are_called_early_at_the_stated_rate():
    rng = np.random.default_rng(0)
    grid = np.arange(0, 2001, 5)
    p = [
        hs.phase_shares(
            jumps_at(rng.choice(grid[1:], 30, replace=False)), n_steps=2000, steps=grid
        )["p"].iloc[0]
        for _ in range(100)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.11


def test_interval_over_runs_is_wider_where_runs_differ():
    """Jumps of a run come together: the exact interval takes 200 jumps as 200, not as 10."""
    rng = np.random.default_rng(1)
    runs = [
        jumps_at(rng.choice(200 if run % 2 else 2000, 20) // 5 * 5 + 5, seed=run)
        for run in range(10)
    ]
    jumps = pd.concat(runs)
    options = {"n_steps": 2010, "steps": np.arange(0, 2011, 5)}
    exact = hs.phase_shares(jumps, **options)
    over_runs = hs.phase_shares(jumps, interval="runs", **options)
    width = (over_runs["high"] - over_runs["low"]) / (exact["high"] - exact["low"])
    assert width.iloc[0] > 2
    assert (over_runs["value"] == exact["value"]).all()
    single = hs.phase_shares(runs[0], interval="runs", **options)
    assert single["low"].isna().all()


def test_one_model_has_no_row_for_all(tmp_path):
    found = hs.phase_shares(jumps_at([100, 1900]), n_steps=2000)
    assert found["model"].tolist() == ["m"] * 3
    assert found["value"].sum() == 1
    results.save(found, tmp_path / "shares.parquet")
    pd.testing.assert_frame_equal(results.load(tmp_path / "shares.parquet"), found)


def test_errors():
    with pytest.raises(InputError, match="expected jumps"):
        hs.phase_shares(jumps_at([]), n_steps=10)
    with pytest.raises(InputError, match="measured steps"):
        hs.phase_shares(jumps_at([7], every=1), n_steps=2000, steps=GRID)
