"""Figures of the study of topic ordering hold the frames' numbers, baselines lie behind them."""

import numpy as np
import pandas as pd
import pytest
from plot_checks import check_figure, the
from synthetic_topic_figures import (
    CEILING,
    CONDITIONS,
    HEADS,
    LAYERS,
    attention_frame,
    correction_frame,
    effects_frame,
    patterns,
    probe_frame,
)

from headspec import plots
from headspec.errors import InputError
from headspec.plots.conditions import condition_name, over_seeds, quantity_words

ATTENTION, PROBES = attention_frame(), probe_frame()
EFFECTS, CORRECTION = effects_frame(), correction_frame()
PATTERNS, LABELS = patterns()


@pytest.fixture(scope="module")
def every_figure():
    return {
        "heat maps": plots.plot_attention_heatmaps(PATTERNS, LABELS),
        "linear": plots.plot_attention_heatmaps(PATTERNS, scale="linear"),
        "probes": plots.plot_probe_curves(PROBES),
        "seeds": plots.plot_probe_curves(
            probe_frame(seeds=(0, 1)), by=("attention", "ordering"), panel="position"
        ),
        "entropy": plots.plot_attention_change(ATTENTION, metric="entropy"),
        "within": plots.plot_attention_change(ATTENTION, metric="within_topic_mass"),
        "effects": plots.plot_factorial_effects(EFFECTS),
        "correction": plots.plot_correction(CORRECTION),
    }


def test_every_figure_is_of_the_palette_with_words_units_and_a_phone_layout(every_figure):
    for name, figure in every_figure.items():
        check_figure(figure, name)


def test_names_and_units():
    assert condition_name("mha_topic_ordered_rope") == "MHA topic ordered RoPE"
    assert quantity_words("entropy")[1] == "nats"
    assert quantity_words("my_loss") == ("My loss", "nats per token")
    assert quantity_words("my_thing") == ("My thing", "value")


# --- heat maps --------------------------------------------------------------------------------


def test_cells_hold_the_shares_on_one_scale(every_figure):
    figure = every_figure["heat maps"]
    cells = the(figure, "cells")
    for trace, (name, pattern) in zip(cells, PATTERNS.items(), strict=True):
        np.testing.assert_allclose(trace.customdata, pattern, rtol=1e-6)
        assert trace.name == name
        assert trace.coloraxis == "coloraxis"
        causal = np.tril(np.ones(pattern.shape)) > 0
        shown = np.log10(np.maximum(pattern, 1e-3))
        np.testing.assert_allclose(np.array(trace.z)[causal], shown[causal], rtol=1e-5)
    linear = the(every_figure["linear"], "cells")[0]
    np.testing.assert_allclose(np.array(linear.z)[5, :6], PATTERNS[linear.name][5, :6], rtol=1e-6)


def test_what_is_not_causal_is_drawn_and_named(every_figure):
    """A mask lost in the analysis must be seen, not hidden by a blank upper triangle."""
    cells = the(every_figure["heat maps"], "cells")
    above = [np.isfinite(np.array(c.z)[np.triu_indices(len(c.z), 1)]).any() for c in cells]
    assert above == [False, False, False, True]
    titles = [a.text for a in every_figure["heat maps"].layout.annotations]
    assert [("not causal" in title) for title in titles] == above
    assert "later tokens" in every_figure["heat maps"].layout.meta["headspec"]["alt"]


def test_blocks_of_one_label_are_outlined(every_figure):
    """Segments T0 T1 T0 T2: four on the diagonal, and T0 looking back at T0."""
    figure = every_figure["heat maps"]
    blocks = [s for s in figure.layout.shapes if s.name == "label" and s.xref == "x"]
    assert len(blocks) == 5
    back = [s for s in blocks if (s.x0, s.y0) == (-0.5, 23.5)]
    assert [(s.x1, s.y1) for s in back] == [(11.5, 35.5)]
    assert list(figure.layout.xaxis.ticktext) == ["T0", "T1", "T0", "T2"]
    often = plots.plot_attention_heatmaps(PATTERNS, np.arange(48) % 2)
    assert not [s for s in often.layout.shapes if s.name == "label"]
    assert "too often" in often.layout.meta["headspec"]["note"]


def test_patterns_that_are_none_are_refused():
    square = np.eye(4)
    for bad, message in (
        ({"a": np.ones((2, 4, 4))}, r"shape \[2, 4, 4\]"),
        ({"a": 5 * square}, "values from 0 to 5"),
        ({"a": np.log(square + 1e-9)}, "values from -20"),
        ({"a": np.full((4, 4), np.nan)}, "square pattern"),
        ({}, "at least one"),
    ):
        with pytest.raises(InputError, match=message), np.errstate(all="ignore"):
            plots.plot_attention_heatmaps(bad)
    with pytest.raises(InputError, match="3 labels"):
        plots.plot_attention_heatmaps({"a": square}, [0, 0, 1])


# --- probes -----------------------------------------------------------------------------------


