"""Sparsity by hand, against Gaussian closed forms, and under what must not matter."""

import doctest
import math

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import headspec as hs
from headspec import results
from headspec.activations import sparsity

FIELDS = ("inactive_share", "hoyer", "treves_rolls", "dead")


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand():
    values = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    found = hs.activation_sparsity(values)
    np.testing.assert_allclose(found.inactive_share, [1, 0, 0.5])
    assert found.dead.tolist() == [True, False, False]
    assert found.dead_share == pytest.approx(1 / 3)
    assert found.overall_inactive_share == 0.5
    # a half of four: sum 4, root of squares sqrt 8; (1 - (1/2)) / (1 - 1/4)
    np.testing.assert_allclose(found.hoyer, [np.nan, 0, 2 - math.sqrt(2)])
    np.testing.assert_allclose(found.treves_rolls, [np.nan, 0, 2 / 3])
    rows = [(3**0.5 - 3 / 5**0.5) / (3**0.5 - 1), 1.0]
    assert found.population_hoyer == pytest.approx(np.mean(rows))
    assert found.population_treves_rolls == pytest.approx(((1 - 9 / 15) * 1.5 + 1) / 2)


def test_gaussian_units_have_the_closed_forms():
    """Of a rectified Gaussian m1 = 1 / sqrt(2 pi) and m2 = 1/2; of a Gaussian sqrt(2/pi) and 1."""
    values = gaussian(40_000, 6)
    found = hs.activation_sparsity(values.relu())
    np.testing.assert_allclose(found.inactive_share, 0.5, atol=0.01)
    np.testing.assert_allclose(found.hoyer, 1 - 1 / math.sqrt(math.pi), atol=0.015)
    np.testing.assert_allclose(found.treves_rolls, 1 - 1 / math.pi, atol=0.015)
    signed = hs.activation_sparsity(values)
    np.testing.assert_allclose(signed.hoyer, 1 - math.sqrt(2 / math.pi), atol=0.015)
    np.testing.assert_allclose(signed.treves_rolls, 1 - 2 / math.pi, atol=0.015)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 30),
    scale=st.floats(-150, 150),
)
def test_scale_signs_and_order_do_not_matter(seed, n, scale):
    values = gaussian(n, 4, seed=seed).relu()
    plain = hs.activation_sparsity(values)
    moved = hs.activation_sparsity(-(values * 10**scale).flip(0))
    for name in ("hoyer", "treves_rolls"):
        np.testing.assert_allclose(getattr(moved, name), getattr(plain, name), rtol=1e-9)
        known = getattr(plain, name)[~np.isnan(getattr(plain, name))]
        assert ((known >= 0) & (known <= 1)).all()
    scaled = hs.activation_sparsity(values * 10**scale)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(scaled, name), getattr(plain, name), rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 60), active=st.integers(1, 60))
def test_k_equal_responses_of_n(n, active):
    """a = k / n: Treves-Rolls (1 - k/n) / (1 - 1/n), Hoyer (sqrt n - sqrt k) / (sqrt n - 1)."""
    k = min(n, active)
    column = torch.zeros(n, 1)
    column[:k] = 3.0
    found = hs.activation_sparsity(column)
    assert found.treves_rolls[0] == pytest.approx((1 - k / n) / (1 - 1 / n), abs=1e-12)
    assert found.hoyer[0] == pytest.approx((n**0.5 - k**0.5) / (n**0.5 - 1), abs=1e-12)


def test_units_that_rest_above_zero_need_a_threshold():
    """A softplus never reaches 0: at a threshold of 0 nothing is silent, the indices do see it."""
    values = torch.nn.functional.softplus(4 * gaussian(2000, 8) - 8)
    found = hs.activation_sparsity(values)
    assert found.overall_inactive_share == 0
    assert (found.treves_rolls > 0.8).all()
    assert hs.activation_sparsity(values, threshold=0.05).overall_inactive_share > 0.8


def test_one_sample_and_zeros():
    one = hs.activation_sparsity(torch.tensor([[1.0, 0.0]]))
    assert np.isnan(one.hoyer).all()
    assert one.population_hoyer == pytest.approx(1)
    silent = hs.activation_sparsity(torch.zeros(3, 2))
    assert silent.dead_share == 1
    assert np.isnan(silent.population_treves_rolls)
    assert "2 units dead" in silent.summary()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_other_dtypes_are_computed_in_float64(dtype):
    values = gaussian(50, 7).relu().to(dtype)
    found, right = hs.activation_sparsity(values), hs.activation_sparsity(values.double())
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(right, name))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(2, 3, 4, 4), r"shape \[2, 3, 4, 4\]. Of convolution maps"),
        (torch.zeros(2, 3, dtype=torch.int64), "int64"),
        (torch.zeros(0, 3), "at least 1 sample"),
        (torch.tensor([[1.0, math.nan]]), "1 of 2 entries NaN"),
    ],
)
def test_misuse(values, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(hs.InputError, match=message):
        hs.activation_sparsity(values)


def test_a_threshold_must_be_finite():
    with pytest.raises(hs.InputError, match="finite threshold"):
        hs.activation_sparsity(torch.zeros(2, 2), threshold=math.nan)


def test_frames_and_files(tmp_path):
    found = hs.activation_sparsity(gaussian(30, 5).relu())
    frame = found.to_frame()
    assert len(frame) == 3 * 5 + 4
    assert set(frame["n"]) == {30}
    hoyer = frame[frame["metric"] == "hoyer"].set_index("unit")["value"]
    assert hoyer[3] == found.hoyer[3]
    again = results.load(results.save(found, tmp_path / "sparsity.json"))
    assert again.to_frame().equals(frame)
    assert again.summary() == found.summary()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_on_a_gpu():
    values = gaussian(40, 6).relu()
    found, right = hs.activation_sparsity(values.cuda()), hs.activation_sparsity(values)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(found, name), getattr(right, name), rtol=1e-10)


def test_examples_run():
    assert doctest.testmod(sparsity).failed == 0
