"""Singular values against float64 SVDs, also where a Gram matrix is not enough."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

import headspec.weights.singular_values as module
from headspec import InputError, singular_values


def with_values(values, rows, seed=0):
    """A matrix `rows len(values)` with these singular values."""
    cols = len(values)
    left = torch.from_numpy(ortho_group.rvs(rows, random_state=seed))[:, :cols]
    right = torch.from_numpy(ortho_group.rvs(cols, random_state=seed + 1))
    return left * torch.as_tensor(values, dtype=torch.float64) @ right.T


def test_by_hand():
    assert singular_values(torch.tensor([[3.0, 4.0]])).tolist() == [5.0]
    assert singular_values(torch.diag(torch.tensor([1.0, -3.0, 2.0]))).tolist() == [3.0, 2.0, 1.0]
    assert singular_values(torch.zeros(2, 3)).tolist() == [0.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    batch=st.lists(st.integers(1, 3), max_size=2),
    exponent=st.integers(-150, 150),
    seed=st.integers(0, 1000),
)
def test_equals_the_svd_in_float64(shape, batch, exponent, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(*batch, *shape, generator=generator, dtype=torch.float64)
    matrix *= 10.0**exponent
    ours, right = singular_values(matrix), torch.linalg.svdvals(matrix)
    assert ours.dtype == torch.float64
    assert ours.shape == right.shape
    assert ((ours - right).abs() <= 1e-12 * right[..., :1]).all()
    torch.testing.assert_close(ours, singular_values(matrix.mT), rtol=1e-7, atol=0)


@pytest.mark.parametrize("smallest", [1e-1, 1e-3, 1e-4, 1.1e-5, 0.9e-5, 1e-7, 1e-12, 0.0])
@pytest.mark.parametrize("rows", [40, 60, 300])
def test_stated_accuracy(smallest, rows):
    """Even spectra: 1e-12 of the largest, 1e-7 of each value; 1e-14 under the SVD."""
    known = torch.logspace(0, -4 if smallest < 1e-4 else -1, 40, dtype=torch.float64)
    known[-1] = smallest
    known = known.sort(descending=True).values
    matrix = with_values(known, rows)
    ours, right = singular_values(matrix), torch.linalg.svdvals(matrix)
    error = (ours - right).abs()
    assert error.max() <= (1e-12 if smallest > 1e-5 else 1e-14)
    assert (ours - known).abs().max() < 1e-12
    resolved = right > 1e-5
    assert (error / right)[resolved].max() <= 1e-7
    assert (error / right)[right > 1e-3].max() <= 1e-10


@pytest.mark.parametrize("shape", ["one small", "one large"])
@pytest.mark.parametrize("smallest", [1e-2, 1e-3, 1e-4, 1.05e-5])
def test_stated_accuracy_at_worst(shape, smallest):
    """One value far below many equal ones, or many below one: 1e-15 s_1^2 / s holds."""
    known = torch.ones(120, dtype=torch.float64)
    known[1 if shape == "one large" else -1 :] = smallest
    matrix = with_values(known, 150)
    ours, right = singular_values(matrix), torch.linalg.svdvals(matrix)
    error = (ours - right).abs()
    assert (error <= 1e-15 / right + 1e-14).all()
    if smallest < 1e-4:  # the even spectrum's bound would not hold here
        assert error.max() > 1e-12


def test_pitfall_a_gram_matrix_is_not_enough():
    """float32 is wrong by percents at 4e-4 of the largest, float64 at 1e-8; ours at neither."""
    at = 1e-4
    matrix = with_values([1.0, 0.5, 0.2, 0.1, at, at], 64).float()
    right = torch.linalg.svdvals(matrix.double())
    naive = torch.linalg.eigvalsh(matrix.mT @ matrix).flip(0).clamp(min=0).sqrt()
    assert (naive[-1] - right[-1]).abs() > 0.05 * at
    assert (singular_values(matrix)[-1] - right[-1]).abs() < 1e-7 * at

    at = 3e-9
    matrix = with_values([1.0, 0.5, 0.2, 0.1, at, at], 64)
    right = torch.linalg.svdvals(matrix)
    naive = torch.linalg.eigvalsh(matrix.mT @ matrix).flip(0).clamp(min=0).sqrt()
    assert (naive[-1] - right[-1]).abs() > 0.05 * at
    assert (singular_values(matrix)[-1] - right[-1]).abs() < 1e-5 * at


def test_each_matrix_of_a_batch_has_its_own_method(monkeypatch):
    """The SVD takes over for the ill-conditioned one only."""
    calls, short = [], module._short
    monkeypatch.setattr(module, "_short", lambda *args: calls.append(args) or short(*args))
    good, bad = with_values([1.0, 0.5, 0.1], 8), with_values([1.0, 0.5, 1e-9], 8)
    found = singular_values(torch.stack([good, bad, good]))
    assert len(calls) == 1
    torch.testing.assert_close(found[1], torch.linalg.svdvals(bad), rtol=0, atol=1e-14)


def test_tall_ill_conditioned_matrices_go_through_blocks(monkeypatch):
    matrix = with_values([1.0, 1e-3, 1e-7], 500)
    whole = singular_values(matrix)
    monkeypatch.setattr(module, "_BLOCK", 60)
    assert (singular_values(matrix) - torch.linalg.svdvals(matrix)).abs().max() < 1e-14
    assert (singular_values(matrix.T) - whole).abs().max() < 1e-14
    well = with_values([1.0, 0.5, 0.25], 500)
    torch.testing.assert_close(singular_values(well), torch.linalg.svdvals(well))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_computed_in_float64(dtype):
    generator = torch.Generator().manual_seed(0)
    matrix = (0.02 * torch.randn(30, 20, generator=generator)).to(dtype)
    right = torch.linalg.svdvals(matrix.double())
    torch.testing.assert_close(singular_values(matrix), right, rtol=1e-12, atol=0)
    assert singular_values(matrix.T).dtype == torch.float64


def test_the_input_is_left_alone():
    matrix = torch.randn(6, 4, requires_grad=True)
    before = matrix.detach().clone()
    assert not singular_values(matrix).requires_grad
    assert torch.equal(matrix.detach(), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_entries_that_are_not_finite(bad):
    batch = torch.ones(2, 3, 4, 5)
    batch[1, 2, 0, 0] = bad
    with pytest.raises(InputError, match=r"1 of 20 NaN or infinite in matrix \[1, 2\]"):
        singular_values(batch)
    with pytest.raises(InputError, match=r"1 of 20 NaN or infinite\. "):
        singular_values(batch[1, 2])


def test_what_is_no_matrix():
    with pytest.raises(InputError, match=r"without empty dimensions; got .* \[0, 3\]"):
        singular_values(torch.zeros(0, 3))
    with pytest.raises(InputError, match=r"got numpy.ndarray.*torch.from_numpy"):
        module.check_matrices(np.ones((3, 3)))


@pytest.mark.parametrize("side", [5, 200])
def test_the_largest_alone(side):
    """Lanczos beyond 128; also for equal eigenvalues and when it does not converge."""
    matrix = torch.randn(2 * side, side, generator=torch.Generator().manual_seed(1)).double()
    product = matrix.T @ matrix
    right = float(torch.linalg.eigvalsh(product)[-1])
    assert abs(module.largest_eigenvalue(product) / right - 1) < 1e-10
    assert module.largest_eigenvalue(torch.eye(side, dtype=torch.float64)) == pytest.approx(1.0)


def test_the_largest_without_convergence(monkeypatch):
    def fails(*args, **kwargs):
        raise module.ArpackError(-1)

    monkeypatch.setattr(module, "eigsh", fails)
    product = torch.diag(torch.arange(200.0, dtype=torch.float64))
    assert module.largest_eigenvalue(product) == pytest.approx(199.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_on_the_gpu():
    matrix = torch.randn(3, 40, 20)
    matrix[1, :, 0] = matrix[1, :, 1]  # the SVD's turn
    ours = singular_values(matrix.cuda())
    assert ours.device.type == "cuda"
    torch.testing.assert_close(ours.cpu(), singular_values(matrix), rtol=1e-9, atol=1e-12)


def test_examples_run():
    assert doctest.testmod(module).failed == 0
