"""Suites in folders: which folders, what is shared, and what is said when something is missing."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from run_files import STEPS, assert_same_heads
from zoo import ZOO, config_dict, tiny_model, tiny_tokenizer

from headspec.checkpoints.suite import Checkpoint, open_suite
from headspec.errors import CheckpointError, InputError, StepNotFoundError


def test_a_folder_of_steps(neox_steps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = open_suite(neox_steps)
    assert suite.name == "neox-run"
    assert suite.steps == STEPS
    assert repr(suite) == "CheckpointSuite('neox-run', steps 0 to 1000)"
    assert open_suite(str(neox_steps)).steps == STEPS
    monkeypatch.chdir(neox_steps.parent)
    relative = open_suite("neox-run")
    monkeypatch.chdir("/")
    assert_same_heads(relative.head_weights(0, 0), suite.head_weights(0, 0))


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_architecture_bit_for_bit(name: str, tmp_path: Path) -> None:
    from headspec.layouts import head_weights_from_tensors

    tiny_model(name).save_pretrained(tmp_path / "checkpoint-500")
    suite = open_suite(tmp_path)
    model = tiny_model(name)
    for layer in (0, 1):
        right = head_weights_from_tensors(config_dict(model), layer, model.state_dict())
        assert_same_heads(suite.head_weights(500, layer), right)
    assert (suite.n_layers, suite.n_heads) == (2, 4)


def test_shared_config_and_tokenizer(neox_steps: Path, tmp_path: Path) -> None:
    """As the embedded suite lies: weights per step, the rest once."""
    for step in STEPS:
        (tmp_path / f"step{step}").mkdir()
        shutil.copy(neox_steps / f"step{step}" / "model.safetensors", tmp_path / f"step{step}")
    shutil.copy(neox_steps / "step0" / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"a tokenizer in .* tokenizer\.save_pretrained"):
        _ = open_suite(tmp_path).tokenizer
    tiny_tokenizer().save_pretrained(tmp_path)
    shared, own = open_suite(tmp_path), open_suite(neox_steps)
    assert shared.config(4) == own.config(4)
    assert_same_heads(shared.head_weights(4, 1), own.head_weights(4, 1))
    assert shared.tokenizer("w3 w9")["input_ids"] == own.tokenizer("w3 w9")["input_ids"]
    assert shared.verify().ok.all() == own.verify().ok.all()


def test_other_names(neox_steps: Path, tmp_path: Path) -> None:
    for i, name in enumerate(["iter_0010", "iter_0200", "logs"]):
        shutil.copytree(neox_steps / f"step{i}", tmp_path / name)
    with pytest.raises(InputError, match=r"named step\{N\} or checkpoint-\{N\}; got iter_0010"):
        open_suite(tmp_path)
    suite = open_suite(tmp_path, revision_format="iter_{step}")
    assert suite.steps == (10, 200)
    suite.head_weights(200, 0)


def test_single_checkpoints_are_told_what_to_do(neox_steps: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"open the one above it: '{neox_steps}'"):
        open_suite(neox_steps / "step4")
    tiny_model("gpt2").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="move its files into a sub-folder step0"):
        open_suite(tmp_path)
    tiny_model("gpt2").save_pretrained(tmp_path / "checkpoint-7")  # a Trainer's output folder
    assert open_suite(tmp_path).steps == (7,)


def test_folders_that_do_not_exist(tmp_path: Path) -> None:
    for name in (tmp_path / "no", str(tmp_path / "no"), "~/surely-not-there", "../no"):
        with pytest.raises(InputError, match="is not a folder"):
            open_suite(name)


def test_missing_steps(neox_steps: Path) -> None:
    suite = open_suite(neox_steps)
    for asked in (
        lambda: suite.head_weights(3, 0),
        lambda: suite.matrices(3, "*"),
        lambda: suite.config(3),
        lambda: suite.model(3),
        lambda: suite.checkpoint(3),
        lambda: suite.fingerprint(3),
        lambda: suite.verify(steps=[3]),
    ):
        with pytest.raises(StepNotFoundError, match="nearest to 3: 1, 2, 4"):
            asked()
    assert suite.resolve_steps(np.array([4, 0])) == (0, 4)


def test_only_what_is_asked_for_is_read(neox_steps: Path, tmp_path: Path) -> None:
    """The rest of the file may be anything: here it is NaN, and then not even there."""
    shutil.copytree(neox_steps, tmp_path / "run")
    path = tmp_path / "run" / "step4" / "model.safetensors"
    from headspec.checkpoints.readers import read_header

    specs = read_header(path).tensors
    data = bytearray(path.read_bytes())
    for name, spec in specs.items():
        if "layers.1.attention" not in name:
            data[spec.start : spec.stop] = b"\xff" * (spec.stop - spec.start)
    path.write_bytes(data)
    right = open_suite(neox_steps).head_weights(4, 1)
    assert_same_heads(open_suite(tmp_path / "run").head_weights(4, 1), right)
    assert open_suite(tmp_path / "run").head_weights(4, 0).W_Q.isnan().all()


def test_configs_that_are_not(neox_steps: Path, tmp_path: Path) -> None:
    shutil.copytree(neox_steps / "step4", tmp_path / "step4")
    suite = open_suite(tmp_path)
    for text in ("", "[1]", "{"):
        (tmp_path / "step4" / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match="as a JSON object"):
            suite.config(4)
    (tmp_path / "step4" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"or into .* if all steps share it"):
        suite.config(4)


def test_steps_that_disappear(neox_steps: Path, tmp_path: Path) -> None:
    shutil.copytree(neox_steps, tmp_path / "run")
    suite = open_suite(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "step4")
    with pytest.raises(CheckpointError):
        suite.head_weights(4, 0)
    assert "cannot be read" in suite.verify(steps=[0, 4]).problems[1]
    assert not suite.verification.ok[1]


def test_checkpoints(neox_steps: Path) -> None:
    suite = open_suite(neox_steps)
    checkpoint = suite.checkpoint(4, previous=suite.checkpoint(2))
    assert checkpoint == Checkpoint(suite, 4, Checkpoint(suite, 2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        checkpoint.step = 5  # type: ignore[misc]
    sent = pickle.loads(pickle.dumps(checkpoint))
    assert (sent.step, sent.previous.step, sent.previous.previous) == (4, 2, None)
    assert_same_heads(sent.head_weights(1), suite.head_weights(4, 1))
    assert sent.matrices("embed_out*").keys() == {"embed_out.weight"}
    assert sent.tokenizer("w2")["input_ids"] == suite.tokenizer("w2")["input_ids"]
    assert sent.config == json.loads((neox_steps / "step4" / "config.json").read_text())


def test_the_tokenizer_is_not_pickled(neox_steps: Path) -> None:
    suite = open_suite(neox_steps)
    small = len(pickle.dumps(suite))
    assert suite.tokenizer is suite.tokenizer
    assert len(pickle.dumps(suite)) == small


def test_layer_2_comes_before_layer_10(tmp_path: Path) -> None:
    tiny_model("gpt2", n_layer=11).save_pretrained(tmp_path / "step0")
    found = open_suite(tmp_path).matrices(0, "*attn.c_attn.weight")
    assert [name.split(".")[2] for name in found] == [str(i) for i in range(11)]


def test_fingerprints_follow_the_content(neox_steps: Path, tmp_path: Path) -> None:
    shutil.copytree(neox_steps, tmp_path / "run")
    suite = open_suite(tmp_path / "run")
    first = suite.fingerprint(4)
    assert first == open_suite(neox_steps).fingerprint(4) != suite.fingerprint(2)
    path = tmp_path / "run" / "step4" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert suite.fingerprint(4) != first
    assert torch.isfinite(suite.head_weights(4, 0).W_Q).all()
