"""Weights from a Hub on the loopback, capabilities from files of lm-eval, end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
from example_runs import run_example
from hub_server import FakeHub

import headspec as hs
from headspec.checkpoints.micro import STEPS, micro_path
from headspec.studies.weight_steps import PUBLISHED_STEPS

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "pythia-evals"
EVALUATED = (*PUBLISHED_STEPS[:12], 3000, *range(13_000, 143_001, 10_000))
CHOSEN = (*PUBLISHED_STEPS[:12], 3000, 13_000, 33_000, 63_000, 133_000, 143_000)


def write_evals(folder):
    """Files as published of two models: LAMBADA rises between 1000 and 3000."""
    for size in ("70m", "160m"):
        where = folder / f"pythia-{size}" / "zero-shot"
        where.mkdir(parents=True)
        for step in EVALUATED:
            share = float(1 / (1 + np.exp(-3 * (np.log1p(step) - 7.5))))
            lambada = {"ppl": float(np.exp(14 - 9 * share)), "ppl_stderr": 0.5}
            lambada |= {"acc": 0.4 * share, "acc_stderr": 0.006}
            sciq = {"acc": 0.25 + 0.5 * share, "acc_stderr": 0.01}
            content = {
                "results": {"lambada_openai": lambada, "sciq": sciq},
                "versions": {"lambada_openai": 0, "sciq": 0},
                "config": {"model_args": f"pretrained=EleutherAI/pythia-{size}", "num_fewshot": 0},
            }
            (where / f"{size}_step{step}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def evals(tmp_path):
    """The published files where they are, else files like them."""
    return SHARED if SHARED.exists() else write_evals(tmp_path / "evals")


def test_two_sizes_from_the_hub(evals, tmp_path):
    folder = micro_path("micro-tiny")
    config = (folder / "config.json").read_bytes()
    shipped = dict(zip(CHOSEN, (0, *STEPS), strict=True))  # steps 0 and 1 are the same
    files = {step: folder / f"step{shipped[step]}" / "model.safetensors" for step in CHOSEN}
    with FakeHub() as hub:
        for size in ("70m", "160m"):
            for step in {*PUBLISHED_STEPS, *EVALUATED}:
                weights = files.get(step, files[0]).read_bytes()
                content = {"config.json": config, "model.safetensors": weights}
                hub.add(f"EleutherAI/pythia-{size}", f"step{step}", content)
        flags = ("--suite", "EleutherAI/pythia-70m,160m", "--evals", str(evals), "--n-null", "300")
        done = run_example(
            "weight_statistics",
            *flags,
            "--out",
            str(tmp_path / "out"),
            HF_ENDPOINT=hub.url,
            HF_HOME=str(tmp_path / "cache"),
        )
        read = hub.n_bytes("^GET /cdn")
    assert done.returncode == 0, done.stderr
    curves = hs.results.load(tmp_path / "out" / "curves.parquet")
    assert set(curves["model"]) == {"EleutherAI/pythia-70m", "EleutherAI/pythia-160m"}
    assert tuple(sorted(curves["step"].unique())) == CHOSEN
    assert "13 of the study's 20 steps are in both" in done.stdout
    assert "18 different steps. 0.2 MB of matrices a step" in done.stdout
    one = sum(path.stat().st_size for path in {*files.values()})
    assert read < 1.2 * 2 * one  # each tensor once, for statistics, clusters and changes
    pooled = hs.results.load(tmp_path / "out" / "pooled_overall.parquet")
    assert set(pooled["n_models"]) <= {1, 2}
    assert "lambada_openai.acc" in set(pooled["capability"])
