"""HeadEffects: shapes, intervals over distinct examples, effects relative to the gap."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from headspec.heads import Head
from headspec.interventions.effects import HeadEffects
from headspec.interventions.example_effects import SmallGapWarning
from headspec.results import TIDY_COLUMNS
from headspec.results.encoding import decode, encode


def effects(values=None, *, n=12, **fields):
    """Heads 0 and 2 of layer 1 in a model of three layers of three heads."""
    rng = np.random.default_rng(0)
    given = {
        "values": rng.standard_normal((2, n)) if values is None else np.asarray(values, float),
        "base": rng.standard_normal(n) if values is None else np.zeros(len(values[0])),
        "target": None,
        "heads": ((Head(1, 0),), (Head(1, 2),)),
        "layers": (1, 1),
        "positions": ("all", "all"),
        "kind": "head",
        "by_position": False,
        "n_layers": 3,
        "n_heads": 3,
        "metric": "difference",
        "unit": "nats",
        "site": "z",
        "mode": "denoise",
    }
    return HeadEffects(**{**given, **fields})


def test_heads_are_placed_and_the_rest_is_nan():
    found = effects([[1.0, 3.0], [-2.0, -4.0]])
    assert found.effect.shape == (3, 3)
    assert found.effect[1, 0] == 2
    assert found.effect[1, 2] == -3
    assert np.isnan(found.effect).sum() == 7
    assert found.per_example[1, 2].tolist() == [-2, -4]
    assert found.per_example.shape == (3, 3, 2)


def test_positions_sets_and_layers_have_axes_of_their_own():
    values = np.arange(8.0).reshape(4, 2)
    fields = {"by_position": True, "positions": ("subject", "subject", "end", "end")}
    heads = ((Head(1, 0),), (Head(1, 2),)) * 2
    found = effects(values, heads=heads, layers=(1,) * 4, **fields)
    assert found.effect.shape == (2, 3, 3)
    assert found.effect[1, 1, 2] == 6.5
    sets = ((), (Head(0, 0), Head(2, 1))) * 2
    found = effects(values, heads=sets, layers=(None,) * 4, kind="set", **fields)
    assert found.effect.tolist() == [[0.5, 2.5], [4.5, 6.5]]
    assert found.row_names()[3] == "L0H0 L2H1 at end"
    found = effects(values, heads=((),) * 4, layers=(0, 2) * 2, kind="layer", **fields)
    np.testing.assert_array_equal(found.effect, [[0.5, np.nan, 2.5], [4.5, np.nan, 6.5]])
    alone = effects(
        values[:1], heads=((Head(0, 0),),), layers=(0,), positions=("3",), by_position=True
    )
    assert alone.effect.shape == (1, 3, 3)


def test_intervals_are_scipys():
    found = effects(n=15)
    oracle = scipy_stats.bootstrap(
        (found.values,),
        np.mean,
        axis=-1,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    np.testing.assert_allclose(found.ci_low[1, [0, 2]], oracle.low, atol=1e-12)
    np.testing.assert_allclose(found.ci_high[1, [0, 2]], oracle.high, atol=1e-12)


def test_examples_with_the_same_prompts_are_drawn_together():
    once = effects(n=6)
    order = np.repeat(np.arange(6), 7)
    copies = replace(once, values=once.values[:, order], base=once.base[order], groups=order)
    assert (once.n, copies.n) == (6, 6)
    np.testing.assert_allclose(copies.ci_low, once.ci_low)
    naive = replace(copies, groups=None)  # the negative control: 42 "examples"
    assert (naive.ci_high - naive.ci_low)[1, 0] < 0.6 * (once.ci_high - once.ci_low)[1, 0]
    # groups of unequal size: the mean stays that over examples
    uneven = effects([[1.0, 1.0, 1.0, 5.0], [0.0] * 4], groups=np.array([4, 4, 4, 7]))
    assert uneven.effect[1, 0] == uneven.intervals.means[0] == 2
    assert uneven.n == 2


def test_coverage_of_the_intervals():
    """20 distinct examples of three copies each: near .95 drawn together, far below one by one."""
    rng = np.random.default_rng(1)
    hits = {True: 0, False: 0}
    trials = 300
    for _ in range(trials):
        values = np.repeat(rng.standard_normal((1, 20)), 3, axis=1)
        for grouped in hits:
            found = effects(
                values,
                heads=((Head(1, 0),),),
                layers=(1,),
                positions=("all",),
                groups=np.repeat(np.arange(20), 3) if grouped else None,
                n_bootstrap=400,
            )
            hits[grouped] += bool(found.ci_low[1, 0] <= 0 <= found.ci_high[1, 0])
    assert 0.89 < hits[True] / trials < 0.98
    assert hits[False] / trials < 0.82


def test_normalised_is_a_ratio_of_means():
    values = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    found = effects(values, base=np.zeros(3), target=np.array([0.001, 4.0, 7.999]), level=0.5)
    assert found.normalized[1, 0] == pytest.approx(6 / 12)
    assert (values[0] / found.gap).mean() > 300  # a mean of ratios is ruled by one small gap
    low, high = found.normalized_intervals.low[0], found.normalized_intervals.high[0]
    assert low < 0.5 < high
    noise = replace(found, mode="noise", values=-values)
    assert noise.gap.tolist() == (-found.gap).tolist()


def test_normalised_in_both_directions():
    clean, corrupt = np.array([3.0, 3.5, 4.0]), np.array([1.0, 1.5, 1.25])
    whole = (clean - corrupt)[None].repeat(2, 0)
    denoise = effects(whole, base=corrupt, target=clean)
    assert denoise.normalized[1, 0] == pytest.approx(1)
    noise = effects(-whole, base=clean, target=corrupt, mode="noise")
    assert noise.normalized[1, 0] == pytest.approx(-1)


def test_a_gap_that_may_be_nothing_is_not_divided_by():
    found = effects(n=12, target=np.random.default_rng(5).standard_normal(12))
    assert not found.gap_is_clear
    with pytest.warns(SmallGapWarning, match="not distinguishable from 0"):
        assert np.isnan(found.normalized).all()
    assert "not distinguishable from 0" in found.summary()
    assert found.to_frame()["normalized"].isna().all()
    assert np.isnan(effects().normalized).all()  # without a pair there is no gap: no warning
    rounding = effects([[1.0], [1.0]], base=np.array([4.0]), target=np.array([4.0 + 1e-7]))
    assert not rounding.gap_is_clear
    assert effects([[1.0], [1.0]], target=np.array([2.0])).normalized[1, 0] == 0.5


def test_frame_and_round_trip():
    found = effects(model="micro", step=8, target=np.full(12, 9.0), groups=np.arange(12) // 2)
    frame = found.to_frame()
    assert tuple(frame.columns[: len(TIDY_COLUMNS)]) == TIDY_COLUMNS
    assert frame["head"].tolist() == [0, 2]
    assert set(frame["n"]) == {6}
    assert frame["value"].tolist() == found.values.mean(1).tolist()
    assert (frame["ci_low"] <= frame["value"]).all()
    again = decode(encode(found))
    assert type(again) is HeadEffects
    np.testing.assert_array_equal(again.effect, found.effect)
    np.testing.assert_array_equal(again.ci_low, found.ci_low)


def test_the_summary_says_what_chance_allows():
    text = effects(np.vstack([np.linspace(1, 2, 12), np.linspace(-1, 1, 12)]), model="m").summary()
    assert "L1H0 +1.5 nats" in text
    assert "1 of 2 intervals (95%) exclude 0; about 0.1 would by chance" in text
    assert "12 distinct examples" in text
    rounding = np.full((2, 12), 1e-7)  # an interval of rounding errors does not exclude 0
    assert "0 of 2 intervals" in effects(rounding).summary()
