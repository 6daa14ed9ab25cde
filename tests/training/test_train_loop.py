"""The loop with any model: gradients, accumulation, divergence, Ctrl-C, surroundings."""

import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import one_thread
from torch import nn
from torch.nn.functional import mse_loss

from headspec import InputError, TrainingDivergedError
from headspec.training.compiling import CompileWarning
from headspec.training.loop import run_loop
from headspec.training.session import rows_of
from headspec.training.task import LoopSettings, Task
from headspec.training.train_log import read_log


@pytest.fixture(autouse=True, scope="module")
def threads():
    with one_thread():
        yield


SETTINGS = {"steps": 10, "checkpoints": (0, 2, 5, 10), "batch_tokens": 6, "log_every": 3}


def small_model(seed=0, dropout=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2))


def batch(step):
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(6, 3, generator=generator)
    return inputs, inputs[:, :2].sin()


def squared_error(model, batch):
    return mse_loss(model(batch[0]), batch[1])


def task(model, loss=squared_error, batches=batch, validate=None, **optimizers):
    optimizers = optimizers or {"adamw": torch.optim.AdamW(model.parameters(), lr=0.05)}

    def write(folder):
        save_file(model.state_dict(), folder / "model.safetensors")

    return Task(
        model=model,
        batch=batches,
        loss=loss,
        optimizers=optimizers,
        write=write,
        validate=validate,
    )


def run(folder, model, *, settings=None, **kwargs):
    merged = LoopSettings(**(SETTINGS | (settings or {})))
    run_loop(task(model, **kwargs), merged, folder=folder, progress=False)
    return read_log(folder / "log.csv")


def weights(folder, step):
    return load_file(folder / f"step{step}" / "model.safetensors")


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_it_is_the_plain_loop(tmp_path):
    """The same bits as ten lines of PyTorch, with one schedule and clipping."""
    log = run(tmp_path, small_model(), settings={"warmup": 2, "clip": 0.1, "final": 0.5})
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    losses, norms = [], []
    for step in range(10):
        t = (step - 2) / 7
        share = (step + 1) / 3 if step < 2 else 0.5 + 0.25 * (1 + np.cos(np.pi * t))
        optimizer.param_groups[0]["lr"] = 0.05 * share
        loss = squared_error(model, batch(step))
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.1).item())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert log["loss"].tolist() == losses
    assert log["gradient_norm"].tolist() == norms
    np.testing.assert_allclose(log["adamw_lr"].iloc[[0, 2, 9]], [0.05 / 3, 0.05, 0.025])
    assert log["tokens"].tolist() == [6 * (i + 1) for i in range(10)]
    assert (log["tokens_per_second"] > 0).all()
    final = weights(tmp_path, 10)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(final[name], value, rtol=1e-6, atol=1e-7)
    assert same(weights(tmp_path, 0), small_model().state_dict())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["log.csv", "step0", "step2", "step5", "step10"]
    )


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_accumulated_parts_equal_the_whole_batch(tmp_path, parts):
    whole = run(tmp_path / "whole", small_model())
    cut = run(tmp_path / "cut", small_model(), settings={"accumulation": parts})
    np.testing.assert_allclose(cut["loss"], whole["loss"], rtol=2e-6)
    np.testing.assert_allclose(cut["gradient_norm"], whole["gradient_norm"], rtol=2e-5)
    final = weights(tmp_path / "whole", 10)
    for name, value in weights(tmp_path / "cut", 10).items():
        torch.testing.assert_close(value, final[name], rtol=1e-4, atol=1e-5)


def test_parts_that_do_not_divide_are_an_error(tmp_path):
    with pytest.raises(InputError, match="divides into 4 parts"):
        run(tmp_path, small_model(), settings={"accumulation": 4})


def test_rows_of_any_nesting():
    one = torch.arange(6)
    assert rows_of({"x": (one, one * 2)}, 1, 3)["x"][1].tolist() == [4, 6]
    assert rows_of(one, 0, 1) is one


