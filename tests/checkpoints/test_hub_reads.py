"""Reading suites from the Hub: what is read, what it costs, and that the numbers are the file's."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from hub_server import FakeHub
from run_files import PYTHIA_STEPS, STEPS, as_bin, assert_same_heads, folder_files
from safetensors.torch import load_file
from zoo import tiny_model, tiny_tokenizer

from headspec.checkpoints.hub import FIRST_READ, spans
from headspec.checkpoints.readers import TensorSpec
from headspec.checkpoints.suite import open_suite
from headspec.errors import CheckpointError, InputError, StepNotFoundError
from headspec.layouts import head_weights_from_tensors


def save(name: str, folder: Path, **kwargs: object) -> dict[str, bytes]:
    """A zoo model as files; `shard` is the largest size of a shard."""
    shard = {"max_shard_size": kwargs.pop("shard")} if "shard" in kwargs else {}
    tiny_model(name, **kwargs).save_pretrained(folder, **shard)
    return folder_files(folder)


def test_the_hub_gives_what_the_files_hold(
    neox_hub: FakeHub, neox_steps: Path, tmp_path: Path
) -> None:
    remote, local = open_suite("lab/neox", cache_dir=tmp_path), open_suite(neox_steps)
    assert remote.name == "lab/neox"
    assert remote.steps == local.steps == STEPS
    for step in STEPS:
        state = load_file(neox_steps / f"step{step}" / "model.safetensors")
        assert remote.config(step) == local.config(step)
        for layer in (0, 1):
            expected = head_weights_from_tensors(local.config(step), layer, state)
            assert expected.W_Q.dtype == torch.float16
            assert_same_heads(remote.head_weights(step, layer), expected)
            assert_same_heads(local.head_weights(step, layer), expected)
    heads = remote.head_weights(4, 1)
    assert (heads.model, heads.step, heads.layer, heads.processing) == ("lab/neox", 4, 1, "none")


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "olmo2", "bert"])
@pytest.mark.parametrize("form", ["single", "sharded", "bin", "sharded_bin"])
def test_every_file_format(hub: FakeHub, tmp_path: Path, name: str, form: str) -> None:
    shard = {"shard": "100KB"} if form.startswith("sharded") else {}
    files = save(name, tmp_path / "saved", **shard)
    assert ("model.safetensors.index.json" in files) == form.startswith("sharded")
    if form == "bin":
        files = as_bin(files, tmp_path / "bin")
    if form == "sharded_bin":
        files = sharded_bin(files, tmp_path / "saved")
    hub.add("lab/model", "checkpoint-10", files)
    suite = open_suite("lab/model", cache_dir=tmp_path / "cache")
    state = tiny_model(name).state_dict()
    expected = head_weights_from_tensors(suite.config(10), 1, state)
    assert_same_heads(suite.head_weights(10, 1), expected)
    local = tmp_path / "run" / "checkpoint-10"
    local.mkdir(parents=True)
    for file, data in files.items():
        (local / file).write_bytes(data)
    assert_same_heads(open_suite(local.parent).head_weights(10, 1), expected)


def sharded_bin(files: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """Sharded safetensors as sharded PyTorch files."""
    index = json.loads(files["model.safetensors.index.json"])
    rename = {old: old.replace("safetensors", "bin") for old in set(index["weight_map"].values())}
    index["weight_map"] = {name: rename[old] for name, old in index["weight_map"].items()}
    changed = {"config.json": files["config.json"]}
    changed["pytorch_model.bin.index.json"] = json.dumps(index).encode()
    for old, new in rename.items():
        torch.save(load_file(folder / old), folder / new)
        changed[new] = (folder / new).read_bytes()
    return changed


def test_only_the_tensors_asked_for_are_read(hub: FakeHub, tmp_path: Path) -> None:
    files = save("gpt_neox", tmp_path / "saved", hidden_size=256, intermediate_size=1024)
    hub.add("lab/wide", "step8", files)
    suite = open_suite("lab/wide", cache_dir=tmp_path / "cache")
    suite.head_weights(8, 1)
    wanted = 4 * (256 * 768 + 256 * 256 + 768 + 256)  # qkv, dense and their biases in float32
    assert hub.n_bytes("^GET /cdn") <= wanted + FIRST_READ
    assert hub.n_bytes() <= wanted + FIRST_READ + 4000  # config and lists too
    assert hub.n_bytes() < len(files["model.safetensors"]) / 4
    assert len(hub.requests("^GET /cdn")) == 2  # header, and one range for all four tensors
    before = len(hub.log)
    assert_same_heads(
        suite.head_weights(8, 1), open_suite("lab/wide", cache_dir=tmp_path / "cache", offline=True)
        .head_weights(8, 1),
    )  # fmt: skip
    assert len(hub.log) == before  # the second time nothing is asked for
    suite.head_weights(8, 0)
    assert len(hub.log) == before + 2  # one redirected range: the header is known


def test_layer_6_of_pythia_160m_costs_five_megabytes() -> None:
    """Computed from the layout of the file: float16, 768 wide, names in alphabetical order."""
    specs, position = {}, 20_000
    layer = "gpt_neox.layers.6.attention"
    for name, size in (
        ("dense.bias", 768),
        ("dense.weight", 768 * 768),
        ("masked_bias", 1),
        ("query_key_value.bias", 2304),
        ("query_key_value.weight", 768 * 2304),
    ):
        specs[f"{layer}.{name}"] = TensorSpec("F16", (size,), position, position + 2 * size)
        position += 2 * size
    del specs[f"{layer}.masked_bias"]
    ((start, stop, names),) = spans(specs)
    assert len(names) == 4
    assert stop - start + FIRST_READ < 4.8e6
    assert stop - start + FIRST_READ < 375e6 / 75


def test_far_tensors_are_asked_for_one_by_one() -> None:
    near = TensorSpec("F32", (4,), 100, 116)
    after = TensorSpec("F32", (4,), 120, 136)
    far = TensorSpec("F32", (4,), 10_000_000, 10_000_016)
    assert spans({"far": far, "after": after, "near": near}) == [
        (100, 136, ["near", "after"]),
        (10_000_000, 10_000_016, ["far"]),
    ]


def test_identical_steps_share_what_is_read(neox_hub: FakeHub, neox_steps: Path, tmp_path: Path):
    """Pythia's steps 0 and 1 are the same file: it is read once."""
    neox_hub.add("lab/neox", "step1", folder_files(neox_steps / "step0"))
    suite = open_suite("lab/neox", cache_dir=tmp_path)
    suite.head_weights(0, 0)
    n = len(neox_hub.requests("/cdn/"))
    assert_same_heads(suite.head_weights(1, 0), suite.head_weights(0, 0))
    assert len(neox_hub.requests("/cdn/")) == n
    assert len(neox_hub.requests("config.json")) == 1


