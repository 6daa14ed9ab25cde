"""Effects of a factorial design: by hand, as SciPy and least squares give them, calibrated."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

import headspec as hs
from headspec.errors import InputError
from headspec.studies.factorial import factorial_effects

FACTORS = ("attention", "ordering", "position")
LEVELS = {
    "attention": ("mha", "gqa"),
    "ordering": ("shuffled", "topic_ordered"),
    "position": ("rope", "drope"),
}
CELLS = list(itertools.product(*LEVELS.values()))
CODES = np.array(list(itertools.product((-1, 1), repeat=3)))


def design(values, *, metric="loss"):
    """A frame of `seed cell` values."""
    rows = [
        dict(zip(FACTORS, cell, strict=True)) | {"seed": seed, "metric": metric, "value": value}
        for seed, of_seed in enumerate(np.asarray(values))
        for cell, value in zip(CELLS, of_seed, strict=True)
    ]
    return pd.DataFrame(rows)


def test_two_factors_by_hand():
    """A: (3 + 8)/2 - (1 + 2)/2 = 4. B: (2 + 8)/2 - (1 + 3)/2 = 3. A x B: half of (6 - 2) = 2."""
    cells = [("a0", "b0", 1.0), ("a1", "b0", 3.0), ("a0", "b1", 2.0), ("a1", "b1", 8.0)]
    shifts = {0: 0.0, 1: 10.0, 2: -4.0}  # what a block shares cancels
    frame = pd.DataFrame(
        [(a, b, y + shift, seed) for seed, shift in shifts.items() for a, b, y in cells],
        columns=["A", "B", "value", "seed"],
    )
    found = factorial_effects(frame, factors=("A", "B"))
    assert found.effects == (("A",), ("B",), ("A", "B"))
    np.testing.assert_allclose(found.contrasts[0].T, [[4.0, 3.0, 2.0]] * 3)
    np.testing.assert_allclose(found.value, [[4.0, 3.0, 2.0]])


def test_interval_and_p_by_hand():
    """Contrasts 1, 2, 3: mean 2, se 1/sqrt(3), t = 3.4641 with two degrees, 4.3027 for 95 %."""
    rows = [("lo", 0.0, s) for s in range(3)] + [("hi", 1.0 + s, s) for s in range(3)]
    frame = pd.DataFrame(rows, columns=["dose", "value", "seed"])
    found = factorial_effects(frame, factors=("dose",), levels={"dose": ("lo", "hi")})
    assert found.value[0, 0] == pytest.approx(2.0)
    assert found.se[0, 0] == pytest.approx(0.577350)
    assert found.low[0, 0] == pytest.approx(2 - 4.302653 * 0.577350, abs=1e-5)
    assert found.high[0, 0] == pytest.approx(2 + 4.302653 * 0.577350, abs=1e-5)
    assert found.p[0, 0] == pytest.approx(0.0741799, abs=1e-6)
    turned = factorial_effects(frame, factors=("dose",))  # sorted: hi is coded -1
    assert turned.value[0, 0] == pytest.approx(-2.0)


def test_seven_effects_of_three_factors():
    found = factorial_effects(design(np.random.default_rng(0).normal(size=(3, 8))), levels=LEVELS)
    assert [len(effect) for effect in found.effects] == [1, 1, 1, 2, 2, 2, 3]
    frame = found.to_frame()
    assert list(frame.columns[: len(hs.results.TIDY_COLUMNS)]) == list(hs.results.TIDY_COLUMNS)
    assert frame["effect"].iloc[-1] == "attention:ordering:position"
    assert frame["contrast"].iloc[1] == "topic_ordered - shuffled"
    assert (frame["n"] == 3).all()
    np.testing.assert_allclose(frame["q"], hs.false_discovery_rate(frame["p"]))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 6), scale=st.floats(0.01, 100))
def test_least_squares_and_scipy_give_the_same(seed, n, scale):
    values = scale * np.random.default_rng(seed).normal(size=(n, 8))
    found = factorial_effects(design(values), levels=LEVELS)
    chosen = [[FACTORS.index(name) for name in effect] for effect in found.effects]
    columns = [np.ones(8), *(CODES[:, list(each)].prod(1) for each in chosen)]
    coefficients = np.linalg.lstsq(np.stack(columns, 1), values.T, rcond=None)[0]
    np.testing.assert_allclose(found.contrasts[0], 2 * coefficients[1:], atol=1e-9 * scale)
    for j in range(7):
        tested = scipy_stats.ttest_1samp(found.contrasts[0, j], 0)
        assert found.p[0, j] == pytest.approx(tested.pvalue)
        interval = tested.confidence_interval(0.95)
        assert (found.low[0, j], found.high[0, j]) == pytest.approx((interval.low, interval.high))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-1e3, 1e3))
def test_what_a_seed_shares_and_the_order_of_rows_change_nothing(seed, shift):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, 8))
    found = factorial_effects(design(values), levels=LEVELS)
    moved = values + shift * rng.normal(size=(3, 1))
    again = factorial_effects(design(moved).sample(frac=1, random_state=seed), levels=LEVELS)
    np.testing.assert_allclose(again.contrasts, found.contrasts, atol=1e-9)
    assert again.effects == found.effects


def test_effects_rebuild_the_cells():
    """The mean of a block and its seven effects are all there is to its eight cells."""
    values = np.random.default_rng(1).normal(size=(2, 8))
    found = factorial_effects(design(values), levels=LEVELS)
    chosen = [[FACTORS.index(name) for name in effect] for effect in found.effects]
    columns = np.stack([CODES[:, list(each)].prod(1) for each in chosen])
    rebuilt = values.mean(1)[:, None] + found.contrasts[0].T @ columns / 2
    np.testing.assert_allclose(rebuilt, values, atol=1e-12)


def test_calibrated_where_nothing_is_there():
    """Seeds differ, DroPE'd models come from their RoPE run: 5 % of tests pass."""
    rng = np.random.default_rng(2)
    n_studies = 1500
    runs = rng.normal(size=(n_studies, 3, 4)).repeat(2, axis=2)  # shared by the two positions
    values = (
        5 * rng.normal(size=(n_studies, 3, 1)) + runs + 0.3 * rng.normal(size=(n_studies, 3, 8))
    )
    frame = pd.concat(
        [design(one).assign(study=i) for i, one in enumerate(values)], ignore_index=True
    )
    found = factorial_effects(frame, levels=LEVELS, by=("study",))
    passed = (found.p < 0.05).mean(0)
    se = np.sqrt(0.05 * 0.95 / n_studies)
    assert (np.abs(passed - 0.05) < 4 * se).all(), passed
    covered = ((found.low < 0) & (found.high > 0)).mean()
    assert covered == pytest.approx(0.95, abs=0.01)


