"""Attention rollout: by hand, its identities, the naive ways that go wrong."""

import doctest
import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import headspec as hs
from headspec.errors import InputError


def random_patterns(*shape, seed=0, causal=True):
    scores = 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    if causal:
        hidden = torch.ones(shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores.softmax(-1)


def test_by_hand():
    first = torch.tensor([[1, 0], [0.5, 0.5]])
    second = torch.tensor([[1, 0], [1, 0.0]])
    heads = torch.stack(
        [first, second]
    )  # mean (1 0; .75 .25), with half the stream (1 0; .375 .625)
    found = hs.attention_rollout(torch.stack([heads, heads]))
    torch.testing.assert_close(found[0], torch.tensor([[1, 0], [0.375, 0.625]]))
    torch.testing.assert_close(found[1], torch.tensor([[1, 0], [0.375 + 0.625 * 0.375, 0.625**2]]))
    # largest entries (1 0; 1 .5), rows divided by their sums
    largest = hs.attention_rollout(heads[None], fusion="max", residual=0)
    torch.testing.assert_close(largest[0], torch.tensor([[1, 0], [2 / 3, 1 / 3]]))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.floats(0, 1), st.integers(0, 1000)
)
def test_rows_sum_to_one_and_nothing_looks_ahead(n_layers, n_heads, n_pos, residual, seed):
    patterns = random_patterns(n_layers, 2, n_heads, n_pos, n_pos, seed=seed)
    for fusion in ("mean", "max"):
        found = hs.attention_rollout(patterns, residual=residual, fusion=fusion)
        assert found.shape == (n_layers, 2, n_pos, n_pos)
        torch.testing.assert_close(found.sum(-1), torch.ones(n_layers, 2, n_pos))
        assert not found.triu(1).any()
        one = hs.attention_rollout(patterns[:, 1], residual=residual, fusion=fusion)
        torch.testing.assert_close(found[:, 1], one)


def test_limits():
    patterns = random_patterns(3, 1, 2, 5, 5)
    assert torch.equal(hs.attention_rollout(patterns, residual=1)[-1, 0], torch.eye(5))
    plain = hs.attention_rollout(patterns, residual=0)[-1, 0]
    fused = patterns.mean(2)[:, 0]
    torch.testing.assert_close(plain, fused[2] @ fused[1] @ fused[0])
    # negative control: layers in the other order are another map
    assert not torch.allclose(plain, fused[0] @ fused[1] @ fused[2], atol=1e-2)


def test_it_is_the_operator_of_a_model_that_only_mixes_positions():
    """One head with the identity as values, scaled as the residual stream is: A_qk = R_qk I."""
    patterns = random_patterns(3, 1, 5, 5).double()
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    stream = x
    for layer in patterns[:, 0]:
        stream = 0.5 * stream + 0.5 * layer @ stream
    torch.testing.assert_close(hs.attention_rollout(patterns)[-1] @ x, stream)


def test_half_precision_is_computed_in_float32():
    patterns = random_patterns(4, 2, 8, 8)
    found = hs.attention_rollout(patterns.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, hs.attention_rollout(patterns), atol=5e-3, rtol=0)
    torch.testing.assert_close(found.sum(-1), torch.ones(4, 8))


def test_bidirectional_patterns_are_welcome():
    patterns = random_patterns(2, 3, 4, 4, causal=False)
    assert hs.attention_rollout(patterns)[-1].triu(1).any()


def test_errors():
    patterns = random_patterns(2, 3, 4, 4)
    with pytest.raises(InputError, match="rows off by up to"):
        hs.attention_rollout(patterns / 2)
    with pytest.raises(InputError, match="smallest entry -1"):
        hs.attention_rollout(2 * patterns - torch.eye(4))
    with pytest.raises(InputError, match="share from 0 to 1"):
        hs.attention_rollout(patterns, residual=2)
    with pytest.raises(InputError, match="as many queries as keys"):
        hs.attention_rollout(patterns[..., :2, :])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_of_the_input_is_used():
    patterns = random_patterns(2, 3, 4, 4)
    found = hs.attention_rollout(patterns.cuda())
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), hs.attention_rollout(patterns))


def test_example_in_the_docstring():
    module = importlib.import_module("headspec.activations.rollout")
    assert doctest.testmod(module).failed == 0
