"""Where a run may start: checkpoints as `initial`, folders that are free, devices that exist."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import MODEL, tiny_config, tiny_data
from zoo import save_tiny

from headspec import InputError, build_mini_qwen, drop_rope, recalibrate, train
from headspec.lens.pretrained import load_pretrained
from headspec.training.language_models import next_token_loss, starting_model
from headspec.training.run_folder import CONFIG_FILE
from headspec.training.token_data import open_token_data

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny_config(steps=40, checkpoints=2, validate_every=0)
    return train(config, out=tmp_path_factory.mktemp("runs") / "first", progress=False)


def test_training_on_keeps_what_was_dropped(tmp_path, run):
    """transformers rotates again: without restoring, the weights go on as another model."""
    dropped = recalibrate(run, out=tmp_path / "drop", steps=2, layers=[1], progress=False)
    initial = str(tmp_path / "drop" / "step2")
    config = tiny_config(initial=initial, steps=2, warmup=0, checkpoints=2)
    more = train(config, out=tmp_path / "more", progress=False)
    first = float(more.log["validation_loss"].iloc[0])
    assert first == pytest.approx(dropped.validation_loss, abs=1e-6)
    assert more.suite.config(2)["dropped_rope_layers"] == [1]
    further = starting_model(replace(config, drop_rope=(0,)))
    assert further.config.dropped_rope_layers == [0, 1]
    tokens = torch.from_numpy(open_token_data(tiny_data()).tokens[:24].astype(np.int64))
    loaded, _ = load_pretrained(initial)
    rotating, _ = load_pretrained(str(run.folder / "step40"))
    rotating.load_state_dict(loaded.state_dict())
    with torch.no_grad():
        there = next_token_loss(loaded, tokens)
        torch.testing.assert_close(next_token_loss(drop_rope(rotating, layers=[1]), tokens), there)
        assert abs(next_token_loss(rotating, tokens) - there) > 1e-5


def test_a_checkpoint_of_another_model_is_refused(tmp_path, run):
    initial = str(run.folder / "step40")
    other = replace(MODEL, d_mlp=48, rope_theta=1e4)
    with pytest.raises(InputError, match="intermediate_size 32 instead of 48; rope_parameters"):
        train(tiny_config(initial=initial, model=other), out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / CONFIG_FILE).exists()  # the folder is still free
    save_tiny("llama", tmp_path / "llama")
    with pytest.raises(InputError, match="architectures"):
        starting_model(tiny_config(initial=str(tmp_path / "llama")))
    assert starting_model(tiny_config(initial=initial, model=replace(MODEL, init_std=0.5)))


def test_checkpoints_of_something_else_are_left_alone(tmp_path):
    """A new run removes the steps it will write: none may be there that are not its own."""
    build_mini_qwen(MODEL).save_pretrained(tmp_path / "step1000")
    files = sorted(path.name for path in (tmp_path / "step1000").iterdir())
    with pytest.raises(InputError, match="with checkpoints and without config"):
        train(tiny_config(), out=tmp_path, progress=False)
    assert sorted(path.name for path in (tmp_path / "step1000").iterdir()) == files
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder"):
        train(tiny_config(), out=tmp_path / "file", progress=False)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(tmp_path, device):
    with pytest.raises(InputError, match="a device of this machine: cpu"):
        train(tiny_config(), out=tmp_path / "run", device=device, progress=False)
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_data_goes_round(tmp_path):
    config = tiny_config(batch_size=200, steps=1, warmup=0, checkpoints=2)
    assert np.isfinite(train(config, out=tmp_path / "run", progress=False).validation_loss)
