"""A step as a hooked model: the right weights, built anew, from folders and from the Hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hub_server import FakeHub
from run_files import folder_files
from zoo import random_tokens, tiny_model

from headspec.checkpoints.suite import open_suite
from headspec.errors import CheckpointError
from headspec.lens.weights import head_weights

pytestmark = pytest.mark.models


def test_the_model_is_the_step(neox_steps: Path) -> None:
    suite = open_suite(neox_steps)
    tokens = random_tokens(2, 8)
    for step in (0, 4):
        model = suite.model(step)
        expected = tiny_model("gpt_neox", seed=step).half().float()(tokens).logits
        assert torch.allclose(model(tokens), expected, atol=1e-5)
        inside, stored = head_weights(model, 1), suite.head_weights(step, 1)
        assert torch.equal(inside.W_Q, stored.W_Q.float())
        assert torch.equal(inside.W_O, stored.W_O.float())
        assert (inside.model, inside.step) == ("neox-run", step)


def test_a_fresh_model_per_call(neox_steps: Path) -> None:
    """What is done to one model must not be in the next."""
    checkpoint = open_suite(neox_steps).checkpoint(4)
    tokens = random_tokens(1, 8)
    first = checkpoint.model()
    before = first(tokens).clone()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert torch.equal(checkpoint.model()(tokens), before)


def test_options_reach_the_model(neox_steps: Path) -> None:
    suite = open_suite(neox_steps)
    processed = suite.model(4, processing="compatibility")
    assert head_weights(processed, 1).processing != "none"
    assert head_weights(suite.model(4), 1).processing == "none"


def test_from_the_hub(neox_hub: FakeHub, neox_steps: Path, tmp_path: Path) -> None:
    tokens = random_tokens(1, 8)
    suite = open_suite("lab/neox", cache_dir=tmp_path / "cache")
    expected = open_suite(neox_steps).model(4)(tokens)
    assert torch.equal(suite.model(4)(tokens), expected)
    before = len(neox_hub.log)
    away = open_suite("lab/neox", cache_dir=tmp_path / "cache", offline=True)
    assert torch.equal(away.model(4)(tokens), expected)
    assert len(neox_hub.log) == before


def test_without_a_tokenizer(hub: FakeHub, neox_steps: Path, tmp_path: Path) -> None:
    hub.add("lab/bare", "step0", folder_files(neox_steps / "step0"))
    suite = open_suite("lab/bare", cache_dir=tmp_path / "cache")
    tokens = random_tokens(1, 8)
    assert torch.equal(suite.model(0)(tokens), open_suite(neox_steps).model(0)(tokens))


def test_incomplete_checkpoints_are_not_filled_with_noise(neox_steps: Path, tmp_path: Path) -> None:
    """transformers would initialise what is missing at random and warn."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(neox_steps / "step4", tmp_path / "step4")
    path = tmp_path / "step4" / "model.safetensors"
    tensors = load_file(path)
    del tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing or of another shape.*dense_h_to_4h"):
        open_suite(tmp_path).model(4)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        open_suite(tmp_path).model(4)


def test_loading_shows_no_bar_for_each_checkpoint_and_leaves_the_setting(capfd):
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    open_suite("micro-tiny").model(0)
    assert "Loading" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled() is shown
