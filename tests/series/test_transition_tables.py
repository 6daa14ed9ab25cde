"""Transitions of many curves: groups, correction, columns."""

import doctest

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control
from series_curves import as_frame, doubling, jump

from headspec.errors import InputError
from headspec.results import TIDY_COLUMNS
from headspec.series import transition_tables
from headspec.series.transition_tables import find_transitions
from headspec.series.transitions import find_transition


def layers(n_layers: int, sudden: int, n: int = 12) -> pd.DataFrame:
    """`sudden` layers jump by 20 sd at the same step, the others are noise."""
    rng = np.random.default_rng(0)
    curves = [
        as_frame(
            doubling(n), jump(n, 6, 20.0 * (layer < sudden)) + rng.standard_normal(n), layer=layer
        )
        for layer in range(n_layers)
    ]
    return pd.concat(curves, ignore_index=True)


def test_rows_are_the_single_results_with_adjusted_p():
    frame = layers(4, 2)
    table = find_transitions(frame, "m")
    alone = [find_transition(frame[frame["layer"] == layer], "m") for layer in range(4)]
    assert table["layer"].tolist() == [0, 1, 2, 3]
    assert table["p"].tolist() == [one.p_value for one in alone]
    np.testing.assert_allclose(table["q"], false_discovery_control(table["p"].to_numpy()))
    assert table["kind"].tolist()[:2] == ["sudden", "sudden"]
    assert table["step"].tolist()[:2] == [32, 32]
    assert tuple(table.columns[:11]) == TIDY_COLUMNS


def test_noise_in_many_groups_is_corrected_for():
    frame = layers(60, 0, n=8)
    table = find_transitions(frame, "m", n_null=500)
    assert (table["p"] <= 0.05).sum() >= 1  # the naive count
    assert (table["kind"] == "sudden").sum() == 0


def test_untestable_groups_are_left_out_of_the_correction():
    frame = layers(2, 1)
    flat = as_frame(doubling(12), np.ones(12), layer=2)
    table = find_transitions(pd.concat([frame, flat]), "m")
    without = find_transitions(frame, "m")
    assert table["q"].tolist()[:2] == without["q"].tolist()
    assert np.isnan(table["q"].tolist()[2])
    assert table["reason"].tolist()[2] == "the curve is constant"


def test_groups_of_several_columns_and_rows_in_any_order():
    frame = pd.concat([layers(2, 1).assign(head=head) for head in (0, 3)])
    table = find_transitions(frame.sample(frac=1, random_state=0), "m", by=("layer", "head"))
    assert table[["layer", "head"]].to_numpy().tolist() == [[0, 0], [0, 3], [1, 0], [1, 3]]
    pd.testing.assert_frame_equal(table, find_transitions(frame, "m", by=("layer", "head")))


def test_own_columns_group_too():
    frame = layers(2, 1).rename(columns={"layer": "task"})
    assert find_transitions(frame, "m", by=["task"])["task"].tolist() == [0, 1]


def test_no_groups_is_one_row_of_the_same_columns():
    frame = layers(1, 1)
    one = find_transitions(frame, "m", by=())
    assert one.columns.tolist() == find_transitions(frame, "m").columns.tolist()
    assert len(one) == 1


def test_missing_group_column_and_metric():
    with pytest.raises(InputError, match=r"by=\.\.\."):
        find_transitions(as_frame(doubling(8), np.arange(8.0)), "m")
    with pytest.raises(InputError, match="Did you mean"):
        find_transitions(layers(1, 1), "mm")


def test_examples():
    assert doctest.testmod(transition_tables).failed == 0
