"""Figures of jumps hold the frames' numbers, nulls lie behind, mixtures are refused."""

import numpy as np
import pandas as pd
import pytest
from plot_checks import check_figure, the
from synthetic_jumps import (
    LAYERS,
    STEPS,
    accuracy_frame,
    battery_frame,
    coordination_frame,
    curve_frame,
    dimension_frame,
    effect_frame,
    jump_frame,
    loss_frame,
    rate_frame,
    share_frame,
    similarity_frame,
    type_frame,
)

from headspec import plots
from headspec.errors import InputError
from headspec.plots.palette import PAPER, VALUE
from headspec.series.jump_result import Jumps
from headspec.series.jump_types import classify_jumps

CURVES, JUMPS = dimension_frame(models=("cnn",)), jump_frame(models=("cnn",))
RANK = {"metric": "stable_rank"}


@pytest.fixture(scope="module")
def every_figure():
    return {
        "layers": plots.plot_dimensionality(CURVES, JUMPS, **RANK),
        "models": plots.plot_dimensionality(dimension_frame(), **RANK, by="model", scale="log"),
        "overview": plots.plot_jump_overview(jump_frame(), curve_frame()),
        "no jumps": plots.plot_jump_overview(JUMPS.iloc[:0], curve_frame()),
        "shares": plots.plot_early_late(share_frame()),
        "rates": plots.plot_jump_rates(rate_frame(), accepted=2),
        "types": plots.plot_jump_types(type_frame()),
        "coordination": plots.plot_jump_coordination(coordination_frame()),
        "losses": plots.plot_loss_around_jumps(loss_frame()),
        "battery": plots.plot_detector_battery(battery_frame()),
        "effects": plots.plot_jump_effects(effect_frame()),
        "two seeds": plots.plot_jump_effects(effect_frame(seeds=(0, 1))),
        "classes": plots.plot_class_accuracy(accuracy_frame(), jump_frame(seeds=(0,))),
        "similarity": plots.plot_similarity_across(similarity_frame(models=("cnn", "mlp"))),
    }


def test_every_figure_is_of_the_palette_with_words_units_and_a_phone_layout(every_figure):
    for name, figure in every_figure.items():
        check_figure(figure, name)


def test_titles_fit_a_phone(every_figure):
    """290 pixels beside a margin, 8.6 a character."""
    assert max(len(figure.layout.title.text) for figure in every_figure.values()) <= 34


def test_what_is_compared_with_lies_behind(every_figure):
    for name in ("layers", "shares", "coordination", "losses", "effects", "rates", "similarity"):
        seen = {}
        for trace in every_figure[name].data:
            front = seen.setdefault(trace.xaxis, [])
            if trace.meta in ("null band", "null mean", "seed", "control"):
                assert not {"value", "jump"} & set(front), name
            if trace.meta != "legend":
                front.append(trace.meta)


# --- curves -----------------------------------------------------------------------------------


def test_every_layer_has_a_panel_and_every_seed_a_line(every_figure):
    figure = every_figure["layers"]
    lines = the(figure, "value")
    assert len(lines) == 5 * 3
    own = CURVES[(CURVES["metric"] == "stable_rank") & (CURVES["layer_name"] == "fc")]
    last = own[own["seed"] == 2]
    (line,) = [trace for trace in lines if trace.name == "cnn · fc · seed 2"]
    np.testing.assert_allclose(line.y, last["value"])
    np.testing.assert_allclose(line.customdata, STEPS)
    assert figure.layout.yaxis.title.text == "dimensions"


def test_jumps_lie_on_their_curve_at_the_step_after(every_figure):
    figure = every_figure["layers"]
    assert sum(len(trace.x) for trace in the(figure, "jump")) == len(JUMPS)
    values = CURVES[CURVES["metric"] == "stable_rank"]
    values = values.set_index(["layer_name", "seed", "step"])["value"]
    late = JUMPS[(JUMPS["layer_name"] == "conv_layers.9") & (JUMPS["step"] == 395)]
    drawn = {
        (x, round(y, 9))
        for trace in the(figure, "jump")
        for x, y in zip(trace.x, trace.y, strict=True)
    }
    for row in late.itertuples():
        assert (395.0, round(values[("conv_layers.9", row.seed, 395)], 9)) in drawn
    symbols = {trace.name: trace.marker.symbol for trace in the(figure, "jump")}
    assert symbols == {"jump: increase": "triangle-up", "jump: decrease": "triangle-down"}


def test_mixed_metrics_are_refused():
    with pytest.raises(InputError, match=r'Choose one: metric="stable_rank"'):
        plots.plot_dimensionality(CURVES)
    with pytest.raises(InputError, match="stable_rank, participation_ratio"):
        plots.plot_dimensionality(CURVES, metric="two_nn")
    both = pd.concat([JUMPS, JUMPS.assign(metric="effective_rank")])
    with pytest.raises(InputError, match="one metric"):
        plots.plot_jump_overview(both)


