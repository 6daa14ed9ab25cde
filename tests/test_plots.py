"""Figures hold the frame's numbers, nulls lie behind them, and nothing global changes."""

import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_sweep import N_HEADS, STEPS, TRANSITION, capability_frame, sweep_frame

from headspec import plots
from headspec.errors import InputError
from headspec.plots.heads import steady_labels
from headspec.plots.palette import (
    DARK,
    INK,
    MUTED,
    NULL_BAND,
    OKABE_ITO,
    PAPER,
    TEMPLATE,
    TEXT_ON,
    VALUE,
    category,
)
from headspec.plots.panels import Panels
from headspec.plots.steps import StepAxis, choose_steps
from headspec.results import tidy


@pytest.fixture(scope="module")
def frame():
    return sweep_frame()


def golden_frame(**columns):
    """Three steps of one metric, every number different."""
    rows = {
        "step": [100, 0, 10],
        "layer": 1,
        "metric": "silhouette",
        "value": [0.6, 0.1, 0.2],
        "null_mean": [0.13, 0.11, 0.12],
        "null_sd": [0.03, 0.01, 0.02],
        "null_low": [0.07, 0.09, 0.08],
        "null_high": [0.19, 0.15, 0.17],
        "p": [0.001, 0.5, 0.04],
    }
    return tidy(pd.DataFrame({**rows, **columns}), model="m")


@pytest.fixture(scope="module")
def every_figure(frame):
    before = frame.copy(deep=True)
    figures = {
        "timeline": plots.plot_metric_timeline(frame, layer=3, transition=TRANSITION),
        "map": plots.plot_emergence_map(frame),
        "pca": plots.plot_head_projection(frame, layer=3),
        "tsne": plots.plot_head_projection(frame, layer=3, method="tsne"),
        "similarity": plots.plot_similarity_heatmaps(frame, layer=3),
        "capabilities": plots.plot_capability_curves(capability_frame(), transition=TRANSITION),
    }
    pd.testing.assert_frame_equal(frame, before)  # the frame is left alone
    return figures


def roles(figure):
    return [trace.meta for trace in figure.data]


# --- the timeline ---------------------------------------------------------------------------


def test_timeline_holds_the_numbers_of_the_frame_in_order_of_steps():
    figure = plots.plot_metric_timeline(golden_frame(), layer=1)
    band, mean, value = figure.data[:3]
    assert roles(figure)[:3] == ["null band", "null mean", "value"]
    assert list(value.y) == [0.1, 0.2, 0.6]
    assert list(value.customdata) == [0, 10, 100]
    assert list(value.x) == [pytest.approx(10 / 3), 10, 100]
    assert list(mean.y) == [0.11, 0.12, 0.13]
    assert list(band.y) == [0.09, 0.08, 0.07, 0.19, 0.17, 0.15]
    assert list(band.x) == [*value.x, *reversed(value.x)]


def test_nulls_are_drawn_before_the_values_in_every_panel(frame):
    figure = plots.plot_metric_timeline(frame, layer=2)
    for panel in {trace.xaxis for trace in figure.data if trace.xaxis}:
        here = [trace.meta for trace in figure.data if trace.xaxis == panel and trace.meta]
        kept = [role for role in here if role != "legend"]
        assert kept == sorted(kept, key=["null band", "null mean", "value"].index)


def test_filled_points_are_those_with_small_p():
    value = plots.plot_metric_timeline(golden_frame(), layer=1).data[2]
    assert list(value.marker.color) == [PAPER, VALUE, VALUE]


def test_q_decides_where_the_frame_has_it():
    """Judged by p, the middle point would be called significant."""
    with_q = golden_frame(q=[0.003, 0.5, 0.08])
    value = plots.plot_metric_timeline(with_q, layer=1).data[2]
    assert list(value.marker.color) == [PAPER, PAPER, VALUE]
    assert value.text[1] == "<br>q = 0.08"


def test_alpha_moves_the_line():
    value = plots.plot_metric_timeline(golden_frame(), layer=1, alpha=0.01).data[2]
    assert list(value.marker.color) == [PAPER, PAPER, VALUE]


