"""Figures of effects hold the results' numbers, and their nulls lie behind them."""

import re

import numpy as np
import plotly.graph_objects as go
import pytest

import headspec as hs
from headspec.errors import InputError
from headspec.heads import Head
from headspec.interventions.specialisation_result import ClusterEffects
from headspec.interventions.swap_result import ClusterSwap, WithinSwap
from headspec.plots.head_effects import plot_head_effects
from headspec.plots.palette import DARK, INK, PAPER, TEMPLATE, VALUE
from headspec.plots.specialisation import plot_cluster_effects
from headspec.plots.swap_axis import FLOOR
from headspec.plots.swaps import RIDGE, plot_swap_null
from headspec.stats import NullSummary, summarise_null


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
        "swaps": plot_swap_null(SWAPS),
        "clusters": plot_cluster_effects(cluster_effects()),
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


# --- swaps ----------------------------------------------------------------------------------


def cluster_swap(*, mean=0.5, null=(0.2, 0.9), n_null=99, seed=0, sizes=(3, 3), **changes):
    """A swap whose null is even between two ends on the log axis."""
    rng = np.random.default_rng(seed)
    draws = np.exp(rng.uniform(*np.log(null), n_null))
    kl = rng.lognormal(0, 0.5, 20)
    kl *= mean / kl.mean()
    heads = tuple(Head(1, index) for index in range(sum(sizes)))
    first, second = heads[: sizes[0]], heads[sizes[0] :]
    within = tuple(
        WithinSwap(
            heads=cluster,
            n_pairs=1,
            draws=rng.lognormal(-3, 0.2, 5 if len(cluster) > 1 else 0),
            between=rng.lognormal(-1, 0.2, 5 if len(cluster) > 1 else 0),
        )
        for cluster in (first, second)
    )
    fields = {
        "kl": kl,
        "pairing_kl": np.full(5, mean),
        "pairings": (tuple(zip(range(3), range(3, 6), strict=True)),) * 5,
        "null_draws": draws,
        "null": summarise_null(float(kl.mean()), draws),
        "exact": False,
        "within": within,
        "clusters": (first, second),
        "how": "qk",
        "unequal": "repeat",
        "n_random": n_null,
        "seed": seed,
        "n": 20,
        "layer": 1,
        "model": "micro",
        "step": 6144,
    }
    return ClusterSwap(**fields | changes)


SWAPS = {"addition": cluster_swap(), "patterns": cluster_swap(mean=6.0, seed=1)}


def test_every_draw_of_the_null_is_in_its_hill():
    """Heights are counts: their sum, over the highest, is the number of draws."""
    for hill, swap in zip(the(plot_swap_null(SWAPS), "null"), SWAPS.values(), strict=True):
        x, y = np.array(hill.x), np.array(hill.y)
        assert x.min() <= swap.null_draws.min() <= swap.null_draws.max() <= x.max()
        row = np.round(y.max())
        heights = (row - y[1:-1])[::2] / RIDGE
        edges = np.log10(x[::2])
        counts, _ = np.histogram(np.log10(swap.null_draws), bins=edges)
        assert counts.sum() == len(swap.null_draws)
        np.testing.assert_allclose(heights[: len(counts)], counts / counts.max(), atol=1e-12)


def test_the_mean_of_the_clusters_is_filled_where_its_p_is_small():
    marks = the(plot_swap_null(SWAPS), "mean")
    assert [mark.customdata[0] for mark in marks] == pytest.approx([0.5, 6.0])
    assert [mark.marker.color for mark in marks] == [PAPER, INK]
    assert [mark.text[0] for mark in marks] == [f"p = {s.p_value:.2g}" for s in SWAPS.values()]


def test_nulls_lie_behind_the_clusters_in_every_row():
    roles = [t.meta for t in plot_swap_null(SWAPS).data if t.meta in ("null", "within", "mean")]
    assert roles == ["null", "within", "within", "mean"] * 2


def test_swaps_inside_clusters_stand_beside_as_many_pairs_between():
    figure = plot_swap_null(SWAPS["addition"])
    for role, name in (("within", "draws"), ("between", "between")):
        for trace, one in zip(the(figure, role), SWAPS["addition"].within, strict=True):
            np.testing.assert_allclose(trace.x, getattr(one, name))
    filled, hollow = the(figure, "within")[0].marker, the(figure, "between")[0].marker
    assert filled.color == hollow.line.color
    assert hollow.color == PAPER


def test_the_studys_thresholds_are_drawn_in_both_panels():
    figure = plot_swap_null(SWAPS)
    lines = [(s.xref, s.x0) for s in figure.layout.shapes if s.name == "threshold"]
    assert sorted(lines) == [("x", 0.1), ("x", 1.0), ("x2", 0.1), ("x2", 1.0)]
    words = {a.text for a in figure.layout.annotations}
    assert {"moderate", "strong"} <= words


def test_every_prompt_has_its_dot():
    for trace, swap in zip(the(plot_swap_null(SWAPS), "prompt"), SWAPS.values(), strict=True):
        np.testing.assert_allclose(trace.x, swap.kl)


def test_a_divergence_of_nothing_has_a_place_on_the_log_axis():
    nothing = cluster_swap(kl=np.zeros(20), null_draws=np.zeros(99), how="all")
    figure = plot_swap_null(nothing)
    assert min(the(figure, "prompt")[0].x) == FLOOR
    assert figure.layout.xaxis.ticktext[0] == f"≤ {FLOOR:g}"


