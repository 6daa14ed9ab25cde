"""Entropy, distance and sink mass of patterns: closed forms, SciPy, and patterns that are wrong."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from topic_labels import random_pattern

import headspec as hs
from headspec.activations.attention import check_pattern

UNIFORM = {
    n: torch.ones(1, n, n, dtype=torch.float64).tril() / torch.arange(1, n + 1)[:, None]
    for n in (1, 7, 512)
}


def test_by_hand():
    pattern = torch.tensor([[[1.0, 0, 0], [0.5, 0.5, 0], [0.5, 0.25, 0.25]]])
    torch.testing.assert_close(
        hs.attention_entropy(pattern),
        torch.tensor([[0, np.log(2), 1.5 * np.log(2)]], dtype=torch.float64),
    )
    assert hs.attention_distance(pattern).tolist() == [[0, 0.5, 1.25]]
    assert hs.sink_mass(pattern).tolist() == [[1, 0.5, 0.5]]


@pytest.mark.parametrize("n_pos", list(UNIFORM))
def test_uniform_attention_has_the_logarithm_of_its_keys(n_pos):
    entropy = hs.attention_entropy(UNIFORM[n_pos])[0]
    torch.testing.assert_close(entropy, torch.arange(1, n_pos + 1).double().log())
    if n_pos == 512:
        assert abs(float(entropy.mean()) - 5.246) < 5e-4
    distance = hs.attention_distance(UNIFORM[n_pos])[0]
    torch.testing.assert_close(distance, torch.arange(n_pos).double() / 2)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    n_pos=st.integers(1, 12),
    sharpness=st.floats(0, 60),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_entropy_is_scipys_and_below_the_ceiling(seed, n_pos, sharpness, dtype):
    pattern = random_pattern(2, 3, n_pos, n_pos, seed=seed, sharpness=sharpness, dtype=dtype)
    found = hs.attention_entropy(pattern)
    expected = scipy.stats.entropy(pattern.double().numpy(), axis=-1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert found.dtype == torch.float64
    ceiling = torch.arange(1, n_pos + 1).double().log()
    assert (found <= ceiling + 1e-5).all()
    assert (found >= -1e-6).all()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), n_pos=st.integers(2, 12))
def test_distance_and_sink_are_sums_over_keys(seed, n_pos):
    pattern = random_pattern(2, n_pos, n_pos, seed=seed, causal=False)
    at = np.arange(n_pos)
    expected = (pattern.numpy() * np.abs(at[:, None] - at)).sum(-1)
    np.testing.assert_allclose(hs.attention_distance(pattern, causal=False), expected)
    assert torch.equal(hs.sink_mass(pattern, causal=False), pattern[..., 0])


def test_probabilities_of_zero_add_nothing():
    pattern = torch.zeros(1, 4, 4)
    pattern[:, :, 0] = 1
    assert hs.attention_entropy(pattern).tolist() == [[0, 0, 0, 0]]


def test_a_pattern_without_its_mask_is_refused_and_would_exceed_the_ceiling():
    """Published entropies of 6.22 nats at 512 tokens, where no causal attention exceeds 5.246."""
    unmasked = torch.full((1, 512, 512), 1 / 512)
    naive = scipy.stats.entropy(unmasked.numpy(), axis=-1).mean()
    ceiling = hs.attention_baselines(512).uniform["entropy"]
    assert naive > 6.2 > ceiling + 0.9
    with pytest.raises(hs.InputError, match=r"a probability of 0\.00195 above the diagonal"):
        hs.attention_entropy(unmasked)
    assert abs(float(hs.attention_entropy(unmasked, causal=False).mean()) - naive) < 1e-4


def test_a_little_mass_far_above_the_diagonal_is_seen():
    pattern = UNIFORM[512].clone()
    pattern[0, 300, 511] = 2e-5
    pattern[0, 300, 0] -= 2e-5
    with pytest.raises(hs.InputError, match="above the diagonal"):
        hs.sink_mass(pattern)


def test_softmax_of_probabilities_is_nearly_uniform_and_never_done():
    """A head that looks at one token: 0 nats, not the 6 that a second softmax makes of it."""
    pattern = torch.eye(512)[None]
    twice = torch.special.entr(pattern.softmax(-1)).sum(-1)
    assert float(twice.mean()) > 6.2
    assert float(hs.attention_entropy(pattern).abs().max()) == 0


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda p: p.log().clamp(min=-9), "rows that sum to -"),
        (lambda p: p * 1.01, "rows that sum to 1.01 to 1.01"),
        (lambda p: p.masked_fill(torch.eye(7).bool(), torch.nan), "rows that sum to nan"),
        (lambda p: p + torch.eye(7).roll(1, 1) - torch.eye(7), "entries from -"),
    ],
)
def test_what_is_no_probability_is_refused(change, got):
    with pytest.raises(hs.InputError, match=got) as caught:
        hs.attention_entropy(change(UNIFORM[7]), causal=False)
    assert "hook_pattern" in caught.value.fix


def test_rows_of_decoding_are_refused():
    with pytest.raises(hs.InputError, match=r"shape \[1, 1, 7\]"):
        hs.attention_entropy(UNIFORM[7][:, -1:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_in_float32_and_renormalised(dtype):
    pattern = random_pattern(2, 3, 64, 64, sharpness=0.3)
    found = hs.attention_entropy(pattern.to(dtype))
    assert (found - hs.attention_entropy(pattern)).abs().max() < 3e-3
    sums = check_pattern(pattern.to(dtype)).sum(-1)
    assert (sums - 1).abs().max() < 1e-6
    assert (pattern.to(dtype).float().sum(-1) - 1).abs().max() > 1e-5  # as it came


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_on_a_gpu():
    pattern = random_pattern(2, 3, 32, 32)
    for function in (hs.attention_entropy, hs.attention_distance, hs.sink_mass):
        found = function(pattern.cuda())
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), function(pattern))
