"""Figures take the results of the library as they come: detector, shares, partners, losses."""

import numpy as np
import pandas as pd
import pytest
from plot_checks import check_figure, the
from synthetic_jumps import SEEDS, dimension_frame

from headspec import plots
from headspec.series.jump_battery import score_detector
from headspec.series.jump_losses import loss_around_jumps
from headspec.series.jump_partners import jump_coordination
from headspec.series.jump_phases import phase_shares
from headspec.series.jumps import detect_jumps
from headspec.studies.jump_hypotheses_counts import jump_rates

MODELS = ("cnn", "mlp")


@pytest.fixture(scope="module")
def curves():
    return dimension_frame(models=MODELS, metrics=("stable_rank",))


@pytest.fixture(scope="module")
def jumps(curves):
    return detect_jumps(curves, method="study")


def test_jumps_of_the_detector_lie_on_their_curves(curves, jumps):
    figure = plots.plot_dimensionality(curves, jumps)
    assert sum(len(trace.x) for trace in the(figure, "jump")) == len(jumps)
    overview = plots.plot_jump_overview(jumps)
    assert sum(len(trace.x) for trace in the(overview, "jump")) == len(jumps)
    check_figure(overview, "overview")


def test_rows_below_the_resolution_are_grey_and_have_no_jumps(curves):
    """The published jumps: all variation is rounding, so nothing is looked for."""
    rounding = curves.assign(resolution=1e3 * curves["value"])
    figure = plots.plot_jump_overview(detect_jumps(rounding, method="study"))
    assert not [trace for trace in the(figure, "jump") if len(trace.x)]
    assert len([shape for shape in figure.layout.shapes if shape.name == "not examined"]) == 10


def test_shares_by_step_and_by_index_stand_side_by_side(jumps):
    frame = pd.concat([phase_shares(jumps, by="step"), phase_shares(jumps, by="index")])
    figure = plots.plot_early_late(frame)
    by_step, by_index = the(figure, "value")
    late = list(figure.layout.yaxis.ticktext).index("all · late")
    assert by_step.x[late] > 0
    assert by_index.x[late] == 0  # divided by updates, no measurement can be late
    check_figure(figure, "shares")


def test_coordination_names_runs_and_all(jumps):
    found = jump_coordination(jumps, n_null=39)
    figure = plots.plot_jump_coordination(found)
    assert figure.layout.yaxis.ticktext[-1] == "all"
    assert len(figure.layout.yaxis.ticktext) == len(MODELS) * len(SEEDS) + 1
    (points,) = the(figure, "value")
    assert points.x[-1] == pytest.approx(found.share)
    (band,) = the(figure, "null band")
    assert min(x for x in band.x if np.isfinite(x)) >= 0
    check_figure(figure, "coordination")


def test_losses_have_a_dot_a_seed(jumps):
    step = np.arange(1, 1001)
    rng = np.random.default_rng(0)
    losses = pd.concat(
        pd.DataFrame({"step": step, "model": model, "seed": seed}).assign(
            loss=2 * np.exp(-step / 200) + 0.05 * rng.normal(size=len(step))
        )
        for model in MODELS
        for seed in SEEDS
    )
    found = loss_around_jumps(jumps, losses, n_null=99)
    figure = plots.plot_loss_around_jumps(found)
    whole = found.to_frame().query("part == 'all' and metric == 'loss_change.difference'")
    assert the(figure, "value")[0].x[0] == pytest.approx(whole["value"].iloc[0])
    dots = [y for y in the(figure, "seed")[0].y if y == 0]
    assert len(dots) == len(SEEDS)
    check_figure(figure, "losses")


def test_rates_of_runs_and_a_battery_of_rules(jumps):
    check_figure(plots.plot_jump_rates(jump_rates([jumps]), accepted=2), "rates")
    names = ["white noise", "S-curve over a tenth", "one jump"]
    frame = score_detector("study", n_series=3, n_points=100, curves=names)
    figure = plots.plot_detector_battery(frame)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles[0] == "False positives, no jumps"
    assert len(titles) == 4
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range
    check_figure(figure, "battery")
