"""Heads and head sets: names both ways, parity, complements, every split."""

import doctest
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headspec.heads as module
from headspec.errors import InputError
from headspec.heads import (
    Head,
    check_heads,
    complement,
    count_equal_splits,
    equal_splits,
    layer_heads,
    parity_heads,
)

indices = st.integers(min_value=0, max_value=200)


@given(indices, indices)
def test_names_go_both_ways(layer, index):
    head = Head(layer, index)
    assert Head.parse(str(head)) == head
    assert Head.parse(f"{layer}.{index}") == head
    assert Head.parse(f" l{layer}h{index} ") == head


def test_name_by_hand():
    assert str(Head(6, 3)) == "L6H3"
    assert Head.parse("9.10") == Head(9, 10)


@pytest.mark.parametrize("text", ["", "L6", "H3", "L6H", "6", "L-1H2", "L6H3x", "6,3", "L6.3"])
def test_other_names_are_refused_and_shown(text):
    with pytest.raises(InputError, match=r"such as 'L6H3'.*got " + repr(text).replace(".", r"\.")):
        Head.parse(text)


def test_negative_indices_are_refused():
    with pytest.raises(InputError, match=r"got layer 0, head -1"):
        Head(0, -1)


def test_heads_sort_by_layer_then_index_not_by_name():
    heads = [Head(10, 0), Head(2, 11), Head(2, 3)]
    assert sorted(heads) == [Head(2, 3), Head(2, 11), Head(10, 0)]
    assert sorted(map(str, heads)) != [str(head) for head in sorted(heads)]


def test_parity_sets_partition_the_layer():
    even, odd = (parity_heads(6, parity, n_heads=12) for parity in ("even", "odd"))
    assert [head.index for head in even] == [0, 2, 4, 6, 8, 10]
    assert [head.index for head in odd] == [1, 3, 5, 7, 9, 11]
    assert complement(even, n_heads=12) == odd
    assert complement(odd, n_heads=12) == even


def test_even_against_odd_is_one_of_924_splits():
    splits = list(equal_splits(6, n_heads=12))
    assert len(splits) == count_equal_splits(n_heads=12) == 924
    assert len(set(splits)) == 924
    unordered = {frozenset((half, complement(half, n_heads=12))) for half in splits}
    assert len(unordered) == 462
    assert parity_heads(6, "even", n_heads=12) in splits
    assert parity_heads(6, "odd", n_heads=12) in splits


@given(st.integers(1, 9), st.data())
def test_splits_have_the_size_and_the_count(n_heads, data):
    size = data.draw(st.integers(0, n_heads))
    splits = list(equal_splits(0, n_heads=n_heads, size=size))
    assert len(splits) == comb(n_heads, size) == count_equal_splits(n_heads=n_heads, size=size)
    assert all(len(half) == size for half in splits)


@given(st.integers(1, 12), st.data())
def test_complement_twice_is_the_identity(n_heads, data):
    some = data.draw(st.sets(st.integers(0, n_heads - 1), min_size=1, max_size=n_heads - 1 or 1))
    heads = tuple(Head(3, index) for index in sorted(some))
    rest = complement(heads, n_heads=n_heads)
    assert not set(heads) & set(rest)
    assert sorted(heads + rest) == list(layer_heads(3, n_heads=n_heads))
    if rest:
        assert complement(rest, n_heads=n_heads) == heads


def test_complement_stays_in_the_layers_given():
    heads = [Head(0, 0), Head(2, 1)]
    assert complement(heads, n_heads=2) == (Head(0, 1), Head(2, 0))
    assert complement([], n_heads=2) == ()


def test_odd_number_of_heads_needs_a_size():
    with pytest.raises(InputError, match=r"even number of heads.*got 5 heads.*size=2"):
        equal_splits(0, n_heads=5)
    assert count_equal_splits(n_heads=5, size=2) == 10
    with pytest.raises(InputError, match=r"size from 0 to 5; got size=6"):
        count_equal_splits(n_heads=5, size=6)


def test_heads_the_model_lacks_are_named():
    heads = (Head(0, 1), Head(0, 4), Head(7, 0))
    with pytest.raises(InputError, match=r"layers 0 to 5 and head indices 0 to 3; got L0H4, L7H0"):
        check_heads(heads, n_heads=4, n_layers=6)
    with pytest.raises(InputError, match=r"head indices 0 to 3; got L0H4\."):
        check_heads(heads, n_heads=4)
    assert check_heads(heads, n_heads=5) == heads


def test_repeated_heads_are_named():
    with pytest.raises(InputError, match=r"L0H1 more than once"):
        check_heads([Head(0, 1), Head(0, 2), Head(0, 1)], n_heads=4)


def test_no_heads_and_no_parity():
    with pytest.raises(InputError, match=r"at least one head"):
        layer_heads(0, n_heads=0)
    with pytest.raises(Exception, match=r"parity"):
        parity_heads(0, "both", n_heads=4)  # type: ignore[arg-type]


def test_examples_run():
    assert doctest.testmod(module).failed == 0
