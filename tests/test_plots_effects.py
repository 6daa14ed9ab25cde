"""Figures of effects hold the results' numbers, and their nulls lie behind them."""

import re

import numpy as np
import plotly.graph_objects as go
import pytest

import headspec as hs
from headspec.errors import InputError
from headspec.heads import Head
from headspec.plots.head_effects import plot_head_effects
from headspec.plots.palette import DARK, PAPER, TEMPLATE, VALUE


def head_effects(*, kind="head", places=("all",), sets=(), n=24, seed=0, pair=True, **changes):
    """Effects of 2 layers by 3 heads (or sets of these) with known means."""
    rng = np.random.default_rng(seed)
    rows = {
        "head": [((Head(layer, head),), layer) for layer in range(2) for head in range(3)],
        "layer": [((), layer) for layer in range(2)],
        "set": [(tuple(each), each[0].layer) for each in sets],
    }[kind]
    means = np.linspace(-1.5, 2.0, len(rows) * len(places))
    base = rng.normal(-2, 1, n)
    values = means[:, None] + rng.normal(0, 0.5, (len(means), n))
    values += (means - values.mean(1))[:, None]
    fields = {
        "values": values,
        "base": base,
        "target": base + 4 if pair else None,
        "heads": tuple(heads for heads, _ in rows) * len(places),
        "layers": tuple(layer for _, layer in rows) * len(places),
        "positions": tuple(place for place in places for _ in rows),
        "kind": kind,
        "by_position": len(places) > 1,
        "n_layers": 2,
        "n_heads": 3,
        "metric": "log_prob_difference",
        "unit": "nats",
        "site": "resid_pre" if kind == "layer" else "z",
        "mode": "denoise",
        "model": "micro",
        "step": 6144,
    }
    return hs.HeadEffects(**fields | changes)


SETS = ((Head(1, 2), Head(1, 0)), (Head(0, 1),), (Head(0, 0), Head(0, 1), Head(0, 2)))


@pytest.fixture(scope="module")
def every_figure():
    places = ("first", "second", "end")
    return {
        "heads": plot_head_effects(head_effects()),
        "normalized": plot_head_effects(head_effects(), normalized=True),
        "positions": plot_head_effects(head_effects(places=places)),
        "layers_by_position": plot_head_effects(head_effects(kind="layer", places=places)),
        "layers": plot_head_effects(head_effects(kind="layer")),
        "sets": plot_head_effects(head_effects(kind="set", sets=SETS)),
    }


def the(figure, role):
    """The traces of this role."""
    return [trace for trace in figure.data if trace.meta == role]


# --- effects of heads -----------------------------------------------------------------------


def test_the_map_holds_effects_and_intervals_of_every_head():
    effects = head_effects()
    (cells,) = the(plot_head_effects(effects), "effect")
    np.testing.assert_allclose(np.array(cells.z), effects.effect)
    np.testing.assert_allclose(np.array(cells.customdata)[..., 0], effects.ci_low)
    np.testing.assert_allclose(np.array(cells.customdata)[..., 1], effects.ci_high)
    assert cells.text[1][2] == "L1H2"


def test_the_scale_is_symmetric_about_zero_and_ends_at_the_largest_effect():
    axis = plot_head_effects(head_effects()).layout.coloraxis
    assert (axis.cmin, axis.cmid, axis.cmax) == pytest.approx((-2.0, 0, 2.0))
    assert "nats" in axis.colorbar.title.text


def test_dots_mark_intervals_without_zero():
    effects = head_effects()
    (dots,) = the(plot_head_effects(effects), "clear")
    marked = set(zip(dots.y, dots.x, strict=True))
    clear = (effects.ci_low > 0) | (effects.ci_high < 0)
    assert 0 < clear.sum() < 6
    assert marked == set(zip(*(axis.tolist() for axis in np.nonzero(clear)), strict=True))


def test_normalised_effects_are_shares_of_the_gap():
    effects = head_effects()
    (cells,) = the(plot_head_effects(effects, normalized=True), "effect")
    np.testing.assert_allclose(np.array(cells.z), effects.effect / 4)
    np.testing.assert_allclose(np.array(cells.z), effects.normalized)


