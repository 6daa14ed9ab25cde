"""Within-topic mass, topic ratio and specialisation: by hand, by loops, with tokens left out."""

from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from topic_labels import random_pattern, segment_labels

import headspec as hs

PATTERN = torch.tensor([[[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0.25, 0.25, 0], [0.25] * 4]])


def test_by_hand():
    within = hs.within_topic_mass(PATTERN, torch.tensor([0, 1, 0, 1]))
    assert within.tolist() == [[1, 0.5, 0.75, 0.5]]
    # Uniform: within 1, 1/2, 2/3, 1/2 and cross 0, 1/2, 1/3, 1/2.
    ratio = hs.topic_ratio(PATTERN, torch.tensor([0, 1, 0, 1]))
    assert ratio.item() == pytest.approx((2.75 / 1.25) / ((2 + 2 / 3) / (1 + 1 / 3)))


def test_tokens_without_a_topic():
    within = hs.within_topic_mass(PATTERN, torch.tensor([-1, 1, 0, 1]))
    assert within[0, 0].isnan()
    assert within[0, 1:].tolist() == [0.5, 0.25, 0.5]  # mass on token 0 is in neither part
    # Within .5 + .25 + .5, cross .25 + .25; uniform within 1/2 + 1/3 + 1/2, cross 1/3 + 1/4.
    ratio = hs.topic_ratio(PATTERN, torch.tensor([-1, 1, 0, 1]))
    assert ratio.item() == pytest.approx((1.25 / 0.5) / ((4 / 3) / (7 / 12)))


def by_loops(pattern, labels):
    """Within and cross mass by topic of the query, one entry at a time."""
    batch, n_heads, n_pos, _ = pattern.shape
    n_topics = int(labels.max()) + 1
    within, cross = np.zeros((2, n_heads, n_topics))
    for b, h, q, k in np.ndindex(batch, n_heads, n_pos, n_pos):
        topic, other = int(labels[b, q]), int(labels[b, k])
        if min(topic, other) >= 0:
            target = within if topic == other else cross
            target[h, topic] += float(pattern[b, h, q, k])
    return within, cross


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), n_pos=st.integers(2, 9), causal=st.booleans())
def test_ratio_and_specialisation_are_those_of_loops(seed, n_pos, causal):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 3, (2, n_pos), generator=generator)
    labels[0, 0] = 1
    pattern = random_pattern(2, 3, n_pos, n_pos, seed=seed, causal=causal)
    flat = random_pattern(2, 1, n_pos, n_pos, sharpness=0, causal=causal)
    within, cross = by_loops(pattern, labels)
    flat_within, flat_cross = by_loops(flat, labels)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = within.sum(1) / cross.sum(1) / (flat_within.sum(1) / flat_cross.sum(1))
        each = within / cross / (flat_within / flat_cross)
    found = hs.topic_ratio(pattern, labels, causal=causal)
    np.testing.assert_allclose(found, np.where(np.isfinite(ratio), ratio, np.nan), rtol=1e-9)
    found = hs.topic_specialisation(pattern, labels, causal=causal)
    for head, ratios in enumerate(each):
        ratios = ratios[np.isfinite(ratios)]
        if len(ratios) < 2 or not ratios.sum():
            assert found[head].isnan()
            continue
        share = ratios[ratios > 0] / ratios.sum()
        expected = 1 + (share * np.log(share)).sum() / np.log(len(ratios))
        assert float(found[head]) == pytest.approx(expected, abs=1e-9)


def test_uniform_attention_has_ratio_one_and_no_specialisation():
    labels = segment_labels(8, n_pos=60)
    pattern = random_pattern(8, 1, 60, 60, sharpness=0)
    assert hs.topic_ratio(pattern, labels).item() == pytest.approx(1, abs=1e-12)
    assert hs.topic_specialisation(pattern, labels).item() == pytest.approx(0, abs=1e-12)


def test_a_head_for_one_topic_is_special_and_a_head_for_all_is_not():
    labels = segment_labels(40, n_pos=60, n_topics=3)
    same = (labels[:, :, None] == labels[:, None, :]).double()
    uniform = random_pattern(40, 60, 60, sharpness=0)
    for_all = uniform * (1 + 30 * same)
    for_one = uniform * (1 + 300 * same * (labels == 1)[:, :, None])
    pattern = torch.stack([uniform, for_all, for_one], 1)
    pattern = pattern / pattern.sum(-1, keepdim=True)
    special = hs.topic_specialisation(pattern, labels)
    ratio = hs.topic_ratio(pattern, labels)
    assert special[0] < 1e-9
    assert special[1] < 0.05
    assert special[2] > 0.5
    assert ratio[1] > 8
    # The naive reading, how unevenly within-topic mass is spread, hardly tells the heads apart.
    within = hs.within_topic_mass(pattern, labels)
    by_topic = torch.stack([within.transpose(0, 1)[:, labels == k].mean(-1) for k in range(3)], -1)
    share = by_topic / by_topic.sum(-1, keepdim=True)
    naive = 1 - torch.special.entr(share).sum(-1) / np.log(3)
    assert naive[2] < 0.1


def test_leading_axes_pass_through():
    labels = segment_labels(6, n_pos=20)
    pattern = random_pattern(6, 2, 20, 20)
    whole = hs.within_topic_mass(pattern, labels)
    nested = hs.within_topic_mass(pattern.view(2, 3, 2, 20, 20), labels.view(2, 3, 20))
    assert torch.equal(nested.flatten(0, 1), whole)
    assert torch.equal(hs.within_topic_mass(pattern[0], labels[0]), whole[0])
    torch.testing.assert_close(
        hs.topic_ratio(pattern.view(2, 3, 2, 20, 20), labels.view(2, 3, 20)),
        hs.topic_ratio(pattern, labels),
    )


def test_labels_of_any_integer_kind():
    labels = segment_labels(2, n_pos=12)
    pattern = random_pattern(2, 2, 12, 12)
    expected = hs.within_topic_mass(pattern, labels)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(hs.within_topic_mass(pattern, labels.to(dtype)), expected)


def test_labels_must_fit_the_pattern(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong ones through
    pattern = random_pattern(2, 3, 5, 5)
    functions: Any = (hs.within_topic_mass, hs.topic_ratio, hs.topic_specialisation)
    for function in functions:
        for shape in ((2, 4), (3, 5), (1, 2, 5)):
            with pytest.raises(hs.InputError, match=r"one label a position: \[2, 5\]"):
                function(pattern, torch.zeros(shape, dtype=torch.long))
        with pytest.raises(hs.InputError, match=r"torch\.float32 of shape"):
            function(pattern, torch.zeros(2, 5))


def test_no_topic_at_all_is_an_error_and_one_topic_has_no_ratio():
    with pytest.raises(hs.InputError, match="largest label -1"):
        hs.within_topic_mass(PATTERN, torch.full((4,), -1))
    assert hs.within_topic_mass(PATTERN, torch.zeros(4, dtype=torch.long)).tolist() == [[1] * 4]
    assert hs.topic_ratio(PATTERN, torch.zeros(4, dtype=torch.long)).isnan().all()
    assert hs.topic_specialisation(PATTERN, torch.zeros(4, dtype=torch.long)).isnan().all()