def test_untested_metrics_get_small_dots_and_no_band():
    bare = golden_frame().drop(columns=["null_low", "null_high"])
    bare[["null_mean", "null_sd", "p"]] = np.nan
    figure = plots.plot_metric_timeline(bare, layer=1)
    assert roles(figure)[0] == "value"
    assert set(figure.data[0].marker.size) == {4}
    names = [trace.name for trace in figure.data if trace.meta == "legend"]
    assert names == ["not tested"]


def test_band_falls_back_to_two_standard_deviations():
    bare = golden_frame().drop(columns=["null_low", "null_high"])
    band = plots.plot_metric_timeline(bare, layer=1).data[0]
    assert band.y == pytest.approx([0.09, 0.08, 0.07, 0.19, 0.16, 0.13])
    assert "2 sd" in band.name


def test_transition_is_shaded_behind_every_panel(frame):
    figure = plots.plot_metric_timeline(frame, layer=3, transition=TRANSITION)
    boxes = [shape for shape in figure.layout.shapes if shape.name == "transition"]
    assert len(boxes) == len(figure.layout.annotations)
    assert {(box.x0, box.x1, box.layer) for box in boxes} == {(200, 300, "below")}
    entry = figure.data[-1].name
    assert entry == "largest change, 200 to 300: sudden (p = 0.004)"


def test_the_p_value_shown_goes_with_the_kind():
    """A gradual change has p = 1 for a jump: shown as such, it would read as no change."""
    step = {"step_before": 10, "step_after": 100}
    said = {}
    for kind in ("sudden", "gradual", "none"):
        row = pd.DataFrame([{**step, "kind": kind, "p": 0.9, "p_change": 0.0005}])
        figure = plots.plot_metric_timeline(
            golden_frame(), layer=1, transition=next(row.itertuples())
        )
        said[kind] = figure.data[-1].name.partition(": ")[2]
    assert said == {
        "sudden": "sudden (p = 0.9)",
        "gradual": "gradual (p = 0.0005)",
        "none": "not clear",
    }


def test_a_flat_curve_has_no_window_to_shade():
    window = SimpleNamespace(step_before=np.nan, step_after=np.nan, kind="none")
    figure = plots.plot_metric_timeline(golden_frame(), layer=1, transition=window)
    assert not figure.layout.shapes


def test_quantiles_of_the_null_make_a_band_of_their_name():
    names = {"null_low": "null_q05", "null_high": "null_q95"}
    figure = plots.plot_metric_timeline(golden_frame().rename(columns=names), layer=1)
    assert list(figure.data[0].y) == [0.09, 0.08, 0.07, 0.19, 0.17, 0.15]
    assert "5 to 95 % of the null" in {trace.name for trace in figure.data}


def test_the_note_says_by_which_p_values_points_are_filled(frame):
    both = pd.concat([golden_frame(q=[0.01, 0.5, 0.08]), golden_frame(metric="stability")])
    note = plots.plot_metric_timeline(both, layer=1).layout.meta["headspec"]["note"]
    assert "by q, corrected for all tests, in Silhouette; by p, not corrected" in note
    alone = plots.plot_metric_timeline(golden_frame(), layer=1).layout.meta["headspec"]["note"]
    assert "p, not corrected for the number of tests" in alone


def test_projection_titles_tell_the_share_of_variance(frame):
    told = frame.assign(explained=np.nan)
    for axis, share in ((1, 0.5), (2, 0.25)):
        told.loc[told["metric"] == f"pca_{axis}", "explained"] = share
    figure = plots.plot_head_projection(told, layer=0, steps=[0])
    assert figure.layout.annotations[0].text == "step 0: 75% of the variance"
    plain = plots.plot_head_projection(told, layer=0, steps=[0], method="tsne")
    assert plain.layout.annotations[0].text == "step 0"


def test_a_transition_from_step_zero_has_its_place():
    window = SimpleNamespace(step_before=0, step_after=10, kind="none", p_value=np.nan, size=0.1)
    figure = plots.plot_metric_timeline(golden_frame(), layer=1, transition=window)
    assert figure.layout.shapes[0].x0 == pytest.approx(10 / 3)
    assert figure.data[-1].name == "largest change, 0 to 10: not clear"


def test_metrics_are_shown_in_the_order_asked(frame):
    figure = plots.plot_metric_timeline(frame, layer=0, metrics=["stability", "silhouette"])
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["Stability under resampling", "Silhouette"]
    everything = plots.plot_metric_timeline(frame, layer=0)
    assert len(everything.layout.annotations) == 10