def test_whole_files_in_the_cache_are_used(neox_hub: FakeHub, tmp_path: Path) -> None:
    suite = open_suite("lab/neox", cache_dir=tmp_path)
    path = suite.source.fetch(4, "model.safetensors")
    assert path.is_relative_to(tmp_path / "models--lab--neox")
    n = len(neox_hub.requests("/cdn/"))
    suite.head_weights(4, 1)
    assert len(neox_hub.requests("/cdn/")) == n


def test_the_token_stays_with_the_hub(
    neox_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    suite = open_suite("lab/neox", cache_dir=tmp_path)
    suite.head_weights(4, 1)
    assert {one.token for one in neox_hub.requests("resolve|api")} == {"Bearer hf_secret"}
    assert {one.token for one in neox_hub.requests("/cdn/")} == {None}
    assert b"hf_secret" not in pickle.dumps(suite)


def test_matrices_by_pattern(neox_hub: FakeHub, neox_steps: Path, tmp_path: Path) -> None:
    suite = open_suite("lab/neox", cache_dir=tmp_path)
    state = load_file(neox_steps / "step4" / "model.safetensors")
    found = suite.matrices(4, "gpt_neox.layers.*.mlp.*")
    assert list(found) == [
        "gpt_neox.layers.0.mlp.dense_4h_to_h.weight",
        "gpt_neox.layers.0.mlp.dense_h_to_4h.weight",
        "gpt_neox.layers.1.mlp.dense_4h_to_h.weight",
        "gpt_neox.layers.1.mlp.dense_h_to_4h.weight",
    ]
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())
    by_regex = suite.matrices(4, re.compile(r"layers\.\d\.mlp"))
    assert by_regex.keys() == found.keys()
    assert suite.checkpoint(4).matrices("embed*").keys() == {"embed_out.weight"}
    with pytest.raises(InputError, match=r"Similar names: gpt_neox\.layers\.0\.mlp\.dense_h_to_4h"):
        suite.matrices(4, "gpt_neox.layers.0.mlp.dense_h_to_3h.weight")
    with pytest.raises(InputError, match="fits vectors only"):
        suite.matrices(4, "*.bias")


