"""Micro-languages: the definition, its exact statistics, sampling, and the ideal reader."""

from __future__ import annotations

import itertools

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag
from scipy.special import digamma

from headspec.errors import InputError
from headspec.training.markov_chains import expected_entropy_rate, stationary_distribution
from headspec.training.micro_languages import _SPLITS, MicroLanguages
from headspec.training.topic_segments import SegmentPrior


def small(**changes) -> MicroLanguages:
    sizes = {"n_topics": 3, "vocab_size": 33, "seq_len": 24, "concentration": 20.0}
    return MicroLanguages(**(sizes | changes))


@pytest.mark.parametrize(
    ("vocab_size", "n_topics", "concentration", "nats"),
    [(4096, 5, 5.0, 7.2819), (512, 3, 100.0, 4.517), (4096, 5, 100.0, 6.195)],
)
def test_closed_form_entropy_rates(vocab_size, n_topics, concentration, nats):
    rate = expected_entropy_rate(
        vocab_size=vocab_size, n_topics=n_topics, concentration=concentration
    )
    assert rate == pytest.approx(nats, abs=5e-4)


def test_without_a_boost_the_closed_form_is_the_dirichlet_entropy():
    """But for the fluctuation of the block's mass: Var / (2 m (1 - m)) = 1 / (2 (a V' + 1))."""
    for vocab_size in (103, 1003):
        rate = expected_entropy_rate(vocab_size=vocab_size, n_topics=4, concentration=1)
        half = (vocab_size - 3) / 2
        dirichlet = digamma(half + 1) - digamma(1.5)
        assert rate - dirichlet == pytest.approx(1 / (2 * half + 2), rel=0.05)


@pytest.mark.parametrize("boost", ["own", "rotated"])
def test_drawn_chains_have_the_expected_rate(boost):
    rates = [
        MicroLanguages(
            n_topics=3, vocab_size=512, concentration=100.0, boost=boost, seed=seed
        ).entropy_rate()
        for seed in range(5)
    ]
    error = np.std(rates, ddof=1) / np.sqrt(len(rates))
    assert np.mean(rates) == pytest.approx(4.517, abs=4 * error + 5e-4)
    assert error < 5e-3


def test_entropy_rate_is_that_of_the_chains_by_definition():
    languages = small()
    rows = languages.transitions.astype(np.float64)
    for topic in range(3):
        values, vectors = np.linalg.eig(rows[topic].T)
        used = np.real(vectors[:, np.argmax(np.real(values))])
        used /= used.sum()
        np.testing.assert_allclose(languages.stationary[topic], used, atol=1e-7)
        rate = -(used[:, None] * rows[topic] * np.log(rows[topic])).sum()
        assert languages.topic_entropy_rates[topic] == pytest.approx(rate, abs=1e-6)
    assert languages.entropy_rate() == pytest.approx(languages.topic_entropy_rates.mean())


def test_stationary_distribution_by_hand():
    rows = np.array([[0.9, 0.1], [0.3, 0.7]])
    np.testing.assert_allclose(stationary_distribution(rows), [0.75, 0.25], atol=1e-12)


@pytest.mark.parametrize("concentration", [1e3, 1e5, 1e7])
def test_chains_that_mix_slowly_have_their_stationary_distribution(concentration):
    """Rotated by 0, blocks hardly lead to one another: power iteration would stop too soon."""
    languages = small(boost="rotated", concentration=concentration)
    for rows, used in zip(
        languages.transitions.astype(np.float64), languages.stationary, strict=True
    ):
        rows /= rows.sum(axis=1, keepdims=True)
        system = np.vstack([(rows.T - np.eye(30)), np.ones(30)])
        exact = np.linalg.lstsq(system, np.append(np.zeros(30), 1), rcond=1e-14)[0]
        np.testing.assert_allclose(used @ rows, used, atol=1e-13)
        np.testing.assert_allclose(used, exact, atol=1e-6)


def test_tokens_that_never_lead_to_one_another():
    periodic = np.array([[0.0, 1, 0], [0.5, 0, 0.5], [0, 1, 0]])
    with pytest.raises(InputError, match="never lead to one another"):
        stationary_distribution(np.asarray(block_diag(periodic, 1.0)))
    found = stationary_distribution(periodic)
    np.testing.assert_allclose(found, [0.25, 0.5, 0.25])


