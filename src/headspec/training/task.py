"""What a training loop is given: a task and its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

LossFunction = Callable[[nn.Module, Any], Tensor]


@runtime_checkable
class Observer(Protocol):
    """Measures the model while it is trained, without changing anything about the training.

    It draws no random numbers, leaves gradients alone, and brings the model back to training mode
    where it leaves that (for dropout or batch norm). The first process calls it, without gradients.
    """

    def begin(self, step: int | None) -> None:
        """The run goes on from a step, whatever was measured later is void; None: it is new."""
        ...

    def measure(self, step: int) -> None:
        """Measure after a step; this and `flush` raise FloatingPointError where not finite."""
        ...

    def flush(self, *, to_disk: bool = False) -> None:
        """Write what was measured; `to_disk`: wait until it is on the disk."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long a loop runs, and what it does when.

    Attributes:
        steps: updates.
        checkpoints: steps at which a checkpoint is written.
        batch_tokens: tokens (or examples) of an update, for the log.
        warmup: updates before the peak of the learning rates.
        final: share of the peak left at the last update.
        accumulation: parts of a batch.
        clip: largest gradient norm; 0: none.
        precision: "bf16" (autocast) or "fp32".
        compile: whether to compile the loss function.
        seed: of dropout and the like.
        validate_every: updates between validations; 0: only at both ends.
        observe_every: updates between measurements of the task's observer; also at both ends.
        log_every: updates between two writes of the log.
        save_every: updates between resume points.
        save_seconds: seconds between resume points.
    """

    steps: int
    checkpoints: tuple[int, ...]
    batch_tokens: int
    warmup: int = 0
    final: float | int = 0.0
    accumulation: int = 1
    clip: float | int = 1.0
    precision: str = "fp32"
    compile: bool = False
    seed: int = 0
    validate_every: int = 0
    observe_every: int = 1
    log_every: int = 10
    save_every: int = 500
    save_seconds: float | int = 300


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained, on what, towards what.

    Attributes:
        model: trained in place; lies on the device of the processes.
        batch: step -> the whole batch of that update, a tensor or a tuple or dictionary of
            tensors with examples on the first axis. A pure function of the step.
        loss: (model, batch) -> mean over the batch's examples.
        optimizers: "muon" and "adamw", with their peak rates.
        write: writes a checkpoint of the model into a folder that exists.
        validate: -> the validation loss; None: none is measured.
        fingerprint: of what `batch` reads.
        observer: measures the model now and then; None: nothing does.
    """

    model: nn.Module
    batch: Callable[[int], Any]
    loss: LossFunction
    optimizers: dict[str, torch.optim.Optimizer]
    write: Callable[[Path], None]
    validate: Callable[[], float] | None = None
    fingerprint: str = ""
    observer: Observer | None = None
