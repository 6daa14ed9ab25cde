"""Overlaps of subspaces: principal angles, chance, and what composition does not see."""

import numpy as np
import pytest
import torch
from planted_circuits import induction_layers
from random_heads import random_heads, rejection_bounds
from scipy.linalg import subspace_angles

from headspec import composition_scores, projection_kernel_overlap
from headspec.errors import InputError


def two_layers(n: int = 4, d_model: int = 24, d_head: int = 4, **more):
    return [random_heads(n, d_model, d_head, seed=i, layer=i, **more) for i in range(2)]


def test_equal_to_the_cosines_of_principal_angles():
    first, second = two_layers()
    found = projection_kernel_overlap(first, second, first_role="o", second_role="q")
    for i in range(4):
        for j in range(4):
            angles = subspace_angles(
                first.W_O[i].double().T.numpy(), second.W_Q[j].double().numpy()
            )
            assert found.scores[i, j] == pytest.approx((np.cos(angles) ** 2).sum() / 4)


def test_equal_and_orthogonal_subspaces():
    first, second = two_layers(n=1, d_model=8, d_head=4)
    second.W_K[0] = first.W_O[0].mT @ torch.randn(4, 4)
    assert projection_kernel_overlap(first, second).scores.item() == pytest.approx(1)
    # composition weighs by singular values, so it is not 1 there
    assert composition_scores(first, second, kind="k").scores.item() < 0.99
    second.W_K[0] = torch.linalg.svd(first.W_O[0]).Vh[4:].mT
    assert projection_kernel_overlap(first, second).scores.item() == pytest.approx(0, abs=1e-9)


def test_chance_is_r_squared_over_d():
    first, second = two_layers(n=60, d_model=32)
    found = projection_kernel_overlap(first, second, second_role="v")
    np.testing.assert_allclose(found.null_mean * 4, 16 / 32)
    assert found.scores.mean() == pytest.approx(4 / 32, rel=0.02)
    assert found.scores.std() == pytest.approx(found.null_sd[0, 0], rel=0.05)
    for level in (0.05, 0.01):
        low, high = rejection_bounds(found.scores.size, level)
        assert 0.8 * low <= (found.p_values <= level).sum() <= 1.25 * high


def test_rank_deficient_and_truncated():
    first, second = two_layers()
    first.W_O[1, 2] = first.W_O[1, 0] * 2  # three directions left
    found = projection_kernel_overlap(first, second)
    np.testing.assert_allclose(found.null_mean[1], 12 / 24 / np.sqrt(12))
    np.testing.assert_allclose(found.null_mean[0], 16 / 24 / 4)
    first.W_O[3] = 0
    assert np.isnan(projection_kernel_overlap(first, second).scores[3]).all()
    top = projection_kernel_overlap(first, second, rank=1).scores[0, 0]
    u = torch.linalg.svd(first.W_O[0].mT).U[:, 0]
    v = torch.linalg.svd(second.W_K[0]).U[:, 0]
    assert top == pytest.approx(float((u @ v) ** 2), rel=1e-4)


def test_all_pairs_or_earlier_ones():
    layers = two_layers()
    everything = projection_kernel_overlap(
        layers, layers, first_role="k", second_role="k", order="all"
    )
    np.testing.assert_allclose(np.diag(everything.scores), 1)
    np.testing.assert_allclose(everything.scores, everything.scores.T)
    earlier = projection_kernel_overlap(layers, layers)
    assert np.isnan(earlier.scores).sum() == 64 - 16


def test_grouped_heads_have_the_subspace_of_their_keys():
    first, second = two_layers(kv=2)
    scores = projection_kernel_overlap(first, second).scores
    np.testing.assert_array_equal(scores[:, 0], scores[:, 1])
    assert not np.allclose(scores[:, 1], scores[:, 2])


def test_a_planted_circuit_is_found():
    found = projection_kernel_overlap(*induction_layers())
    assert found.scores[2, 5] == pytest.approx(1)
    assert (found.q_values < 0.05).sum() == 1
    assert "overlap_o_k: 1 of 64 pairs" in found.summary()


def test_messages():
    first, second = two_layers()
    with pytest.raises(InputError, match="rank from 1 to 4"):
        projection_kernel_overlap(first, second, rank=5)
    with pytest.raises(InputError, match="upstream layer before"):
        projection_kernel_overlap(second, first)
    for order in ("earlier", "all"):
        with pytest.raises(InputError, match="of one residual stream"):
            projection_kernel_overlap(first, random_heads(4, 11, 4), order=order)
    first.W_O[0, 0, 0] = torch.inf
    with pytest.raises(InputError, match=r"finite weights W_O"):
        projection_kernel_overlap(first, second)
