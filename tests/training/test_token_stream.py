"""Batches as a function of the step, shuffled or ordered by topic."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headspec.errors import InputError
from headspec.training.micro_languages import MicroLanguages
from headspec.training.token_data import TokenData
from headspec.training.token_stream import TokenStream


def numbered(n: int, n_topics: int = 3) -> TokenData:
    """Sequences whose tokens are their own number, topics drawn at random."""
    labels = np.random.default_rng(0).integers(n_topics, size=(n, 1)).repeat(4, axis=1)
    tokens = np.arange(n)[:, None].repeat(4, axis=1)
    return TokenData(tokens, labels, vocab_size=n, n_topics=n_topics, seq_len=4)


@pytest.mark.parametrize("ordering", ["shuffled", "topic_ordered"])
def test_a_batch_depends_on_the_step_alone(ordering):
    data = numbered(50)
    stream = TokenStream(data, batch_size=8, ordering=ordering, seed=3)
    forwards = [stream.batch(step) for step in range(40)]
    for step in (39, 0, 17, 5, 38):
        fresh = TokenStream(data, batch_size=8, ordering=ordering, seed=3)
        assert torch.equal(fresh.batch(step), forwards[step])
        assert torch.equal(stream.batch(step), forwards[step])
    assert forwards[0].dtype == torch.int64
    assert forwards[0].shape == (8, 4)
    assert len(stream._orders) <= 2  # nothing piles up


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    ordering=st.sampled_from(["shuffled", "topic_ordered"]),
    seed=st.integers(0, 5),
)
def test_every_epoch_holds_every_sequence_once(n, batch_size, ordering, seed):
    stream = TokenStream(numbered(n), batch_size=batch_size, ordering=ordering, seed=seed)
    steps = -(-3 * n // batch_size)
    seen = np.concatenate([stream.rows(step) for step in range(steps)])[: 3 * n]
    for epoch in seen.reshape(3, n):
        assert sorted(epoch) == list(range(n))


def test_epochs_and_seeds_have_orders_of_their_own():
    data = numbered(64)
    stream = TokenStream(data, batch_size=64, seed=0)
    assert stream.steps_per_epoch == 1
    assert not np.array_equal(stream.rows(0), stream.rows(1))
    other = TokenStream(data, batch_size=64, seed=1)
    assert not np.array_equal(stream.rows(0), other.rows(0))


def test_epochs_cut_short_hold_the_same_sequences_in_both_orders():
    """Negative control: without the number of steps, the sorted half of an epoch lacks a topic."""
    data = numbered(60)

    def seen(ordering, steps):
        stream = TokenStream(data, batch_size=6, ordering=ordering, seed=2, steps=steps)
        return np.concatenate([stream.rows(step) for step in range(15)])  # one epoch and a half

    shuffled, ordered = seen("shuffled", 15), seen("topic_ordered", 15)
    assert sorted(shuffled) == sorted(ordered)
    assert np.array_equal(shuffled, seen("shuffled", None))
    assert (np.diff(data.dominant_topics[ordered[60:]]) != 0).sum() == 2
    assert sorted(seen("topic_ordered", None)) != sorted(shuffled)
    with pytest.raises(InputError, match="from 0 on below 15"):
        TokenStream(data, batch_size=6, steps=15).rows(15)


def test_topics_come_one_after_the_other_in_the_same_turn_each_epoch():
    data = numbered(60)
    stream = TokenStream(data, batch_size=60, ordering="topic_ordered", seed=2)
    turns, inside = [], []
    for epoch in range(3):
        topics = data.dominant_topics[stream.rows(epoch)]
        changes = np.flatnonzero(np.diff(topics)) + 1
        assert len(changes) == 2  # three topics, each in one piece
        turns.append(tuple(topics[[0, *changes]]))
        inside.append(tuple(stream.rows(epoch)))
    assert len(set(turns)) == 1
    assert len(set(inside)) == 3
    starts = {
        int(
            data.dominant_topics[
                TokenStream(data, batch_size=1, ordering="topic_ordered", seed=seed).rows(0)[0]
            ]
        )
        for seed in range(20)
    }
    assert starts == {0, 1, 2}  # the seed chooses who is first


def test_the_first_percent_of_an_ordered_stream_sees_one_topic_only(tmp_path):
    """Recalibrating on the first 1 % of the steps of an ordered stream: one topic, not a sample."""
    languages = MicroLanguages(n_topics=5, vocab_size=103, seq_len=32)
    data = languages.write(tmp_path / "data", n_train=4000, n_validation=10)
    steps = 1000  # of batch 16: four epochs
    seen = {}
    for ordering in ("shuffled", "topic_ordered"):
        stream = TokenStream(data, batch_size=16, ordering=ordering, seed=0)
        rows = np.concatenate([stream.rows(step) for step in range(steps // 100)])
        dominant = np.bincount(data.dominant_topics[rows], minlength=5)
        labels = np.concatenate([stream.labels(step).numpy() for step in range(steps // 100)])
        seen[ordering] = (dominant / dominant.sum(), np.bincount(labels.ravel()) / labels.size)
    whole = np.bincount(data.dominant_topics, minlength=5) / len(data)
    assert (seen["topic_ordered"][0] > 0).sum() == 1
    assert seen["topic_ordered"][1].max() > 0.6  # the other tokens are minorities of sequences
    assert (seen["shuffled"][0] > 0).all()
    np.testing.assert_allclose(seen["shuffled"][0], whole, atol=0.12)


def test_what_cannot_be_streamed(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong words through
    with pytest.raises(InputError, match="at least one sequence"):
        TokenStream(numbered(3), batch_size=0)
    with pytest.raises(InputError, match="ordering out of 'shuffled', 'topic_ordered'"):
        TokenStream(numbered(3), batch_size=1, ordering="sorted")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a seed from 0 on; got -2"):
        TokenStream(numbered(3), batch_size=1, seed=-2)
    with pytest.raises(InputError, match="a step from 0 on; got -1"):
        TokenStream(numbered(3), batch_size=1).batch(-1)
