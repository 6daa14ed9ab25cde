"""The smallest training runs: data and configs that several test files share."""

from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch

from headspec.training.micro_languages import MicroLanguages
from headspec.training.mini_qwen import MiniQwenConfig
from headspec.training.train_config import OptimizerConfig, TrainConfig

MODEL = MiniQwenConfig(
    hidden_size=16,
    n_layers=2,
    n_heads=2,
    n_kv_heads=2,
    d_head=8,
    d_mlp=32,
    vocab_size=32,
    max_positions=16,
)


@contextmanager
def one_thread():
    """Two threads spin for each other on a busy machine, and these models need none."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def tiny_data() -> str:
    """A folder of 96 + 24 sequences of 16 tokens from two easy micro-languages."""
    folder = Path(mkdtemp(prefix="headspec-tiny-data-"))
    languages = MicroLanguages(n_topics=2, vocab_size=32, seq_len=16, concentration=100.0)
    languages.write(folder, n_train=96, n_validation=24)
    return str(folder)


def tiny_config(**changes) -> TrainConfig:
    """Twelve updates in float32 without compilation."""
    config = TrainConfig(
        model=MODEL,
        data=tiny_data(),
        steps=12,
        batch_size=8,
        precision="fp32",
        compile="off",
        checkpoints=(4, 8),
        validate_every=4,
        save_every=5,
        warmup=2,
        optimizer=OptimizerConfig(muon_lr=0.05, adamw_lr=0.02),
    )
    return replace(config, **changes)