def test_pythia_shaped_suite_names_nearest_steps(
    hub: FakeHub, neox_steps: Path, tmp_path: Path
) -> None:
    """Steps that Pythia never had, end to end."""
    files = folder_files(neox_steps / "step0")
    commit = hub.add("lab/pythia", "main", files)
    hub.refs["lab/pythia"].update({f"step{step}": commit for step in PYTHIA_STEPS})
    suite = open_suite("lab/pythia", cache_dir=tmp_path)
    assert suite.steps == PYTHIA_STEPS
    for missing in (256000, 512000, 1000000):
        with pytest.raises(StepNotFoundError, match=r"154 from 0 to 143000.*142000, 143000"):
            suite.head_weights(missing, 1)
    with pytest.raises(StepNotFoundError, match="nearest to 700: 256, 512, 1000"):
        suite.resolve_steps([700, 1000])
    assert suite.resolve_steps([1000, 0]) == (0, 1000)
    assert suite.resolve_steps() == PYTHIA_STEPS


def test_revision_format(neox_hub: FakeHub, neox_steps: Path, tmp_path: Path) -> None:
    files = folder_files(neox_steps / "step0")
    for branch in ("stage1-step10-tokens1B", "stage1-step20-tokens2B"):
        neox_hub.add("lab/olmo", branch, files)
    other = folder_files(neox_steps / "step1")
    neox_hub.add("lab/olmo", "stage2-step10-tokens1B", other)
    with pytest.raises(InputError, match="Say how its steps are named"):
        open_suite("lab/olmo", cache_dir=tmp_path)
    named = "stage1-step{step}-tokens{tokens}B"
    assert open_suite("lab/olmo", revision_format=named, cache_dir=tmp_path).steps == (10, 20)
    with pytest.raises(InputError, match="both step 10"):
        open_suite("lab/olmo", revision_format="{stage}-step{step}-{rest}", cache_dir=tmp_path)


def test_tokenizer_from_the_main_branch(hub: FakeHub, neox_steps: Path, tmp_path: Path) -> None:
    bare = folder_files(neox_steps / "step0")
    hub.add("lab/neox", "step0", bare)
    suite = open_suite("lab/neox", cache_dir=tmp_path)
    with pytest.raises(CheckpointError, match="expected a tokenizer in lab/neox step0"):
        _ = suite.tokenizer
    hub.add("lab/neox", "main", folder_files(neox_steps / "step1000"))
    suite = open_suite("lab/neox", cache_dir=tmp_path)
    assert suite.tokenizer("w5 w7")["input_ids"] == tiny_tokenizer()("w5 w7")["input_ids"]


def test_suites_pickle(neox_hub: FakeHub, tmp_path: Path) -> None:
    suite = open_suite("lab/neox", cache_dir=tmp_path)
    first = suite.checkpoint(1)
    checkpoint = pickle.loads(pickle.dumps(suite.checkpoint(4, previous=first)))
    assert checkpoint.previous.step == 1
    assert checkpoint.suite.steps == suite.steps
    assert_same_heads(checkpoint.head_weights(0), suite.head_weights(4, 0))
    assert (checkpoint.n_layers, checkpoint.n_heads) == (suite.n_layers, suite.n_heads) == (2, 4)
    assert checkpoint.config == suite.config(4)
    assert suite.fingerprint(4) == checkpoint.suite.fingerprint(4) != suite.fingerprint(1)


def test_an_open_suite_keeps_its_commits(
    neox_hub: FakeHub, neox_steps: Path, tmp_path: Path
) -> None:
    """A branch that moves on does not change what an open suite, or its workers, read."""
    suite = open_suite("lab/neox", cache_dir=tmp_path / "a")
    before = open_suite(neox_steps).head_weights(4, 0)
    neox_hub.add("lab/neox", "step4", folder_files(neox_steps / "step1000"))
    assert_same_heads(suite.head_weights(4, 0), before)
    moved = open_suite("lab/neox", cache_dir=tmp_path / "a").head_weights(4, 0)
    assert not torch.equal(moved.W_Q, before.W_Q)
