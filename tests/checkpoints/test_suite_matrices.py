"""Matrices of a checkpoint by role, from folders, the Hub and the embedded suite."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
import torch
from hub_server import FakeHub
from run_files import STEPS, folder_files
from zoo import ZOO, config_dict, tiny_model

from headspec import MATRICES
from headspec.checkpoints.hub import FIRST_READ
from headspec.checkpoints.micro import STEPS as MICRO_STEPS
from headspec.checkpoints.suite import CheckpointSuite, open_suite
from headspec.errors import StepNotFoundError
from headspec.layouts import embedding_matrices_from_tensors, layer_matrices_from_tensors


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Bit for bit, in the same order."""
    assert list(ours) == list(theirs)
    for role in theirs:
        assert ours[role].dtype == theirs[role].dtype
        assert torch.equal(ours[role], theirs[role]), role


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_architecture_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    model.save_pretrained(tmp_path / "checkpoint-500")
    suite, config, state = open_suite(tmp_path), config_dict(model), model.state_dict()
    for layer in (0, 1):
        right = layer_matrices_from_tensors(config, layer, state)
        assert_same(suite.layer_matrices(500, layer), right)
        assert_same(suite.checkpoint(500).layer_matrices(layer), right)
    right = embedding_matrices_from_tensors(config, state)
    assert_same(suite.embedding_matrices(500), right)
    assert_same(suite.checkpoint(500).embedding_matrices(), right)


def test_the_hub_gives_what_the_files_hold(
    neox_hub: FakeHub, neox_steps: Path, tmp_path: Path
) -> None:
    remote, local = open_suite("lab/neox", cache_dir=tmp_path), open_suite(neox_steps)
    for step in STEPS:
        assert_same(remote.layer_matrices(step, 1), local.layer_matrices(step, 1))
        assert_same(remote.embedding_matrices(step), local.embedding_matrices(step))
    with pytest.raises(StepNotFoundError, match="nearest to 3"):
        remote.layer_matrices(3, 0)
    with pytest.raises(StepNotFoundError, match="nearest to 3"):
        remote.embedding_matrices(3)


def test_only_the_matrices_are_read(hub: FakeHub, tmp_path: Path) -> None:
    tiny_model("gpt_neox", hidden_size=256, intermediate_size=1024).save_pretrained(tmp_path / "m")
    files = folder_files(tmp_path / "m")
    hub.add("lab/wide", "step8", files)
    suite = open_suite("lab/wide", cache_dir=tmp_path / "cache")
    suite.layer_matrices(8, 1)
    layer = 4 * (256 * 768 + 256 * 256 + 2 * 256 * 1024)
    between = 16384  # biases and norms that lie between the matrices in the file
    assert layer <= hub.n_bytes("^GET /cdn") <= layer + FIRST_READ + between
    assert hub.n_bytes("^GET /cdn") < len(files["model.safetensors"]) / 1.8
    before = hub.n_bytes("^GET /cdn")
    suite.embedding_matrices(8)
    tables = 2 * 4 * 61 * 256
    assert tables <= hub.n_bytes("^GET /cdn") - before <= tables + between
    before = len(hub.log)
    suite.layer_matrices(8, 1)
    suite.embedding_matrices(8)
    assert len(hub.log) == before  # the second time nothing is asked for


def test_the_embedded_suite() -> None:
    suite = open_suite("micro")
    last = MICRO_STEPS[-1]
    heads, found = suite.head_weights(last, 2), suite.layer_matrices(last, 2)
    assert list(found) == [role for role in MATRICES if role != "mlp_gate"]
    assert torch.equal(found["q"], torch.cat(list(heads.W_Q), dim=1))
    tables = suite.embedding_matrices(last)
    assert tables["embed"].shape == tables["unembed"].T.shape
    assert tables["embed"].dtype == torch.float16
    ids = torch.arange(5)[None]
    from headspec.checkpoints.building import build_model  # an oracle that shares no names

    model = build_model(suite.source, last, None, processing="none")
    with torch.no_grad():
        torch.testing.assert_close(model.embed(ids)[0], tables["embed"][:5].float())


def test_the_example_runs() -> None:
    (example,) = doctest.DocTestFinder().find(CheckpointSuite.layer_matrices, "layer_matrices")
    assert doctest.DocTestRunner().run(example).failed == 0