def test_jumps_of_another_metric_are_not_drawn():
    other = JUMPS.assign(metric="participation_ratio")
    assert not the(plots.plot_dimensionality(CURVES, other, **RANK), "jump")


def test_the_resolution_is_drawn_to_scale():
    """A curve of rounding errors fills its band and no more: what the study counted as jumps."""
    rng = np.random.default_rng(0)
    flat = pd.DataFrame({"step": STEPS, "value": 1 + 1e-9 * rng.normal(size=len(STEPS))})
    flat = flat.assign(layer_name="fc", metric="stable_rank", resolution=1e-6)
    (band,) = the(plots.plot_dimensionality(flat), "null band")
    assert min(band.y) < flat["value"].min() < flat["value"].max() < max(band.y)
    assert max(band.y) - min(band.y) == pytest.approx(2e-6)
    (band,) = the(plots.plot_dimensionality(flat.assign(resolution=1e-12)), "null band")
    assert flat["value"].min() < min(band.y)


def test_two_rows_of_one_step_and_unknown_layers_are_refused():
    one = CURVES[(CURVES["metric"] == "stable_rank") & (CURVES["seed"] == 0)]
    with pytest.raises(InputError, match="several for"):
        plots.plot_dimensionality(pd.concat([one, one]))
    with pytest.raises(InputError, match=r"conv_layers\.3"):
        plots.plot_dimensionality(one, layers=["conv_layers.1"])


def test_layers_keep_the_order_of_the_model():
    shuffled = CURVES.sample(frac=1, random_state=0)
    titles = plots.plot_dimensionality(shuffled, **RANK).layout.annotations
    assert [title.text for title in titles] == list(LAYERS["cnn"])


# --- overview ---------------------------------------------------------------------------------


def test_overview_has_every_jump_and_grey_rows_where_nothing_was_examined(every_figure):
    figure = every_figure["overview"]
    frame = jump_frame()
    marks = the(figure, "jump")
    assert sum(len(trace.x) for trace in marks) == len(frame)
    held = np.concatenate([np.array(trace.customdata)[:, 1] for trace in marks])
    np.testing.assert_allclose(np.sort(held), np.sort(frame["magnitude"]))
    grey = [shape for shape in figure.layout.shapes if shape.name == "not examined"]
    assert len(grey) == 2  # the output layers of two of the three models
    rows = list(figure.layout.yaxis.ticktext)
    assert rows == list(LAYERS["transformer"])


def test_areas_and_not_sizes_grow_with_magnitude():
    frame = JUMPS.iloc[:3].assign(
        direction="increase", magnitude=[0.0, 2.0, 4.0], step=[10, 20, 30], seed=0
    )
    (marks,) = the(plots.plot_jump_overview(frame), "jump")
    size = dict(zip(np.array(marks.customdata)[:, 0], np.array(marks.marker.size), strict=True))
    assert size[20] ** 2 - size[10] ** 2 == pytest.approx(size[30] ** 2 - size[20] ** 2)


def test_parts_of_training_stand_at_ten_and_fifty_percent_of_its_steps(every_figure):
    """By steps, not by the index of the measurement: of 1,000 updates 100 and 500."""
    lines = [s.x0 for s in every_figure["overview"].layout.shapes if s.name == "part"]
    assert sorted(set(lines)) == pytest.approx([100, 500])


def test_a_result_brings_its_own_curves():
    found = Jumps(table=JUMPS, curves=curve_frame(models=("cnn",)), method="calibrated")
    figure = plots.plot_jump_overview(found)
    assert any(shape.name == "not examined" for shape in figure.layout.shapes)
    nothing = Jumps(JUMPS.iloc[:0], curve_frame(models=("cnn",)), method="calibrated")
    assert "No jump" in plots.plot_jump_overview(nothing).layout.meta["headspec"]["note"]


# --- shares, rates, effects -------------------------------------------------------------------


def test_shares_hold_the_frame_and_are_filled_where_even_is_excluded(every_figure):
    frame = share_frame()
    for trace, by in zip(the(every_figure["shares"], "value"), ("step", "index"), strict=True):
        own = frame[frame["by"] == by]
        np.testing.assert_allclose(trace.x, own["value"])
        clear = (own["low"] > own["null_mean"]) | (own["high"] < own["null_mean"])
        assert list(trace.marker.color) == [VALUE if each else PAPER for each in clear]


