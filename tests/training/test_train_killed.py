"""kill -9 at any moment, also while writing; two processes on one batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_runs import CONFIG, DEVICES
from safetensors.torch import load_file
from tiny_training import one_thread, tiny_config

from headspec import open_suite, train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SCRIPT = Path(__file__).with_name("killed_runs.py")


def start(what, folder):
    done = subprocess.run(
        [sys.executable, SCRIPT, what, folder],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped, computed with one thread as the others."""
    with one_thread():
        return train(CONFIG, out=tmp_path_factory.mktemp("whole") / "run", progress=False)


def assert_same_bits(folder, run):
    from headspec.training.training_run import open_run

    again = open_run(folder)
    for name in ("step", "loss", "gradient_norm", "validation_loss", "muon_lr"):
        assert again.log[name].tolist() == pytest.approx(
            run.log[name].tolist(), rel=0, abs=0, nan_ok=True
        )
    assert again.suite.steps == run.suite.steps == CONFIG.checkpoint_steps
    for step in run.suite.steps:
        weights = load_file(run.folder / f"step{step}" / "model.safetensors")
        others = load_file(again.folder / f"step{step}" / "model.safetensors")
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)
    left = {path.name for path in again.folder.iterdir()}
    steps = {f"step{step}" for step in run.suite.steps}
    assert left == {"config.toml", "log.csv"} | steps


def test_killed_at_any_moment_the_run_ends_with_the_same_bits(tmp_path, whole):
    reached = start("moments", tmp_path / "run")
    assert len(reached) == 6
    assert_same_bits(tmp_path / "run", whole)


def test_killed_while_writing_the_run_ends_with_the_same_bits(tmp_path, whole):
    codes = start("writing", tmp_path / "run")
    assert codes[:9].count(-9) >= 6
    assert codes[-1] == 0
    assert_same_bits(tmp_path / "run", whole)


def test_two_processes_have_the_losses_of_one(tmp_path):
    assert start("devices", tmp_path / "two") == [0, 0]
    two = open_suite(tmp_path / "two")
    with one_thread():
        one = train(tiny_config(**DEVICES), out=tmp_path / "one", progress=False)
    from headspec.training.training_run import open_run

    log = open_run(tmp_path / "two").log
    np.testing.assert_allclose(log["loss"], one.log["loss"], rtol=1e-5)
    np.testing.assert_allclose(log["gradient_norm"], one.log["gradient_norm"], rtol=1e-3)
    np.testing.assert_allclose(log["validation_loss"], one.log["validation_loss"], rtol=1e-5)
    assert two.steps == one.suite.steps
