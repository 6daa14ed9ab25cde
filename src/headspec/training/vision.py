"""`train_vision`: a transformer, CNN or MLP on images, measured while it is trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headspec.training.dimension_log import DimensionLog
from headspec.training.loop import run_loop
from headspec.training.optimizers import build_optimizers, split_parameters
from headspec.training.processes import Processes, joined_processes
from headspec.training.run_folder import CONFIG_FILE, check_folder, is_finished
from headspec.training.schedule import warmup_steps
from headspec.training.surroundings import gradients_on
from headspec.training.task import LoopSettings, Task
from headspec.training.train_config import OptimizerConfig
from headspec.training.vision_config import VisionConfig
from headspec.training.vision_data import ImageData, open_images
from headspec.training.vision_models import VisionModel, build_vision_model
from headspec.training.vision_run import VisionRun, open_vision_run, write_vision_model
from headspec.training.vision_stream import ImageStream

_VALIDATION_BATCH = 500
_RESOLVE_EVERY = 100  # measurements


def train_vision(
    config: VisionConfig,
    *,
    out: str | os.PathLike[str],
    resume: bool = True,
    progress: bool = True,
    device: str | torch.device | None = None,
) -> VisionRun:
    """Train a classifier of images, and log the dimensionality of its layers every few updates.

    The folder then holds `step{N}/config.json` and `model.safetensors`, `config.toml`, `log.csv`,
    `dimensionality.csv` and `accuracy.csv`, and while the run is unfinished `resume/state.pt`. A
    run that was killed, at any moment, goes on when `train_vision` is called again with the same
    config and folder: on a CPU with the same bits as a run that was never stopped. A finished run
    is returned at once.

    Two passes find and explain jumps. The first has `measure_every=5` and no checkpoints between
    its ends; the second repeats it from the same seed with `checkpoints=plan.steps`, in another
    folder. Measuring and writing checkpoints change nothing about the numbers: both passes have the
    same losses to the last bit (on a CPU, with the same number of threads).

    Args:
        config: what to train.
        out: the run's folder.
        resume: go on with an unfinished run, or return a finished one; False: a folder that
            holds a run is an error.
        progress: show a bar with the time left.
        device: None: CUDA if there is one, else the CPU.

    Returns:
        The finished run.

    Raises:
        InputError: the folder holds a run of another config (the fields are named), no such data
            or device, or images that do not fit the model.
        TrainingDivergedError: a loss or an activation is not finite.
        KeyboardInterrupt: on Ctrl-C, after the state has been written.

    Example:
        >>> import tempfile
        >>> config = VisionConfig(model="mlp", steps=20, measure_every=10, checkpoints=(10,))
        >>> run = train_vision(config, out=tempfile.mkdtemp() + "/mlp", progress=False)
        >>> run.steps, run.dimensionality["step"].unique().tolist()
        ((0, 10, 20), [0, 10, 20])
    """
    folder = Path(out)
    check_folder(folder, config, resume=resume)
    if is_finished(folder, config):
        return open_vision_run(folder)
    data = open_images(config.data)
    with joined_processes(device) as processes, gradients_on():
        model = build_vision_model(config, image_size=data.image_size, n_classes=data.n_classes)
        model.to(processes.device)
        processes.wait()
        if processes.is_first:
            config.to_file(folder / CONFIG_FILE)
        task = vision_task(config, data, model, folder=folder, processes=processes)
        run_loop(task, loop_settings(config), folder=folder, processes=processes, progress=progress)
    return open_vision_run(folder)


def classification_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross entropy of images and labels, in nats per image."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def vision_task(
    config: VisionConfig,
    data: ImageData,
    model: VisionModel,
    *,
    folder: Path,
    processes: Processes,
) -> Task:
    """What `run_loop` is given for a config: model, batches, loss, AdamW, and who measures.

    Args:
        config: of the run.
        data: its images.
        model: on the device of the processes.
        folder: of the run.
        processes: with which others it trains.
    """
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    rates = OptimizerConfig(
        adamw_lr=config.lr, adamw_weight_decay=config.weight_decay, adamw_betas=config.betas
    )
    optimizers = build_optimizers(model, rates, split=split_parameters(model, not_hidden=linear))
    images = data.validation_images.to(processes.device)
    labels = data.validation_labels.to(processes.device)
    n, size, n_classes = config.n_measured, data.image_size, data.n_classes
    observer = DimensionLog(
        folder,
        model,
        images=images[:n],
        labels=labels[:n],
        n_classes=n_classes,
        samples=config.samples,
        resolve_every=_RESOLVE_EVERY * max(1, config.measure_every),
        last=config.steps,
    )
    return Task(
        model=model,
        batch=ImageStream(data, batch_size=config.batch_size, seed=config.seed).batch,
        loss=classification_loss,
        optimizers=optimizers,
        write=lambda path: write_vision_model(
            model, path, config=config, image_size=size, n_classes=n_classes
        ),
        validate=lambda: _validation_loss(model, images, labels),
        fingerprint=data.fingerprint,
        observer=observer if config.measure_every else None,
    )


def _validation_loss(model: VisionModel, images: Tensor, labels: Tensor) -> float:
    """Mean over all validation images, in nats."""
    parts: Any = zip(images.split(_VALIDATION_BATCH), labels.split(_VALIDATION_BATCH), strict=True)
    total = sum(F.cross_entropy(model(x), y, reduction="sum").double() for x, y in parts)
    return float(total) / len(images)


def loop_settings(config: VisionConfig) -> LoopSettings:
    """How long the loop of a config runs, and what is due when."""
    return LoopSettings(
        steps=config.steps,
        checkpoints=config.checkpoint_steps,
        batch_tokens=config.batch_size,
        warmup=warmup_steps(config.warmup, config.steps),
        final=1.0 if config.schedule == "constant" else 0.0,
        clip=config.clip,
        seed=config.seed,
        validate_every=config.validate_every,
        observe_every=config.measure_every or config.steps,
        save_every=config.save_every,
        save_seconds=config.save_seconds,
    )
