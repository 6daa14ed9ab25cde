"""Figures of weights over training hold the frame's numbers, and nulls lie behind them."""

import numpy as np
import pandas as pd
import pytest
from plot_checks import check_figure, the
from synthetic_weights import (
    STEPS,
    capability_frame,
    composition_frame,
    emergence_frame,
    spectra_frame,
    weight_frame,
)

from headspec import plots
from headspec.errors import InputError
from headspec.plots.palette import DARK, PAPER, SEQUENTIAL, category, ordered
from headspec.plots.panels import Panels, legend_lines
from headspec.plots.steps import StepAxis
from headspec.plots.weight_wording import STATISTICS, metric_label, split_metric, statistic_words
from headspec.results import tidy
from headspec.series.emergence import emergence_step
from headspec.series.emergence_comparison import compare_emergence

FRAME, CAPABILITIES, EMERGENCE = weight_frame(), capability_frame(), emergence_frame()
ALL = {"capabilities": CAPABILITIES, "emergence": EMERGENCE}


def values_of(metric, layer):
    rows = FRAME[(FRAME["metric"] == metric) & (FRAME["layer"] == layer)]
    return rows.sort_values("step")["value"].to_numpy(float)


@pytest.fixture(scope="module")
def comparison():
    at = np.log1p(np.array(STEPS, float))
    continuous = -6 + 6 / (1 + np.exp(-(at - 5.5)))
    curves = {"addition_accuracy": np.exp(3 * continuous), "addition_log_prob": continuous}
    rows = [
        {"step": step, "metric": metric, "value": value, "se": 0.01}
        for metric, values in curves.items()
        for step, value in zip(STEPS, values, strict=True)
    ]
    frame = tidy(rows, model="micro")
    found = compare_emergence(
        frame,
        thresholded="addition_accuracy",
        continuous="addition_log_prob",
        chance=0.0,
        n_draws=50,
    )
    return frame, found


@pytest.fixture(scope="module")
def every_figure(comparison):
    curves, found = comparison
    return {
        "layers": plots.plot_weight_timeline(FRAME, metric="q.stable_rank", **ALL),
        "matrices": plots.plot_weight_timeline(FRAME, metric="stable_rank", layer=1),
        "spectra": plots.plot_spectra(spectra_frame(), matrix="q"),
        "composition": plots.plot_composition(composition_frame()),
        "comparison": plots.plot_emergence_comparison(curves, found.to_frame()),
    }


# --- statistics and their rates ---------------------------------------------------------------


def test_every_layer_has_its_line_with_the_frames_numbers():
    figure = plots.plot_weight_timeline(FRAME, metric="q.stable_rank")
    lines = the(figure, "value")
    assert [line.name for line in lines] == [f"layer {layer}" for layer in range(4)]
    for layer, line in enumerate(lines):
        np.testing.assert_array_equal(line.y, values_of("q.stable_rank", layer))
        np.testing.assert_array_equal(line.customdata, STEPS)
    assert len({line.line.color for line in lines}) == 4
    assert figure.layout.yaxis.title.text == "dimensions"
    assert figure.layout.yaxis2.title.text == "dimensions per log(1 + step)"
    long = plots.plot_weight_timeline(FRAME, metric="q.relative_change")
    assert long.layout.yaxis2.title.text == "change per log(1 + step)"


def test_rates_are_differences_per_log_step_of_each_interval():
    """By hand: from 9 at step 0 to 8 at step 10, (8 - 9) / log 11. Per step would be -0.1."""
    rows = pd.DataFrame({"step": [100, 0, 10], "value": [5.0, 9.0, 8.0], "metric": "q.alpha"})
    (rate,) = the(plots.plot_weight_timeline(rows, metric="q.alpha"), "rate")
    np.testing.assert_allclose(rate.y, [-1 / np.log(11), -3 / np.log(101 / 11)])
    naive = np.gradient([9.0, 8.0, 5.0], np.log1p([0, 10, 100]))  # mixes both intervals at 10
    assert not np.isclose(naive[1], rate.y).any()
    np.testing.assert_array_equal(rate.customdata, [[0, 10], [10, 100]])
    axis = StepAxis([0, 10, 100])
    assert axis.zero < rate.x[0] < 10 < rate.x[1] < 100


