"""Cosines of filters and their distance from orthogonal: by hand, closed forms, bounds."""

import doctest
import math

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gamma
from sklearn.metrics.pairwise import cosine_similarity

import headspec as hs
from headspec import results
from headspec.activations import filters


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand():
    weights = torch.tensor([[3.0, 0.0], [0.0, -2.0], [1.0, 1.0], [-1.0, -1.0]])[:, None]
    half = math.sqrt(0.5)
    right = [
        [1, 0, half, -half],
        [0, 1, -half, half],
        [half, -half, 1, -1],
        [-half, half, -1, 1],
    ]
    np.testing.assert_allclose(hs.filter_similarity(weights), right, atol=1e-12)
    absolute = hs.filter_similarity(weights, signed=False)
    np.testing.assert_allclose(absolute, np.abs(right), atol=1e-12)
    found = hs.filter_orthogonality(weights, n_null=0)
    assert found.mean_abs_cosine == pytest.approx((0 + 4 * half + 1) / 6)
    assert found.departure == pytest.approx(math.sqrt(2 * (4 * 0.5 + 1)))
    assert found.least_departure == pytest.approx(math.sqrt(16 / 2 - 4))
    assert np.isnan(found.null["departure"].p_value)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(2, 1, 3, 3), (5, 3, 2, 2), (7, 4), (9, 2, 2)]),
    scale=st.floats(-100, 100),
)
def test_scikit_learn_scale_and_the_bound(seed, shape, scale):
    weights = gaussian(*shape, seed=seed)
    found = hs.filter_similarity(weights)
    np.testing.assert_allclose(found, cosine_similarity(weights.flatten(1)), atol=1e-12)
    signs = gaussian(len(weights), seed=seed + 1).sign()
    scaled = weights * (signs * 10**scale).reshape(-1, *[1] * (weights.ndim - 1))
    orthogonality = hs.filter_orthogonality(weights, n_null=0)
    moved = hs.filter_orthogonality(scaled, n_null=0)
    assert moved.departure == pytest.approx(orthogonality.departure, rel=1e-9)
    assert moved.mean_abs_cosine == pytest.approx(orthogonality.mean_abs_cosine, rel=1e-9)
    assert orthogonality.departure >= orthogonality.least_departure - 1e-9


def test_more_filters_than_values_cannot_be_orthogonal():
    """Two bases of the plane, 45 degrees apart, reach the bound."""
    turned = torch.eye(2) @ torch.tensor([[1.0, 1.0], [-1.0, 1.0]]) / math.sqrt(2)
    found = hs.filter_orthogonality(torch.cat([torch.eye(2), turned]))
    assert found.departure == pytest.approx(found.least_departure, abs=1e-6)
    assert found.departure == pytest.approx(2)
    assert "cannot be orthogonal: the departure is at least 2.000" in found.summary()
    few = hs.filter_orthogonality(torch.eye(3))
    assert few.least_departure == few.departure == 0
    assert "cannot" not in few.summary()


@pytest.mark.parametrize(("n_filters", "shape"), [(32, (1, 5, 5)), (64, (3, 3)), (6, (10, 3, 3))])
def test_the_null_has_its_closed_forms(n_filters, shape):
    d = math.prod(shape)
    null = hs.filter_orthogonality(gaussian(n_filters, *shape), n_null=999).null
    mean = gamma(d / 2) / (math.sqrt(math.pi) * gamma((d + 1) / 2))
    assert null["mean_abs_cosine"].mean == pytest.approx(
        mean, abs=5 * null["mean_abs_cosine"].sd / 999**0.5
    )
    square = null["departure"].mean ** 2 + null["departure"].sd ** 2
    assert square == pytest.approx(n_filters * (n_filters - 1) / d, rel=0.02)


def test_p_values_are_calibrated_and_both_tails_seen():
    p = [
        hs.filter_orthogonality(gaussian(8, 1, 3, 3, seed=seed)).null["departure"].p_value
        for seed in range(300)
    ]
    for level in (0.1, 0.5):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=4 * (level / 300) ** 0.5)
    orthogonal = hs.filter_orthogonality(torch.eye(9)[:8])
    alike = hs.filter_orthogonality(gaussian(8, 9) + 2)
    for found, sign in ((orthogonal, -1), (alike, 1)):
        null = found.null["departure"]
        assert null.p_value == pytest.approx(0.01)
        assert sign * (null.observed - null.mean) > 0


def test_filters_as_initialised_are_random_and_not_orthogonal():
    """The naive reading, |cos| = .16 is nearly orthogonal, is that of untrained filters."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.nn.init.kaiming_uniform_(torch.empty(32, 1, 5, 5), generator=generator)
    found = hs.filter_orthogonality(weights)
    assert found.mean_abs_cosine == pytest.approx(math.sqrt(2 / math.pi / 25), abs=0.01)
    assert found.null["mean_abs_cosine"].p_value > 0.01


def test_filters_of_zeros_are_left_out():
    weights = torch.cat([torch.eye(3), torch.zeros(2, 3)])
    similarity = hs.filter_similarity(weights)
    assert similarity[3:].isnan().all()
    assert similarity[:, 3:].isnan().all()
    found = hs.filter_orthogonality(weights)
    assert (found.n_filters, found.n_zero, found.departure) == (3, 2, 0)
    assert "2 filter(s) of zeros" in found.summary()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision_is_computed_in_float64(dtype):
    weights = gaussian(6, 1, 3, 3).to(dtype)
    found = hs.filter_similarity(weights)
    assert found.dtype == torch.float64
    assert torch.equal(found, hs.filter_similarity(weights.double()))
    assert weights.requires_grad is False


def test_parameters_are_left_alone():
    convolution = torch.nn.Conv2d(1, 4, 3)
    before = convolution.weight.clone()
    assert not hs.filter_similarity(convolution.weight).requires_grad
    hs.filter_orthogonality(convolution.weight)
    assert torch.equal(convolution.weight, before)
    assert convolution.weight.grad is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.zeros(3, 4), "two filters that are not all 0; got 0 of 3"),
        (torch.ones(1, 4), "got 1 of 1"),
        (torch.ones(3, 4) / 0, "12 of 12 entries NaN"),
        (torch.ones(3, dtype=torch.int64), "int64"),
        (torch.ones(3), r"shape \[3\]"),
        (np.ones((3, 4)), "got ndarray"),
    ],
)
def test_misuse(weights, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(hs.InputError, match=message):
        hs.filter_orthogonality(weights)


def test_the_number_of_draws_is_checked():
    with pytest.raises(hs.InputError, match="n_null of 0 or more"):
        hs.filter_orthogonality(torch.eye(3), n_null=-1)


def test_frames_and_files(tmp_path):
    found = hs.filter_orthogonality(gaussian(12, 1, 3, 3), seed=4)
    frame = found.to_frame()
    assert frame["metric"].tolist() == ["filter_mean_abs_cosine", "filter_departure"]
    assert set(frame["n"]) == {12}
    assert set(frame["seed"]) == {4}
    assert frame["least"].tolist() == [0, found.least_departure]
    again = results.load(results.save(found, tmp_path / "filters.json"))
    assert again == found
    assert again.to_frame().equals(frame)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_on_a_gpu():
    weights = gaussian(12, 1, 3, 3)
    found = hs.filter_similarity(weights.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), hs.filter_similarity(weights))
    right = hs.filter_orthogonality(weights)
    assert hs.filter_orthogonality(weights.cuda()).departure == pytest.approx(right.departure)


def test_examples_run():
    assert doctest.testmod(filters).failed == 0
