"""`train_vision`: what it writes, and that measuring and checkpoints change nothing."""

import doctest
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_training import one_thread
from tiny_vision import tiny_vision

from headspec import (
    CheckpointError,
    InputError,
    StepNotFoundError,
    TrainingDivergedError,
    VisionConfig,
    VisionRun,
    dimensionality_stats,
    open_images,
    open_vision_run,
    train_vision,
)
from headspec.activations.dimensionality_result import METRICS
from headspec.training import vision, vision_data
from headspec.training.dimension_log import DimensionLog, measure_layers, resolve_layers

MODELS = ("transformer", "cnn", "mlp")


@pytest.fixture(autouse=True, scope="module")
def threads():
    with one_thread():
        yield


def train(folder, model="mlp", **changes):
    return train_vision(tiny_vision(model, **changes), out=folder, progress=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {model: train(folder / model, model, checkpoints=(3, 7)) for model in MODELS}


def same_bits(one: pd.Series, other: pd.Series):
    assert one.to_numpy(float).tobytes() == other.to_numpy(float).tobytes()


@pytest.mark.parametrize("model", MODELS)
def test_what_a_run_holds(runs, model):
    run = runs[model]
    assert isinstance(run, VisionRun)
    assert run.steps == (0, 3, 7, 12)
    assert run.log["step"].tolist() == list(range(13))
    assert run.log["validation_loss"].notna().to_numpy().nonzero()[0].tolist() == [0, 6, 12]
    assert run.log["images"].iloc[-1] == 12 * 16
    frame = run.dimensionality
    assert frame["step"].unique().tolist() == [0, 3, 6, 9, 12]
    assert tuple(frame["metric"].unique()) == METRICS
    assert frame["layer_name"].unique().tolist() == list(run.layer_names)
    assert (frame["model"] == model).all()
    assert (frame["seed"] == 0).all()
    assert len(frame) == 5 * len(METRICS) * len(run.layer_names)
    assert not frame.duplicated(["step", "layer", "metric"]).any()
    assert np.isfinite(frame["value"]).all()
    assert (frame["resolution"] > 0).all()
    assert model in run.summary()
    assert run.to_frame()["metric"].nunique() == 5


@pytest.mark.parametrize("model", MODELS)
def test_what_is_logged_is_what_the_checkpoints_have(runs, model):
    """Oracle: the frame at a checkpoint's step, computed again from its weights."""
    run = runs[model]
    images = open_images("digits").validation_images[:40]
    for step in (0, 3, 12):
        found = run.dimensionality[run.dimensionality["step"] == step]
        stats = dimensionality_stats(run.model(step).activations(images))
        for metric in METRICS:
            rows = found[found["metric"] == metric].sort_values("layer")
            expected = getattr(stats, metric)
            np.testing.assert_allclose(rows["value"], expected, rtol=1e-6)
            np.testing.assert_array_less(
                np.abs(rows["value"] - expected), np.maximum(rows["resolution"], 1e-12)
            )


def test_the_activations_measured_are_held_out_and_centred(runs):
    """Negative control: of training images, or about zero, the numbers are others."""
    run, data = runs["mlp"], open_images("digits")
    logged = run.dimensionality.query("step == 12 and metric == 'participation_ratio'")["value"]
    model = run.model(12)
    other = measure_layers([*model.activations(data.train_images[:40]).values()])
    assert np.abs(logged - [row["participation_ratio"] for row in other]).min() > 1e-3
    raw = dimensionality_stats(model.activations(data.validation_images[:40]), centred=False)
    assert np.abs(logged - raw.participation_ratio).min() > 1e-3


@pytest.mark.parametrize("model", MODELS)
def test_measuring_and_checkpoints_change_no_bit(runs, model, tmp_path):
    """The second pass: other checkpoints, nothing measured, no validation between the ends."""
    first = runs[model]
    second = train(
        tmp_path / "second",
        model,
        checkpoints=(1, 2, 8),
        measure_every=0,
        validate_every=0,
        save_every=3,
    )
    for column in ("loss", "gradient_norm", "lr"):
        same_bits(first.log[column], second.log[column])
    one, other = first.model(12).state_dict(), second.model(12).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(second.dimensionality) == len(second.accuracy) == 0
    assert list(second.dimensionality.columns) == list(first.dimensionality.columns)
    assert "dimensionality" not in second.summary()


def test_other_seeds_and_a_measurement_that_draws_numbers_do_change_bits(
    runs, tmp_path, monkeypatch
):
    """Negative controls of the test above."""
    other = train(tmp_path / "seed", seed=1)
    assert other.log["loss"].iloc[1] != runs["mlp"].log["loss"].iloc[1]
    measure = DimensionLog.measure

    def careless(self, step):
        measure(self, step)
        with torch.no_grad():
            self.model.network[0].weight += 1e-3 * torch.randn_like(self.model.network[0].weight)

    monkeypatch.setattr(DimensionLog, "measure", careless)
    spoilt = train(tmp_path / "spoilt")
    assert spoilt.log["loss"].iloc[5] != runs["mlp"].log["loss"].iloc[5]


@pytest.mark.parametrize("model", MODELS)
def test_measurements_do_not_depend_on_how_many_are_computed_together(runs, model):
    """Grouping changes with checkpoints and resumption; the bits may not."""
    run, images = runs[model], open_images("digits").validation_images[:40]
    found = [[*run.model(step).activations(images).values()] for step in run.steps]
    together = measure_layers([part for parts in found for part in parts])
    assert together == [row for parts in found for row in measure_layers(parts)]


def test_accuracy_of_each_class_over_time(runs):
    run, data = runs["cnn"], open_images("digits")
    frame = run.accuracy
    assert list(frame.columns) == ["step", "class", "value", "loss", "n"]
    assert frame["step"].unique().tolist() == [0, 3, 6, 9, 12]
    with torch.no_grad():
        logits = run.model(12)(data.validation_images[:40])
    labels, last = data.validation_labels[:40], frame[frame["step"] == 12]
    for row in last.itertuples():
        here = labels == row[2]
        assert row.n == int(here.sum()) == 4
        assert row.value == float((logits[here].argmax(-1) == row[2]).double().mean())
        loss = torch.nn.functional.cross_entropy(logits[here], labels[here])
        assert row.loss == pytest.approx(float(loss), rel=1e-6)
    whole = run.class_accuracy(12)
    assert whole["n"].sum() == 540
    total = (whole["loss"] * whole["n"]).sum() / 540
    assert total == pytest.approx(run.validation_loss, rel=1e-6)


def test_learning_and_schedules(tmp_path):
    longer = {"steps": 200, "width": 32, "measure_every": 0, "batch_size": 64}
    run = train(tmp_path / "cosine", **longer, lr=3e-3, warmup=0.05)
    right = run.class_accuracy(200)
    assert (right["value"] * right["n"]).sum() / right["n"].sum() > 0.85
    rates = run.log["lr"].iloc[1:].to_numpy()
    assert rates.max() == 3e-3
    assert rates[-1] == 0
    flat = train(tmp_path / "flat", schedule="constant").log["lr"].iloc[1:].to_numpy()
    np.testing.assert_allclose(flat, np.r_[1 / 3, 2 / 3, np.ones(10)] * 1e-3, rtol=1e-12)


def test_positions_as_samples(tmp_path):
    run = train(tmp_path / "run", "cnn", samples="positions")
    images = open_images("digits").validation_images[:40]
    acts = run.model(12).activations(images, samples="positions")
    expected = dimensionality_stats(acts).stable_rank
    found = run.dimensionality.query("step == 12 and metric == 'stable_rank'")["value"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_resolution_holds_between_its_measurements(tmp_path, monkeypatch):
    """At steps 0, 6 and 12 it is measured; at 3 the larger of its neighbours stands."""
    monkeypatch.setattr(vision, "_RESOLVE_EVERY", 2)
    run = train(tmp_path / "run", checkpoints=(6,))
    images = open_images("digits").validation_images[:40]
    limits = {
        step: [
            row["stable_rank_resolution"]
            for row in resolve_layers([*run.model(step).activations(images).values()])
        ]
        for step in run.steps
    }
    frame = run.dimensionality.query("metric == 'stable_rank'").sort_values(["step", "layer"])
    found = frame["resolution"].to_numpy().reshape(5, -1)
    np.testing.assert_array_equal(found[[0, 2, 4]], [limits[step] for step in (0, 6, 12)])
    np.testing.assert_array_equal(found[1], np.maximum(limits[0], limits[6]))


def test_a_finished_run_is_returned_and_another_config_refused(runs):
    run = runs["mlp"]
    again = train_vision(run.config, out=run.folder)
    pd.testing.assert_frame_equal(again.dimensionality, run.dimensionality)
    with pytest.raises(InputError, match="measure_every: 5 instead of 3"):
        train_vision(replace(run.config, measure_every=5), out=run.folder)
    with pytest.raises(InputError, match="resume=False"):
        train_vision(run.config, out=run.folder, resume=False)
    with pytest.raises(StepNotFoundError, match=r"0, 3, 7, 12; got step 5\. Train again from"):
        run.model(5)


def test_what_is_no_run_or_not_finished(tmp_path, runs):
    with pytest.raises(InputError, match=r"without config\.toml"):
        open_vision_run(tmp_path)
    VisionConfig().to_file(tmp_path / "config.toml")
    with pytest.raises(CheckpointError, match="no step2000"):
        open_vision_run(tmp_path)
    with pytest.raises(InputError, match="no folder is called so"):
        train_vision(VisionConfig(data="nowhere"), out=tmp_path / "run")


def test_damaged_checkpoints_are_named(tmp_path):
    run = train(tmp_path / "run")
    weights = run.folder / "step12" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="the weights of step 12"):
        run.model(12)
    for description in ("{}", "[]"):
        (run.folder / "step0" / "config.json").write_text(description)
        with pytest.raises(CheckpointError, match="the description of a model"):
            run.model(0)


@pytest.mark.parametrize("name", ["log.csv", "dimensionality.csv", "accuracy.csv"])
def test_lost_and_damaged_logs_are_named(tmp_path, name):
    """A run without its measurements is not one that measured nothing."""
    folder = train(tmp_path / "run").folder
    lines = (folder / name).read_text().splitlines(keepends=True)
    for content in ("a,b\n1,2\n", "", "".join([*lines[:3], "x,y\n"]), "".join([*lines[:3], "1\n"])):
        (folder / name).write_text(content)
        with pytest.raises(CheckpointError, match=f"the columns step, .*{name}"):
            open_vision_run(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match="FileNotFoundError"):
        open_vision_run(folder)


def test_a_run_that_diverges_says_where(tmp_path):
    with pytest.raises(TrainingDivergedError, match="Lower the learning rates"):
        train(tmp_path / "run", "cnn", lr=1e30, clip=0)


def test_activations_that_are_not_finite_end_the_run(tmp_path, monkeypatch):
    infinite = torch.full((40, 3), float("inf"))
    with pytest.raises(FloatingPointError, match="not finite"):
        measure_layers([torch.zeros(40, 3), infinite])
    monkeypatch.setattr(
        "headspec.training.vision_models.VisionMLP.activations",
        lambda self, images, samples: dict.fromkeys(self.layer_names, infinite),
    )
    with pytest.raises(TrainingDivergedError, match="activations that are not finite"):
        train(tmp_path / "run")


@pytest.mark.parametrize("module", [vision, vision_data])
def test_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_trains_alike(runs, tmp_path):
    there = train_vision(tiny_vision("mlp"), out=tmp_path / "run", progress=False, device="cuda")
    np.testing.assert_allclose(there.log["loss"], runs["mlp"].log["loss"], rtol=1e-3)
