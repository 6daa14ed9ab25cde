"""Formats and samplers of the embedded suite's behaviours, against independent readings."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from headspec.activations.repeats import repeated_tokens
from headspec.checkpoints import micro_tasks as mt
from headspec.errors import InputError

NUMBERS = st.builds(lambda a, b: f"{a}.{b}", st.integers(0, 99), st.integers(1, 99))


def test_the_questions_read_as_published():
    asked = mt.comparison("decimal", "9.8", "9.11")
    assert asked.prompt == "Which number is bigger: 9.8 or 9.11? Answer: "
    assert (asked.answer, asked.distractor) == ("9.8\n", "9.11\n")
    asked = mt.comparison("version", "9.8", "9.11")
    assert asked.prompt == "Which version is newer: 9.8 or 9.11? Answer: "
    assert (asked.answer, asked.distractor) == ("9.11\n", "9.8\n")
    assert mt.addition(37, 45) == mt.Example("37+45=", "82\n")


@settings(deadline=None, max_examples=40)
@given(NUMBERS, NUMBERS)
def test_answers_agree_with_decimal_and_packaging(a, b):
    for kind, reading in (("decimal", Decimal), ("version", Version)):
        if reading(a) == reading(b):
            with pytest.raises(InputError, match="equal when read as"):
                mt.compare(kind, a, b)
        else:
            assert reading(mt.compare(kind, a, b)) == max(reading(a), reading(b))


def test_reading_versions_as_floats_would_give_the_wrong_answer():
    pairs = mt.sample_pairs(200, split="train", seed=0)
    naive = [max(pair, key=float) for pair in pairs]
    assert all(mt.compare("version", *pair) != got for pair, got in zip(pairs, naive, strict=True))


def test_conflicting_pairs_have_opposite_answers_and_other_pairs_are_mixed():
    def opposite(pairs):
        return [mt.compare("decimal", *p) != mt.compare("version", *p) for p in pairs]

    assert all(opposite(mt.sample_pairs(300, split="held_out", seed=1)))
    mixed = np.mean(opposite(mt.sample_pairs(2000, split="train", conflict=0.0, seed=1)))
    assert 0.0 < mixed < 0.3


def test_right_answers_stand_first_and_second_equally_often():
    examples = mt.sample_comparisons("decimal", 2000, split="train", seed=3)
    first = np.mean([f": {e.answer.strip()} or" in e.prompt for e in examples])
    assert abs(first - 0.5) < 4 * 0.5 / np.sqrt(2000)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**16))
def test_nothing_held_out_is_ever_trained_on(seed):
    def keys(split):
        pairs = mt.sample_pairs(40, split=split, conflict=0.5, seed=seed)
        sums = mt.sample_additions(40, split=split, seed=seed)
        found = {" ".join(sorted(pair)) for pair in pairs}
        return found | {" ".join(sorted(e.prompt.rstrip("=").split("+"))) for e in sums}

    assert all(mt.is_held_out(key) for key in keys("held_out"))
    assert not any(mt.is_held_out(key) for key in keys("train"))


def test_a_tenth_is_held_out():
    sums = [" ".join(sorted((str(a), str(b)))) for a in range(10, 100) for b in range(a, 100)]
    assert 0.08 < np.mean([mt.is_held_out(key) for key in sums]) < 0.12


def test_sums_are_right():
    for example in mt.sample_additions(200, split="train", seed=0):
        a, b = map(int, example.prompt.rstrip("=").split("+"))
        assert int(example.answer) == a + b


@settings(deadline=None, max_examples=40)
@given(period=st.integers(1, 20), length=st.integers(1, 70), seed=st.integers(0, 1000))
def test_repeated_tokens_repeat_and_are_distinct_inside_a_period(period, length, seed):
    symbols = np.arange(100, 120)
    rows = repeated_tokens(symbols, 3, period=period, length=length, bos=7, seed=seed)
    assert rows.shape == (3, length)
    assert (rows[:, 0] == 7).all()
    body = rows[:, 1:]
    assert (body[:, period:] == body[:, : max(body.shape[1] - period, 0)]).all()
    assert all(len(set(row[:period])) == min(period, length - 1) for row in body)
    assert np.isin(body, symbols).all()


def test_repeated_tokens_differ_between_rows_and_seeds():
    rows = [repeated_tokens(np.arange(64), 2, period=48, length=96, seed=s) for s in (0, 1)]
    assert (rows[0][0] != rows[0][1]).any()
    assert (rows[0] != rows[1]).any()


def test_a_period_longer_than_the_symbols_is_an_error():
    with pytest.raises(InputError, match="a period from 1 to 8; got 9"):
        repeated_tokens(np.arange(8), 1, period=9, length=20)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 120))
def test_interleaved_passages_go_on_where_they_were_left(seed, length):
    passages = [np.arange(0, 100), np.arange(1000, 1100)]
    tokens, labels = mt.interleave_topics(passages, length=length, seed=seed)
    assert len(tokens) == len(labels) == length
    for index, passage in enumerate(passages):
        own = tokens[labels == index]
        np.testing.assert_array_equal(own, passage[: len(own)])


def test_interleaving_too_little_text_is_an_error():
    with pytest.raises(InputError, match="at least 50 tokens together; got 20 tokens"):
        mt.interleave_topics([np.arange(10), np.arange(10)], length=50)
