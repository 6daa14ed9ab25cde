"""Figures of correlated rates hold the frame's numbers; nulls lie behind, raw values beside."""

import numpy as np
import pandas as pd
import pytest
from plot_checks import check_figure, the
from synthetic_weights import (
    CAPABILITIES,
    MODELS,
    capability_frame,
    pooled_frame,
    rate_frame,
    weight_frame,
)

from headspec import plots
from headspec.errors import InputError
from headspec.plots.palette import DIVERGING, INK, PAPER, category
from headspec.plots.rate_frames import place_names, signed, wrapped
from headspec.series.correlation import correlate_rates

FEW = ("q", "k", "v", "o", "qk", "embed")
ONE = rate_frame(models=("micro",), matrices=FEW)
FOREST = rate_frame(layers=1, matrices=FEW).assign(layer=None)
POOLED = pooled_frame(FOREST)


@pytest.fixture(scope="module")
def every_figure():
    return {
        "layers": plots.plot_rate_heatmap(ONE),
        "models": plots.plot_rate_heatmap(FOREST),
        "forest": plots.plot_size_forest(FOREST, POOLED),
    }


# --- the map ----------------------------------------------------------------------------------


def test_every_cell_holds_its_r_and_hovering_the_rest():
    figure = plots.plot_rate_heatmap(ONE)
    maps = the(figure, "cells")
    titles = [a.text for a in figure.layout.annotations]
    assert titles[:6] == ["Q", "K", "V", "O", "QK circuit", "Embedding"]
    cells, at = maps[0], figure.layout.yaxis.ticktext.index("stable rank")
    rows = ONE[ONE["metric"] == "q.stable_rank"].set_index(["capability", "layer"])
    for c, capability in enumerate(CAPABILITIES):
        for layer in range(4):
            row, column = rows.loc[(capability, layer)], 4 * c + layer
            assert np.array(cells.z)[at, column] == row["value"]
            data = np.array(cells.customdata, float)[at, column]
            names = ("p", "q", "null_q05", "null_q95", "raw_r", "n")
            np.testing.assert_allclose(data, [float(row[name]) for name in names])
            assert cells.text[at][column] == (
                f"Q stable rank, layer {layer}<br>{capability.replace('_', ' ')}"
            )


def test_every_row_of_the_frame_is_in_one_cell_and_in_one_point():
    figure = plots.plot_rate_heatmap(ONE)
    drawn = np.concatenate([np.ravel(cells.z) for cells in the(figure, "cells")])
    np.testing.assert_allclose(np.sort(drawn[np.isfinite(drawn)]), np.sort(ONE["value"]))
    points = the(figure, "raw")
    np.testing.assert_allclose(
        sorted(y for trace in points for y in trace.y), np.sort(ONE["value"])
    )
    raw = {tuple(row) for row in ONE[["raw_r", "value"]].to_numpy()}
    assert {pair for trace in points for pair in zip(trace.x, trace.y, strict=True)} == raw


def test_the_scale_is_diverging_centred_and_ends_at_one():
    axis = plots.plot_rate_heatmap(ONE).layout.coloraxis
    assert (axis.cmin, axis.cmid, axis.cmax) == (-1, 0, 1)
    assert [tuple(stop) for stop in axis.colorscale] == list(DIVERGING)


def test_dots_mark_a_small_q_not_a_small_p():
    figure = plots.plot_rate_heatmap(ONE)
    marked = sum(len(dots.x) for dots in the(figure, "significant"))
    by_p = plots.plot_rate_heatmap(ONE.drop(columns="q"))
    assert marked == (ONE["q"] <= 0.05).sum()
    assert sum(len(dots.x) for dots in the(by_p, "significant")) == (ONE["p"] <= 0.05).sum()
    assert marked < (ONE["p"] <= 0.05).sum()
    assert "not corrected" in by_p.layout.meta["headspec"]["note"]
    assert "q ≤ 0.05" in {trace.name for trace in the(figure, "legend")}


