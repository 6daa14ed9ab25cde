"""Class selectivity by hand, against plain loops and SciPy, calibrated on shuffled labels."""

import doctest

import jaxtyping
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import headspec as hs
from headspec import results
from headspec.activations import selectivity


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_labels(n, n_classes, seed=0):
    """Every class at least twice."""
    rng = np.random.default_rng(seed)
    least = np.repeat(np.arange(n_classes), 2)
    return rng.permutation(np.concatenate([least, rng.integers(n_classes, size=n - len(least))]))


def naive(values, labels, measure):
    """One unit by plain means, as the formulas say."""
    classes = np.unique(labels)
    means = np.array([values[labels == c].mean() for c in classes])
    top = means.argmax()
    rest = np.delete(means, top).mean()
    if measure == "index":
        return (means[top] - rest) / (means[top] + rest)
    within = sum(
        ((values[labels == c] - m) ** 2).sum() for c, m in zip(classes, means, strict=True)
    )
    if measure == "eta_squared":
        return 1 - within / ((values - values.mean()) ** 2).sum()
    return (means[top] - rest) / np.sqrt(within / (len(values) - len(classes)))


def test_by_hand():
    """Class means 4, 1, 0: (4 - 1/2) / (4 + 1/2); unequal classes count alike."""
    values = torch.tensor([[5.0], [3.0], [1.0], [0.0], [0.0], [0.0]])
    labels = torch.tensor([7, 7, 3, 1, 1, 1])
    found = hs.class_selectivity(values, labels, n_null=0)
    assert found.value[0] == pytest.approx(3.5 / 4.5)
    assert found.preferred.tolist() == [7]
    assert found.classes == (1, 3, 7)
    assert found.class_means[:, 0].tolist() == [0, 1, 4]
    assert np.isnan(found.p).all()
    eta = hs.class_selectivity(values, labels, measure="eta_squared", n_null=0)
    assert eta.value[0] == pytest.approx(1 - 2 / (35 - 81 / 6))
    d_prime = hs.class_selectivity(values, labels, measure="d_prime", n_null=0)
    assert d_prime.value[0] == pytest.approx(3.5 / np.sqrt(2 / 3))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(8, 40),
    n_classes=st.integers(2, 4),
    measure=st.sampled_from(["index", "eta_squared", "d_prime"]),
)
def test_against_plain_loops(seed, n, n_classes, measure):
    values, labels = gaussian(n, 3, seed=seed).relu() + 0.01, some_labels(n, n_classes, seed)
    found = hs.class_selectivity(values, labels, measure=measure, n_null=0)
    right = [naive(column, labels, measure) for column in values.numpy().T]
    np.testing.assert_allclose(found.value, right, rtol=1e-9)


def test_eta_squared_is_that_of_scipys_analysis_of_variance():
    values, labels = gaussian(60, 4), some_labels(60, 5)
    found = hs.class_selectivity(values, labels, measure="eta_squared", n_null=0)
    groups = [values.numpy()[labels == c] for c in range(5)]
    f = scipy.stats.f_oneway(*groups).statistic
    np.testing.assert_allclose(found.value, f * 4 / (f * 4 + 55), rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.001, 1000), shift=st.floats(-50, 50))
def test_what_changes_nothing(seed, scale, shift):
    values, labels = gaussian(30, 3, seed=seed), some_labels(30, 3, seed)
    order = np.random.default_rng(seed).permutation(30)
    for measure in ("eta_squared", "d_prime"):
        plain = hs.class_selectivity(values, labels, measure=measure, n_null=0).value
        moved = hs.class_selectivity(
            (values * scale + shift)[order], 10 - 3 * labels[order], measure=measure, n_null=0
        )
        np.testing.assert_allclose(moved.value, plain, rtol=1e-6)
    plain = hs.class_selectivity(values.relu(), labels, n_null=0)
    scaled = hs.class_selectivity(values.relu() * scale, labels, n_null=0)
    np.testing.assert_allclose(scaled.value, plain.value, rtol=1e-9)
    shifted = hs.class_selectivity(values.relu() + 100, labels, n_null=0)
    assert (shifted.value[~np.isnan(plain.value)] <= plain.value[~np.isnan(plain.value)]).all()


