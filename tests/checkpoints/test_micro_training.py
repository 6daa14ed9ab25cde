"""The script that made the embedded suite: batches, fused updates, resuming after a kill."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import micro_data  # noqa: E402
import train_micro_suite as script  # noqa: E402
from micro_optim import SplitMuon  # noqa: E402

from headspec.activations.repeats import repeated_tokens  # noqa: E402


class Words:
    """A tokenizer of 90 words, for what the script asks of one."""

    def __len__(self):
        return 90


@pytest.fixture
def pools():
    rng = np.random.default_rng(0)
    examples = {k: [rng.integers(1, 90, 9) for _ in range(5)] for k in micro_data.KINDS[2:5]}
    return micro_data.Pools(
        tokenizer=Words(),
        prose=rng.integers(1, 90, 4000),
        starts=np.arange(0, 4000, 500),
        topic_of=np.arange(8) % 2,
        topics=["a", "b"],
        held_out=rng.integers(1, 90, 500).astype(np.uint16),
        examples=examples,
        symbols=np.arange(1, 65),
        record={},
    )


@pytest.fixture
def short_run(monkeypatch):
    monkeypatch.setattr(script, "STEPS", (0, 1, 4))
    monkeypatch.setitem(script.SIZES, "dwarf", script.Size(2, 2, 8, 16))
    return {"recipe": script.Recipe(rows=4, warm_up=2), "mixture": script.Mixture(), "every": 2}


def weights(folder, step):
    return (folder / f"step{step}" / "model.safetensors").read_bytes()


def test_a_batch_depends_on_seed_and_step_alone(pools):
    def draw(step, seed=0):
        return micro_data.batch(
            pools, micro_data.Mixture(), step=step, rows=64, length=128, seed=seed
        )

    (first, kinds), (again, _) = draw(3), draw(3)
    np.testing.assert_array_equal(first, again)
    assert (first != draw(4)[0]).any()
    assert (first != draw(3, seed=1)[0]).any()
    assert (first[:, 0] == pools.end).all()
    assert set(kinds) == set(range(len(micro_data.KINDS)))


def test_a_killed_run_ends_in_the_same_weights(pools, short_run, tmp_path, monkeypatch):
    script.train("dwarf", pools, out=tmp_path / "whole", **short_run)
    draws = micro_data.batch

    def killed(*args, step, **options):
        if step == 3:
            raise KeyboardInterrupt
        return draws(*args, step=step, **options)

    monkeypatch.setattr(script, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        script.train("dwarf", pools, out=tmp_path / "killed", **short_run)
    assert not (tmp_path / "killed" / "step4").exists()
    monkeypatch.setattr(script, "batch", draws)
    script.train("dwarf", pools, out=tmp_path / "killed", **short_run)
    for step in script.STEPS:
        assert weights(tmp_path / "whole", step) == weights(tmp_path / "killed", step)
    assert weights(tmp_path / "whole", 1) != weights(tmp_path / "whole", 4)


def test_queries_keys_and_values_are_stepped_as_matrices_of_their_own():
    shape = script.Size(1, 2, 8, 16)
    model = script.build_model(shape, vocab=70, end=0, seed=0)
    fused = model.gpt_neox.layers[0].attention.query_key_value.weight
    before = fused.detach().clone()
    tokens = torch.as_tensor(repeated_tokens(np.arange(1, 65), 4, period=6, length=20))
    model(tokens, labels=tokens).loss.backward()
    SplitMuon(model, muon_lr=0.1, adam_lr=0.0, weight_decay=0.0).step(1.0)
    update = (fused.detach() - before).view(2, 3, 4, 8)
    for part in range(3):
        singular = torch.linalg.svdvals(update[:, part].reshape(8, 8))
        assert singular.max() < 0.13  # about the learning rate: each third is near-orthogonal
        assert singular.median() > 0.05
    together = torch.linalg.svdvals(update.reshape(24, 8))
    assert together.max() > 0.14  # one orthogonalised matrix would have stayed near 0.1


def test_log_lines_after_the_last_resume_point_are_dropped(tmp_path):
    log = script.Log(tmp_path / "log.csv", every=1)
    for step in (1, 2, 3):
        log.add(step, torch.ones(2, 5), np.array([0, 5]), lr=0.1)
    log.cut(2)
    steps = [line.split(",")[0] for line in (tmp_path / "log.csv").read_text().splitlines()]
    assert steps == ["step", "1", "2"]