def test_splits_and_orders_have_random_streams_of_their_own():
    """NumPy ignores zeros at the end of a seed: [s, 0, 0] is s, [s, 1, 0] is [s, 1]."""
    states = [
        np.random.default_rng(seeds).bit_generator.state["state"]["state"]
        for seeds in (3, [3, 0], [3, 1, 0], [3, 1, 1], *([3, split, 0] for split in (10, 11, 12)))
    ]
    assert len({*states}) == 6  # the first two are one
    assert sorted(_SPLITS.values()) == [10, 11, 12]


def test_rows_are_dirichlet_with_the_own_block_boosted():
    plain, boosted = small(concentration=1), small(concentration=20)
    for topic in range(3):
        weights = plain.transitions[topic].astype(np.float64)
        weights[:, topic * 10 : (topic + 1) * 10] *= 20
        weights /= weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(boosted.transitions[topic], weights, rtol=1e-5)
    large = MicroLanguages(n_topics=2, vocab_size=203, concentration=1).transitions[0]
    assert large.var() == pytest.approx(0.005 * 0.995 / 101, rel=0.1)  # m (1 - m) / (a V' + 1)


def test_signature_bigrams_are_ten_times_as_likely_and_a_row_factor_cancels():
    plain, signed = small(n_topics=2), small(n_topics=2, n_signatures=5)
    ratio = signed.transitions / plain.transitions
    relative = ratio / np.median(ratio, axis=2, keepdims=True)
    assert np.isclose(relative, 10, rtol=1e-4).sum(axis=(1, 2)).tolist() == [5, 5]
    assert np.isclose(relative, 1, rtol=1e-4).sum() == relative.size - 10


def test_labels_have_two_to_five_segments_and_neighbours_differ():
    sample = small(n_topics=4, seq_len=64).sample(4000, seed=3)
    segments = 1 + (np.diff(sample.labels, axis=1) != 0).sum(axis=1)
    shares = np.bincount(segments, minlength=6) / 4000
    assert shares[:2].sum() == 0
    np.testing.assert_allclose(shares[2:], 0.25, atol=0.03)
    np.testing.assert_allclose(np.bincount(sample.labels[:, 0]) / 4000, 0.25, atol=0.03)
    assert sample.tokens.min() >= 3
    assert sample.tokens.max() < 33
    assert sample.tokens.dtype == sample.labels.dtype == np.int64


def test_all_sets_of_cuts_are_equally_likely():
    prior = SegmentPrior(n_topics=2, seq_len=6, min_segments=3, max_segments=3)
    labels = prior.draw(20_000, np.random.default_rng(0)).astype(int)
    cuts = [tuple(np.flatnonzero(row) + 1) for row in np.diff(labels, axis=1)]
    counts = {pair: cuts.count(pair) for pair in itertools.combinations(range(1, 6), 2)}
    assert sum(counts.values()) == 20_000
    np.testing.assert_allclose(list(counts.values()), 2000, atol=200)


def test_as_many_cuts_as_there_are_places_are_drawn_at_once():
    """Drawing anew until all differ would never end here: 39! / 39^39 is 1e-16."""
    prior = SegmentPrior(n_topics=2, seq_len=40, min_segments=40, max_segments=40)
    labels = prior.draw(50, np.random.default_rng(0))
    assert (np.diff(labels, axis=1) != 0).all()


def test_each_number_of_cuts_has_its_sets_equally_often():
    prior = SegmentPrior(n_topics=2, seq_len=5, min_segments=1, max_segments=5)
    labels = prior.draw(50_000, np.random.default_rng(1)).astype(int)
    changes = (np.diff(labels, axis=1) != 0) @ [1, 2, 4, 8]
    counts = np.bincount(changes, minlength=16)
    sizes = np.array([bin(cuts).count("1") for cuts in range(16)])
    expected = 10_000 / np.array([1, 4, 6, 4, 1])[sizes]
    assert (((counts - expected) ** 2 / expected).sum()) < 40  # chi-squared, 15 degrees of freedom


def test_tokens_follow_their_topics_transitions():
    languages = MicroLanguages(n_topics=2, vocab_size=13, seq_len=100, concentration=4.0)
    tokens, labels = languages.sample(6000, seed=0)
    for topic in range(2):
        chosen = labels[:, 1:] == topic
        pairs = (tokens[:, :-1][chosen] - 3) * 10 + tokens[:, 1:][chosen] - 3
        counts = np.bincount(pairs, minlength=100).reshape(10, 10)
        expected = counts.sum(1, keepdims=True) * languages.transitions[topic]
        z = (counts - expected) / np.sqrt(np.maximum(expected, 1))
        assert np.abs(z).max() < 5
        starts = np.bincount(tokens[labels[:, 0] == topic, 0] - 3, minlength=10)
        np.testing.assert_allclose(starts / starts.sum(), languages.stationary[topic], atol=0.04)


