"""Alias tables give the probabilities they were made from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headspec.training.alias_tables import build_alias_tables


@settings(max_examples=100, deadline=None)
@given(
    n_columns=st.integers(1, 300),
    spread=st.floats(0.01, 20),
    seed=st.integers(0, 1000),
    zeros=st.floats(0, 0.9),
)
def test_probabilities_come_back_but_for_rounding(n_columns, spread, seed, zeros):
    rng = np.random.default_rng(seed)
    weights = rng.standard_gamma(spread, size=(3, n_columns)) + 1e-300
    weights[rng.random(weights.shape) < zeros] = 0
    weights[:, 0] += 1e-3
    weights /= weights.sum(axis=1, keepdims=True)
    tables = build_alias_tables(weights)
    resolution = 2.0 ** -(32 - tables.alias_bits)
    again = tables.probabilities()
    np.testing.assert_allclose(again.sum(axis=1), 1, atol=1e-12)
    assert np.abs(again - weights).sum(axis=1).max() < 2 * resolution
    assert np.all(again[weights == 0] < resolution)


def test_two_columns_by_hand():
    tables = build_alias_tables(np.array([[0.25, 0.75]]))
    assert tables.alias_bits == 1
    kept, alias = tables.packed >> 1, tables.packed & 1
    assert kept[0, 0] / 2**31 == pytest.approx(0.5)  # half of column 0 goes to column 1
    assert alias.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    "weights",
    [
        [1, 0, 3, 0, 1],  # a column of exactly the mean comes before all that give
        [1, 1, 1, 5, 0, 0, 0, 5, 0],
        *([0.1] * n for n in (1, 3, 49, 107)),  # every column below the mean by rounding
    ],
)
def test_columns_of_exactly_the_mean(weights):
    expected = np.array(weights) / np.sum(weights)
    tables = build_alias_tables(np.array([weights], float))
    np.testing.assert_allclose(tables.probabilities()[0], expected, atol=1e-6)


@settings(max_examples=200, deadline=None)
@given(weights=st.lists(st.integers(0, 12), min_size=1, max_size=120).filter(any))
def test_whole_weights_with_many_ties(weights):
    """Running sums that meet: rounding must not let two columns pay for the same shortfall."""
    expected = np.array(weights) / np.sum(weights)
    tables = build_alias_tables(np.array([weights], float))
    assert np.abs(tables.probabilities()[0] - expected).sum() < 2**-24


def test_draws_have_the_rows_probabilities():
    weights = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.0, 0.3]])
    tables = build_alias_tables(weights)
    rows = np.tile([0, 1], 50_000)
    drawn = tables.draw(rows, np.random.default_rng(0))
    for row in range(2):
        counts = np.bincount(drawn[rows == row], minlength=4) / 50_000
        np.testing.assert_allclose(counts, weights[row], atol=0.01)
    assert not np.isin(drawn[rows == 1], [1, 2]).any()
