"""Language models for the loop: loss, validation, checkpoints on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from headspec.errors import InputError
from headspec.lens.pretrained import load_pretrained, without_bars
from headspec.lens.rope import drop_rope
from headspec.training.mini_qwen import build_mini_qwen, mini_qwen_settings
from headspec.training.processes import Processes
from headspec.training.session import rows_of
from headspec.training.train_config import TrainConfig

_OF_NEW_MODELS = ("initializer_range", "dtype")


def next_token_loss(model: nn.Module, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of tokens 1, 2, ... given those before, in nats per token.

    Computed in float32 also under autocast.

    Args:
        model: a causal language model of transformers.
        tokens: whole sequences; position 0 is predicted by nothing and not counted.
    """
    logits = model(input_ids=tokens, use_cache=False).logits
    targets = pad(tokens[:, 1:], (0, 1), value=-100)  # cheaper than a copy of most logits
    return cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)


def starting_model(config: TrainConfig) -> Any:
    """The model that a run starts from: fresh or from a checkpoint, rotary embeddings dropped.

    In float32 on the CPU with fused attention. What a checkpoint has dropped stays dropped.

    Raises:
        CheckpointError: `config.initial` is no checkpoint.
        InputError: it is of another model than `config.model`.
    """
    if config.initial is None:
        model = build_mini_qwen(config.model, seed=config.seed)
    else:
        with without_bars():
            model, _ = load_pretrained(config.initial, offline=True)
        _check_sizes(model, config)
    if config.drop_rope is not False:
        model = drop_rope(model, layers=None if config.drop_rope is True else config.drop_rope)
    model.set_attn_implementation("sdpa")
    return model.train()


def _check_sizes(model: Any, config: TrainConfig) -> None:
    """Raise unless a loaded model is the one that the config describes."""
    wanted = mini_qwen_settings(config.model)
    have = model.config.to_dict() | {"architectures": [type(model).__name__]}
    differing = [
        f"{name} {have.get(name)!r} instead of {value!r}"
        for name, value in wanted.items()
        if name not in _OF_NEW_MODELS and have.get(name) != value
    ]
    if differing:
        raise InputError(
            expected=f"the model of the config in {config.initial}",
            got="; ".join(differing),
            fix="Give TrainConfig.model the sizes of the checkpoint (a run's are in config.toml).",
        )


def write_model(model: Any, folder: Path) -> None:
    """`config.json` and `model.safetensors`, as every checkpoint of a local suite."""
    with without_bars():
        model.save_pretrained(folder)


def validation_loss(
    model: nn.Module,
    tokens: np.ndarray,
    *,
    batch_size: int,
    processes: Processes,
) -> float:
    """Mean loss over sequences, each process taking its share; summed in float64.

    Args:
        model: in evaluation mode.
        tokens: `sequence pos` of whole numbers.
        batch_size: sequences in one forward pass over all processes.
        processes: who takes part.
    """
    total = torch.zeros(2, dtype=torch.float64)
    for begin in range(0, len(tokens), batch_size):
        rows = torch.from_numpy(np.asarray(tokens[begin : begin + batch_size]).astype(np.int64))
        if len(rows) % processes.count:
            mine = rows[processes.rank :: processes.count]  # uneven at the end
        else:
            mine = rows_of(rows, processes.rank, processes.count)
        if len(mine):
            loss = next_token_loss(model, mine.to(processes.device))
            total += torch.tensor([loss.double().item() * len(mine), len(mine)])
    shared = processes.mean(total.to(processes.device))
    return float(shared[0] / shared[1])
