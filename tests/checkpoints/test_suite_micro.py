"""The embedded suite through `open_suite`: like any other, on really trained weights."""

from __future__ import annotations

import pickle
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from headspec.checkpoints.micro import STEPS, micro_path
from headspec.checkpoints.suite import CheckpointSuite, open_suite
from headspec.errors import StepNotFoundError


@pytest.fixture(scope="module")
def suite() -> CheckpointSuite:
    return open_suite("micro")


@pytest.fixture(scope="module")
def verified(suite: CheckpointSuite) -> pd.DataFrame:
    return suite.verify()


def test_it_opens_like_any_other(suite: CheckpointSuite, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "micro").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of that name does not hide it
    assert open_suite("micro").steps == suite.steps == STEPS
    assert suite.name == "micro"
    assert suite.n_heads == 12
    assert suite.n_layers >= 4
    last = suite.head_weights(STEPS[-1], 1)
    assert last.W_Q.shape[0] == 12
    assert last.W_Q.dtype == torch.float16
    assert (last.model, last.step, last.layer) == ("micro", STEPS[-1], 1)
    assert suite.tokenizer("9.8").input_ids
    assert pickle.loads(pickle.dumps(suite)).steps == STEPS
    with pytest.raises(StepNotFoundError, match="micro, which has"):
        suite.head_weights(143000, 0)


def test_it_is_sound(verified: pd.DataFrame) -> None:
    assert verified.ok.all(), list(verified.problems)
    assert verified.detour.dropna().between(1.0, 1.6).all()
    assert (verified.order > 0.5).all()


@pytest.mark.parametrize(("wrong", "original"), [(2, -3), (-4, 3), (-1, 5), (8, 12)])
def test_trained_weights_at_another_step(tmp_path: Path, wrong: int, original: int) -> None:
    """One checkpoint holds another time's weights, saved again in float32: named, and only it."""
    for step in STEPS:
        (tmp_path / f"step{step}").mkdir()
        source = micro_path("micro") / f"step{step}" / "model.safetensors"
        (tmp_path / f"step{step}" / "model.safetensors").symlink_to(source)
    (tmp_path / "config.json").write_text((micro_path("micro") / "config.json").read_text())
    target = tmp_path / f"step{STEPS[wrong]}" / "model.safetensors"
    target.unlink()
    moved = load_file(micro_path("micro") / f"step{STEPS[original]}" / "model.safetensors")
    save_file({name: tensor.float() for name, tensor in moved.items()}, target)
    frame = open_suite(tmp_path).verify()
    assert list(frame[~frame.ok].step) == [STEPS[wrong]]
    assert f"nearest to those of step {STEPS[original]}" in frame[~frame.ok].problems.iloc[0]
