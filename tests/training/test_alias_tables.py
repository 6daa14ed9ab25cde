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


def test_draws_have_the_rows_probabilities():
    weights = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.0, 0.3]])
    tables = build_alias_tables(weights)
    rows = np.tile([0, 1], 50_000)
    drawn = tables.draw(rows, np.random.default_rng(0))
    for row in range(2):
        counts = np.bincount(drawn[rows == row], minlength=4) / 50_000
        np.testing.assert_allclose(counts, weights[row], atol=0.01)
    assert not np.isin(drawn[rows == 1], [1, 2]).any()
