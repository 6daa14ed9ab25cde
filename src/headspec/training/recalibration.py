"""`recalibrate`: rotary embeddings dropped from a trained model, and a short training after it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from headspec.errors import InputError, check_choice
from headspec.training.token_stream import Ordering
from headspec.training.train_config import TrainConfig
from headspec.training.trainer import train
from headspec.training.training_run import TrainingRun, open_run

_STREAM = 1_000_003
"""Added to the seed: the order of the data in recalibration is not that of training."""


def recalibrate(
    run: TrainingRun | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    share: float | int = 0.01,
    steps: int | None = None,
    ordering: Ordering = "shuffled",
    layers: Sequence[int] | None = None,
    peak: float | int = 0.5,
    checkpoints: int | tuple[int, ...] = 6,
    resume: bool = True,
    progress: bool = True,
    tensorboard: bool = False,
    device: str | torch.device | None = None,
) -> TrainingRun:
    """Drop rotary embeddings from a trained model and train it a little longer (DroPE).

    Step 0 of the new suite is the model with its embeddings dropped and nothing else changed; the
    last step is the recalibrated one. Data, sequence length, batch size, clipping and precision
    are the run's. **Optimiser states start fresh**, learning rates warm up over a tenth of the
    updates to `peak` times those of the run, and fall to zero along a cosine.

    With the default ordering every arm of a study that has the same seed reads the same
    sequences, in an order that training did not have. `ordering="topic_ordered"` is how the
    topic-ordering study did it: one per cent of the steps then reads a beginning of the sorted
    data, **a single topic**, so that arms differ in what they were recalibrated on and not only in
    how they were trained.

    What it does not show: that a difference after recalibration lasts. How far the model gets
    depends on `share` and `peak`, and a control arm recalibrated *without* dropping (`train` with
    `initial=` and the same steps) is what tells the effect of the drop from that of training on.

    Args:
        run: a finished run, or its folder; its last checkpoint is taken.
        out: folder of the new run.
        share: updates, as a share of the run's; at least one.
        steps: updates, instead of a share.
        ordering: of the sequences.
        layers: from which layers rotary embeddings are dropped; None: all.
        peak: peak learning rates as a share of the run's.
        checkpoints: as in `TrainConfig`, at most one for each step.
        resume, progress, tensorboard, device: as in `train`.

    Returns:
        The finished recalibration.

    Raises:
        InputError: impossible arguments, or `out` holds another run.
        CheckpointError: the run is not finished.

    References:
        Gelberg et al. 2025, "Extending the context of pretrained LLMs by dropping their
        positional embeddings" (arXiv 2512.12167).

    Example:
        >>> run = train(config, out="runs/mha_shuffled_rope")  # doctest: +SKIP
        >>> dropped = recalibrate(run, out="runs/mha_shuffled_drope")  # doctest: +SKIP
        >>> dropped.suite.config(0)["dropped_rope_layers"]  # doctest: +SKIP
        [0, 1, 2]
    """
    if not isinstance(run, TrainingRun):
        run = open_run(run)
    config = recalibration_config(
        run,
        share=share,
        steps=steps,
        ordering=ordering,
        layers=layers,
        peak=peak,
        checkpoints=checkpoints,
    )
    return train(
        config,
        out=out,
        resume=resume,
        progress=progress,
        tensorboard=tensorboard,
        device=device,
    )


def recalibration_config(
    run: TrainingRun,
    *,
    share: float | int = 0.01,
    steps: int | None = None,
    ordering: Ordering = "shuffled",
    layers: Sequence[int] | None = None,
    peak: float | int = 0.5,
    checkpoints: int | tuple[int, ...] = 6,
) -> TrainConfig:
    """The config that `recalibrate` trains with; arguments and errors are its.

    `train` takes it as it is; with `drop_rope=False` put into it, it is the control arm.
    """
    check_choice("ordering", ordering, get_args(Ordering))
    if not 0 < share <= 1 or not peak > 0:
        raise InputError(
            expected="share between 0 and 1 and a positive peak",
            got=f"share={share}, peak={peak}",
            fix="The study has share=0.01; peak is a multiple of the run's learning rates.",
        )
    old = run.config
    steps = max(1, round(share * old.steps)) if steps is None else steps
    warmup = steps // 10
    optimizer = replace(
        old.optimizer,
        muon_lr=peak * old.optimizer.muon_lr,
        adamw_lr=peak * old.optimizer.adamw_lr,
        final=0.0,
    )
    return replace(
        old,
        steps=steps,
        ordering=ordering,
        last_epoch="cut",  # in order, this is the published way: it sees one topic
        data_seed=old.seed + _STREAM,
        optimizer=optimizer,
        warmup=warmup,
        checkpoints=checkpoints,
        initial=str(Path(run.folder).resolve() / f"step{old.steps}"),
        drop_rope=True if layers is None else tuple(layers),
    )