def test_every_condition_has_a_line_a_metric_with_the_frames_numbers(every_figure):
    lines = the(every_figure["probes"], "value")
    assert len(lines) == 2 * len(CONDITIONS)
    for line, condition in zip(lines, CONDITIONS, strict=False):
        named = PROBES["condition"] == "_".join(condition)
        rows = PROBES[named & (PROBES["metric"] == "accuracy")]
        np.testing.assert_array_equal(line.y, rows["value"])
        np.testing.assert_allclose(line.error_y.array, rows["high"] - rows["value"])
        assert line.name == condition_name("_".join(condition))
    looks = {(line.line.color, line.marker.symbol) for line in lines}
    assert len(looks) == len(CONDITIONS)
    axis = every_figure["probes"].layout.xaxis
    assert list(axis.ticktext) == ["emb", "0", "1", "2", "3"]


def test_the_largest_class_and_the_control_task_lie_behind(every_figure):
    figure = every_figure["probes"]
    data = list(figure.data)
    nulls, controls, lines = (the(figure, role) for role in ("null", "control", "value"))
    assert {tuple(null.y) for null in nulls} == {(0.31,) * (LAYERS + 1)}
    assert max(map(data.index, nulls)) < min(map(data.index, controls))
    assert min(map(data.index, controls)) < min(map(data.index, lines))
    assert {trace.yaxis for trace in controls} == {"y"}
    assert [trace.name for trace in the(figure, "legend")] == [
        "without activations (accuracy: largest class)",
        "control task",
    ]


def test_several_seeds_are_dots_about_their_mean_without_the_intervals_of_one():
    frame = probe_frame(seeds=(0, 1, 2))
    figure = plots.plot_probe_curves(frame, by=("attention", "ordering"), panel="position")
    assert len(the(figure, "value")) == 4 * 2 * 2
    line = the(figure, "value")[0]
    rows = frame[(frame["metric"] == "accuracy") & (frame["condition"] == "mha_shuffled_rope")]
    mean = rows.groupby("layer")["value"].mean().to_numpy()
    np.testing.assert_allclose(line.y, mean)
    assert line.error_y.array is None
    dots = the(figure, "seeds")[0]
    assert sorted(dots.y) == pytest.approx(sorted(rows["value"]))
    assert figure.layout.yaxis2.matches == "y"
    assert figure.layout.yaxis4.matches == "y3"
    means = over_seeds(frame, ["condition", "layer", "metric"])
    assert (means["n_seeds"] == 3).all()
    assert means["low"].isna().all()


def test_probes_of_heads_several_sites_or_unknown_metrics_are_refused():
    with pytest.raises(InputError, match="rows of heads"):
        plots.plot_probe_curves(PROBES.assign(head=1))
    with pytest.raises(InputError, match="several for"):
        plots.plot_probe_curves(pd.concat([PROBES, PROBES]))
    with pytest.raises(InputError, match="metrics out of"):
        plots.plot_probe_curves(PROBES, metrics=["auc"])
    with pytest.raises(InputError, match="columns out of"):
        plots.plot_probe_curves(PROBES, panel="optimiser")
    with pytest.raises(InputError, match="no column layer"):
        plots.plot_probe_curves(PROBES.drop(columns="layer"))


# --- before and after -------------------------------------------------------------------------


def test_every_head_is_a_point_before_and_after_and_joined(every_figure):
    figure = every_figure["entropy"]
    before, after, joined = (the(figure, role) for role in ("before", "after", "joined"))
    assert len(before) == len(after) == 4
    per_panel = LAYERS * HEADS * 3
    rows = ATTENTION[(ATTENTION["metric"] == "entropy") & (ATTENTION["attention"] == "mha")]
    rows = rows[rows["ordering"] == "shuffled"]
    np.testing.assert_array_equal(before[0].y, rows[rows["position"] == "rope"]["value"])
    np.testing.assert_array_equal(after[0].y, rows[rows["position"] == "drope"]["value"])
    ends = np.array(joined[0].y).reshape(-1, 3)
    assert len(ends) == per_panel
    assert sorted(ends[:, 0]) == sorted(before[0].y)
    assert sorted(ends[:, 1]) == sorted(after[0].y)
    assert before[0].text[0] == "L0H0, seed 0"
    assert (np.array(before[0].x) < np.round(before[0].x)).all()


def test_baselines_lie_behind_all_heads_over_the_whole_width(every_figure):
    figure = every_figure["entropy"]
    panel = [trace for trace in figure.data if trace.yaxis == "y"]
    assert [trace.meta for trace in panel[:3]] == ["baseline"] * 3
    uniform = panel[0]
    assert uniform.name == "uniform causal attention"
    np.testing.assert_allclose(uniform.y, CEILING)
    assert list(uniform.x) == [-0.5, LAYERS - 0.5]
    assert max(np.max(t.y) for t in the(figure, "before")) < CEILING
    bare = ATTENTION.drop(columns=["null_mean", "window_baseline", "first_baseline"])
    assert not the(plots.plot_attention_change(bare, metric="entropy"), "baseline")


