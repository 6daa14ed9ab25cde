"""Two passes of the jumps study: the same losses, checkpoints where planned, nothing done again."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import headspec as hs
from headspec.errors import CheckpointError, InputError
from headspec.plots import (
    plot_activation_heatmap,
    plot_attention_heads_comparison,
    plot_attention_pattern,
    plot_filters,
    plot_jump_overview,
    plot_jump_rates,
)
from headspec.series.checkpoint_plan_result import load_checkpoint_plan
from headspec.studies import jump_runs
from headspec.studies.jump_runs import check_same_losses, run_jump_study
from headspec.studies.jump_scales import jump_scale, resolve_data
from headspec.studies.jump_study import analyse_jump_study
from headspec.studies.jump_study_figures import figure_inputs
from headspec.studies.jump_tables import run_counts
from headspec.training.vision_run import open_vision_run

pytestmark = pytest.mark.models


def tiny():
    return replace(
        jump_scale("debug").change(steps=90, n_jumps=1, batch_size=8),
        measured_images=20,
        n_images=30,
        n_gabor=0,
        controls=1,
        width=4,
        depth=2,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return run_jump_study(tiny(), seeds=(0, 1), out=out, progress=False)


def runs(study, model="mlp", seed=0):
    return [
        open_vision_run(f"{study.folder}/runs/{which}/{model}_seed{seed}")
        for which in ("first", "second")
    ]


def test_scales_are_the_studys():
    study = jump_scale("study")
    assert (study.steps, study.measure_every, study.n_jumps) == (2000, 5, 5)
    config = study.config("transformer", seed=3)
    assert (config.layer_width, config.n_layers, config.seed) == (128, 6, 3)
    assert len(tiny().models) == 3
    with pytest.raises(InputError, match="scale out of"):
        jump_scale("huge")
    with pytest.raises(InputError, match="models"):
        study.change(models=("rnn",))
    assert resolve_data("digits") == "digits"


def test_every_architecture_and_seed_is_measured(study):
    keys = {(model, seed) for model in ("transformer", "cnn", "mlp") for seed in (0, 1)}
    for frame in (study.dimensionality, study.logs, study.accuracy, study.moments, study.plans):
        found = frame[["model", "seed"]].drop_duplicates().itertuples(index=False)
        assert {(model, int(seed)) for model, seed in found} == keys
    assert len(run_counts(study)) == 6
    assert set(study.dimensionality["metric"]) >= {"stable_rank", "participation_ratio"}


def test_both_passes_have_the_same_losses_and_the_second_the_planned_checkpoints(study):
    first, second = runs(study)
    assert first.log["loss"].equals(second.log["loss"])
    assert first.steps == (0, 90)
    plan = load_checkpoint_plan(f"{study.folder}/plans/mlp_seed0.json")
    assert set(plan.steps) <= set(second.steps)
    assert second.config.measure_every == 0
    assert {"control", "landmark"} <= set(plan.moments["kind"])
    check_same_losses(first, second)


def test_other_losses_in_the_second_pass_are_an_error(study):
    first, second = runs(study)
    log = second.log.copy()
    row = log.index[40]
    log.loc[row, "loss"] = np.nextafter(log.loc[row, "loss"], 9)
    with pytest.raises(CheckpointError, match="the first other one at update"):
        check_same_losses(first, replace(second, log=log))
    with pytest.raises(CheckpointError, match="of them"):
        check_same_losses(first, replace(second, log=log.iloc[:-1]))


def test_a_second_run_does_nothing_again(study, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(jump_runs, "measure_moments", refuse)
    again = run_jump_study(tiny(), seeds=(0, 1), out=study.folder, progress=False)
    pd.testing.assert_frame_equal(again.moments, study.moments)
    pd.testing.assert_frame_equal(again.jumps.to_frame(), study.jumps.to_frame())
    with pytest.raises(AssertionError, match="measured again"):
        run_jump_study(replace(tiny(), n_images=29), seeds=(0, 1), out=study.folder, progress=False)


def test_other_settings_are_refused_not_mixed(study):
    with pytest.raises(InputError, match="steps"):
        run_jump_study(tiny().change(steps=80), seeds=(0,), out=study.folder, progress=False)


def test_the_analysis_and_its_files(study, tmp_path):
    found = analyse_jump_study(study)
    assert [one.verdict for one in found.verdicts] == ["not decided"] * 4  # two seeds
    assert len(found.tables["runs"]) == 3
    found.write(tmp_path)
    assert {"runs.parquet", "cnn_representative_jumps.csv"} <= {
        path.name for path in tmp_path.iterdir()
    } or "cnn_representatives" not in found.tables
    back = hs.results.load(tmp_path / "measurements.parquet")
    assert len(back) == len(study.moments)
    assert "jumps of dimensionality" in found.lead


def test_every_figure_has_something_to_show(study):
    inputs = figure_inputs(study, analyse_jump_study(study))
    plots = {
        "transformer_jump_overview": plot_jump_overview,
        "cnn_mlp_comprehensive_comparison": plot_jump_rates,
        "attention": plot_attention_pattern,
        "attention_heads": plot_attention_heads_comparison,
        "filters": plot_filters,
        "activations": plot_activation_heatmap,
    }
    for name, plot in plots.items():
        assert plot(**inputs[name]).data, name
    before = inputs["attention_heads"]["before"]
    np.testing.assert_allclose(before.sum(-1), 1, atol=1e-5)
    assert not np.array_equal(before, inputs["attention_heads"]["after"])


def test_without_any_jump_nothing_is_made_up(study):
    none = replace(study.jumps, table=study.jumps.table.iloc[:0])
    found = analyse_jump_study(replace(study, jumps=none))
    assert not found.parts
    assert {"shares", "types", "losses", "coordination", "jumps"}.isdisjoint(found.tables)
    inputs = figure_inputs(replace(study, jumps=none), found)
    assert "early_late_comprehensive" not in inputs
    plot_jump_overview(**inputs["transformer_jump_overview"])  # rows of layers without a jump