def test_the_planted_link_is_marked_in_its_panel_row_and_columns():
    figure = plots.plot_rate_heatmap(ONE)
    titles = [a.text for a in figure.layout.annotations]
    index = titles.index("QK circuit")
    dots = the(figure, "significant")[index]
    row = figure.layout[f"yaxis{index + 1}"].ticktext.index("stable rank")
    assert {x for x, y in zip(dots.x, dots.y, strict=True) if y == row} >= {8, 9, 10, 11}
    assert list(figure.layout[f"xaxis{index + 1}"].tickvals) == [1.5, 5.5, 9.5]


def test_the_null_lies_behind_the_points_of_raw_values():
    figure = plots.plot_rate_heatmap(ONE)
    (band,) = the(figure, "null band")
    order = list(figure.data)
    assert all(order.index(band) < order.index(points) for points in the(figure, "raw"))
    assert (min(band.y), max(band.y)) == (ONE["null_q05"].min(), ONE["null_q95"].max())


def test_models_stand_side_by_side_where_layers_were_averaged():
    figure = plots.plot_rate_heatmap(FOREST)
    assert np.array(the(figure, "cells")[0].z).shape == (11, 9)
    assert "micro, micro-small, micro-tiny" in figure.layout.meta["headspec"]["note"]


def test_columns_stand_in_order_of_layers_whatever_the_order_of_rows():
    shuffled = ONE.sample(frac=1, random_state=0)
    first, second = (plots.plot_rate_heatmap(rows) for rows in (ONE, shuffled))
    for one, two in zip(the(first, "cells"), the(second, "cells"), strict=True):
        words = [text.split("<br>")[0] for text in two.text[0][: len(one.x) // 3]]
        assert words == [text.split("<br>")[0] for text in one.text[0][: len(one.x) // 3]]


def test_a_constant_curve_leaves_a_grey_cell():
    rows = ONE.copy()
    rows.loc[rows["metric"] == "q.alpha", ["value", "p", "q"]] = np.nan
    figure = plots.plot_rate_heatmap(rows)
    at = figure.layout.yaxis.ticktext.index("power-law α")
    assert np.isnan(np.array(the(figure, "cells")[0].z, float)[at]).all()
    assert "Grey cells: no correlation" in figure.layout.meta["headspec"]["note"]
    whole = ONE[ONE["metric"] == "q.alpha"]
    assert "Grey" not in plots.plot_rate_heatmap(whole).layout.meta["headspec"]["note"]
    behind = [s for s in figure.layout.shapes if s.name == "no correlation"]
    assert len(behind) == len(the(figure, "cells"))
    assert {s.layer for s in behind} == {"below"}


def test_a_panel_is_as_high_as_it_has_statistics():
    few = ~ONE["metric"].isin([f"qk.{name}" for name in ("alpha", "decay_rate", "relative_change")])
    figure = plots.plot_rate_heatmap(ONE[few])
    titles = [a.text for a in figure.layout.annotations]
    high = [
        np.diff(figure.layout[f"yaxis{i + 1 if i else ''}"].domain)[0]
        for i in (titles.index("Q"), titles.index("QK circuit"))
    ]
    assert high[1] / high[0] == pytest.approx(8 / 11, rel=0.02)


def test_lags_are_chosen_and_named():
    both = pd.concat([ONE, ONE.assign(lag=1, value=-ONE["value"])])
    zero, one = (plots.plot_rate_heatmap(both, lag=lag) for lag in (0, 1))
    first, second = (np.array(the(figure, "cells")[0].z) for figure in (zero, one))
    np.testing.assert_allclose(first, -second)
    assert "leads by 1 intervals" in one.layout.meta["headspec"]["note"]


def test_frames_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="no column raw_r"):
        plots.plot_rate_heatmap(ONE.drop(columns="raw_r"))
    with pytest.raises(InputError, match="an empty frame"):
        plots.plot_rate_heatmap(ONE.iloc[:0])
    with pytest.raises(InputError, match="at lag 0 of chess"):
        plots.plot_rate_heatmap(ONE, capabilities="chess")
    with pytest.raises(InputError, match="at lag 3"):
        plots.plot_rate_heatmap(ONE, lag=3)
    with pytest.raises(InputError, match="differ in model and layer"):
        plots.plot_rate_heatmap(rate_frame(models=MODELS[:2], matrices=FEW))
    with pytest.raises(InputError, match=r"several of q\.spectral_norm"):
        plots.plot_rate_heatmap(pd.concat([ONE, ONE]))


def test_frames_of_correlate_rates_are_what_the_figures_take():
    stats = weight_frame(layers=2, matrices=("q", "embed"))
    found = correlate_rates(stats, capability_frame(), n_null=50).to_frame()
    figure = plots.plot_rate_heatmap(found)
    drawn = np.concatenate([np.ravel(cells.z) for cells in the(figure, "cells")])
    np.testing.assert_allclose(np.sort(drawn[np.isfinite(drawn)]), np.sort(found["value"]))


# --- the forest -------------------------------------------------------------------------------


def by_row(figure):
    """Statistic and capability of each row."""
    return [label.split("<br>")[:2] for label in figure.layout.yaxis.ticktext]


def test_rows_are_the_significant_ones_and_the_largest():
    significant = POOLED[POOLED["q"] <= 0.05]
    assert 1 < len(significant) < 40
    figure = plots.plot_size_forest(FOREST, POOLED, most=len(significant) + 3)
    assert len(by_row(figure)) == len(significant) + 3
    (centres,) = the(figure, "centre")
    sizes = np.abs(np.array(centres.x, float))
    assert list(sizes) == sorted(sizes, reverse=True)
    assert set(np.round(significant["value"], 12)) <= set(np.round(centres.x, 12))
    every = plots.plot_size_forest(FOREST, POOLED, most=1)
    assert len(by_row(every)) == len(significant)  # never fewer than those
    note = figure.layout.meta["headspec"]["note"]
    assert f"{len(significant) + 3} of {len(POOLED)} pairs" in note
    assert f"all {len(significant)} with pooled q" in note
    nothing = plots.plot_size_forest(FOREST, POOLED.assign(q=1.0), most=3)
    assert "none has pooled q ≤ 0.05" in nothing.layout.meta["headspec"]["note"]


def test_no_more_than_40_significant_rows():
    many = POOLED.assign(q=0.01)
    many = pd.concat(
        [many.assign(metric=many["metric"] + suffix) for suffix in ("", "_a", "_b", "_c", "_d")]
    )
    assert len(many) > 50
    figure = plots.plot_size_forest(FOREST, many, most=3)
    assert len(by_row(figure)) == 40
    note = figure.layout.meta["headspec"]["note"]
    assert f"40 of {len(many)} pairs" in note
    assert f"of {len(many)} with pooled q ≤ 0.05 those with the largest pooled r" in note
    (centres,) = the(figure, "centre")
    assert min(np.abs(centres.x)) >= np.sort(np.abs(many["value"]))[-40]
    assert len(by_row(plots.plot_size_forest(FOREST, many, most=45))) == 45


def test_diamonds_reach_from_end_to_end_of_the_pooled_interval():
    figure = plots.plot_size_forest(FOREST, POOLED, most=4)
    rows = POOLED.iloc[np.argsort(-np.abs(POOLED["value"]))].reset_index(drop=True)
    hollow, filled = the(figure, "pooled")
    assert (hollow.fillcolor, filled.fillcolor) == (PAPER, INK)
    corners = np.reshape(filled.x, (-1, 6))
    clear = rows[rows["q"] <= 0.05]
    for name, corner in (("low", 0), ("value", 1), ("high", 2)):
        np.testing.assert_allclose(corners[:, corner], clear[name])
    (centres,) = the(figure, "centre")
    np.testing.assert_allclose(
        np.array(centres.customdata, float)[: len(clear)], clear[["low", "high", "p", "q"]]
    )


def test_every_model_has_its_mark_before_its_own_null():
    figure = plots.plot_size_forest(FOREST, POOLED, most=5)
    bands, marks = the(figure, "null band"), the(figure, "model")
    assert [mark.name for mark in marks] == list(MODELS)
    order = list(figure.data)
    assert max(map(order.index, bands)) < min(map(order.index, marks))
    for model, band, mark in zip(MODELS, bands, marks, strict=True):
        rows = FOREST[FOREST["model"] == model].set_index(["metric", "capability"])
        assert len(mark.x) == len(by_row(figure))
        for value, y, data in zip(mark.x, mark.y, mark.customdata, strict=True):
            label = by_row(figure)[round(float(y))]
            mine = rows.loc[rows["value"] == value].iloc[0]
            assert label[1] == mine.name[1].replace("_", " ")
            np.testing.assert_allclose(
                data, mine[["p", "q", "null_q05", "null_q95", "raw_r"]].to_numpy(float)
            )
        ends = np.reshape(band.x, (-1, 3))[:, :2]
        assert {tuple(row) for row in ends} == {
            (-rows["null_q95"].iloc[0], rows["null_q95"].iloc[0])
        }
        q = np.array(mark.customdata, float)[:, 1]
        colour, symbol, _ = category(MODELS.index(model))
        assert list(mark.marker.color) == [colour if each <= 0.05 else PAPER for each in q]
        assert mark.marker.symbol == symbol


def test_layers_of_a_model_share_its_lane():
    rows = rate_frame(layers=3, matrices=FEW)
    figure = plots.plot_size_forest(rows, pooled_frame(rows), most=1)
    first = the(figure, "model")[0]
    (bands, _, _) = the(figure, "null band")
    planted = [i for i, y in enumerate(first.y) if round(float(y)) == 0]
    assert len(planted) == 3
    assert {first.text[i].split("<br>")[1] for i in planted} == {
        f"micro, layer {layer}" for layer in range(3)
    }
    assert len({first.y[i] for i in planted}) == 1
    assert len(bands.x) == 3 * len(by_row(figure))  # one band a row, not three on top


def test_labels_say_q_and_how_many_signs_agree():
    figure = plots.plot_size_forest(FOREST, POOLED, most=1)
    label = figure.layout.yaxis.ticktext[0].split("<br>")
    assert label[:2] == ["QK circuit stable rank", "induction gain"]
    top = POOLED.loc[POOLED["value"].abs().idxmax()]
    assert label[2] == f"{signed(top['value'])}, q < 0.001, 3 of 3"


def test_pooled_frames_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="no column low"):
        plots.plot_size_forest(FOREST, POOLED.drop(columns="low"))
    with pytest.raises(InputError, match="no column q"):
        plots.plot_size_forest(FOREST, POOLED.drop(columns="q"))
    with pytest.raises(InputError, match="at least one row"):
        plots.plot_size_forest(FOREST, POOLED, most=0)
    with pytest.raises(InputError, match="pooled by depth"):
        plots.plot_size_forest(FOREST, pd.concat([POOLED, POOLED]))
    with pytest.raises(InputError, match="pooled effects of the capabilities"):
        plots.plot_size_forest(FOREST, POOLED.assign(capability="chess"))


# --- all of them ------------------------------------------------------------------------------


def test_every_figure_is_of_the_palette_with_words_units_and_a_phone_layout(every_figure):
    for name, figure in every_figure.items():
        check_figure(figure, name)


def test_the_frames_given_stay_as_they_are(every_figure):
    assert every_figure
    assert list(ONE.columns) == list(rate_frame(models=("micro",), matrices=FEW).columns)
    pd.testing.assert_frame_equal(ONE, rate_frame(models=("micro",), matrices=FEW))


def test_places_are_named_by_what_differs():
    assert set(place_names(ONE)) == {"", *(f"layer {i}" for i in range(4))}
    assert set(place_names(ONE[ONE["layer"] == 1])) == {""}
    assert set(place_names(FOREST)) == set(MODELS)


def test_names_wrap_at_words():
    assert wrapped("decimal_log_prob_difference", 12) == ["decimal log", "prob", "difference"]
    assert wrapped("lambada_openai.acc", 40) == ["lambada openai acc"]
    assert [signed(v) for v in (0.25, -0.1, float("nan"))] == ["+0.25", "−0.10", "–"]
