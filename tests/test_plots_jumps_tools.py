"""The study's five pictures: patterns, heads before and after, filters, activations, entropies."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plot_checks import check_figure, the
from synthetic_jump_pictures import activations, attention, entropy_frame, filter_pair
from synthetic_jumps import jump_frame

from headspec import plots
from headspec.errors import InputError

BEFORE, AFTER = attention(), attention(sharp=3.0)
FILTERS = filter_pair()
ENTROPY = entropy_frame()


@pytest.fixture(scope="module")
def every_figure():
    before, after, r2 = FILTERS
    return {
        "text": plots.plot_attention_pattern(np.tril(np.ones((6, 6))) / np.arange(1, 7)[:, None]),
        "patches": plots.plot_attention_pattern({"head 3": AFTER[3]}, causal=False, grid=(4, 4)),
        "image": plots.plot_attention_pattern(
            {"a": AFTER[1], "b": AFTER[3]}, causal=False, grid=(4, 4), query="class"
        ),
        "filters": plots.plot_filters(before, after, gabor_r2=r2, gabor_null=0.8),
        "one step": plots.plot_filters(after),
        "activations": plots.plot_activation_heatmap(
            {"before": activations(), "after": activations(tuned=2, seed=1)}
        ),
        "signed": plots.plot_activation_heatmap(activations() - 0.5, sort_by=activations(seed=2)),
        "entropy": plots.plot_entropy_evolution(ENTROPY, jump_frame(models=("transformer",))),
        "entropy log": plots.plot_entropy_evolution(ENTROPY, scale="log"),
    }


def test_every_figure_is_of_the_palette_with_words_units_and_a_phone_layout(every_figure):
    for name, figure in every_figure.items():
        check_figure(figure, name)
        assert len(figure.layout.title.text) <= 34, name


# --- patterns ---------------------------------------------------------------------------------


def test_without_a_mask_nothing_is_called_later(every_figure):
    figure = every_figure["patches"]
    assert [a.text for a in figure.layout.annotations] == ["head 3"]
    assert not [shape for shape in figure.layout.shapes if shape.name == "diagonal"]
    # negative control: the same pattern taken for a causal one is reported
    causal = plots.plot_attention_pattern({"head 3": AFTER[3]})
    assert "not causal" in causal.layout.annotations[0].text


def test_the_class_token_and_rows_of_patches_are_named(every_figure):
    axis = every_figure["patches"].layout.xaxis
    assert axis.ticktext[:2] == ("class", "row 0")
    assert axis.tickvals[:3] == (0, 2.5, 6.5)
    (cells,) = the(every_figure["patches"], "cells")
    np.testing.assert_allclose(cells.customdata, AFTER[3], rtol=1e-5)


def test_an_image_is_one_querys_row_without_the_class_token(every_figure):
    first, second = the(every_figure["image"], "cells")
    np.testing.assert_allclose(first.z, AFTER[1][0, 1:].reshape(4, 4), rtol=1e-5)
    np.testing.assert_allclose(second.z, AFTER[3][0, 1:].reshape(4, 4), rtol=1e-5)
    share = f"{AFTER[1][0, 0]:.0%}"
    assert every_figure["image"].layout.annotations[0].text == f"a, {share} to the class token"
    mean = plots.plot_attention_pattern(AFTER[3], causal=False, grid=(4, 4), query="mean")
    np.testing.assert_allclose(
        the(mean, "cells")[0].z, AFTER[3].mean(0)[1:].reshape(4, 4), rtol=1e-5
    )
    one = plots.plot_attention_pattern(AFTER[3], causal=False, grid=(4, 4), query=7)
    (box,) = [shape for shape in one.layout.shapes if shape.name == "query"]
    assert (box.y0, box.x0) == (0.5, 1.5)  # token 7 is the patch in row 1, column 2


def test_grids_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="5 × 4 patches and the class token"):
        plots.plot_attention_pattern(AFTER[3], grid=(5, 4))
    with pytest.raises(InputError, match="Give grid"):
        plots.plot_attention_pattern(AFTER[3], query="class")
    with pytest.raises(InputError, match="Name a token"):
        plots.plot_attention_pattern(AFTER[3], grid=(4, 4), query=17)


# --- heads ------------------------------------------------------------------------------------


def test_heads_have_rows_before_after_and_change_on_two_scales():
    figure = plots.plot_attention_heads_comparison(BEFORE, AFTER)
    for kind, values in (("before", BEFORE), ("after", AFTER), ("change", AFTER - BEFORE)):
        cells = the(figure, kind)
        assert len(cells) == 8
        np.testing.assert_allclose([c.customdata for c in cells], values, atol=1e-6)
        assert {c.coloraxis for c in cells} == {"coloraxis2" if kind == "change" else "coloraxis"}
    scale = figure.layout.coloraxis2
    assert scale.cmin == -scale.cmax == pytest.approx(-np.abs(AFTER - BEFORE).max())
    assert figure.layout.coloraxis.cmax == pytest.approx(max(BEFORE.max(), AFTER.max()))


def test_on_a_phone_heads_go_down_and_kinds_across():
    figure = plots.plot_attention_heads_comparison(BEFORE, AFTER, heads=[1, 4])
    narrow = go.Figure(figure).update_layout(figure.layout.meta["headspec"]["narrow"])
    place = {
        trace.name: (
            narrow.layout["xaxis" + trace.xaxis[1:]].domain[0],
            -narrow.layout["yaxis" + trace.yaxis[1:]].domain[0],
        )
        for trace in figure.data
    }
    across = sorted(place, key=lambda name: place[name][::-1])
    kinds = ("before", "after", "change")
    assert across == [f"head {head} {kind}" for head in (1, 4) for kind in kinds]


def test_of_many_heads_those_that_change_most_are_shown():
    before, after = attention(heads=12), attention(heads=12, sharp=3.0)
    figure = plots.plot_attention_heads_comparison(before, after)
    assert the(figure, "change")[0].name == "head 4 change"
    assert "8 heads of 12" in figure.layout.meta["headspec"]["note"]
    with pytest.raises(InputError, match="heads from 0 to 7"):
        plots.plot_attention_heads_comparison(BEFORE, AFTER, heads=[8])
    with pytest.raises(InputError, match="probabilities"):
        plots.plot_attention_heads_comparison(10 * BEFORE, AFTER)


# --- filters ----------------------------------------------------------------------------------


def test_filters_share_one_symmetric_scale_and_lie_in_their_places(every_figure):
    before, after, _ = FILTERS
    cells = the(every_figure["filters"], "cells")
    for trace, values in zip(cells, (before, after, after - before), strict=True):
        drawn = np.array(trace.z, dtype=float)
        assert np.isfinite(drawn).sum() == values.size
        np.testing.assert_allclose(drawn[2:7, :5], values[0], rtol=1e-5)
        np.testing.assert_allclose(drawn[2:7, 6:11], values[1], rtol=1e-5)
        np.testing.assert_allclose(drawn[9:14, :5], values[4], rtol=1e-5)
    axis = every_figure["filters"].layout.coloraxis
    largest = max(np.abs(each).max() for each in (before, after, after - before))
    assert axis.cmax == -axis.cmin == pytest.approx(largest, rel=1e-5)


def test_gabor_fits_above_what_random_filters_reach_are_marked(every_figure):
    r2 = FILTERS[2]
    labels = the(every_figure["filters"], "label")[1].text
    assert [label.endswith("●") for label in labels] == (r2 > 0.8).tolist()
    assert the(every_figure["filters"], "label")[0].text[0] == "0"


def test_filters_of_other_shapes_are_refused():
    before, after, r2 = FILTERS
    with pytest.raises(InputError, match="one R² a filter"):
        plots.plot_filters(before, after, gabor_r2=r2[:3])
    with pytest.raises(InputError, match="filter height width"):
        plots.plot_filters(before[:, None])
    with pytest.raises(InputError, match="at most 64"):
        plots.plot_filters(np.zeros((65, 3, 3)))


# --- activations ------------------------------------------------------------------------------


def test_units_are_sorted_by_preferred_class_and_keep_their_names(every_figure):
    values = activations(tuned=2, seed=1)
    trace = the(every_figure["activations"], "cells")[1]
    order = [int(unit) for unit in trace.text[0]]
    np.testing.assert_allclose(trace.z, values[:, order], rtol=1e-5)
    assert np.all(np.diff(np.array(trace.z).argmax(0)) >= 0)
    assert sorted(order) == list(range(64))


def test_noise_has_a_diagonal_by_its_own_order_and_none_by_anothers():
    """The naive picture of untuned units looks tuned; sorted by other samples it does not."""
    first, second = (activations(units=640, seed=seed) for seed in (0, 1))

    def on_diagonal(figure):
        z = np.array(the(figure, "cells")[0].z)
        order = [int(unit) for unit in the(figure, "cells")[0].text[0]]
        best = (second if figure is held else first).argmax(0)[order]
        return z[best, np.arange(640)].mean() / z.mean()

    held = plots.plot_activation_heatmap(first, sort_by=second)
    own = plots.plot_activation_heatmap(first)
    assert on_diagonal(own) > 2
    assert on_diagonal(held) == pytest.approx(1, abs=0.15)
    assert "noise would show a diagonal" in own.layout.meta["headspec"]["note"]


def test_samples_are_averaged_by_label_and_the_scale_has_a_sign_where_needed(every_figure):
    values = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    figure = plots.plot_activation_heatmap(values, ["b", "b", "a"])
    np.testing.assert_allclose(the(figure, "cells")[0].z, [[4.0, 0.0], [0.0, 2.0]])
    assert list(figure.layout.yaxis.ticktext) == ["a", "b"]
    assert figure.layout.coloraxis.cmin == 0
    signed = every_figure["signed"].layout.coloraxis
    assert signed.cmin == -signed.cmax
    with pytest.raises(InputError, match="one label for each of 3 samples"):
        plots.plot_activation_heatmap(values, ["b"])
    with pytest.raises(InputError, match="panel out of before"):
        plots.plot_activation_heatmap({"before": values}, sort_by="after")


# --- entropies --------------------------------------------------------------------------------


def test_entropies_stand_below_the_uniform_pattern(every_figure):
    figure = every_figure["entropy"]
    for trace in the(figure, "null mean"):
        np.testing.assert_allclose(trace.y, np.log(17))
    lines = the(figure, "value")
    assert len(lines) == 16
    own = ENTROPY[(ENTROPY["layer"] == 2) & (ENTROPY["head"] == 1)]
    assert any(np.allclose(line.y, own["value"]) for line in lines if len(line.y) == len(own))


def test_jumps_stand_over_their_layer_or_over_all(every_figure):
    jumps = jump_frame(models=("transformer",))
    drawn = sum(len(trace.x) for trace in the(every_figure["entropy"], "jump"))
    assert drawn == jumps["layer_name"].str.contains("attn").sum()
    bare = jumps.drop(columns="layer_name").assign(layer=None)
    everywhere = plots.plot_entropy_evolution(ENTROPY.drop(columns="layer_name"), bare)
    assert sum(len(trace.x) for trace in the(everywhere, "jump")) == 4 * len(jumps)


def test_the_uniform_level_is_given_by_the_number_of_keys():
    rows = pd.DataFrame({"step": [0, 5], "layer": 0, "head": 0, "value": [1.2, 1.0]})
    assert not the(plots.plot_entropy_evolution(rows), "null mean")
    (line,) = the(plots.plot_entropy_evolution(rows, n_keys=4), "null mean")
    np.testing.assert_allclose(line.y, np.log(4))
    with pytest.raises(InputError, match="several for"):
        plots.plot_entropy_evolution(pd.concat([rows, rows]))