def test_validation_is_logged_at_both_ends_and_in_between(tmp_path):
    model = small_model(dropout=0.5)
    modes = []

    def validate():
        modes.append((model.training, torch.is_grad_enabled()))
        return float(squared_error(model, batch(99)))

    log = run(tmp_path, model, settings={"validate_every": 4}, validate=validate)
    assert log.loc[log["validation_loss"].notna(), "step"].tolist() == [0, 4, 8, 10]
    assert set(modes) == {(False, False)}
    assert model.training


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_names_the_last_good_checkpoint(tmp_path, value):
    def loss(model, rows):
        broken = value if rows[0][0, 0] == batch(7)[0][0, 0] else 1.0
        return squared_error(model, rows) * broken

    with pytest.raises(TrainingDivergedError) as caught:
        run(tmp_path, small_model(), loss=loss)
    assert "step 8" in str(caught.value)
    assert "step5, and is kept" in str(caught.value)
    run(tmp_path / "good", small_model())
    assert same(weights(tmp_path, 5), weights(tmp_path / "good", 5))
    assert not (tmp_path / "step10").exists()
    log = read_log(tmp_path / "log.csv")
    assert log["step"].tolist() == list(range(1, 8))
    # again: it goes on from the resume point, meets the same, and still keeps the checkpoint
    stamp = (tmp_path / "step5" / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(TrainingDivergedError, match="step5, and is kept"):
        run(tmp_path, small_model(), loss=loss)
    assert (tmp_path / "step5" / "model.safetensors").stat().st_mtime_ns == stamp


def test_an_infinite_gradient_of_a_finite_loss_is_noticed(tmp_path):
    def loss(model, rows):
        plain = squared_error(model, rows)
        return plain + (model[0].weight.sum() * 0).abs().sqrt()  # slope 0 * inf at 0

    with pytest.raises(TrainingDivergedError, match="gradient_norm nan"):
        run(tmp_path, small_model(), loss=loss)
    assert [p.name for p in tmp_path.glob("step*")] == ["step0"]


def test_ctrl_c_waits_for_the_update_and_the_run_goes_on_with_the_same_bits(tmp_path):
    asked = []

    def interrupting(step):
        if step == 6 and not asked:
            asked.append(step)
            os.kill(os.getpid(), signal.SIGINT)
        return batch(step)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", small_model(dropout=0.3), batches=interrupting)
    assert signal.getsignal(signal.SIGINT) is before
    assert read_log(tmp_path / "cut" / "log.csv")["step"].max() == 7
    cut = run(tmp_path / "cut", small_model(seed=5, dropout=0.3), batches=interrupting)
    whole = run(tmp_path / "whole", small_model(dropout=0.3))
    assert cut["loss"].tolist() == whole["loss"].tolist()  # dropout's random state came back
    assert same(weights(tmp_path / "cut", 10), weights(tmp_path / "whole", 10))


def test_resuming_without_optimizer_state_would_differ(tmp_path):
    """Negative control: weights alone do not continue the run."""
    whole = run(tmp_path / "whole", small_model())
    model = small_model()
    model.load_state_dict(weights(tmp_path / "whole", 5))
    fresh = torch.optim.AdamW(model.parameters(), lr=0.05)
    for step in range(5, 10):
        fresh.param_groups[0]["lr"] = whole["adamw_lr"][step]
        loss = squared_error(model, batch(step))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        fresh.step()
        fresh.zero_grad()
    assert not same(model.state_dict(), weights(tmp_path / "whole", 10))


def test_surroundings_stay_as_they_were(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    with torch.no_grad():
        run(tmp_path, small_model(dropout=0.5))
        assert not torch.is_grad_enabled()
    with torch.inference_mode(False):
        assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() == torch.float32


def test_a_compiler_that_fails_is_a_warning(tmp_path, monkeypatch):
    from headspec.training import session

    def broken(function):
        def call(model, rows):
            torch.rand(7)  # draws before it fails
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(session, "compile_loss", broken)
    with pytest.warns(CompileWarning, match="no compiler"):
        log = run(tmp_path / "a", small_model(dropout=0.3), settings={"compile": True})
    plain = run(tmp_path / "b", small_model(dropout=0.3))
    assert log["loss"].tolist() == plain["loss"].tolist()


def test_an_error_of_the_loss_itself_is_raised(tmp_path):
    def loss(model, rows):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(tmp_path, small_model(), loss=loss)


def test_tensorboard_is_asked_for_when_it_is_not_installed(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    settings = LoopSettings(**SETTINGS)
    with pytest.raises(InputError, match="pip install tensorboard"):
        run_loop(task(small_model()), settings, folder=tmp_path, progress=False, tensorboard=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_agrees_with_the_cpu(tmp_path):
    cpu = run(tmp_path / "cpu", small_model())
    gpu = run(tmp_path / "gpu", small_model().cuda())
    np.testing.assert_allclose(gpu["loss"], cpu["loss"], rtol=1e-4)