def test_seeds_of_languages_and_sequences_are_separate():
    one, again, other = small(), small(), small(seed=1)
    np.testing.assert_array_equal(one.transitions, again.transitions)
    assert not np.allclose(one.transitions, other.transitions)
    first, second = one.sample(20, seed=0), again.sample(20, seed=0)
    np.testing.assert_array_equal(first.tokens, second.tokens)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert not np.array_equal(first.tokens, one.sample(20, seed=1).tokens)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one.sample(5, seed=3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def brute_force(languages: MicroLanguages, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p(tokens up to t, topic at t) summed over every labelling, one by one."""
    length, topics = len(row), languages.n_topics
    joint = np.zeros((length, topics))
    numbers = range(languages.min_segments, languages.max_segments + 1)
    for n_segments in numbers:
        ways = list(itertools.combinations(range(1, length), n_segments - 1))
        for cuts in ways:
            for kinds in itertools.product(range(topics), repeat=n_segments):
                if any(a == b for a, b in itertools.pairwise(kinds)):
                    continue
                prior = 1 / len(numbers) / len(ways) / topics / (topics - 1) ** (n_segments - 1)
                labels = np.repeat(kinds, np.diff([0, *cuts, length]))
                p = prior * languages.stationary[labels[0], row[0] - 3]
                joint[0, labels[0]] += p
                for t in range(1, length):
                    p *= languages.transitions[labels[t], row[t - 1] - 3, row[t] - 3]
                    joint[t, labels[t]] += p
    return joint, joint.sum(axis=1)


def test_bayes_loss_equals_the_sum_over_all_labellings():
    languages = MicroLanguages(
        n_topics=3, vocab_size=12, seq_len=7, min_segments=2, max_segments=4, concentration=3.0
    )
    tokens = languages.sample(4, seed=0).tokens
    losses, posterior = languages.bayes_loss(tokens), languages.topic_posterior(tokens)
    for row, loss, belief in zip(tokens, losses, posterior, strict=True):
        joint, evidence = brute_force(languages, row)
        np.testing.assert_allclose(loss.cumsum(), -np.log(evidence), rtol=1e-6)
        np.testing.assert_allclose(belief, joint / evidence[:, None], rtol=1e-4, atol=1e-6)


def test_ideal_loss_lies_between_the_entropy_rate_and_other_readers():
    languages = MicroLanguages(n_topics=3, vocab_size=203, seq_len=128, concentration=10.0)
    tokens, labels = languages.sample(300, seed=5)
    ideal = languages.bayes_loss(tokens)[:, 1:]
    unigrams = languages.bayes_loss(tokens, evidence="unigrams")[:, 1:]
    told = -np.log(languages.transitions[labels[:, 1:], tokens[:, :-1] - 3, tokens[:, 1:] - 3])
    se = (ideal - told).mean(axis=1).std() / np.sqrt(300)
    assert (ideal - told).mean() > 4 * se  # not being told the topic costs something
    assert told.mean() == pytest.approx(languages.entropy_rate(), abs=0.02)
    assert ideal.mean() < unigrams.mean() - 0.1
    # Calibrated: the loss it expects is the loss it has, and its beliefs come true that often.
    posterior = languages.topic_posterior(tokens)
    assert posterior.max(axis=2).mean() == pytest.approx(
        (posterior.argmax(axis=2) == labels).mean(), abs=0.01
    )


def test_a_text_may_be_read_from_its_beginning_only():
    languages = small()
    tokens = languages.sample(3, seed=0).tokens
    whole = languages.bayes_loss(tokens)
    np.testing.assert_allclose(languages.bayes_loss(tokens[:, :9]), whole[:, :9])
    np.testing.assert_allclose(languages.bayes_loss(torch.from_numpy(tokens)), whole)


def unigram_overlap(languages: MicroLanguages) -> float:
    """Chance that one token, read alone, tells the topic (Bayes, equal priors): exact."""
    return float(languages.stationary.max(axis=0).sum() / languages.n_topics)


def test_what_single_tokens_give_away():
    """By definition an own block is used c n / (c n + V' - n) of the time: that is all of it."""
    own = MicroLanguages(n_topics=5, vocab_size=503, concentration=5.0)
    flat = MicroLanguages(n_topics=5, vocab_size=503, concentration=1.0)
    rotated = MicroLanguages(n_topics=5, vocab_size=503, concentration=5.0, boost="rotated")
    share = 5 / 9
    assert unigram_overlap(own) == pytest.approx(share, abs=0.03)
    assert unigram_overlap(rotated) == pytest.approx(0.2, abs=0.06)
    assert unigram_overlap(flat) == pytest.approx(0.2, abs=0.06)
    assert rotated.entropy_rate() == pytest.approx(own.entropy_rate(), abs=0.02)
    blocks = own.stationary[:, :500].reshape(5, 5, 100)
    np.testing.assert_allclose(blocks.sum(2), np.where(np.eye(5), share, 1 / 9), atol=0.02)
    within = blocks[np.arange(5), np.arange(5)]
    assert within.std() / within.mean() < 0.25  # tokens of a block are used about alike
    uniform = rotated.stationary.reshape(-1) * 500
    assert uniform.std() < 0.25


def test_bigrams_tell_rotated_topics_apart_where_single_tokens_hardly_do():
    accuracy = {}
    for boost in ("own", "rotated"):
        languages = MicroLanguages(n_topics=5, vocab_size=503, seq_len=128, boost=boost)
        tokens, labels = languages.sample(200, seed=0)
        for evidence in ("bigrams", "unigrams"):
            posterior = languages.topic_posterior(tokens, evidence=evidence)
            accuracy[boost, evidence] = (posterior.argmax(axis=2) == labels).mean()
    assert accuracy["own", "unigrams"] > 0.75
    assert accuracy["rotated", "unigrams"] < 0.55
    assert min(accuracy["own", "bigrams"], accuracy["rotated", "bigrams"]) > 0.9


@settings(max_examples=25, deadline=None)
@given(
    n_topics=st.integers(2, 6),
    vocab_size=st.integers(20, 60),
    seq_len=st.integers(5, 20),
    concentration=st.floats(0.1, 200),
    boost=st.sampled_from(["own", "rotated"]),
)
def test_any_sizes_give_proper_chains_and_losses(
    n_topics, vocab_size, seq_len, concentration, boost
):
    languages = MicroLanguages(
        n_topics=n_topics,
        vocab_size=vocab_size,
        seq_len=seq_len,
        concentration=concentration,
        boost=boost,
    )
    np.testing.assert_allclose(languages.transitions.sum(axis=2), 1, atol=1e-5)
    assert languages.transitions.min() >= 0
    sample = languages.sample(5, seed=1)
    assert np.isfinite(languages.bayes_loss(sample.tokens)).all()
    posterior = languages.topic_posterior(sample.tokens)
    np.testing.assert_allclose(posterior.sum(axis=2), 1, atol=1e-5)


def test_one_topic_alone_is_a_plain_chain():
    languages = small(n_topics=1, min_segments=1, max_segments=1)
    tokens, labels = languages.sample(10, seed=0)
    assert not labels.any()
    told = -np.log(languages.transitions[0][tokens[:, :-1] - 3, tokens[:, 1:] - 3])
    np.testing.assert_allclose(languages.bayes_loss(tokens)[:, 1:], told, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_topics": 1}, "2 to 255 topics"),
        ({"vocab_size": 8}, "at least 6 tokens besides the 3 special ones"),
        ({"min_segments": 6}, "min_segments <= max_segments"),
        ({"max_segments": 25}, "max_segments <= seq_len"),
        ({"concentration": 0}, "positive, finite concentration"),
        ({"concentration": float("inf")}, "positive, finite concentration"),
        ({"n_topics": 3.0}, "n_topics to be a whole number"),
        ({"seed": -1}, "a seed from 0 on"),
        ({"n_signatures": 6}, "0 to 5 signature bigrams"),
        ({"boost": "both"}, "boost out of 'own', 'rotated'"),
    ],
)
def test_sizes_that_cannot_be(changes, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # let wrong words through
    with pytest.raises(InputError, match=words):
        small(**changes)


def test_draws_that_cannot_be():
    with pytest.raises(InputError, match="one sequence or more; got n=0"):
        small().sample(0, seed=0)
    with pytest.raises(InputError, match="a seed from 0 on; got seed=-1"):
        small().sample(1, seed=-1)
    with pytest.raises(InputError, match="float32 can hold; got dirichlet"):
        _ = small(dirichlet=0.001).transitions


def test_readers_refuse_what_the_languages_cannot_have_written():
    languages = small()
    tokens = languages.sample(2, seed=0).tokens
    with pytest.raises(InputError, match="tokens from 3 to 32; got 0 to"):
        languages.bayes_loss(np.where(tokens == tokens.min(), 0, tokens))
    with pytest.raises(InputError, match="1 to 24 tokens a row"):
        languages.topic_posterior(np.concatenate([tokens, tokens], axis=1))
