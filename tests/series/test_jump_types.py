"""Types of jumps: the study's five clusters, one type where there is one hump, and stability."""

import doctest
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_jumps import jumps_at, needs_published, published_jumps
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

import headspec as hs
from headspec import results
from headspec.errors import InputError
from headspec.series import jump_types
from headspec.series.jump_type_null import (
    bootstrap_rand,
    kmeans_silhouettes,
    single_hump_draws,
    unimodal_fit,
)


def one_hump(rng, n, *, crowded):
    """No types: phases even or crowded early, lognormal magnitudes, speeds that follow them."""
    phase = np.minimum(rng.exponential(0.08, n), 1) if crowded else rng.uniform(0, 1, n)
    noise = rng.normal(size=(2, n))
    magnitude = 10 ** noise[0]
    return jumps_at(np.round(2000 * phase)).assign(
        phase=phase, magnitude=magnitude, speed=magnitude * 10 ** (0.3 * noise[1]), step_before=0
    )


def three_types(rng, n):
    """Three clouds in phase, log magnitude and log speed, and which each jump came from."""
    own = rng.integers(0, 3, n)
    centres = np.array([[0.1, 0, -1], [0.5, 1, 0], [0.85, -0.5, 1]])
    at = centres[own] + rng.normal(size=(n, 3)) * [0.03, 0.25, 0.25]
    frame = jumps_at(np.round(2000 * np.clip(at[:, 0], 0, 1)))
    return frame.assign(phase=at[:, 0], magnitude=10 ** at[:, 1], speed=10 ** at[:, 2]), own


def test_example():
    assert doctest.testmod(jump_types).failed == 0


@needs_published
def test_the_study_s_five_clusters_exactly():
    """K-means with k = 5 on standardised (phase, magnitude, speed), linear: the same partition."""
    jumps = published_jumps()
    found = hs.classify_jumps(jumps, n_types=5, scale="linear", n_resamples=3)
    assert sorted(found.types["n"], reverse=True) == [2104, 437, 431, 13, 6]
    assert adjusted_rand_score(jumps["cluster"], found.labels) == 1.0
    assert found.chosen == "given"
    # on logarithms, which do not give a type to every few extreme jumps, it is another partition
    logs = hs.classify_jumps(jumps, n_types=5, n_resamples=0)
    assert adjusted_rand_score(jumps["cluster"], logs.labels) < 0.5
    assert logs.types["n"].min() > 100


@needs_published
def test_five_types_are_not_what_the_silhouette_chooses():
    jumps = published_jumps()
    found = hs.classify_jumps(jumps, scale="linear", n_null=19, n_resamples=0)
    assert found.n_types != 5
    score = found.silhouettes.set_index("n_types")["silhouette"]
    assert score[5] < score.max()


def test_planted_types_are_found():
    jumps, own = three_types(np.random.default_rng(0), 90)
    found = hs.classify_jumps(jumps, n_null=39)
    assert found.n_types == 3
    assert found.chosen == "silhouette"
    assert found.p == pytest.approx(1 / 40)
    assert adjusted_rand_score(own, found.labels) == 1
    assert found.stability > 0.95
    assert found.types["type"].tolist() == [1, 2, 3]
    assert all(a < b for a, b in pairwise(found.types["phase"]))  # numbered by phase
    assert "3 types (silhouette)" in found.summary()


@pytest.mark.parametrize("crowded", [True, False])
def test_one_hump_is_one_type_at_the_stated_rate(crowded):
    rng = np.random.default_rng(1)
    found = [
        hs.classify_jumps(
            one_hump(rng, 50, crowded=crowded), n_null=19, max_types=4, n_resamples=0, seed=i
        )
        for i in range(40)
    ]
    p = np.array([one.p for one in found])
    assert np.mean(p <= 0.05) <= 0.125  # 40 draws of .05: at most 5
    assert all((one.n_types == 1) == (one.p > 0.05) for one in found)


def test_an_even_reference_would_find_types_in_crowded_phases():
    """Pitfall: skewed is not clustered. Against points spread evenly, one hump has "types"."""
    jumps = one_hump(np.random.default_rng(2), 200, crowded=True).assign(speed=1.0)
    found = hs.classify_jumps(jumps, n_null=39, n_resamples=0, scale="linear")
    assert found.p > 0.05
    points = jumps[["phase", "magnitude"]].to_numpy()
    points = (points - points.mean(0)) / points.std(0)
    rng = np.random.default_rng(0)
    even = rng.uniform(points.min(0), points.max(0), (39, 150, 2))
    even = (even - even.mean(1, keepdims=True)) / even.std(1, keepdims=True)
    null = kmeans_silhouettes(even, counts=(2, 3, 4, 5, 6), seed=0).max(0)
    assert found.silhouettes["silhouette"].max() > null.max()


