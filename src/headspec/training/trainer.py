"""`train`: a language model from a config, with checkpoints as a suite and exact resumption."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from headspec.errors import InputError
from headspec.training.compiling import choose_compile
from headspec.training.language_models import (
    next_token_loss,
    starting_model,
    validation_loss,
    write_model,
)
from headspec.training.loop import run_loop
from headspec.training.optimizers import build_optimizers, split_parameters
from headspec.training.processes import Processes, joined_processes
from headspec.training.run_folder import CONFIG_FILE, check_folder, is_finished
from headspec.training.schedule import warmup_steps
from headspec.training.surroundings import gradients_on
from headspec.training.task import LoopSettings, Task
from headspec.training.token_data import TokenData, open_token_data
from headspec.training.token_stream import TokenStream
from headspec.training.train_config import TrainConfig
from headspec.training.training_run import TrainingRun, open_run


def train(
    config: TrainConfig,
    *,
    out: str | os.PathLike[str],
    resume: bool = True,
    progress: bool = True,
    tensorboard: bool = False,
    device: str | torch.device | None = None,
) -> TrainingRun:
    """Train a Mini-Qwen3 and keep its checkpoints as a suite.

    The folder then holds `step{N}/config.json` and `model.safetensors` (what `open_suite` opens),
    `config.toml`, `log.csv`, and while the run is unfinished `resume/state.pt`. A run that was
    killed, at any moment, goes on when `train` is called again with the same config and folder: on
    a CPU with the same bits as a run that was never stopped. A finished run is returned at once.

    Under `torchrun --nproc_per_node N` the N processes share every batch. `batch_size` is that of
    all together, so losses are those of one process up to rounding.

    Args:
        config: what to train.
        out: the run's folder.
        resume: go on with an unfinished run, or return a finished one; False: a folder that
            holds a run is an error.
        progress: show the split of the parameters and a bar with the time left.
        tensorboard: also write event files to `out/tensorboard`.
        device: None: CUDA if there is one, else the CPU.

    Returns:
        The finished run.

    Raises:
        InputError: the folder holds a run of another config (the fields are named) or other
            checkpoints, data or `initial` do not fit the model, there is no such device, or
            tensorboard is not installed.
        TrainingDivergedError: a loss is not finite; names the last good checkpoint.
        KeyboardInterrupt: on Ctrl-C, after the state has been written.

    References:
        Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks";
        Liu et al. 2025, "Muon is scalable for LLM training" (arXiv 2502.16982).

    Example:
        >>> import tempfile
        >>> from headspec.training.micro_languages import MicroLanguages
        >>> from headspec.training.mini_qwen import MiniQwenConfig
        >>> folder = tempfile.mkdtemp()
        >>> languages = MicroLanguages(n_topics=2, vocab_size=128, seq_len=64)
        >>> _ = languages.write(folder + "/data", n_train=64, n_validation=8)
        >>> config = TrainConfig(model=MiniQwenConfig.preset("debug"), data=folder + "/data",
        ...     steps=4, batch_size=8, checkpoints=3)
        >>> run = train(config, out=folder + "/run", progress=False)
        >>> run.suite.steps
        (0, 1, 4)
    """
    folder = Path(out)
    check_folder(folder, config, resume=resume)
    if is_finished(folder, config):
        return open_run(folder)
    data = open_token_data(config.data, split="train")
    _check_data(config, data)
    with joined_processes(device) as processes, gradients_on():
        model = starting_model(config).to(processes.device)
        processes.wait()
        if processes.is_first:
            config.to_file(folder / CONFIG_FILE)
        split = split_parameters(model)
        if progress and processes.is_first and not (folder / "resume").is_dir():
            print(split.summary())
        task = Task(
            model=model,
            batch=_batches(config, data),
            loss=next_token_loss,
            optimizers=build_optimizers(model, config.optimizer, split=split),
            write=lambda path: write_model(model, path),
            validate=_validation(config, model, processes),
            fingerprint=_fingerprint(config),
        )
        settings = _settings(config, data, split.count(split.sizes), device=processes.device)
        run_loop(
            task,
            settings,
            folder=folder,
            processes=processes,
            progress=progress,
            tensorboard=tensorboard,
        )
    return open_run(folder)


def _check_data(config: TrainConfig, data: TokenData) -> None:
    for what, have, most in (
        ("vocab_size", data.vocab_size, config.model.vocab_size),
        ("seq_len", data.seq_len, config.model.max_positions),
    ):
        if have > most:
            raise InputError(
                expected=f"data with {what} up to {most}, as the model has",
                got=f"{have} in {config.data}",
                fix="Make the model larger: MiniQwenConfig.preset(..., vocab_size=, seq_len=).",
            )


def _batches(config: TrainConfig, data: TokenData) -> Any:
    seed = config.seed if config.data_seed is None else config.data_seed
    return TokenStream(
        data,
        batch_size=config.batch_size,
        ordering=config.ordering,
        seed=seed,
        steps=config.steps if config.last_epoch == "sampled" else None,
    ).batch


def _validation(config: TrainConfig, model: Any, processes: Processes) -> Any:
    tokens = open_token_data(config.data, split="validation").tokens
    tokens = tokens[: config.validation_sequences or None]
    batch_size = config.batch_size // config.accumulation
    return lambda: validation_loss(model, tokens, batch_size=batch_size, processes=processes)


def _fingerprint(config: TrainConfig) -> str:
    return hashlib.sha256((Path(config.data) / "data.json").read_bytes()).hexdigest()


def _settings(
    config: TrainConfig, data: TokenData, n_parameters: int, *, device: torch.device
) -> LoopSettings:
    batch_tokens = config.batch_size * data.seq_len
    flops = 6.0 * n_parameters * batch_tokens * config.steps
    return LoopSettings(
        steps=config.steps,
        checkpoints=config.checkpoint_steps,
        batch_tokens=batch_tokens,
        warmup=warmup_steps(config.warmup, config.steps),
        final=config.optimizer.final,
        accumulation=config.accumulation,
        clip=config.clip,
        precision=config.precision,
        compile=choose_compile(config.compile, device=device, flops=flops),
        seed=config.seed,
        validate_every=config.validate_every,
        save_every=config.save_every,
        save_seconds=config.save_seconds,
    )