def test_one_side_only_or_an_unknown_metric_is_refused():
    rope = ATTENTION[ATTENTION["position"] == "rope"]
    with pytest.raises(InputError, match="none with 'drope'"):
        plots.plot_attention_change(rope, metric="entropy")
    with pytest.raises(InputError, match="within_topic_mass"):
        plots.plot_attention_change(ATTENTION, metric="loss")
    with pytest.raises(InputError, match="several for panel"):
        plots.plot_attention_change(pd.concat([ATTENTION, ATTENTION]), metric="entropy")


# --- effects ----------------------------------------------------------------------------------


def test_effects_have_whiskers_and_are_filled_where_these_exclude_0(every_figure):
    figure = every_figure["effects"]
    points = the(figure, "effect")[0]
    rows = EFFECTS[EFFECTS["metric"] == "validation_loss"]
    np.testing.assert_array_equal(points.x, rows["value"])
    np.testing.assert_allclose(points.error_x.array, rows["high"] - rows["value"])
    filled = [colour != "#ffffff" for colour in points.marker.color]
    assert filled == ((rows["low"] > 0) | (rows["high"] < 0)).tolist()
    labels = figure.layout.yaxis.ticktext
    assert labels[0] == "attention"
    assert labels[-1] == "attention × ordering × position"
    data = list(figure.data)
    assert data.index(the(figure, "null band")[0]) < data.index(points)
    assert figure.layout.xaxis.title.text == "effect (nats per token)"


def test_rows_are_named_beside_every_panel_on_a_phone(every_figure):
    for name in ("effects", "correction"):
        figure = every_figure[name]
        assert [figure.layout[f"yaxis{i}"].showticklabels for i in ("", "2", "3")] == [1, 0, 1]
        narrow = figure.layout.meta["headspec"]["narrow"]
        assert all(narrow[f"yaxis{i}"]["showticklabels"] for i in ("", "2", "3"))
        assert all(narrow[f"xaxis{i}"]["title"]["text"] for i in ("", "2", "3"))
        lines = [line for text in narrow["yaxis"]["ticktext"] for line in text.split("<br>")]
        assert max(map(len, lines)) <= 18
        assert narrow["margin"]["l"] < figure.layout.margin.l


def test_main_effects_come_first_whatever_the_order_and_contrasts_are_named():
    mixed = EFFECTS.iloc[::-1].assign(contrast=None)
    mixed.loc[mixed["effect"] == "ordering", "contrast"] = "topic_ordered - shuffled"
    labels = plots.plot_factorial_effects(mixed).layout.yaxis.ticktext
    assert [label.count("×") for label in labels] == [0, 0, 0, 1, 1, 1, 2]
    assert "ordering: topic ordered − shuffled" in labels


def test_effects_twice_or_without_intervals_are_refused():
    with pytest.raises(InputError, match="several for metric"):
        plots.plot_factorial_effects(pd.concat([EFFECTS, EFFECTS]))
    with pytest.raises(InputError, match="no column low"):
        plots.plot_factorial_effects(EFFECTS.drop(columns="low"))
    with pytest.raises(InputError, match="all missing"):
        plots.plot_factorial_effects(EFFECTS.assign(value=np.nan))


# --- published and corrected ------------------------------------------------------------------


def test_published_and_corrected_stand_beside_each_other_with_their_own_baselines(every_figure):
    figure = every_figure["correction"]
    published, corrected = (t for t in the(figure, "value") if t.yaxis == "y2")
    rows = CORRECTION[CORRECTION["metric"] == "within_topic_mass"]
    for trace, way in ((published, "published"), (corrected, "corrected")):
        own = rows[rows["way"] == way]
        assert trace.name == way
        np.testing.assert_array_equal(trace.x, own["value"])
        np.testing.assert_array_equal(np.ravel(trace.customdata), own["null_mean"])
    assert (np.array(published.y) < np.array(corrected.y)).all()
    (strokes,) = (t for t in the(figure, "baseline") if t.yaxis == "y2")
    ends = np.array(strokes.x).reshape(-1, 3)[:, 0]
    np.testing.assert_array_equal(ends, rows["null_mean"])
    data = list(figure.data)
    assert data.index(strokes) < data.index(published)


def test_the_ceiling_is_drawn_where_there_is_one_and_the_area_beyond_it_shaded(every_figure):
    figure = every_figure["correction"]
    lines = {s.xref: s.x0 for s in figure.layout.shapes if s.name == "ceiling"}
    assert lines == {"x": 5.246}
    (beyond,) = (s for s in figure.layout.shapes if s.name == "beyond")
    assert (beyond.x0, beyond.layer) == (5.246, "below")
    published = the(figure, "value")[0]
    assert (np.array(published.x) > 5.246).any()


def test_other_ways_and_repeated_rows_are_refused():
    with pytest.raises(InputError, match="ways out of published, corrected"):
        plots.plot_correction(CORRECTION.assign(way="mended"))
    with pytest.raises(InputError, match="several for metric"):
        plots.plot_correction(pd.concat([CORRECTION, CORRECTION.assign(seed=7)]))