def test_few_jumps_are_one_type():
    found = hs.classify_jumps(jumps_at([10, 20, 1900]).assign(magnitude=[1, 2, 9], speed=[3, 1, 2]))
    assert found.n_types == 1
    assert found.labels.tolist() == [1, 1, 1]
    assert "too few to look for types" in found.summary()
    assert np.isnan(found.p)


def test_speed_that_repeats_magnitude_is_left_out():
    jumps, _ = three_types(np.random.default_rng(0), 40)
    found = hs.classify_jumps(jumps.assign(speed=jumps["magnitude"] / 5), n_null=19, n_resamples=0)
    assert found.features == ("phase", "magnitude")
    assert "speed says the same as magnitude" in found.notes[0]
    constant = hs.classify_jumps(jumps.assign(speed=0.0, magnitude=1.0), n_null=19, n_resamples=0)
    assert constant.features == ("phase",)


def test_zero_speeds_have_a_logarithm():
    jumps, _ = three_types(np.random.default_rng(0), 40)
    jumps.loc[0, "speed"] = 0.0
    assert len(hs.classify_jumps(jumps, n_types=2, n_resamples=0).labels) == 40


def test_silhouettes_are_scikit_learn_s():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(60, 3)) + 4 * rng.integers(0, 3, (60, 1))
    ours = kmeans_silhouettes(points[None], counts=(2, 3), seed=0)[:, 0]
    for count, own in zip((2, 3), ours, strict=True):
        labels = KMeans(count, n_init=10, random_state=0).fit_predict(points)
        assert own == pytest.approx(silhouette_score(points, labels), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=12))
def test_unimodal_fit_has_one_hump_and_is_idempotent(heights):
    heights = np.array(heights, dtype=float)
    fit = unimodal_fit(heights)
    signs = np.sign(np.round(np.diff(fit), 9))
    signs = signs[signs != 0]
    assert (np.diff(signs) <= 0).all()  # up, then down
    assert unimodal_fit(fit) == pytest.approx(fit)
    assert fit.sum() == pytest.approx(heights.sum())


def test_unimodal_fit_by_hand():
    assert unimodal_fit(np.array([1.0, 3.0, 2.0])).tolist() == [1, 3, 2]
    assert unimodal_fit(np.array([4.0, 0.0, 2.0])).tolist() == [4, 1, 1]


def test_draws_keep_skew_and_correlation():
    rng = np.random.default_rng(0)
    first = rng.exponential(1, 500)
    points = np.stack([first, first + rng.normal(size=500)], axis=1)
    draws = single_hump_draws(points, n_draws=20, seed=0)
    assert draws.shape == (20, 500, 2)
    wanted = spearmanr(points).statistic
    found = np.mean([spearmanr(draw).statistic for draw in draws])
    assert found == pytest.approx(wanted, abs=0.06)
    assert draws[..., 0].mean() == pytest.approx(first.mean(), rel=0.1)
    skew = ((draws[..., 0] - draws[..., 0].mean()) ** 3).mean() / draws[..., 0].std() ** 3
    assert skew > 1


def test_stability_tells_types_from_slices():
    rng = np.random.default_rng(0)
    clear = np.concatenate([rng.normal(size=(40, 2)), 8 + rng.normal(size=(40, 2))])
    blur = rng.normal(size=(80, 2))
    scores = []
    for points in (clear, blur):
        labels = KMeans(2, n_init=5, random_state=0).fit_predict(points).astype(np.int64)
        scores.append(bootstrap_rand(points, labels, count=2, n_resamples=10, seed=0).mean())
    assert scores[0] == 1
    assert scores[1] < 0.9


def test_round_trip_and_seed(tmp_path):
    jumps, _ = three_types(np.random.default_rng(0), 40)
    options = {"n_null": 19, "n_resamples": 3}
    found, again = (hs.classify_jumps(jumps, seed=7, **options) for _ in range(2))
    pd.testing.assert_frame_equal(found.to_frame(), again.to_frame())
    assert (found.p, found.stability) == (again.p, again.stability)
    for suffix in ("json", "parquet"):
        results.save(found, tmp_path / f"types.{suffix}")
        back = results.load(tmp_path / f"types.{suffix}")
        pd.testing.assert_frame_equal(back.to_frame(), found.to_frame())
        assert back.summary() == found.summary()
    frame = found.to_frame()
    assert frame.columns[:5].tolist() == ["model", "step", "layer", "head", "metric"]
    plan = hs.plan_checkpoints(frame, n_steps=2000, select="study", steps=np.arange(0, 2001))
    assert set(plan.moments["type"].dropna()) == {1, 2, 3}


def test_errors():
    with pytest.raises(InputError, match="got 0 jumps"):
        hs.classify_jumps(jumps_at([]))
    with pytest.raises(InputError, match="n_types from 1 to 1"):
        hs.classify_jumps(jumps_at([5]), n_types=2)
    with pytest.raises(InputError, match="without speed"):
        hs.classify_jumps(jumps_at([5]).drop(columns="speed"))
