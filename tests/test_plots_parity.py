"""Figures of even against odd heads hold the frame's numbers, with all splits behind them."""

import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_parity import STEPS, parity_frame, planted

from headspec import plots
from headspec.errors import InputError
from headspec.plots.palette import DARK, PAPER, TEMPLATE, VALUE
from headspec.plots.parity_null import BINS, histogram

LATE = [0.0] * 8 + [2.5] * 4


@pytest.fixture(scope="module")
def frame():
    return parity_frame(planted(LATE))


@pytest.fixture(scope="module")
def every_figure(frame):
    before = frame.copy(deep=True)
    figures = {
        "timeline": plots.plot_parity_timeline(frame, layer=2),
        "rates": plots.plot_success_rates(frame, layer=2),
        "null": plots.plot_parity_null(frame, layer=2),
        "graded": plots.plot_parity_null(frame, layer=2, metric="graded_strength"),
    }
    pd.testing.assert_frame_equal(frame, before)  # the frame is left alone
    return figures


def rows(frame, metric):
    return frame[frame["metric"] == metric].sort_values(by="step")


def traces(figure, role):
    return [trace for trace in figure.data if trace.meta == role]


# --- the timeline ---------------------------------------------------------------------------


def test_timeline_holds_both_strengths_and_what_the_other_splits_give(every_figure, frame):
    figure = every_figure["timeline"]
    for i, name in enumerate(("strength", "graded_strength")):
        expected = rows(frame, name)
        value = traces(figure, "value")[i]
        assert list(value.y) == expected["value"].tolist()
        assert list(value.customdata) == list(STEPS)
        assert list(value.error_y.array + value.y) == pytest.approx(expected["ci_high"].tolist())
        outer, inner = traces(figure, "null range")[i], traces(figure, "null band")[i]
        n = len(STEPS)
        assert list(outer.y[:n]) == (-expected["strongest"]).tolist()
        assert list(inner.y[n:]) == expected["null_q95"].tolist()[::-1]
        assert list(inner.y[:n]) == expected["null_q05"].tolist()
        assert (np.array(outer.y[n:]) >= np.array(inner.y[n:])).all()


def test_all_splits_lie_behind_even_minus_odd(every_figure):
    order = ["null range", "null band", "null mean", "value", "legend"]
    for axis in ("x", "x2"):
        figure = every_figure["timeline"]
        here = [trace.meta for trace in figure.data if trace.xaxis == axis]
        assert here == sorted(here, key=order.index)


def test_filled_points_are_those_with_small_q(every_figure, frame):
    q = rows(frame, "strength")["q"].to_numpy()
    colours = traces(every_figure["timeline"], "value")[0].marker.color
    assert list(colours) == [VALUE if each <= 0.05 else PAPER for each in q]
    assert PAPER in colours
    assert VALUE in colours
    without = plots.plot_parity_timeline(frame.drop(columns="q"), layer=2)
    assert "not corrected" in without.layout.meta["headspec"]["note"]


def test_hover_says_how_many_splits_differ_as_much(every_figure):
    last = traces(every_figure["timeline"], "value")[1].text[-1]
    assert re.fullmatch(r"1/462 as large<br>q = 0\.\d+", last)


def test_a_transition_is_shaded(frame):
    from types import SimpleNamespace

    change = SimpleNamespace(step_before=350, step_after=450, kind="sudden", p_value=0.01)
    figure = plots.plot_parity_timeline(frame, layer=2, transition=change)
    assert len([shape for shape in figure.layout.shapes if shape.name == "transition"]) == 2


# --- the rates ------------------------------------------------------------------------------


def test_rates_hold_every_condition_with_the_controls(every_figure, frame):
    figure = every_figure["rates"]
    drawn = {(trace.name, trace.xaxis): list(trace.y) for trace in figure.data if trace.legendgroup}
    for words, name in (
        ("even heads", "even"),
        ("odd heads", "odd"),
        ("all heads", "full"),
        ("no heads", "base"),
        ("clean run", "clean"),
    ):
        assert drawn[words, "x"] == rows(frame, f"{name}_success")["value"].tolist()
        assert drawn[words, "x2"] == rows(frame, f"graded_{name}")["value"].tolist()
    assert len(drawn) == 10