def test_a_gap_in_the_values_gives_one_wide_interval_not_a_rate_of_nothing():
    rows = pd.DataFrame(
        {"step": [0, 10, 100, 1000], "value": [1.0, np.nan, 3.0, 3.0], "metric": "q.alpha"}
    )
    (rate,) = the(plots.plot_weight_timeline(rows, metric="q.alpha"), "rate")
    np.testing.assert_allclose(rate.y, [2 / np.log(101), 0])
    np.testing.assert_array_equal(rate.customdata, [[0, 100], [100, 1000]])


def test_a_statistic_has_one_line_a_matrix_in_the_order_of_the_forward_pass():
    figure = plots.plot_weight_timeline(FRAME, metric="stable_rank", layer=1)
    lines = the(figure, "value")
    assert [line.name for line in lines][:4] == ["Q", "K", "V", "O"]
    for line, matrix in zip(lines, ("q", "k", "v", "o"), strict=False):
        np.testing.assert_array_equal(line.y, values_of(f"{matrix}.stable_rank", 1))
    looks = {(line.line.color, line.marker.symbol) for line in lines}
    assert len(looks) == len(lines) == 8


def test_a_statistic_of_every_matrix_leaves_the_rows_of_heads_apart():
    """As `WeightMeasure` gives them: circuits are of heads, matrices of the whole layer."""
    circuit = FRAME[FRAME["metric"] == "q.stable_rank"].assign(metric="circuit.stable_rank")
    frame = pd.concat([FRAME, *(circuit.assign(head=head) for head in range(2))])
    lines = the(plots.plot_weight_timeline(frame, metric="stable_rank", layer=1), "value")
    assert len(lines) == 8
    one = plots.plot_weight_timeline(frame, metric="stable_rank", layer=1, head=0)
    assert len(the(one, "value")) == 1


def test_lines_that_differ_in_two_things_are_refused():
    with pytest.raises(InputError, match="differ in layer and metric"):
        plots.plot_weight_timeline(FRAME, metric="stable_rank")
    both = pd.concat([FRAME, weight_frame(model="micro-tiny")])
    with pytest.raises(InputError, match="differ in model and layer"):
        plots.plot_weight_timeline(both, metric="q.stable_rank")
    lines = the(plots.plot_weight_timeline(both, metric="q.stable_rank", layer=0), "value")
    assert [line.name for line in lines] == ["micro", "micro-tiny"]


def test_unknown_metrics_and_repeated_rows_are_refused():
    with pytest.raises(InputError, match=r"metric or statistic 'q\.rank'"):
        plots.plot_weight_timeline(FRAME, metric="q.rank")
    twice = pd.concat([FRAME, FRAME])
    with pytest.raises(InputError, match="several for step 0"):
        plots.plot_weight_timeline(twice, metric="q.stable_rank")


def test_the_null_of_a_statistic_lies_behind_its_line():
    rows = FRAME.assign(null_mean=FRAME["value"] - 1, null_sd=0.25)
    figure = plots.plot_weight_timeline(rows, metric="q.stable_rank", layer=2)
    (band,), (line,) = the(figure, "null band"), the(figure, "value")
    assert list(figure.data).index(band) < list(figure.data).index(line)
    low, high = band.y[: len(STEPS)], band.y[len(STEPS) :][::-1]
    np.testing.assert_allclose(low, values_of("q.stable_rank", 2) - 1.5)
    np.testing.assert_allclose(high, values_of("q.stable_rank", 2) - 0.5)
    assert not the(plots.plot_weight_timeline(FRAME, metric="q.stable_rank"), "null band")


def test_capabilities_lie_below_with_standard_errors_one_panel_a_unit():
    figure = plots.plot_weight_timeline(FRAME, metric="q.stable_rank", capabilities=CAPABILITIES)
    curves = [t for t in figure.data if t.error_y.array is not None]
    for curve, (name, rows) in zip(curves, CAPABILITIES.groupby("metric", sort=False), strict=True):
        assert curve.name == name.replace("_", " ")
        np.testing.assert_array_equal(curve.y, rows["value"])
        np.testing.assert_array_equal(curve.error_y.array, rows["se"])
    assert [curve.yaxis for curve in curves] == ["y3", "y3", "y4"]
    titles = [figure.layout[f"yaxis{i}"].title.text for i in (3, 4)]
    assert titles == ["accuracy (share right)", "nats per token"]
    lines = the(figure, "value")[:4]
    assert not {(c.line.color, c.marker.symbol) for c in curves} & {
        (line.line.color, line.marker.symbol) for line in lines
    }


