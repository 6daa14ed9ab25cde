"""Dimensionality of batches in one pass: the same numbers as all at once."""

import doctest

import numpy as np
import pytest
import torch

from headspec import InputError, dimensionality_stats, streamed_dimensionality
from headspec.activations import dimensionality_stream
from headspec.activations.dimensionality_result import METRICS


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(streamed, whole, rtol=1e-11):
    for name in METRICS:
        np.testing.assert_allclose(
            streamed.named()[name], whole.named()[name], rtol=rtol, err_msg=name
        )


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("size", [1, 7, 300])
def test_equals_all_at_once(size, centred):
    matrix = gaussian(300, 20) + 2
    streamed = streamed_dimensionality(iter(matrix.split(size)), centred=centred)
    whole = dimensionality_stats(matrix, centred=centred)
    assert_same(streamed, whole)
    assert (streamed.n_samples, streamed.n_features) == (300, 20)
    for name in METRICS:
        assert streamed.resolution[name] == pytest.approx(float(whole.resolution[name]), rel=0.3)


def test_batch_dimensions_go_through_together():
    batch = gaussian(3, 100, 8)
    streamed = streamed_dimensionality([batch[:, :30], batch[:, 30:]])
    assert_same(streamed, dimensionality_stats(batch))


def test_a_drifting_mean_costs_no_digits():
    """Sums of squares less the square of the mean would keep no digit here."""
    matrix = gaussian(400, 10) + 1e7
    streamed = streamed_dimensionality(matrix.split(50))
    assert_same(streamed, dimensionality_stats(matrix), rtol=1e-10)
    naive = matrix.mT @ matrix - 400 * torch.outer(matrix.mean(0), matrix.mean(0))
    values = torch.linalg.eigvalsh(naive).numpy()
    wrong = values.sum() ** 2 / (values**2).sum()
    assert abs(wrong / streamed.participation_ratio - 1) > 1e-4  # negative control


def test_the_limit_of_one_pass_is_in_the_resolution():
    matrix = gaussian(200, 4) @ gaussian(4, 60, seed=1)
    streamed = streamed_dimensionality(matrix.split(40), centred=False)
    whole = dimensionality_stats(matrix, centred=False)
    for name in METRICS:
        error = abs(streamed.named()[name] - whole.named()[name])
        assert error <= streamed.resolution[name], name
    assert streamed.resolution["effective_rank"] > 1e3 * whole.resolution["effective_rank"]
    assert streamed.stable_rank == pytest.approx(float(whole.stable_rank), rel=1e-12)


def test_fewer_samples_than_features():
    matrix = gaussian(15, 40)
    assert_same(streamed_dimensionality(matrix.split(4)), dimensionality_stats(matrix), rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_batches(dtype):
    matrix = gaussian(100, 9).to(dtype)
    streamed = streamed_dimensionality(matrix.split(30))
    assert_same(streamed, dimensionality_stats(matrix), rtol=1e-10)
    assert streamed.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("size", [1e-170, 1e170])
def test_extreme_scales(size):
    matrix = gaussian(60, 6)
    streamed = streamed_dimensionality((size * matrix).split(20))
    assert_same(streamed, dimensionality_stats(matrix), rtol=1e-10)


def test_samples_without_spread():
    stats = streamed_dimensionality([torch.zeros(3, 4)] * 2)
    assert all(np.isnan(value) for value in stats.named().values())
    stats = streamed_dimensionality([torch.zeros(3, 4), torch.eye(4)], centred=False)
    assert stats.stable_rank == 4


def test_only_some_measures():
    stats = streamed_dimensionality(gaussian(50, 4).split(10), metrics=("effective_rank",))
    assert stats.metrics == ("effective_rank",)
    assert np.isnan(stats.stable_rank)
    assert list(stats.resolution) == ["effective_rank"]


def test_messages_name_the_batch():
    with pytest.raises(InputError, match="at least one batch"):
        streamed_dimensionality(iter([]))
    with pytest.raises(InputError, match=r"like the first, .* \[any, 4\].*\[3, 5\] in batch 1"):
        streamed_dimensionality([torch.ones(3, 4), torch.ones(3, 5)])
    with pytest.raises(InputError, match=r"float64 of .*got torch\.bfloat16 .* in batch 1"):
        streamed_dimensionality([torch.ones(3, 4).double(), torch.ones(3, 4).bfloat16()])
    with pytest.raises(InputError, match="NaN or infinite in batch 1"):
        streamed_dimensionality([torch.ones(3, 4), torch.full((3, 4), torch.nan)])
    with pytest.raises(InputError, match=r"int64 of shape .* in batch 0"):
        streamed_dimensionality([torch.ones(3, 4, dtype=torch.int64)])


def test_examples_run():
    assert doctest.testmod(dimensionality_stream).failed == 0