def test_missing_values_leave_a_gap(frame):
    figure = plots.plot_metric_timeline(frame, layer=0, metrics=["weight_divergence"])
    assert np.isnan(figure.data[0].y[0])
    assert len(figure.data[0].y) == len(STEPS)


# --- the emergence map ----------------------------------------------------------------------


def test_map_shows_standardised_excess_and_dots():
    both = pd.concat([golden_frame(), golden_frame(layer=0, value=[0.13, 0.12, 0.12])])
    figure = plots.plot_emergence_map(both)
    heat, dots = figure.data
    expected = [[1.0, 0.0, 0.0], [-1.0, 4.0, 47 / 3]]
    np.testing.assert_allclose(heat.z, expected, atol=1e-12)
    np.testing.assert_array_equal(np.array(heat.customdata)[1, :, 0], [0, 10, 100])
    np.testing.assert_allclose(np.array(heat.customdata)[1, :, 1], [0.1, 0.2, 0.6])
    assert list(zip(dots.y, dots.x, strict=True)) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    axis = figure.layout.coloraxis
    assert axis.cmid == 0
    assert (axis.cmin, axis.cmax) == (-10, 10)  # 47/3 is beyond the end, and the end says so
    assert axis.colorbar.ticktext[-1] == "≥ 10"
    assert "layer 1 at step 10" in figure.layout.meta["headspec"]["alt"]


def test_map_scale_ends_at_the_largest_excess_when_that_is_small():
    axis = plots.plot_emergence_map(golden_frame(value=[0.16, 0.1, 0.12])).layout.coloraxis
    assert (axis.cmin, axis.cmax) == (pytest.approx(-1), pytest.approx(1))
    assert axis.colorbar.ticktext is None


def test_map_leaves_cells_without_a_spread_blank():
    figure = plots.plot_emergence_map(golden_frame(null_sd=[0.03, 0.0, 0.02]))
    assert np.isnan(figure.data[0].z[0][0])


# --- heads ----------------------------------------------------------------------------------


def test_projection_holds_the_coordinates(frame):
    figure = plots.plot_head_projection(frame, layer=3, steps=[0, 4000])
    rows = frame[(frame["layer"] == 3) & (frame["step"] == 4000)]
    want = {
        axis: rows[rows["metric"] == f"pca_{axis}"].set_index("head")["value"] for axis in (1, 2)
    }
    shown = {}
    for trace in figure.data:
        for (head, step), x, y in zip(trace.customdata, trace.x, trace.y, strict=True):
            if step == 4000:
                shown[head] = (x, y)
    assert shown == {head: (want[1][head], want[2][head]) for head in range(N_HEADS)}
    assert sum(len(trace.text) for trace in figure.data) == 2 * N_HEADS


def test_a_cluster_keeps_its_colour_when_labels_flip(frame):
    """The made-up sweep swaps labels 0 and 1 between steps 200 and 300."""
    figure = plots.plot_head_projection(frame, layer=3, steps=[200, 300])
    colours = {
        (int(head), int(step)): trace.marker.color
        for trace in figure.data
        for head, step in trace.customdata
    }
    raw = frame[(frame["layer"] == 3) & (frame["metric"] == "cluster")]
    raw = raw.set_index(["head", "step"])["value"]
    assert all(raw[head, 200] != raw[head, 300] for head in range(N_HEADS))  # the naive colours
    assert all(colours[head, 200] == colours[head, 300] for head in range(N_HEADS))
    assert {trace.marker.symbol for trace in figure.data} == {"circle", "square"}


@given(
    st.lists(st.lists(st.integers(-1, 3), min_size=6, max_size=6), min_size=1, max_size=5),
    st.permutations(range(4)),
)
def test_steady_labels_keep_partitions_and_ignore_names(columns, names):
    table = pd.DataFrame(np.array(columns, dtype=float).T)
    steady = steady_labels(table)
    for step in table.columns:
        pairs = set(zip(table[step], steady[step], strict=True))
        assert len(pairs) == table[step].nunique() == steady[step].nunique()
        assert all((a == -1) == (b == -1) for a, b in pairs)
    last = table.iloc[:, [-1]]
    other = last.replace({float(i): float(name) for i, name in enumerate(names)})
    pd.testing.assert_frame_equal(steady_labels(last), steady_labels(other))