@pytest.mark.parametrize("measure", ["index", "eta_squared", "d_prime"])
@pytest.mark.parametrize("power", [-600, 600])
def test_squares_neither_overflow_nor_vanish(measure, power):
    values, labels = torch.rand(40, 3, dtype=torch.float64), torch.arange(40) % 4
    before = hs.class_selectivity(values, labels, measure=measure, n_null=9)
    after = hs.class_selectivity(values * 2.0**power, labels, measure=measure, n_null=9)
    np.testing.assert_allclose(after.value, before.value, rtol=1e-12)
    np.testing.assert_array_equal(after.p, before.p)


def test_units_for_one_class_only():
    labels = np.repeat(np.arange(4), 25)
    values = torch.from_numpy(np.eye(4)[labels])
    found = hs.class_selectivity(values, labels)
    np.testing.assert_allclose(found.value, 1)
    assert found.preferred.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(found.p, 0.001)
    np.testing.assert_allclose(found.p_fdr, 0.001)
    assert (found.excess > 0.5).all()
    assert found.overall.p_value == 0.001
    assert "4 units above their null" in found.summary()
    perfect = hs.class_selectivity(values - 0.5, labels, measure="d_prime", n_null=0)
    assert np.isinf(perfect.value).all()


def test_the_null_is_that_of_shuffled_labels():
    """Against shuffling one by one; and (classes - 1) / (samples - 1) for eta squared."""
    values, labels = gaussian(24, 5).relu(), some_labels(24, 3)
    rng = np.random.default_rng(1)
    draws = [
        [naive(column, rng.permutation(labels), "index") for column in values.numpy().T]
        for _ in range(3000)
    ]
    found = hs.class_selectivity(values, labels, n_null=3000)
    sd = np.std(draws, axis=0)
    np.testing.assert_allclose(found.null_sd, sd, rtol=0.1)
    assert (np.abs(found.null_mean - np.mean(draws, axis=0)) < 5 * sd * (2 / 3000) ** 0.5).all()
    eta = hs.class_selectivity(values, labels, measure="eta_squared", n_null=3000)
    np.testing.assert_allclose(eta.null_mean, 2 / 23, rtol=0.06)


@pytest.mark.parametrize("measure", ["index", "eta_squared", "d_prime"])
def test_p_values_are_calibrated(measure):
    values = gaussian(60, 1500).exp()  # skewed
    found = hs.class_selectivity(values, some_labels(60, 5), measure=measure, n_null=199)
    for level in (0.05, 0.25, 0.5):
        share = (found.p <= level).mean()
        assert share == pytest.approx(level, abs=4 * (level * (1 - level) / 1500) ** 0.5)
    assert (found.p_fdr <= 0.05).mean() < 0.01


def test_the_mean_over_units_is_calibrated_for_units_that_go_together():
    """Copies of one unit: their mean must not look certain."""
    low = 0
    for seed in range(120):
        values = gaussian(30, 1, seed=seed).relu().expand(30, 50)
        found = hs.class_selectivity(values, some_labels(30, 3, seed), n_null=39, seed=seed)
        low += found.overall.p_value <= 0.1
    assert 2 <= low <= 26  # 12 expected; binomial, four standard deviations


def test_a_large_index_may_be_chance():
    """Three samples a class: noise reaches .3 and more, which only the null tells."""
    found = hs.class_selectivity(gaussian(30, 400).relu(), np.repeat(np.arange(10), 3), n_null=99)
    assert found.overall.observed > 0.3
    assert found.overall.observed == pytest.approx(found.overall.mean, abs=0.02)
    assert abs(found.excess.mean()) < 0.02


def test_signed_activations_need_another_measure():
    values, labels = gaussian(40, 3), some_labels(40, 4)
    with pytest.raises(hs.InputError, match=r"below 0, the least .*eta_squared"):
        hs.class_selectivity(values, labels)
    # the formula itself would give numbers far outside 0 to 1
    assert max(abs(naive(column, labels, "index")) for column in values.numpy().T) > 1
    assert hs.class_selectivity(values, labels, measure="d_prime", n_null=0).value.min() > 0


