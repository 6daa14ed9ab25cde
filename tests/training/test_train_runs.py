"""`train`, `recalibrate`, `open_run`: runs as suites, and what may not be done to them."""

import doctest
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import MODEL, one_thread, tiny_config, tiny_data

from headspec import (
    CheckpointError,
    InputError,
    MicroLanguages,
    TrainingRun,
    build_mini_qwen,
    open_run,
    open_suite,
    recalibrate,
    train,
)
from headspec.lens.rope import drop_rope
from headspec.training import trainer
from headspec.training.language_models import next_token_loss, validation_loss
from headspec.training.processes import Processes
from headspec.training.recalibration import recalibration_config
from headspec.training.token_data import open_token_data
from headspec.training.token_stream import TokenStream


@pytest.fixture(autouse=True, scope="module")
def threads():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny_config(steps=40, checkpoints=4, validate_every=20)
    return train(config, out=tmp_path_factory.mktemp("runs") / "first", progress=False)


def tokens_of(split="validation"):
    return open_token_data(tiny_data(), split=split).tokens


def test_the_loss_is_transformers_own():
    model = build_mini_qwen(MODEL)
    tokens = torch.from_numpy(tokens_of().astype(np.int64))
    theirs = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    torch.testing.assert_close(next_token_loss(model, tokens), theirs)
    assert abs(theirs.item() - math.log(32)) < 0.1  # a fresh model knows nothing
    alone = Processes(torch.device("cpu"))
    found = validation_loss(model, tokens_of(), batch_size=7, processes=alone)  # 24 = 3 x 7 + 3
    assert found == pytest.approx(float(theirs.detach()), abs=1e-6)


def test_a_run_is_a_suite_with_a_log(run):
    assert run.suite.steps == run.steps == (0, 1, 6, 40)
    assert open_suite(run.folder).head_weights(40, 1).W_Q.shape == (2, 16, 8)
    assert run.log["step"].tolist() == list(range(41))
    assert run.log["validation_loss"].dropna().index.tolist() == [0, 20, 40]
    assert run.validation_loss < run.log["validation_loss"][0] - 0.2
    frame = run.to_frame()
    assert [*frame.columns[:6]] == ["model", "step", "layer", "head", "metric", "value"]
    assert (frame["metric"] == "loss").sum() == 40
    assert "validation loss" in run.summary()
    fresh = build_mini_qwen(MODEL, seed=0).state_dict()
    stored = run.suite.matrices(0, "*_proj.weight")
    assert len(stored) == 14
    assert all(torch.equal(matrix, fresh[name]) for name, matrix in stored.items())


def test_a_finished_run_comes_back_at_once(run, monkeypatch):
    monkeypatch.setattr(trainer, "starting_model", None)  # would fail if it trained
    again = train(run.config, out=run.folder, progress=False)
    assert again.log.equals(run.log)
    assert open_run(str(run.folder)).config == run.config


def test_another_config_in_the_same_folder_is_refused(run):
    other = replace(run.config, seed=4, optimizer=replace(run.config.optimizer, muon_lr=0.1))
    with pytest.raises(InputError) as caught:
        train(other, out=run.folder)
    assert "seed: 4 instead of 0" in str(caught.value)
    assert "optimizer.muon_lr: 0.1 instead of 0.05" in str(caught.value)
    train(replace(run.config, save_every=1), out=run.folder, progress=False)  # changes no number
    with pytest.raises(InputError, match="resume=False"):
        train(run.config, out=run.folder, resume=False)


def test_other_data_under_the_same_name_are_refused(tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_data(), data)
    config = tiny_config(data=str(data))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "next_token_loss", _stopping_after(6))
        with pytest.raises(KeyboardInterrupt):
            train(config, out=tmp_path / "run", progress=False)
    shutil.rmtree(data)
    languages = MicroLanguages(n_topics=2, vocab_size=32, seq_len=16, concentration=50.0)
    languages.write(data, n_train=96, n_validation=24)
    with pytest.raises(InputError, match="other data under the same name"):
        train(config, out=tmp_path / "run", progress=False)


def _stopping_after(n):
    calls = iter(range(n))

    def loss(model, tokens):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return next_token_loss(model, tokens)

    return loss


def test_data_that_do_not_fit_the_model_are_named(tmp_path):
    small = replace(MODEL, vocab_size=20)
    with pytest.raises(InputError, match="vocab_size up to 20"):
        train(tiny_config(model=small), out=tmp_path / "a")
    short = replace(MODEL, max_positions=8)
    with pytest.raises(InputError, match="seq_len up to 8"):
        train(tiny_config(model=short), out=tmp_path / "b")
    assert not (tmp_path / "a").exists()


def test_folders_without_a_finished_run_are_named(tmp_path, run):
    with pytest.raises(InputError, match=r"without config\.toml"):
        open_run(tmp_path)
    shutil.copytree(run.folder, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "step40")
    with pytest.raises(CheckpointError, match="no step40"):
        recalibrate(tmp_path / "cut", out=tmp_path / "dropped")