def test_heads_in_no_cluster_are_hollow():
    rows = [(0, 0, "cluster", h, [-1, 0, 0][h]) for h in range(3)]
    rows += [(0, 0, f"pca_{i}", h, float(h * i)) for h in range(3) for i in (1, 2)]
    frame = pd.DataFrame(rows, columns=["step", "layer", "metric", "head", "value"])
    figure = plots.plot_head_projection(frame, layer=0)
    assert [(trace.name, trace.marker.color) for trace in figure.data] == [
        ("in no cluster", PAPER),
        ("cluster 1", OKABE_ITO[0]),
    ]


def pair_frame(pairs, labels):
    rows = [(5, 0, "similarity", i, j, value) for i, j, value in pairs]
    rows += [(5, 0, "cluster", head, np.nan, label) for head, label in enumerate(labels)]
    return pd.DataFrame(rows, columns=["step", "layer", "metric", "head", "head_2", "value"])


def test_similarity_is_mirrored_and_ordered_by_the_last_clusters():
    frame = pair_frame([(0, 1, -0.1), (0, 2, 0.8), (1, 2, -0.3)], labels=[1, 0, 1])
    figure = plots.plot_similarity_heatmaps(frame, layer=0)
    (heat,) = figure.data
    nan = np.nan
    expected = [[nan, 0.8, -0.1], [0.8, nan, -0.3], [-0.1, -0.3, nan]]  # order 0, 2, 1
    np.testing.assert_array_equal(heat.z, expected)
    assert list(figure.layout.xaxis.ticktext) == ["0", "2", "1"]
    assert [(shape.x0, shape.y0) for shape in figure.layout.shapes] == [(1.5, -0.5), (-0.5, 1.5)]
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmid, axis.cmax) == (-0.8, 0, 0.8)


def test_similarity_takes_full_matrices_and_ignores_the_diagonal():
    half = [(0, 1, -0.1), (0, 2, 0.8), (1, 2, -0.3)]
    full = half + [(j, i, value) for i, j, value in half] + [(i, i, 1.0) for i in range(3)]
    figures = [
        plots.plot_similarity_heatmaps(pair_frame(pairs, labels=[1, 0, 1]), layer=0)
        for pairs in (half, full)
    ]
    np.testing.assert_array_equal(figures[0].data[0].z, figures[1].data[0].z)
    assert figures[1].layout.coloraxis.cmax == 0.8


def test_similarity_matrices_share_one_scale(frame):
    figure = plots.plot_similarity_heatmaps(frame, layer=3)
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert [trace.meta["step"] for trace in figure.data] == [0, 4, 64, 200, 1200, 4000]


# --- capabilities ---------------------------------------------------------------------------


def test_capability_curves_hold_values_errors_and_chance():
    table = capability_frame()
    figure = plots.plot_capability_curves(table)
    curves = {trace.name: trace for trace in figure.data if trace.meta == "value"}
    for metric, rows in table.groupby("metric"):
        curve = curves[metric.replace("_", " ")]
        np.testing.assert_array_equal(curve.y, rows["value"])
        np.testing.assert_array_equal(curve.error_y.array, rows["se"])
        np.testing.assert_array_equal(curve.customdata, rows["step"])
    first_value = roles(figure).index("value")
    assert roles(figure).index("chance") < first_value  # behind
    assert "chance" not in roles(figure)[first_value:]
    assert len({trace.marker.symbol for trace in curves.values()}) == len(curves)


def test_losses_and_accuracies_do_not_share_an_axis():
    figure = plots.plot_capability_curves(capability_frame())
    axis = {trace.name: trace.yaxis for trace in figure.data if trace.meta == "value"}
    assert axis["addition"] == axis["decimal comparison"] == "y"
    assert axis["prose loss"] == axis["induction gain"] == "y2"
    assert figure.layout.yaxis.title.text == "accuracy (share right)"
    assert figure.layout.yaxis2.title.text == "nats per token"
    given_unit = plots.plot_capability_curves(capability_frame().assign(unit="points"))
    assert given_unit.layout.yaxis.title.text == "points"