def test_windows_of_emergence_are_shaded_behind_every_panel_and_named_above():
    figure = plots.plot_weight_timeline(FRAME, metric="q.stable_rank", **ALL)
    shades = [s for s in figure.layout.shapes if s.name == "emergence"]
    assert {(s.x0, s.x1) for s in shades} == {(128, 256), (1024, 1280), (1280, 1536)}
    assert {s.layer for s in shades} == {"below"}
    assert {s.xref for s in shades} == {"x2", "x3", "x4", "x5"}
    bars = the(figure, "emergence")
    assert [list(bar.x) for bar in bars] == [[128, 256], [1024, 1280], [1280, 1536], []]
    (labels,) = the(figure, "emergence label")
    assert labels.text[0] == "decimal accuracy: 128 to 256"
    assert labels.text[-1] == "copying accuracy: not by the last step"
    colours = {t.name: t.line.color for t in figure.data if t.error_y.array is not None}
    assert all(colours.get(bar.name, bar.line.color) == bar.line.color for bar in bars)


def test_emergence_at_the_first_step_or_not_asked_for_shades_nothing():
    rows = EMERGENCE.iloc[:2].assign(status=["at_first_step", "not asked"], step_before=None)
    figure = plots.plot_weight_timeline(FRAME, metric="q.alpha", emergence=rows)
    assert not [s for s in figure.layout.shapes if s.name == "emergence"]
    (labels,) = the(figure, "emergence label")
    assert list(labels.text) == ["addition accuracy: from step 1280 on"]


def test_the_largest_rise_of_a_continuous_measure_is_named_as_such():
    rows = EMERGENCE.iloc[:2].assign(status=["emerged", "rises_most"])
    figure = plots.plot_weight_timeline(FRAME, metric="q.alpha", emergence=rows)
    (labels,) = the(figure, "emergence label")
    assert [", rises most" in text for text in labels.text].count(True) == 1
    assert (
        "of a continuous measure, the interval in which it rises most"
        in figure.layout.meta["headspec"]["note"]
    )
    plain = plots.plot_weight_timeline(FRAME, metric="q.alpha", emergence=EMERGENCE.iloc[:2])
    assert "continuous" not in plain.layout.meta["headspec"]["note"]


def test_frames_of_emergence_step_are_what_the_figure_takes():
    found = [
        emergence_step(CAPABILITIES, name, chance=chance, se="se").to_frame()
        for name, chance in (("decimal_accuracy", 0.5), ("addition_accuracy", 0.01))
    ]
    figure = plots.plot_weight_timeline(FRAME, metric="q.alpha", emergence=pd.concat(found))
    bars = the(figure, "emergence")
    ends = [[int(one["step_before"].iloc[0]), int(one["step"].iloc[0])] for one in found]
    assert [list(bar.x) for bar in bars] == sorted(ends, key=lambda window: window[1])
    with pytest.raises(InputError, match="one row of each capability"):
        plots.plot_weight_timeline(FRAME, metric="q.alpha", emergence=pd.concat(found * 2))
    with pytest.raises(InputError, match="no column status"):
        plots.plot_weight_timeline(
            FRAME, metric="q.alpha", emergence=CAPABILITIES.assign(step_before=1)
        )


# --- spectra ----------------------------------------------------------------------------------


def test_spectra_hold_the_frames_numbers_step_by_step():
    frame = spectra_frame()
    figure = plots.plot_spectra(frame, matrix="q", steps=[0, 512, 6144])
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    lines = [t for t in the(figure, "value") if t.xaxis == "x2"]
    for line, step in zip(lines, (512, 6144), strict=True):
        rows = frame[
            (frame["metric"] == "q.singular_value")
            & (frame["layer"] == 1)
            & (frame["step"] == step)
        ]
        np.testing.assert_array_equal(line.y, rows["value"])
        np.testing.assert_array_equal(line.x, rows["rank"])
    assert len({line.line.color for line in lines}) == 2


def test_the_initialisation_lies_behind_the_spectra():
    figure = plots.plot_spectra(spectra_frame(), layer=0)
    for axis in ("x", "x2", "x3", "x4"):
        traces = [t for t in figure.data if t.xaxis == axis]
        assert traces[0].meta == "null"
        assert {t.meta for t in traces[1:]} == {"value"}
    start = spectra_frame().query("step == 0 and layer == 0 and matrix == 'q'")
    np.testing.assert_array_equal(the(figure, "null")[0].y, start["value"])
    assert the(figure, "null")[0].name == "step 0, the initialisation"