def test_bf16_is_close_to_float32_and_keeps_weights_in_float32(tmp_path, run):
    half = train(replace(run.config, precision="bf16"), out=tmp_path / "run", progress=False)
    np.testing.assert_allclose(half.log["loss"][1:4], run.log["loss"][1:4], atol=0.01)
    assert half.validation_loss == pytest.approx(run.validation_loss, abs=0.05)
    weights = half.suite.model(40).original_model.state_dict()
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert half.log["loss"].tolist() != run.log["loss"].tolist()


def test_it_learns_towards_the_bayes_loss(tmp_path):
    languages = MicroLanguages(n_topics=2, vocab_size=32, seq_len=16, concentration=100.0)
    languages.write(tmp_path / "data", n_train=3000, n_validation=100)
    config = tiny_config(
        data=str(tmp_path / "data"),
        steps=120,
        batch_size=32,
        checkpoints=2,
        validate_every=0,
        save_every=99,
    )
    trained = train(config, out=tmp_path / "run", progress=False)
    tokens = open_token_data(tmp_path / "data", split="validation").tokens
    best = float(np.mean(languages.bayes_loss(tokens.astype(np.int64))))
    assert best < trained.validation_loss < math.log(32) - 0.3


def test_a_default_dtype_and_mode_of_the_caller_change_nothing(tmp_path, run):
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            again = train(run.config, out=tmp_path / "run", progress=False)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert again.log["loss"].equals(run.log["loss"])


def test_recalibration_starts_from_the_dropped_model(tmp_path, run):
    dropped = recalibrate(run, out=tmp_path / "drope", steps=6, checkpoints=3, progress=False)
    assert isinstance(dropped, TrainingRun)
    assert dropped.suite.config(0)["dropped_rope_layers"] == [0, 1]
    assert dropped.suite.steps == (0, 1, 6)
    before, after = run.suite.matrices(40, "*"), dropped.suite.matrices(0, "*")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert dropped.suite.head_weights(0, 0).rotary is None
    plain = load(run, 40)
    expected = drop_rope(plain)
    tokens = torch.from_numpy(tokens_of().astype(np.int64))
    with torch.no_grad():
        loss = float(next_token_loss(expected, tokens))
        kept = float(next_token_loss(plain, tokens))
    assert dropped.log["validation_loss"][0] == pytest.approx(loss, abs=1e-6)
    assert abs(loss - kept) > 1e-3  # negative control: forgetting the drop would be seen
    assert dropped.validation_loss < loss
    some = recalibrate(run.folder, out=tmp_path / "some", steps=1, layers=(1,), progress=False)
    assert some.suite.config(1)["dropped_rope_layers"] == [1]


def load(run, step):
    from headspec.lens.pretrained import load_pretrained

    return load_pretrained(str(run.folder / f"step{step}"), offline=True)[0]


def test_recalibration_reads_the_same_data_in_every_arm(run):
    """Regardless of the ordering of training; an order that training did not have."""
    arms = [
        replace(run, config=replace(run.config, ordering=ordering))
        for ordering in ("shuffled", "topic_ordered")
    ]
    configs = [recalibration_config(arm) for arm in arms]
    assert configs[0] == configs[1]
    assert configs[0].data_seed != run.config.seed
    assert configs[0].steps == 1  # one per cent of 40, and at least one
    assert configs[0].warmup == 0
    assert recalibration_config(run, share=0.5).steps == 20
    assert recalibration_config(run, share=0.5).optimizer.muon_lr == 0.025


def test_topic_ordered_recalibration_sees_one_topic(tmp_path):
    """Pitfall: 1 % of the steps on sorted data is a beginning of them, in which a topic rules."""
    languages = MicroLanguages(n_topics=4, vocab_size=32, seq_len=16, concentration=100.0)
    languages.write(tmp_path, n_train=1000, n_validation=4)
    data = open_token_data(tmp_path)

    def topics(ordering):
        stream = TokenStream(data, batch_size=8, ordering=ordering, seed=1_000_003)
        rows = np.concatenate([stream.rows(step) for step in range(10)])
        return set(data.dominant_topics[rows])

    assert len(topics("topic_ordered")) == 1
    assert topics("shuffled") == {0, 1, 2, 3}


def test_impossible_recalibrations_are_named(run, tmp_path):
    with pytest.raises(InputError, match="share"):
        recalibrate(run, out=tmp_path, share=0.0)
    with pytest.raises(InputError, match="drop_rope to be layers from 0 to 1"):
        recalibrate(run, out=tmp_path, layers=(5,))


def test_the_split_is_printed(tmp_path, capsys):
    train(tiny_config(steps=1, checkpoints=2, warmup=0), out=tmp_path / "run")
    shown = capsys.readouterr()
    assert "Muon: 14 hidden matrices" in shown.out
    assert "step" in shown.err  # the bar


def test_examples_run():
    assert doctest.testmod(trainer).failed == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_gpu_agrees_with_the_cpu(tmp_path, run):
    gpu = train(run.config, out=tmp_path / "gpu", device="cuda", progress=False)
    np.testing.assert_allclose(gpu.log["loss"][1:6], run.log["loss"][1:6], rtol=1e-3)