def test_capabilities_can_be_chosen_and_many_stay_apart():
    figure = plots.plot_capability_curves(capability_frame(), metrics=["prose_loss"])
    assert [trace.name for trace in figure.data] == ["prose loss"]
    many = pd.DataFrame({"step": 1, "metric": [f"m{i}" for i in range(20)], "value": 0.5})
    traces = plots.plot_capability_curves(many).data
    assert len({(trace.marker.color, trace.marker.symbol) for trace in traces}) == 20


def test_capabilities_need_neither_errors_nor_chance():
    figure = plots.plot_capability_curves(capability_frame()[["step", "metric", "value"]])
    assert set(roles(figure)) == {"value"}
    assert figure.data[0].error_y.array is None


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda f: plots.plot_metric_timeline(f[:0], layer=0), "empty frame"),
        (lambda f: plots.plot_metric_timeline(f.drop(columns="step"), layer=0), "no column step"),
        (lambda f: plots.plot_metric_timeline(f, layer=9), r"layers \[0, 1, 2, 3\]"),
        (lambda f: plots.plot_metric_timeline(f, layer=0, metrics=["nope"]), "'nope'"),
        (lambda f: plots.plot_metric_timeline(f, layer=0, metrics=[]), "at least one"),
        (
            lambda f: plots.plot_metric_timeline(pd.concat([f, f]), layer=0),
            "one model, one seed and one feature",
        ),
        (lambda f: plots.plot_emergence_map(f, metric="stability"), "a null of 'stability'"),
        (lambda f: plots.plot_head_projection(f, layer=0, steps=[7]), "steps out of"),
        (
            lambda f: plots.plot_head_projection(f[f["metric"] != "cluster"], layer=0),
            "rows of the metric 'cluster'",
        ),
        (
            lambda f: plots.plot_head_projection(f.drop(columns="head"), layer=0),
            "Filter the frame|with a head",
        ),
        (lambda f: plots.plot_similarity_heatmaps(f.drop(columns="head_2"), layer=0), "head_2"),
        (lambda f: plots.plot_capability_curves(f.drop(columns="value")), "no column value"),
    ],
)
def test_unusable_frames_are_refused_in_words(frame, draw, words):
    with pytest.raises(InputError, match=words):
        draw(frame)


def test_a_row_without_a_step_is_refused():
    with pytest.raises(InputError, match="a step in every row"):
        plots.plot_metric_timeline(golden_frame(step=[None, 0, 10]), layer=1)


# --- what holds for every figure ------------------------------------------------------------


def colours_in(value):
    if isinstance(value, str):
        found = re.fullmatch(r"#[0-9a-fA-F]{6}|rgba?\(.*\)", value)
        return {value} if found else set()
    if isinstance(value, dict):
        return set().union(*map(colours_in, value.values()), set())
    if isinstance(value, list | tuple):
        return set().union(*map(colours_in, value), set())
    return set()


def test_every_colour_is_of_the_palette_and_has_a_dark_counterpart(every_figure):
    for name, figure in every_figure.items():
        used = colours_in(figure.to_plotly_json()) - {"rgba(0,0,0,0)"}
        assert used, name
        assert used <= set(DARK), name


def test_dark_colours_are_distinct_from_light_ones():
    assert len(set(DARK.values())) == len(DARK)
    assert not set(DARK) & set(DARK.values())


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one, two):
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_texts_and_lines_stand_out_in_both_schemes():
    for text in (INK, MUTED):
        assert contrast(text, PAPER) >= 4.5
        assert contrast(DARK[text], DARK[PAPER]) >= 4.5
    for line in OKABE_ITO[:3]:  # most clusterings have two or three clusters
        assert contrast(line, PAPER) >= 3
        assert contrast(DARK[line], DARK[PAPER]) >= 3
    for colour, text in zip(OKABE_ITO, TEXT_ON, strict=True):
        assert contrast(text, colour) >= 3.3
        assert contrast(DARK[text], DARK[colour]) >= 4.5


def test_categories_differ_in_colour_and_symbol():
    kinds = [category(i) for i in range(7)]
    assert len({colour for colour, _, _ in kinds}) == len({symbol for _, symbol, _ in kinds}) == 7
    assert kinds[0][0] == "#0072B2"