def test_heads_as_repetitions_would_find_effects_in_noise():
    """Negative control: 16 heads of one model are not 16 models."""
    rng = np.random.default_rng(3)
    naive, right = [], []
    for _ in range(300):
        models = rng.normal(size=(3, 2, 1))  # seed, ordering: the run's own luck
        heads = models + 0.5 * rng.normal(size=(3, 2, 16))
        naive.append(scipy_stats.ttest_ind(heads[:, 0].ravel(), heads[:, 1].ravel()).pvalue)
        rows = [
            (("shuffled", "topic_ordered")[o], s, heads[s, o].mean())
            for s in range(3)
            for o in (0, 1)
        ]
        frame = pd.DataFrame(rows, columns=["ordering", "seed", "value"])
        right.append(factorial_effects(frame, factors=("ordering",)).p[0, 0])
    assert np.mean(np.array(naive) < 0.05) > 0.4
    assert np.mean(np.array(right) < 0.05) < 0.1


def test_heads_as_rows_are_refused():
    frame = design(np.zeros((3, 8)))
    with pytest.raises(InputError, match=r"two of mha shuffled rope in seed 0.*Average over heads"):
        factorial_effects(pd.concat([frame, frame.assign(value=1.0)]), levels=LEVELS)


def test_one_seed_has_no_interval_whatever_it_shows():
    """Pitfall 18: with one seed an arm, the published sign is a coin toss; none is given here."""
    found = factorial_effects(design(np.arange(8.0)[None]), levels=LEVELS)
    assert found.value[0, 2] == 1.0
    for name in ("se", "low", "high", "p", "q"):
        assert np.isnan(getattr(found, name)).all()
    assert found.summary() == (
        "One block: no interval and no p. Whether it would repeat is not known."
    )


def test_repetitions_that_are_copies_are_told():
    copies = np.tile(np.arange(8.0) ** 2, (3, 1))
    found = factorial_effects(design(copies), levels=LEVELS)
    assert np.isnan(found.p[0, 0])
    assert "to the last digit" in found.notes[0]
    alike = factorial_effects(design(np.ones((3, 8))), levels=LEVELS)
    assert (alike.p == 1).all()
    assert (alike.high == 0).all()
    assert not alike.notes


def test_outcomes_are_corrected_together_and_may_lack_a_layer():
    rng = np.random.default_rng(4)
    clear = design(rng.normal(size=(4, 8)) + 50 * (CODES[:, 1] + 1), metric="entropy")
    other = design(rng.normal(size=(4, 8)), metric="loss").assign(layer=pd.NA)
    frame = pd.concat([clear.assign(layer=1), other], ignore_index=True)
    found = factorial_effects(frame, levels=LEVELS, by=("metric", "layer"))
    assert found.outcomes == (("entropy", 1), ("loss", None))
    assert found.value[0, 1] == pytest.approx(100, abs=3)
    assert found.q[0, 1] < 0.01
    assert "1 of 14 effects pass" in found.summary()
    assert "ordering on entropy 1 +" in found.summary()
    assert set(found.to_frame()["metric"]) == {"entropy", "loss"}


def test_it_is_saved_and_loaded(tmp_path):
    found = factorial_effects(design(np.random.default_rng(5).normal(size=(3, 8))), levels=LEVELS)
    again = hs.results.load(hs.results.save(found, tmp_path / "effects.json"))
    assert again.effects == found.effects
    np.testing.assert_array_equal(again.q, found.q)
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())


def test_a_categorical_names_its_own_order():
    frame = design(np.arange(8.0)[None].repeat(2, 0))
    for name, levels in LEVELS.items():
        frame[name] = pd.Categorical(frame[name], categories=levels)
    assert factorial_effects(frame).levels == tuple(LEVELS.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="ordering"), r"missing \['ordering'\]"),
        (lambda f: f.iloc[:-1], "1 missing, such as gqa topic_ordered drope in seed 2"),
        (lambda f: f.assign(value=f["value"].mask(f.index == 3)), "finite value of every cell"),
        (lambda f: f.loc[f["attention"] == "mha"], "two levels of 'attention'.*got mha"),
        (lambda f: f.iloc[:0], "0 rows"),
    ],
)
def test_unbalanced_designs_are_refused(change, message):
    frame = design(np.random.default_rng(6).normal(size=(3, 8)))
    with pytest.raises(InputError, match=message):
        factorial_effects(change(frame), levels=LEVELS)


def test_unknown_levels_are_refused():
    frame = design(np.zeros((2, 8)))
    with pytest.raises(InputError, match="two levels of 'position', nope and rope"):
        factorial_effects(frame, levels={"position": ("nope", "rope")})
