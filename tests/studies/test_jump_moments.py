"""Moments of real, tiny runs: identified, measured, compared; nothing is passed off as a jump."""

import doctest
import importlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import entropy

import headspec as hs
from headspec.series.checkpoint_plan import plan_checkpoints
from headspec.series.jumps import detect_jumps
from headspec.studies.hypotheses import HypothesisVerdict
from headspec.studies.jump_hypotheses import judge_jump_hypotheses
from headspec.studies.jump_moments import METRICS, largest_changes
from headspec.studies.jump_moments_parts import rectified_layers
from headspec.training.vision import train_vision
from headspec.training.vision_config import VisionConfig

SIZES = {
    "transformer": {"width": 16, "depth": 2, "heads": 2, "mlp_width": 24},
    "cnn": {"width": 4, "depth": 2},
    "mlp": {"width": 8, "depth": 2},
}
STEPS = 240
OPTIONS = {"n_images": 60, "n_null": 5, "n_gabor": 1}


def config(model, **more):
    return VisionConfig(
        model=model, steps=STEPS, batch_size=8, measured_images=40, validate_every=0,
        **SIZES[model], **more
    )  # fmt: skip


@pytest.fixture(scope="module")
def first_pass(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    return {m: train_vision(config(m), out=folder / m, progress=False) for m in SIZES}


@pytest.fixture(scope="module")
def found(first_pass):
    return {m: hs.identify_moments(run, n_jumps=3) for m, run in first_pass.items()}


@pytest.fixture(scope="module")
def runs(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("second")
    return {
        m: train_vision(config(m, checkpoints=one.plan.steps), out=folder / m, progress=False)
        for m, one in found.items()
    }


@pytest.fixture(scope="module")
def measured(runs, found):
    return {m: hs.measure_moments(run, found[m].plan, **OPTIONS) for m, run in runs.items()}


def test_moments_of_a_run(first_pass, found):
    for model, one in found.items():
        frame, kinds = one.frame, one.frame["kind"].tolist()
        assert kinds.count("jump") + kinds.count("candidate") == 3
        assert kinds.count("jump") == min(3, len(one.jumps))
        assert (frame["detected"] == (frame["kind"] == "jump")).all()
        assert set(frame["model"]) == {model}
        named = frame.loc[frame["kind"].isin(["jump", "candidate"])]
        assert set(named["metric"]) <= set(METRICS)
        assert set(named["layer_name"]) <= set(first_pass[model].layer_names)
        assert named["magnitude"].gt(0).all()
        controls = frame.loc[frame["kind"] == "control"]
        owners = frame.set_index("moment")
        for _, control in controls.dropna(subset="matched").iterrows():
            assert control["layer_name"] == owners.loc[control["matched"], "layer_name"]


def test_what_is_no_jump_is_never_called_one(first_pass):
    """Among ordinary changes there is always a largest: asking for five moments makes no jump."""
    run = first_pass["mlp"]
    rng, rows = np.random.default_rng(0), run.dimensionality
    noise = replace(run, dimensionality=rows.assign(value=1 + rng.random(len(rows))))
    one = hs.identify_moments(noise, n_jumps=5)
    assert len(one.jumps) <= 1
    assert one.frame["detected"].sum() == len(one.jumps)
    assert (one.frame["kind"] == "candidate").sum() == 5 - len(one.jumps)
    assert "no jumps by the detector" in one.summary()
    bare = hs.identify_moments(noise, n_jumps=5, fill=False)
    assert "candidate" not in set(bare.frame["kind"])


def test_a_planted_jump_is_found_and_comes_first(first_pass):
    run = first_pass["mlp"]
    rng, rows = np.random.default_rng(1), run.dimensionality
    value = 5 + 0.01 * rng.standard_normal(len(rows))
    here = (rows["layer_name"] == "network.2") & (rows["metric"] == "stable_rank")
    value += (here & (rows["step"] >= 120)).to_numpy(float)
    one = hs.identify_moments(replace(run, dimensionality=rows.assign(value=value)), n_jumps=2)
    jump = one.frame.loc[one.frame["detected"]].iloc[0]
    assert (jump["layer_name"], jump["metric"]) == ("network.2", "stable_rank")
    assert jump["before"] < 115 < 120 < jump["after"]
    assert jump["magnitude"] == pytest.approx(1, abs=0.1)


def test_largest_changes_by_hand():
    steps = np.arange(0, 300, 5)
    value = np.random.default_rng(0).standard_normal(60) * 0.01
    value[20:22] += 0.2  # up and down again: a peak of two points
    frame = hs.results.tidy({"step": steps, "value": value}, layer=0, metric="m", model="a").assign(
        layer_name="x"
    )
    jumps = detect_jumps(frame)
    largest = largest_changes(frame, jumps, n=2)
    if len(jumps) == 0:
        assert largest["step"].iloc[0] in (100, 110)
        assert abs(largest["step"].diff().iloc[1]) >= 20
    assert len(largest_changes(frame, jumps, n=0)) == 0


def test_a_run_without_a_log_is_refused(first_pass):
    run = first_pass["mlp"]
    with pytest.raises(hs.InputError, match="measure_every"):
        hs.identify_moments(replace(run, dimensionality=run.dimensionality[:0]))
    with pytest.raises(hs.InputError, match="other metrics"):
        hs.identify_moments(run, metrics=["rank of fashion"])


def test_moments_are_saved_and_loaded(found, tmp_path):
    one = found["cnn"]
    for name in ("moments.json", "moments.parquet"):
        again = hs.results.load(hs.results.save(one, tmp_path / name))
        pd.testing.assert_frame_equal(again.frame, one.frame)
        assert again.plan.steps == one.plan.steps
        assert again.summary() == one.summary()


def test_both_passes_are_the_same_training(first_pass, runs):
    for model, run in runs.items():
        pd.testing.assert_series_equal(run.log["loss"], first_pass[model].log["loss"])


def test_every_measure_of_every_architecture(measured):
    common = {
        "validation_loss", "accuracy", "class_accuracy", "inactive_share", "treves_rolls",
        "class_selectivity", "cka", "procrustes", "weight_change", "largest_class_gain",
    }  # fmt: skip
    own = {
        "transformer": {
            "attention_entropy", "normalised_entropy", "entropy_range", "entropy_variance",
            "head_divergence",
        },
        "cnn": {"filter_orthogonality", "gabor_r2"},
        "mlp": set(),
    }  # fmt: skip
    for model, frame in measured.items():
        assert set(frame["metric"]) == common | own[model]
        assert set(frame["place"]) == {"before", "during", "after", "across"}
        assert set(frame["model"]) == {model}
        named = frame.dropna(subset="layer_name")
        assert named["value"].notna().mean() > 0.9


def test_measures_agree_with_the_model(runs, found, measured):
    """Loss, accuracy, entropy of a head, change of a matrix: by hand from the checkpoints."""
    run, frame = runs["transformer"], measured["transformer"]
    one = found["transformer"].frame.iloc[0]
    images = run.images
    rows = frame.loc[frame["moment"] == one["moment"]]

    def value(metric, place, **where):
        here = rows.loc[(rows["metric"] == metric) & (rows["place"] == place)]
        for column, wanted in where.items():
            here = here.loc[here[column] == wanted]
        assert len(here) == 1
        return here["value"].iloc[0]

    models = {place: run.model(int(one[place])) for place in ("before", "after")}
    with torch.no_grad():
        logits = models["after"](images.validation_images)
    labels = images.validation_labels
    loss = torch.nn.functional.cross_entropy(logits, labels)
    assert value("validation_loss", "after") == pytest.approx(float(loss), rel=1e-5)
    right = (logits.argmax(-1) == labels).double()
    assert value("accuracy", "after") == pytest.approx(float(right.mean()))
    threes = float(right[labels == 3].mean())
    assert value("class_accuracy", "after", **{"class": 3}) == pytest.approx(threes)
    few = images.validation_images[: OPTIONS["n_images"]]
    pattern = models["before"].attention_patterns(few)[1, :, 0].double().numpy()
    expected = entropy(pattern, axis=-1).mean()
    assert value("attention_entropy", "before", layer=1, head=0) == pytest.approx(expected)
    before, after = (m.get_parameter("fc.weight").detach().double() for m in models.values())
    moved = float((after - before).norm() / before.norm())
    assert value("weight_change", "across", layer_name="fc") == pytest.approx(moved)


def test_steps_shared_by_moments_have_the_same_numbers(measured):
    frame = measured["mlp"].loc[lambda rows: rows["metric"] == "validation_loss"]
    assert frame.groupby("step")["value"].nunique().max() == 1


def test_each_checkpoint_is_opened_once(runs, found, monkeypatch):
    opened = []
    kind = type(runs["mlp"])
    original = kind.model
    monkeypatch.setattr(
        kind, "model", lambda self, step: opened.append(step) or original(self, step)
    )
    hs.measure_moments(runs["mlp"], found["mlp"].plan, **OPTIONS)
    assert opened == sorted(found["mlp"].plan.steps)


def test_nothing_outside_is_touched(runs, found):
    state, grad = torch.get_rng_state(), torch.is_grad_enabled()
    hs.measure_moments(runs["mlp"], found["mlp"].plan, **OPTIONS)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.is_grad_enabled() == grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_numbers(runs, found):
    for model, run in runs.items():
        plan = found[model].plan
        cpu, gpu = (hs.measure_moments(run, plan, device=d, **OPTIONS) for d in ("cpu", "cuda"))
        np.testing.assert_allclose(gpu["value"], cpu["value"], rtol=1e-3, atol=1e-3)


def test_sparseness_is_that_of_what_passes_the_relu(runs):
    assert rectified_layers(runs["mlp"].model(0)) == ("network.0", "network.2")
    names = rectified_layers(runs["transformer"].model(0))
    assert names == ("transformer.layers.0.linear1", "transformer.layers.1.linear1")


def test_a_plan_without_checkpoints_is_refused(first_pass, found):
    with pytest.raises(hs.StepNotFoundError, match=r"checkpoints=plan\.steps"):
        hs.measure_moments(first_pass["mlp"], found["mlp"].plan)
    with pytest.raises(hs.InputError, match="a plan for mlp"):
        hs.measure_moments(first_pass["mlp"], found["cnn"].plan)


def test_two_checkpoints_a_moment_and_no_jumps_at_all(first_pass, tmp_path):
    none = pd.DataFrame({"step": [], "step_before": [], "magnitude": []})
    plan = plan_checkpoints(none, n_steps=STEPS, steps=np.arange(0, STEPS + 1, 5), per_jump=2)
    run = train_vision(config("mlp", checkpoints=plan.steps), out=tmp_path / "r", progress=False)
    frame = hs.measure_moments(run, plan, **OPTIONS)
    assert set(frame["kind"]) == {"landmark"}
    assert not len(hs.jump_effects(frame))


def test_the_hypotheses_from_real_runs(measured, found):
    frame = pd.concat(measured.values(), ignore_index=True)
    judged = judge_jump_hypotheses(frame, [one.jumps for one in found.values()], n_null=99)
    assert [each.verdict for each in judged.verdicts] == ["not decided"] * 4  # one seed
    effects = hs.jump_effects(frame, n_null=99, n_resamples=99)
    assert {"model", "metric", "value", "q", "decision"} <= set(effects.columns)


def test_a_summary_of_a_run(runs, found):
    run = runs["cnn"]
    verdicts = (HypothesisVerdict("a", "supported", "b"),)
    frame = hs.experiment_summary(run, jumps=found["cnn"].jumps, verdicts=verdicts)
    plain = frame.loc[frame["layer"].isna()].set_index("metric")["value"].to_dict()
    n_parameters = sum(p.numel() for p in run.model(0).parameters())
    assert plain["parameters"] == n_parameters
    assert plain["measurements"] == STEPS // 5 + 1
    assert plain["checkpoints"] == len(run.steps)
    assert plain["last_loss"] == pytest.approx(run.validation_loss)
    assert plain["supported"] == 1
    rank = run.dimensionality.query("metric == 'stable_rank' and layer_name == 'fc'")["value"]
    row = frame.query("metric == 'stable_rank' and layer_name == 'fc'").iloc[0]
    assert (row["least"], row["most"]) == (rank.min(), rank.max())
    counts = frame.loc[frame["metric"] == "jumps"]
    assert counts["value"].sum() == len(found["cnn"].jumps)


def test_two_checkpoints_are_compared_beside_controls(runs):
    run = runs["mlp"]
    first, second, third, fourth = run.steps[0], run.steps[1], run.steps[-2], run.steps[-1]
    frame = hs.compare_representations(
        run, first, second, controls=[(third, fourth)], n_images=50, n_null=19
    )
    pair = frame.loc[frame["kind"] == "pair"]
    assert (pair["n_controls"] == 1).all()
    cka = pair.loc[pair["metric"] == "cka"]
    assert (cka["value"] > cka["null_mean"]).all()
    other = hs.compare_representations(run, third, fourth, n_images=50, n_null=19)
    own = other.set_index(["layer_name", "metric"])["value"]
    beside = pair.set_index(["layer_name", "metric"])["control_mean"]
    pd.testing.assert_series_equal(own, beside, check_names=False)
    with pytest.raises(hs.InputError, match="earlier, later"):
        hs.compare_representations(run, fourth, third)


def test_the_same_checkpoint_twice_would_change_nothing(runs):
    """Identity: similarity 1 and no change, through the parts that comparisons are made of."""
    from headspec.studies.jump_moments_parts import compare_views, view_checkpoint

    run = runs["mlp"]
    data = run.images
    view, _ = view_checkpoint(
        run.model(0), data.validation_images, data.validation_labels, n_images=50
    )
    rows = pd.DataFrame(compare_views(view, view)).groupby("metric")["value"].mean()
    assert rows["cka"] == pytest.approx(1)
    assert rows["procrustes"] == pytest.approx(1)
    assert rows["weight_change"] == rows["largest_class_gain"] == 0


@pytest.mark.parametrize("name", ["jump_moments", "jump_moments_measures", "jump_infrastructure"])
def test_the_examples_in_docstrings_of(name):
    module = importlib.import_module(f"headspec.studies.{name}")
    assert doctest.testmod(module).failed == 0