def test_normalised_effects_need_a_clear_gap():
    with pytest.raises(InputError, match="no pair of prompts"):
        plot_head_effects(head_effects(pair=False), normalized=True)
    level = head_effects()
    level.target[:] = level.base + np.resize([-1.0, 1.0], 24)
    with pytest.raises(InputError, match="a gap that may be 0"):
        plot_head_effects(level, normalized=True)


def test_position_by_position_there_is_a_panel_a_layer():
    effects = head_effects(places=("first", "second", "end"))
    maps = the(plot_head_effects(effects), "effect")
    assert len(maps) == 2
    for layer, cells in enumerate(maps):
        np.testing.assert_allclose(np.array(cells.z), effects.effect[:, layer].T)
    assert maps[1].text[2][0] == "L1H2 at first"
    places = list(plot_head_effects(effects).layout.xaxis.ticktext)
    assert places == ["first", "second", "end"]


def test_sites_of_layers_are_one_map_of_layers_by_positions():
    effects = head_effects(kind="layer", places=("first", "second", "end"))
    (cells,) = the(plot_head_effects(effects), "effect")
    np.testing.assert_allclose(np.array(cells.z), effects.effect.T)


def test_heads_that_were_not_measured_stay_blank():
    full = head_effects()
    some = head_effects(
        values=full.values[:2], heads=full.heads[:2], layers=(0, 0), positions=("all",) * 2
    )
    (cells,) = the(plot_head_effects(some), "effect")
    assert np.isfinite(np.array(cells.z)).sum() == 2


def test_sets_of_heads_are_points_with_whiskers():
    effects = head_effects(kind="set", sets=SETS)
    figure = plot_head_effects(effects)
    (points,) = the(figure, "effect")
    np.testing.assert_allclose(points.x, effects.effect)
    np.testing.assert_allclose(np.add(points.x, points.error_x.array), effects.ci_high)
    np.testing.assert_allclose(np.subtract(points.x, points.error_x.arrayminus), effects.ci_low)
    clear = (effects.ci_low > 0) | (effects.ci_high < 0)
    assert list(points.marker.color) == [VALUE if each else PAPER for each in clear]
    assert list(figure.layout.yaxis.ticktext) == ["L1: 0 2", "L0: 1", "L0: 0 1 2"]


def test_of_many_sets_the_largest_are_shown_in_their_order_and_counted():
    sets = [(Head(0, i % 3), Head(1, i // 3 % 3)) for i in range(9)]
    effects = head_effects(kind="set", sets=sets, layers=(None,) * 9)
    figure = plot_head_effects(effects, most=3)
    (points,) = the(figure, "effect")
    np.testing.assert_allclose(points.x, effects.effect[[0, 7, 8]])
    assert "The 3 largest of 9." in figure.layout.meta["headspec"]["note"]


def test_one_example_has_no_whiskers_and_no_dots():
    effects = head_effects(n=1)
    figure = plot_head_effects(effects)
    assert not the(figure, "clear")[0].x
    assert "no intervals" in figure.layout.meta["headspec"]["note"]


# --- all of them ----------------------------------------------------------------------------


def colours_in(value):
    if isinstance(value, str):
        return {value} if re.fullmatch(r"#[0-9a-fA-F]{6}|rgba?\(.*\)", value) else set()
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


def test_every_figure_has_its_own_template_words_units_and_phone_layout(every_figure):
    for name, figure in every_figure.items():
        assert figure.layout.template.layout.font == TEMPLATE.layout.font, name
        meta = figure.layout.meta["headspec"]
        assert meta["alt"].endswith("."), name
        assert meta["note"].endswith("."), name
        assert "micro" in figure.layout.title.text, name
        narrow = go.Figure(figure).update_layout(meta["narrow"])
        domains = {
            narrow.layout[key].domain
            for key in narrow.to_plotly_json()["layout"]
            if re.fullmatch(r"xaxis\d*", key)
        }
        assert domains == {(0, 1)}, name