def test_rates_are_filled_above_what_the_detector_accepts(every_figure):
    points = the(every_figure["rates"], "value")
    frame = rate_frame()
    pooled = frame[frame["seed"].isna()]
    assert sum(len(trace.x) for trace in points) == len(pooled)
    (cnn,) = [t for t in points if "conv_layers.0" in t.text[0]]
    own = pooled[pooled["model"] == "cnn"]
    assert [c == VALUE for c in cnn.marker.color] == (own["low"] > 2).tolist()
    dots = the(every_figure["rates"], "seed")
    assert sum(len(trace.x) for trace in dots) == len(frame) - len(pooled)


def test_rates_of_seeds_alone_are_means_without_intervals():
    frame = rate_frame()
    figure = plots.plot_jump_rates(frame[frame["seed"].notna() & (frame["model"] == "mlp")])
    (trace,) = the(figure, "value")
    seeds = frame[frame["seed"].notna() & (frame["layer_name"] == "network.0")]
    assert trace.x[0] == pytest.approx(seeds["value"].mean())
    assert PAPER in trace.marker.color


def test_effects_have_a_panel_a_quantity_and_p_in_the_hover_text(every_figure):
    figure = every_figure["effects"]
    assert len(the(figure, "value")) == 4
    assert "<br>q = 0.5" in the(figure, "value")[0].text[0]
    assert figure.layout.xaxis.title.text == "jumps less controls (nats)"
    bare = every_figure["two seeds"]
    assert set(the(bare, "value")[0].marker.color) == {PAPER}
    assert "no intervals" in bare.layout.meta["headspec"]["note"]


def test_rows_that_are_not_told_apart_are_refused():
    frame = effect_frame()
    with pytest.raises(InputError, match="tell rows apart"):
        plots.plot_jump_effects(pd.concat([frame, frame]))


def test_coordination_is_filled_by_p_and_losses_name_both_sides(every_figure):
    (points,) = the(every_figure["coordination"], "value")
    assert list(points.marker.color) == [VALUE, VALUE, PAPER]
    trace = the(every_figure["losses"], "value")[0]
    assert "<br>jumps = " in trace.text[0]
    assert "<br>controls = -0.04" in trace.text[0]


# --- types, rules, classes, similarity --------------------------------------------------------


def test_types_keep_colour_and_symbol_and_hold_every_jump(every_figure):
    marks = the(every_figure["types"], "jump")
    frame = type_frame()
    assert sum(len(trace.x) for trace in marks) == 2 * len(frame)
    looks = {(t.name, t.marker.color, t.marker.symbol) for t in marks}
    assert len(looks) == len({name for name, *_ in looks}) == 3


def test_the_number_of_types_stands_before_its_null():
    types = classify_jumps(jump_frame(), n_null=19, n_resamples=0, n_tested=60)
    figure = plots.plot_jump_types(types)
    (curve,) = the(figure, "silhouette")
    np.testing.assert_allclose(curve.y, types.silhouettes["silhouette"])
    (band,) = the(figure, "null band")
    assert max(band.y) == pytest.approx(types.null_mean + 2 * types.null_sd)
    check_figure(figure, "types with null")


def test_rules_are_drawn_at_the_floor_and_keep_their_true_rates(every_figure):
    figure = every_figure["battery"]
    rates, recall = (
        [t for t in the(figure, "value") if t.name == "changepoints" and t.xaxis == axis]
        for axis in ("x", "x2")
    )
    assert (rates[0].x[0], rates[0].customdata[0]) == (0.1, 0.0)
    assert [colour == PAPER for colour in rates[0].marker.color] == [False, False, True, True]
    assert PAPER not in recall[0].marker.color
    (line,) = [s for s in figure.layout.shapes if s.name == "accepted"]
    assert line.x0 == 2


def test_classes_more_than_colours_are_told_apart_by_dashes(every_figure):
    lines = the(every_figure["classes"], "value")[:10]
    assert len({(line.line.color, line.line.dash) for line in lines}) == 10
    frame = accuracy_frame()
    mean = frame[frame["model"] == "transformer"].groupby("step")["value"].mean()
    np.testing.assert_allclose(the(every_figure["classes"], "mean")[0].y, mean)


def test_similarities_hold_both_kinds(every_figure):
    frame = similarity_frame(models=("cnn", "mlp"))
    for kind in ("jump", "control"):
        drawn = sum(len(trace.x) for trace in the(every_figure["similarity"], kind))
        assert drawn == (frame["kind"] == kind).sum()
    with pytest.raises(InputError, match='kind "jump" or "control"'):
        plots.plot_similarity_across(frame.assign(kind="landmark"))


def test_frames_without_their_columns_say_which(every_figure):
    with pytest.raises(InputError, match="no column direction"):
        plots.plot_jump_overview(JUMPS.drop(columns="direction"))
    with pytest.raises(InputError, match="an empty frame"):
        plots.plot_jump_rates(rate_frame().iloc[:0])