def test_a_cluster_of_one_head_has_no_inside():
    figure = plot_swap_null(cluster_swap(sizes=(5, 1)))
    assert [len(trace.x) for trace in the(figure, "within")] == [5, 0]
    assert "inside cluster 2" not in {t.name for t in the(figure, "legend")}


def test_swaps_of_two_layers_are_two_figures():
    with pytest.raises(InputError, match="of one layer and kind"):
        plot_swap_null({"a": cluster_swap(), "b": cluster_swap(layer=2)})
    with pytest.raises(InputError, match="0 swaps"):
        plot_swap_null({})


# --- clusters ablated on tasks --------------------------------------------------------------


def cluster_effects(*, seed=0, **changes):
    """Two clusters of three heads on three tasks; the first cluster matters for the last task."""
    rng = np.random.default_rng(seed)
    mean, sd = np.full((2, 3), -2.0), np.full((2, 3), 0.5)
    z = np.array([[0.5, 1.0, -4.0], [-0.5, -1.0, 3.0]])
    draws = rng.gamma(2, 2, 20)
    p = np.array([[0.6, 0.3, 0.01], [0.6, 0.3, 0.02]])
    fields = {
        "effects": mean + z * sd,
        "standardised": z,
        "null_mean": mean,
        "null_sd": sd,
        "cell_p": p,
        "cell_q": np.minimum(3 * p, 1),
        "interaction": summarise_null(24.0, draws, exact=False),
        "interaction_draws": draws,
        "exact": True,
        "base": np.array([5.0, 6.0, 7.0]),
        "n": np.array([30, 30, 30]),
        "clusters": (
            tuple(Head(1, index) for index in (0, 2, 4)),
            tuple(Head(1, index) for index in (1, 3, 5)),
        ),
        "tasks": ("basic arithmetic", "language", "pattern completion"),
        "metrics": ("log_prob_difference",) * 3,
        "units": ("nats",) * 3,
        "mode": "mean",
        "n_random": 20,
        "seed": seed,
        "layer": 1,
        "model": "micro",
        "step": 6144,
    }
    return ClusterEffects(**fields | changes)


def test_effects_of_clusters_lie_over_random_groups_of_their_size():
    effects = cluster_effects()
    figure = plot_cluster_effects(effects)
    for c, (null, marks) in enumerate(
        zip(the(figure, "null"), the(figure, "effect"), strict=False)
    ):
        np.testing.assert_allclose(marks.x, effects.effects[c])
        bars = np.reshape(null.x, (3, 3))
        np.testing.assert_allclose(bars[:, 0], effects.null_mean[c] - 2 * effects.null_sd[c])
        np.testing.assert_allclose(bars[:, 1], effects.null_mean[c] + 2 * effects.null_sd[c])
        assert list(figure.data).index(null) < list(figure.data).index(marks)


def test_filled_marks_have_a_small_q_not_a_small_p():
    """By p alone the second cluster's last mark would be filled too."""
    first, second = the(plot_cluster_effects(cluster_effects()), "effect")
    assert [colour == PAPER for colour in first.marker.color] == [True, True, False]
    assert [colour == PAPER for colour in second.marker.color] == [True, True, True]


def test_the_matrix_is_standardised_tasks_by_clusters_with_q_in_its_cells():
    effects = cluster_effects()
    figure = plot_cluster_effects(effects)
    (cells,) = the(figure, "standardised")
    np.testing.assert_allclose(np.array(cells.z), effects.standardised.T)
    assert cells.text[2][0] == "−4.0<br>q = 0.03"
    nothing = cluster_effects(standardised=np.full((2, 3), -0.01))
    assert the(plot_cluster_effects(nothing), "standardised")[0].text[0][0] == "0.0<br>q = 1"
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-4.0, 4.0)


def test_the_interaction_stands_before_relabelled_heads():
    effects = cluster_effects()
    figure = plot_cluster_effects(effects)
    (line,) = the(figure, "interaction")
    bars = next(trace for trace in the(figure, "null") if trace.type == "bar")
    assert set(line.x) == {24.0}
    assert sum(bars.y) == pytest.approx(1.0)
    assert figure.layout.xaxis3.range is None
    assert f"p = {effects.p_value:.2g}" in {
        part for a in figure.layout.annotations for part in a.text.split("Interaction: ")
    }


def test_a_single_task_has_no_interaction_to_show():
    whole = cluster_effects()
    arrays = ("effects", "standardised", "null_mean", "null_sd", "cell_p", "cell_q")
    one = cluster_effects(
        **{name: getattr(whole, name)[:, :1] for name in arrays},
        base=whole.base[:1],
        n=whole.n[:1],
        tasks=("language",),
        metrics=("log_prob_difference",),
        units=("nats",),
        interaction=NullSummary.bare(float("nan")),
    )
    figure = plot_cluster_effects(one)
    assert not the(figure, "interaction")
    assert "p = " not in figure.layout.meta["headspec"]["alt"].replace("q = ", "")


def test_units_that_differ_are_not_put_under_one_name():
    mixed = cluster_effects(units=("nats", "nats", ""))
    assert plot_cluster_effects(mixed).layout.xaxis.title.text == "change, each task's own unit"
    assert plot_cluster_effects(cluster_effects()).layout.xaxis.title.text == "change, nats"


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
