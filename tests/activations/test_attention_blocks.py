"""Attention by blocks of queries: equal to whole patterns and to torch's own attention."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import headspec as hs
from headspec.activations import attention_blocks
from headspec.activations.attention_blocks import attend_in_blocks, read_pattern
from headspec.activations.attention_by_topic import topic_masses
from headspec.activations.attention_shapes import topic_columns

FIGURES = ("entropy", "distance", "sink_mass", "topic_mass")


def inputs(batch, n_heads, n_kv, n_pos, *, d_head=6, sharpness=1.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def draw(heads, width):
        shape = (batch, heads, n_pos, width)
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    labels = torch.randint(-1, 3, (batch, n_pos), generator=generator)
    labels[:, 0] = 2
    return draw(n_heads, d_head) * sharpness, draw(n_kv, d_head), draw(n_kv, 5), labels


def whole_pattern(q, k, scale, mask=None):
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    hidden = torch.ones(q.shape[2], q.shape[2]).triu(1).bool()
    hidden = hidden if mask is None else hidden | ~mask
    return (q.double() @ k.double().mT * scale).masked_fill(hidden, -torch.inf).softmax(-1)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(1, 4, 4, 5), (2, 6, 2, 17), (3, 4, 1, 33), (1, 2, 2, 1)]),
    rows=st.sampled_from([1, 4, 16, 128]),
    max_scores=st.sampled_from([1, 300, None]),
    sharpness=st.sampled_from([0.0, 1.0, 200.0]),
    windowed=st.booleans(),
)
def test_equal_to_whole_patterns(seed, shape, rows, max_scores, sharpness, windowed):
    q, k, v, labels = inputs(*shape, sharpness=sharpness, seed=seed)
    mask = None
    if windowed:
        at = torch.arange(shape[-1])
        mask = (at[:, None] - at < 6).expand(shape[0], 1, -1, -1)
    topics = topic_columns(labels)
    before = attention_blocks._ROWS
    attention_blocks._ROWS = rows
    try:
        found = attend_in_blocks(
            q, k, v, scale=0.4, topics=topics, mask=mask, max_scores=max_scores
        )
    finally:
        attention_blocks._ROWS = before
    pattern = whole_pattern(q, k, 0.4, mask)
    expected = {
        "entropy": hs.attention_entropy(pattern),
        "distance": hs.attention_distance(pattern),
        "sink_mass": hs.sink_mass(pattern),
        "topic_mass": topic_masses(pattern, labels),
        "z": pattern @ v.repeat_interleave(shape[1] // shape[2], 1),
    }
    for name, values in expected.items():
        torch.testing.assert_close(getattr(found, name), values, rtol=1e-9, atol=1e-11)
    read = read_pattern(pattern, topics=topics)
    for name in FIGURES:
        torch.testing.assert_close(getattr(read, name), expected[name])


def test_single_precision_is_good_to_a_millionth():
    q, k, v, labels = inputs(1, 4, 2, 700, sharpness=2.0)
    topics = topic_columns(labels)
    exact = attend_in_blocks(q, k, v, scale=0.4, topics=topics)
    found = attend_in_blocks(q.float(), k.float(), v.float(), scale=0.4, topics=topics)
    for name in (*FIGURES, "z"):
        values = getattr(exact, name)
        error = (getattr(found, name).double() - values).abs().max() / values.abs().max()
        assert error < 3e-6, name
    assert found.entropy.dtype == torch.float32


def test_distances_of_local_heads_stay_exact_far_from_the_start():
    """Mean position minus position would lose them: both are thousands, the difference is 1."""
    n_pos = 4096
    at = torch.arange(n_pos, dtype=torch.float64)
    angle = at * 0.05
    turned = torch.stack([angle.cos(), angle.sin()], -1)[None, None].float()
    before = torch.stack([(angle - 0.05).cos(), (angle - 0.05).sin()], -1)[None, None].float()
    mask = (at[:, None] - at < 3).expand(1, 1, -1, -1)
    found = attend_in_blocks(before, turned, scale=4e4, mask=mask)
    assert (found.distance[0, 0, 2:] - 1).abs().max() < 1e-5
    assert found.entropy[0, 0, 2:].max() < 1e-3


def test_huge_scores_neither_overflow_nor_leave_the_row():
    q, k, v, _ = inputs(1, 2, 2, 40, sharpness=1e4, dtype=torch.float32)
    found = attend_in_blocks(q, k, v, scale=1)
    assert torch.isfinite(found.entropy).all()
    assert found.entropy.max() < 0.7
    naive = (q @ k.mT).exp()
    assert not torch.isfinite(naive).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(dtype):
    q, k, v, labels = inputs(2, 4, 2, 60, dtype=dtype)
    found = attend_in_blocks(q, k, v, scale=0.4, topics=topic_columns(labels))
    exact = attend_in_blocks(q.double(), k.double(), v.double(), scale=0.4)
    assert found.z.dtype == dtype
    assert (found.entropy - exact.entropy).abs().max() < 1e-5
    torch.testing.assert_close(found.z.double(), exact.z, rtol=0.02, atol=0.02)


def test_what_heads_read_is_torchs_attention():
    q, k, v, _ = inputs(2, 4, 4, 50, dtype=torch.float32)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    found = attend_in_blocks(q, k, v, scale=q.shape[-1] ** -0.5)
    torch.testing.assert_close(found.z, expected, rtol=1e-5, atol=1e-5)


def test_without_values_and_topics():
    q, k, _, _ = inputs(1, 2, 1, 9)
    found = attend_in_blocks(q, k, scale=1)
    assert found.z.shape == (1, 2, 9, 0)
    assert found.topic_mass.shape == (1, 2, 9, 0)
    np.testing.assert_allclose(found.entropy, hs.attention_entropy(whole_pattern(q, k, 1)))


def test_memory_does_not_grow_with_the_square():
    q, k, v, _ = inputs(1, 2, 2, 3000, dtype=torch.float32)
    largest = 0
    kept = torch.Tensor.new_empty

    def watch(self, *shape, **options):
        nonlocal largest
        made = kept(self, *shape, **options)
        largest = max(largest, made.numel())
        return made

    torch.Tensor.new_empty = watch
    try:
        attend_in_blocks(q, k, v, scale=1, max_scores=400_000)
    finally:
        torch.Tensor.new_empty = kept
    assert largest <= 800_000 < 2 * 3000**2


def test_heads_that_do_not_divide():
    q, k, _, _ = inputs(1, 4, 3, 5)
    with pytest.raises(hs.InputError, match="4 query heads and 3 key-value heads"):
        attend_in_blocks(q, k, scale=1)


def test_the_callers_tensors_stay():
    q, k, v, labels = inputs(1, 4, 2, 20)
    topics = topic_columns(labels)
    copies = [x.clone() for x in (q, k, v, topics)]
    attend_in_blocks(q, k, v, scale=0.4, topics=topics)
    assert all(torch.equal(x, y) for x, y in zip((q, k, v, topics), copies, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_on_a_gpu():
    q, k, v, labels = inputs(2, 4, 2, 300)
    topics = topic_columns(labels)
    expected = attend_in_blocks(q, k, v, scale=0.4, topics=topics)
    found = attend_in_blocks(q.cuda(), k.cuda(), v.cuda(), scale=0.4, topics=topics.cuda())
    for name in (*FIGURES, "z"):
        assert getattr(found, name).is_cuda
        torch.testing.assert_close(getattr(found, name).cpu(), getattr(expected, name))