def test_even_and_odd_lie_within_the_range_of_any_half(every_figure):
    figure = every_figure["rates"]
    n = len(STEPS)
    for area, even, odd in zip(
        traces(figure, "half range"),
        [trace for trace in figure.data if trace.name == "even heads"],
        [trace for trace in figure.data if trace.name == "odd heads"],
        strict=True,
    ):
        low, high = np.array(area.y[:n]), np.array(area.y[n:])[::-1]
        for each in (even, odd):
            assert (low - 1e-9 <= np.array(each.y)).all()
            assert (np.array(each.y) <= high + 1e-9).all()


# --- all splits at a step -------------------------------------------------------------------


def test_null_holds_every_split_twice_and_marks_both_signs(every_figure, frame):
    figure = every_figure["graded"]
    bars = traces(figure, "null")
    assert len(bars) == 6
    assert {sum(bar.y) for bar in bars} == {924}
    for bar in bars:
        assert list(bar.y) == list(bar.y)[::-1]
    last = rows(frame, "graded_strength")["value"].iloc[-1]
    assert set(traces(figure, "value")[-1].x) == {last}
    assert set(traces(figure, "mirror")[-1].x) == {-last}
    assert "Step 1k: 1/462 as large, q = 0" in figure.layout.annotations[-1].text


def test_chosen_steps_are_drawn(frame):
    figure = plots.plot_parity_null(frame, layer=2, steps=[0, 1000])
    assert [note.text.split(":")[0] for note in figure.layout.annotations] == ["Step 0", "Step 1k"]


@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=60),
    st.sampled_from([None, 1 / 40, 1 / 7]),
)
def test_histograms_lose_nothing_and_are_symmetric(counts, grid):
    values = np.array(counts) * (grid or 0.013)
    both = np.concatenate([values, -values])
    found, edges = histogram(both, grid=grid)
    assert found.sum() == len(both)
    assert (found == found[::-1]).all()
    assert len(found) <= 2 * BINS
    assert np.allclose(edges, -edges[::-1])
    if grid is not None:  # every bin holds equally many possible values
        per_bin = np.diff(edges) / grid
        assert np.allclose(per_bin, round(per_bin[0]))
        assert round(per_bin[0]) % 2 == 1


def test_a_step_at_which_nothing_is_restored_can_be_drawn():
    silent = parity_frame({0: np.zeros(12), 1: np.zeros(12)})
    for draw in (plots.plot_parity_timeline, plots.plot_success_rates, plots.plot_parity_null):
        assert draw(silent, layer=2).data


# --- what holds for every figure ------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda f: plots.plot_parity_timeline(f, layer=7), r"layers \[2\]"),
        (lambda f: plots.plot_success_rates(f[f["metric"] != "full_success"], layer=2), "full_suc"),
        (lambda f: plots.plot_parity_null(f, layer=2, steps=[7]), "steps out of"),
        (lambda f: plots.plot_parity_timeline(pd.concat([f, f]), layer=2), "one row"),
    ],
)
def test_unusable_frames_are_refused_in_words(frame, draw, words):
    with pytest.raises(InputError, match=words):
        draw(frame)


def colours_in(value):
    if isinstance(value, str):
        return {value} if re.fullmatch(r"#[0-9a-fA-F]{6}|rgba?\(.*\)", value) else set()
    if isinstance(value, dict):
        return set().union(*map(colours_in, value.values()), set())
    if isinstance(value, list | tuple):
        return set().union(*map(colours_in, value), set())
    return set()


def test_every_figure_has_dark_colours_words_units_and_a_phone_layout(every_figure):
    for name, figure in every_figure.items():
        used = colours_in(figure.to_plotly_json()) - {"rgba(0,0,0,0)"}
        assert used <= set(DARK), name
        assert figure.layout.template.layout.font == TEMPLATE.layout.font
        meta = figure.layout.meta["headspec"]
        assert meta["alt"].endswith(".")
        assert meta["note"].endswith(".")
        assert "training step" in figure.layout.xaxis.title.text or name in ("null", "graded")
        assert figure.layout.yaxis.title.text
        narrow = go.Figure(figure).update_layout(meta["narrow"])
        assert narrow.layout.height > figure.layout.height
