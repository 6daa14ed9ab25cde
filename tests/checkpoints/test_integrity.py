"""`suite.verify()`: damaged, duplicated and misplaced checkpoints are named."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from hub_server import FakeHub, sha256
from run_files import as_bin, drifting_run, folder_files, save_run
from zoo import tiny_model

from headspec.checkpoints.integrity import COLUMNS
from headspec.checkpoints.suite import open_suite

LINE = (0, 1, 2, 4, 8, 16, 32, 64)


@pytest.fixture(scope="module")
def run() -> dict[int, dict[str, torch.Tensor]]:
    return drifting_run(LINE)


@pytest.fixture(scope="module")
def config() -> str:
    return tiny_model("gpt_neox").config.to_json_string(use_diff=False)


def rows(frame: pd.DataFrame) -> dict[int, pd.Series]:
    return {int(step): row for step, row in frame.set_index("step").iterrows()}


def test_a_sound_run(run, config, tmp_path: Path) -> None:
    suite = open_suite(save_run(tmp_path / "run", run, config))
    assert suite.verification is None
    frame = suite.verify()
    assert list(frame.columns) == list(COLUMNS)
    assert list(frame.step) == list(LINE)
    assert frame.ok.all()
    assert (frame.problems == "").all()
    assert frame.duplicate_of.isna().all()
    assert (frame.n_nan == 0).all()
    assert frame.distance_next[:-1].to_numpy() == pytest.approx(
        frame.distance_previous[1:].to_numpy()
    )
    data = (tmp_path / "run" / "step4" / "model.safetensors").read_bytes()
    assert rows(frame)[4].content_hash == f"sha256:{sha256(data)}" == suite.fingerprint(4)
    assert rows(frame)[4].n_bytes == len(data)
    assert suite.verification is frame
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(suite)).verification, frame)


def test_distances_are_those_of_the_weights(run, config, tmp_path: Path) -> None:
    """The sample of entries stands for all of them."""
    frame = open_suite(save_run(tmp_path, run, config)).verify()
    flat = {
        step: torch.cat([t.flatten() for _, t in sorted(run[step].items())]).double()
        for step in LINE
    }
    scale = torch.stack([flat[step].square().sum() for step in LINE]).mean().sqrt()
    exact = [(flat[b] - flat[a]).norm() / scale for a, b in pairwise(LINE)]
    assert frame.distance_previous[1:].to_numpy() == pytest.approx(
        torch.stack(exact).numpy(), rel=0.03
    )


def test_steps_0_and_1_of_pythia_are_reported(run, config, tmp_path: Path) -> None:
    """Averaged in, they would count twice."""
    suite = open_suite(save_run(tmp_path, {**run, 1: run[0]}, config))
    found = rows(suite.verify())
    assert (found[0].duplicate_of, found[1].duplicate_of) == (1, 0)
    assert "identical to step 1 (usual where" in found[0].problems
    assert not found[0].ok
    assert all(found[step].ok for step in LINE[2:])


def test_late_weights_at_early_steps(run, config, tmp_path: Path) -> None:
    """Branches of pythia-2.8b that serve the weights of the end of training."""
    served = {**run, 4: run[64], 8: run[64]}
    frame = open_suite(save_run(tmp_path, served, config)).verify()
    assert list(frame[frame.duplicate_of.notna()].step) == [4, 8, 64]
    assert "identical to step 8, 64" in rows(frame)[4].problems


@pytest.mark.parametrize(("wrong", "original"), [(4, 64), (32, 1), (64, 1), (0, 32)])
def test_another_steps_weights_though_not_the_same_file(
    run, config, tmp_path: Path, wrong: int, original: int
) -> None:
    """Hashes do not tell: the weights went through float16. Their place in the path does."""
    moved = {name: t.half().float() for name, t in run[original].items()}
    frame = open_suite(save_run(tmp_path, {**run, wrong: moved}, config)).verify()
    assert frame.duplicate_of.isna().all()
    assert list(frame[~frame.ok].step) == [wrong]
    assert f"nearest to those of step {original}" in rows(frame)[wrong].problems


def test_exchanged_neighbours(run, config, tmp_path: Path) -> None:
    frame = open_suite(save_run(tmp_path, {**run, 4: run[8], 8: run[4]}, config)).verify()
    flagged = list(frame[~frame.ok].step)
    assert len(flagged) == 1
    assert flagged[0] in (2, 4, 8, 16)


def test_nan_and_inf(run, config, tmp_path: Path) -> None:
    broken = {name: tensor.clone() for name, tensor in run[8].items()}
    broken["gpt_neox.layers.0.attention.dense.weight"][3, 5] = torch.nan
    broken["gpt_neox.layers.1.attention.dense.bias"][:2] = -torch.inf
    masked = {
        step: {**tensors, "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-torch.inf)}
        for step, tensors in {**run, 8: broken}.items()
    }  # as Pythia's float16 files hold: a constant, not a diverged weight
    frame = open_suite(save_run(tmp_path, masked, config)).verify()
    assert list(frame[~frame.ok].step) == [8]
    assert (rows(frame)[8].n_nan, rows(frame)[8].n_inf) == (1, 2)
    assert "1 NaN and 2 infinite" in rows(frame)[8].problems
    assert frame.distance_previous.isna().sum() == 2  # the first, and the broken one


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_bad_entry_in_any_dtype(run, config, tmp_path: Path, dtype, value) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in run[8].items()}
    tensors["gpt_neox.embed_in.weight"][-1, -1] = value
    (row,) = rows(open_suite(save_run(tmp_path, {8: tensors}, config)).verify()).values()
    assert (row.n_nan, row.n_inf) == ((0, 1), (1, 0))[value != value]


def test_damaged_files(run, config, tmp_path: Path) -> None:
    suite = open_suite(save_run(tmp_path, run, config))

    def weights(step: int) -> Path:
        return tmp_path / f"step{step}" / "model.safetensors"

    whole = weights(1).read_bytes()
    weights(1).write_bytes(whole[:-1])
    weights(2).unlink()
    weights(4).write_bytes(whole[:100])
    weights(8).write_bytes(whole + b"0")
    (tmp_path / "step16" / "config.json").write_text("{")
    (tmp_path / "step32" / "config.json").unlink()
    found = rows(suite.verify())
    assert [step for step in LINE if not found[step].ok] == [1, 2, 4, 8, 16, 32]
    assert found[1].truncated
    assert f"truncated: {len(whole) - 1:,} bytes instead of {len(whole):,}" in found[1].problems
    assert "cannot be read: expected one of model.safetensors" in found[2].problems
    assert "cannot be read" in found[4].problems
    assert "too long" in found[8].problems
    assert not found[8].truncated
    assert "config.json" in found[16].problems
    assert "config.json" in found[32].problems


def test_missing_and_mixed_up_shards(tmp_path: Path) -> None:
    for step in (0, 1, 2):
        folder = tmp_path / f"checkpoint-{step}"
        tiny_model("gpt2", seed=step).save_pretrained(folder, max_shard_size="100KB")
    shards = sorted(path.name for path in (tmp_path / "checkpoint-1").glob("*.safetensors"))
    (tmp_path / "checkpoint-1" / shards[1]).unlink()
    swapped = tmp_path / "checkpoint-2"
    (swapped / shards[0]).write_bytes((swapped / shards[1]).read_bytes())
    found = rows(open_suite(tmp_path).verify())
    assert found[0].ok
    assert found[0].n_files == len(shards)
    assert found[1].missing == shards[1]
    assert "missing files" in found[1].problems
    assert f"{shards[0]} lacks" in found[2].problems


def test_one_shard_of_another_step_is_named_by_its_hash(tmp_path: Path) -> None:
    """Single shards of one public suite belong to another step: no weights need be read to see."""
    for step in (0, 1, 2):
        folder = tmp_path / f"checkpoint-{step}"
        tiny_model("gpt2", seed=step).save_pretrained(folder, max_shard_size="100KB")
    assert open_suite(tmp_path).verify(deep=False)["ok"].all()
    shard = sorted(path.name for path in (tmp_path / "checkpoint-2").glob("*.safetensors"))[1]
    late = (tmp_path / "checkpoint-2" / shard).read_bytes()
    (tmp_path / "checkpoint-0" / shard).write_bytes(late)
    found = rows(open_suite(tmp_path).verify(deep=False))
    assert found[0].problems == "has a file of weights in common with step 2"
    assert found[2].problems == "has a file of weights in common with step 0"
    assert found[1].ok


def test_another_model_among_the_steps(run, config, tmp_path: Path) -> None:
    root = save_run(tmp_path, run, config)
    tiny_model("gpt_neox", num_hidden_layers=1).save_pretrained(root / "step128")
    found = rows(open_suite(root).verify())
    assert "other tensors than most steps have" in found[128].problems
    assert all(found[step].ok for step in LINE)


def test_pytorch_files(run, config, tmp_path: Path) -> None:
    root = save_run(tmp_path / "run", {step: run[step] for step in LINE[:5]}, config)
    for step in LINE[:5]:
        folder = root / f"step{step}"
        files = as_bin(folder_files(folder), tmp_path / "bin")
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(files["pytorch_model.bin"])
    suite = open_suite(root)
    frame = suite.verify()
    assert frame.ok.all()
    assert frame.distance_previous[1:].notna().all()
    half = (root / "step2" / "pytorch_model.bin").read_bytes()[:5000]
    (root / "step2" / "pytorch_model.bin").write_bytes(half)
    assert "cannot be read" in rows(suite.verify())[2].problems


def test_the_hub_without_download(hub: FakeHub, run, config, tmp_path: Path) -> None:
    root = save_run(tmp_path / "run", {**run, 1: run[0]}, config)
    for step in LINE:
        hub.add("lab/run", f"step{step}", folder_files(root / f"step{step}"))
    suite = open_suite("lab/run", cache_dir=tmp_path / "cache")
    frame = suite.verify(steps=LINE[:4])
    assert list(frame.step) == list(LINE[:4])
    assert hub.n_bytes("/cdn/") <= 4 * 32768  # headers alone
    local = open_suite(root).verify(steps=LINE[:4], deep=False)
    cheap = ["step", "ok", "problems", "content_hash", "duplicate_of", "n_bytes", "truncated"]
    pd.testing.assert_frame_equal(frame[cheap], local[cheap])
    assert frame.n_nan.isna().all()
    assert frame.distance_previous.isna().all()


def test_the_hub_in_depth(hub: FakeHub, run, config, tmp_path: Path) -> None:
    root = save_run(tmp_path / "run", {**run, 4: run[64]}, config)
    for step in LINE:
        hub.add("lab/run", f"step{step}", folder_files(root / f"step{step}"))
    suite = open_suite("lab/run", cache_dir=tmp_path / "cache")
    deep, local = suite.verify(deep=True), open_suite(root).verify()
    pd.testing.assert_frame_equal(
        deep.drop(columns=["model", "n_files"]), local.drop(columns=["model", "n_files"])
    )
    assert not deep.set_index("step").ok[4]


def test_a_cached_file_that_was_damaged_later(hub: FakeHub, neox_hub, tmp_path: Path) -> None:
    suite = open_suite("lab/neox", cache_dir=tmp_path / "cache")
    path = suite.source.fetch(4, "model.safetensors").resolve()
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.write_bytes(data)
    assert suite.verify().ok.all()  # metadata alone cannot tell
    assert (
        "other content in the cache than the Hub lists"
        in rows(suite.verify(deep=True))[4]["problems"]
    )


def test_formats_that_disagree(hub: FakeHub, run, config, tmp_path: Path) -> None:
    """A branch whose safetensors are another step's while its PyTorch file is right."""
    root = save_run(tmp_path / "run", {0: run[0], 2: run[64], 64: run[64]}, config)
    for step in (0, 2, 64):
        files = folder_files(root / f"step{step}")
        right = {"model.safetensors": b"", **files}
        (tmp_path / str(step)).mkdir()
        torch.save(run[step], tmp_path / str(step) / "pytorch_model.bin")
        right["pytorch_model.bin"] = (tmp_path / str(step) / "pytorch_model.bin").read_bytes()
        hub.add("lab/run", f"step{step}", right)
    found = rows(open_suite("lab/run", cache_dir=tmp_path / "cache").verify())
    assert "pytorch_model.bin differs: one of the two formats is wrong" in found[2].problems
    assert found[0].ok