def test_a_null_of_the_spectrum_is_that_of_the_last_step_shown():
    frame = spectra_frame(layers=1, matrices=("q",))
    frame = frame.assign(null_mean=frame["step"].astype(float) + 1, null_sd=0.1)
    (band,) = the(plots.plot_spectra(frame, steps=[0, 64]), "null band")
    assert set(np.round(band.y, 6)) == {64.8, 65.2}


def test_spectra_of_both_layers_and_matrices_or_of_none_are_refused():
    with pytest.raises(InputError, match="differ in metric and layer"):
        plots.plot_spectra(spectra_frame())
    with pytest.raises(InputError, match="none in the frame"):
        plots.plot_spectra(spectra_frame(), matrix="mlp_in")
    with pytest.raises(InputError, match="no column rank"):
        plots.plot_spectra(FRAME)


def test_spectra_without_a_value_above_zero_are_refused():
    frame = spectra_frame(layers=1, matrices=("q",))
    for value in (0.0, np.nan):
        with pytest.raises(InputError, match="above 0"):
            plots.plot_spectra(frame.assign(value=value))


def test_values_that_are_rounding_do_not_stretch_the_axis():
    frame = spectra_frame(layers=1, matrices=("q",))
    rounding = frame["rank"] == frame["rank"].max()
    frame.loc[rounding, "value"] = 1e-17
    low, high = plots.plot_spectra(frame).layout.yaxis.range
    assert high - low < 7


# --- composition ------------------------------------------------------------------------------


def test_composition_holds_every_pair_less_its_null():
    frame = composition_frame()
    figure = plots.plot_composition(frame)
    maps = the(figure, "cells")
    assert len(maps) == 2
    q = frame[frame["metric"] == "q_composition"]
    cells = maps[0]
    z, data = np.array(cells.z, float), np.array(cells.customdata, float)
    assert np.isfinite(z).sum() == len(q)
    for row in q.to_dict("records"):
        at = 3 * row["layer"] + row["head"], 3 * (row["layer_2"] - 1) + row["head_2"]
        name = f"L{row['layer']}H{row['head']} → L{row['layer_2']}H{row['head_2']}"
        assert cells.text[at[0]][at[1]] == name
        assert z[at] == pytest.approx(row["value"] - row["null_mean"])
        np.testing.assert_allclose(
            data[at], [row[k] for k in ("value", "null_mean", "null_sd", "p", "q")]
        )


def test_dots_of_composition_are_judged_by_q_not_p():
    frame = composition_frame()
    (dots, _) = the(plots.plot_composition(frame), "significant")
    first = frame[frame["metric"] == "q_composition"]
    assert len(dots.x) == (first["q"] <= 0.05).sum() < (first["p"] <= 0.05).sum()
    (dots, _) = the(plots.plot_composition(frame.drop(columns="q")), "significant")
    assert len(dots.x) == (first["p"] <= 0.05).sum()


def test_composition_of_two_steps_in_one_frame_is_refused():
    frame = composition_frame()
    with pytest.raises(InputError, match="one row of each pair"):
        plots.plot_composition(pd.concat([frame, frame.assign(step=0)]))
    with pytest.raises(InputError, match="kinds out of"):
        plots.plot_composition(frame, kinds=["v_composition"])
    with pytest.raises(InputError, match="no column layer_2, head_2"):
        plots.plot_composition(frame.drop(columns=["layer_2", "head_2"]))


# --- thresholded beside continuous ------------------------------------------------------------


def test_the_comparison_shades_each_metrics_own_window(comparison):
    curves, found = comparison
    figure = plots.plot_emergence_comparison(curves, found.to_frame())
    for curve, name in zip(
        the(figure, "value"), ("addition_accuracy", "addition_log_prob"), strict=True
    ):
        np.testing.assert_array_equal(curve.y, curves.loc[curves["metric"] == name, "value"])
    shades = {s.xref: (s.x0, s.x1) for s in figure.layout.shapes if s.name == "emergence"}
    pair = {"x": found.thresholded, "x2": found.continuous}
    axis = StepAxis(STEPS)
    for key, one in pair.items():
        assert shades[key] == tuple(axis.place([one.step_before, one.step]))
    lines = {(s.xref, s.x0) for s in figure.layout.shapes if s.name == "before"}
    assert lines == {("x", found.thresholded.step_before), ("x2", found.thresholded.step_before)}
    words = [a.text for a in figure.layout.annotations]
    assert f"{found.done_before:.0%} done" in words
    assert found.verdict == "metric"
    assert "may be at least partly the metric's" in figure.layout.meta["headspec"]["note"]