def test_every_figure_has_its_own_template_words_units_and_phone_layout(every_figure):
    for name, figure in every_figure.items():
        assert figure.layout.template.layout.font == TEMPLATE.layout.font, name
        meta = figure.layout.meta["headspec"]
        assert meta["alt"].endswith(".")
        assert meta["note"].endswith(".")
        assert figure.layout.title.text
        for key in figure.to_plotly_json()["layout"]:
            if re.fullmatch(r"yaxis\d*", key) and name not in ("pca", "tsne", "similarity"):
                assert figure.layout[key].title.text, (name, key)
        narrow = go.Figure(figure).update_layout(meta["narrow"])
        assert narrow.layout.height >= figure.layout.height or name in ("map", "similarity")
        if name in ("timeline", "pca", "capabilities"):
            domains = [
                narrow.layout[key].domain
                for key in narrow.to_plotly_json()["layout"]
                if re.fullmatch(r"xaxis\d*", key)
            ]
            assert set(domains) == {(0, 1)}, name


def test_importing_and_plotting_registers_no_template():
    script = (
        "import plotly.io as pio; before = pio.templates.default, list(pio.templates);"
        "from headspec import plots; import pandas as pd;"
        "f = pd.DataFrame({'step': [0, 1], 'metric': 'a', 'value': [0.1, 0.2]});"
        "plots.plot_capability_curves(f);"
        "assert (pio.templates.default, list(pio.templates)) == before"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# --- axes and panels ------------------------------------------------------------------------


@given(st.sets(st.integers(0, 2_000_000), min_size=1, max_size=30))
def test_steps_keep_their_order_and_ticks_are_places_on_the_axis(steps):
    axis = StepAxis(list(steps))
    places = axis.place(sorted(steps))
    assert places == sorted(set(places))
    low, high = 10 ** axis.range[0], 10 ** axis.range[1]
    assert low < places[0]
    assert places[-1] < high
    ticks = axis.place(axis.ticks())
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)
    assert max(steps) in axis.ticks()


def test_step_ticks_of_pythia():
    axis = StepAxis([0, *(2**i for i in range(10)), *range(1000, 144000, 1000)])
    assert axis.layout()["ticktext"] == ["0", "1", "10", "100", "1k", "10k", "143k"]
    study = StepAxis([1000, 5000, 10000, 20000, 40000, 80000, 120000, 143000])
    assert study.layout()["ticktext"] == ["1k", "10k", "143k"]


def test_negative_steps_are_refused():
    with pytest.raises(InputError, match="zero or more"):
        StepAxis([-1, 3])


@given(st.integers(1, 13), st.integers(1, 4), st.booleans())
def test_panels_have_their_height_and_do_not_overlap(n, columns, narrow):
    panels = Panels(titles=["t"] * n, columns=columns, narrow_columns=columns)
    layout = panels.layout(narrow=narrow)
    inner = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
    boxes = []
    for i in range(n):
        (left, right), (low, high) = (layout[panels.axis(k, i)]["domain"] for k in "xy")
        assert 0 <= left < right <= 1
        assert -1e-9 <= low < high <= 1
        assert (high - low) * inner == pytest.approx(150 if narrow else 170)
        boxes.append((left, right, low, high))
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = a[0] >= b[1] or b[0] >= a[1] or a[2] >= b[3] or b[2] >= a[3]
            assert apart


def test_choice_of_steps():
    assert choose_steps(STEPS, None, most=6) == [0, 4, 64, 200, 1200, 4000]
    assert choose_steps([3, 1], None, most=6) == [1, 3]
    assert choose_steps(STEPS, [300, 0], most=6) == [0, 300]


def test_null_band_differs_from_every_category():
    assert NULL_BAND not in OKABE_ITO


def test_one_checkpoint_is_enough_for_every_figure():
    one = sweep_frame(layers=1, steps=(0,))
    figures = [
        plots.plot_metric_timeline(one, layer=0),
        plots.plot_emergence_map(one),
        plots.plot_head_projection(one, layer=0),
        plots.plot_similarity_heatmaps(one, layer=0),
        plots.plot_capability_curves(capability_frame(steps=(0,))),
    ]
    for figure in figures:
        assert figure.data
        assert figure.layout.meta["headspec"]["alt"].endswith(".")