def test_silent_and_constant_units_are_not_defined():
    labels = some_labels(20, 2)
    values = torch.cat([torch.zeros(20, 1), torch.full((20, 1), 0.1), gaussian(20, 1).abs()], 1)
    found = hs.class_selectivity(values, labels, n_null=19)
    assert np.isnan(found.value).tolist() == [True, False, False]
    assert found.value[1] == pytest.approx(0, abs=1e-12)
    assert found.p[1] == 1
    assert np.isnan(found.p[0])
    assert "Not defined for 1." in found.summary()
    assert found.to_frame()["preferred_class"].isna().tolist() == [True, False, False, True]
    for measure in ("eta_squared", "d_prime"):
        other = hs.class_selectivity(values, labels, measure=measure, n_null=19)
        assert np.isnan(other.value).tolist() == [True, True, False]
    nothing = hs.class_selectivity(torch.zeros(20, 2), labels, n_null=19)
    assert np.isnan(nothing.overall.observed)


def test_shuffles_in_parts_give_the_same(monkeypatch):
    values, labels = gaussian(30, 4).relu(), some_labels(30, 3)
    whole = hs.class_selectivity(values, labels, n_null=50)
    monkeypatch.setattr("headspec.activations.selectivity._CHUNK", 300)
    parts = hs.class_selectivity(values, labels, n_null=50)
    for name in ("value", "null_mean", "null_sd", "p"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9)
    other = hs.class_selectivity(values, labels, n_null=50, seed=1)
    assert (other.null_mean != whole.null_mean).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_other_dtypes_and_labels_as_tensors(dtype):
    values, labels = gaussian(50, 7).relu().to(dtype), some_labels(50, 3)
    found = hs.class_selectivity(values, torch.from_numpy(labels).int(), n_null=19)
    right = hs.class_selectivity(values.double(), labels, n_null=19)
    np.testing.assert_array_equal(found.value, right.value)
    np.testing.assert_array_equal(found.p, right.p)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: hs.class_selectivity(v, np.zeros(4, int)), r"two classes .* only \[0\]"),
        (lambda v: hs.class_selectivity(v, np.arange(3)), r"shape \[3\]"),
        (lambda v: hs.class_selectivity(v, np.array([0.2, 0.7, 1.0, 0.2])), "one whole number"),
        (lambda v: hs.class_selectivity(v, np.arange(4), n_null=-1), "n_null of 0 or more"),
        (lambda v: hs.class_selectivity(v, np.arange(4), measure="mean"), "measure out of"),
        (lambda v: hs.class_selectivity(v[:1], np.arange(1)), "at least 2 sample"),
        (lambda v: hs.class_selectivity(v[..., None], np.arange(4)), r"maps.mean\(\(2, 3\)\)"),
    ],
)
def test_misuse(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(hs.InputError, match=message):
        call(torch.ones(4, 2))


def test_frames_and_files(tmp_path):
    found = hs.class_selectivity(gaussian(40, 6).relu(), some_labels(40, 4), n_null=99, seed=3)
    frame = found.to_frame()
    assert len(frame) == 7
    assert frame["metric"].tolist() == ["class_selectivity"] * 6 + ["class_selectivity_mean"]
    assert set(frame["seed"]) == {3}
    assert frame["value"].iloc[-1] == pytest.approx(found.value.mean())
    assert frame["preferred_class"].iloc[:6].tolist() == found.preferred.tolist()
    again = results.load(results.save(found, tmp_path / "selectivity.json"))
    assert again.to_frame().equals(frame)
    assert again.summary() == found.summary()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_on_a_gpu():
    values, labels = gaussian(40, 6).relu(), some_labels(40, 4)
    found = hs.class_selectivity(values.cuda(), labels, n_null=99)
    right = hs.class_selectivity(values, labels, n_null=99)
    for name in ("value", "null_mean", "p"):
        np.testing.assert_allclose(getattr(found, name), getattr(right, name), rtol=1e-9)


def test_examples_run():
    assert doctest.testmod(selectivity).failed == 0