def test_chance_is_drawn_in_the_scale_of_the_curve(comparison):
    """Compared as log perplexity, shown as perplexity: ln 3.5e6 = 15 would be no chance."""
    curves, found = comparison
    levels = [
        trace.y
        for trace in the(plots.plot_emergence_comparison(curves, found.to_frame()), "chance")
    ]
    assert levels == [(0.0, 0.0), (found.continuous.chance,) * 2]
    log = curves["metric"] == "addition_log_prob"
    ppl = curves.assign(
        value=np.where(log, np.exp(-curves["value"]), curves["value"]),
        metric=np.where(log, "addition.ppl", curves["metric"]),
    )
    found = compare_emergence(
        ppl.assign(se=0.01),
        thresholded="addition_accuracy",
        continuous="addition.ppl",
        chance=0.0,
        transform="log",
        n_draws=50,
    )
    figure = plots.plot_emergence_comparison(ppl, found.to_frame())
    (_, drawn) = the(figure, "chance")
    first = ppl.loc[(ppl["metric"] == "addition.ppl") & (ppl["step"] == 0), "value"].iloc[0]
    np.testing.assert_allclose(drawn.y, first)
    assert figure.layout.yaxis2.type == "log"
    assert figure.layout.yaxis2.title.text == "perplexity"
    elsewhere = found.to_frame().assign(value=123.0)
    assert not the(plots.plot_emergence_comparison(ppl, elsewhere), "chance")


def test_a_frame_without_a_comparison_is_refused(comparison):
    curves, found = comparison
    with pytest.raises(InputError, match="no comparison"):
        plots.plot_emergence_comparison(curves, found.to_frame().iloc[:2])
    only = curves[curves["metric"] == "addition_accuracy"]
    with pytest.raises(InputError, match="metric 'addition_log_prob'"):
        plots.plot_emergence_comparison(only, found.to_frame())


# --- all of them ------------------------------------------------------------------------------


def test_every_figure_is_of_the_palette_with_words_units_and_a_phone_layout(every_figure):
    for name, figure in every_figure.items():
        check_figure(figure, name)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_colours_in_order_darken_evenly_on_paper_and_brighten_on_a_dark_page():
    light = [luminance(colour) for colour in SEQUENTIAL]
    dark = [luminance(DARK[colour]) for colour in SEQUENTIAL]
    assert light == sorted(light, reverse=True)
    assert dark == sorted(dark)
    assert (luminance(PAPER) + 0.05) / (light[0] + 0.05) > 2.2
    assert (dark[0] + 0.05) / (luminance(DARK[PAPER]) + 0.05) > 2.2
    assert not set(SEQUENTIAL) & {category(i)[0] for i in range(7)}


def test_up_to_twelve_things_in_order_have_colours_of_their_own():
    for count in range(1, 13):
        colours = [ordered(i, count) for i in range(count)]
        assert len(set(colours)) == count
        assert colours[-1] == SEQUENTIAL[-1]
    places = [SEQUENTIAL.index(ordered(i, 40)) for i in range(40)]
    assert places == sorted(places)


def test_panels_of_different_heights_keep_to_the_top_of_their_row():
    panels = Panels(titles=["a", "b", "c"], columns=2, height=100, shares=[1.0, 0.5, 0.3])
    layout = panels.layout()
    inner = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
    assert inner == 100 + panels.gap + 30
    tops = [layout[key]["domain"][1] * inner for key in ("yaxis", "yaxis2", "yaxis3")]
    sizes = [np.diff(layout[key]["domain"])[0] * inner for key in ("yaxis", "yaxis2", "yaxis3")]
    assert tops == pytest.approx([inner, inner, 30])
    assert sizes == pytest.approx([100, 50, 30])


def test_legends_get_the_lines_they_need():
    assert legend_lines(["a"] * 5, width=900) == 1
    assert legend_lines(["a capability with a long name"] * 5, width=290) == 5
    assert legend_lines([], width=290) == 1


def test_names_of_statistics_have_labels_and_units():
    assert split_metric("q.stable_rank") == ("q", "stable_rank")
    assert split_metric("silhouette") == ("", "silhouette")
    assert metric_label("qk.spectral_norm") == "QK circuit spectral norm"
    assert statistic_words("top_10_variance") == ("variance in top 10", "share of Σσ²")
    assert statistic_words("something_new") == ("something new", "value")
    assert all(label and unit for label, unit in STATISTICS.values())
