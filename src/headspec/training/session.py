"""One session of a run: from its start or the last resume point to the end or Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headspec.errors import InputError
from headspec.training import resume
from headspec.training.atomic_files import write_folder
from headspec.training.compiling import compile_loss, warn_uncompiled
from headspec.training.optimizers import set_rates
from headspec.training.processes import Processes
from headspec.training.recorder import Recorder
from headspec.training.schedule import warmup_cosine
from headspec.training.surroundings import random_state, set_random_state
from headspec.training.task import LoopSettings, Task


class Session:
    """Holds what the updates of one session share; `run_loop` makes it.

    Args:
        task: what is trained.
        settings: how long, and what is done when.
        folder: of the run.
        processes: with which others.
        recorder: takes the losses.
    """

    def __init__(
        self,
        task: Task,
        settings: LoopSettings,
        folder: Path,
        *,
        processes: Processes,
        recorder: Recorder,
    ) -> None:
        self.task, self.settings, self.folder = task, settings, folder
        self.processes, self.recorder = processes, recorder
        self.parameters = [p for p in task.model.parameters() if p.requires_grad]
        self.module: nn.Module = task.model
        self.loss = compile_loss(task.loss) if settings.compile else task.loss
        self.observer = task.observer if processes.is_first else None
        self.saved = time.monotonic()

    def run(self, state: dict[str, Any] | None, interrupted: Callable[[], bool]) -> None:
        """Train from a resume point (None: from the start) to the last step."""
        task, start = self.task, 0
        if self.observer is not None:
            self.observer.begin(None if state is None else int(state["step"]))
        if state is None:
            self._measure(0)
            self._observe(0)
            self._flush(0)
            self._write_checkpoint(0)
        else:
            start = int(state["step"])
            resume.restore(state, model=task.model, optimizers=task.optimizers)
            states = state["randomness"]
            if len(states) == self.processes.count:
                set_random_state(states[self.processes.rank], self.processes.device)
        if self.processes.count > 1:
            ids = [self.processes.device] if self.processes.device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(task.model, device_ids=ids)
        task.model.train()
        for step in range(start, self.settings.steps):
            self.update(step)
            self.after(step + 1, interrupted)
        if self.processes.is_first:
            resume.remove_resume_point(self.folder)
        self.processes.wait()
        if interrupted():  # during the last update
            raise KeyboardInterrupt

    def update(self, step: int) -> Tensor:
        """Gradients of a batch, clipped; a step of every optimiser. Returns the batch's loss."""
        settings = self.settings
        share = warmup_cosine(
            step, steps=settings.steps, warmup=settings.warmup, final=settings.final
        )
        rates = set_rates(self.task.optimizers, share)
        loss = self._gradients(self.task.batch(step))
        limit = settings.clip if settings.clip > 0 else float("inf")
        norm = nn.utils.clip_grad_norm_(self.parameters, limit)
        for optimizer in self.task.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        rows = {f"{name}_lr": rate for name, rate in rates.items()}
        self.recorder.note(step + 1, loss=loss, gradient_norm=norm.detach(), **rows)
        return loss

    def _gradients(self, batch: Any) -> Tensor:
        """Backward through the batch; its mean loss over all processes."""
        if self.loss is self.task.loss or self.recorder.updates:
            return self._backward(batch)
        before = random_state(self.processes.device)
        try:
            return self._backward(batch)
        except Exception as error:  # whatever a compiler may raise; the model's own comes again
            warn_uncompiled(error)
            self.loss = self.task.loss
            set_random_state(before, self.processes.device)
            for parameter in self.parameters:
                parameter.grad = None
            return self._backward(batch)

    def _backward(self, batch: Any) -> Tensor:
        settings, processes = self.settings, self.processes
        n_parts = settings.accumulation
        total = torch.zeros((), dtype=torch.float32, device=processes.device)
        for part in range(n_parts):
            last = part == n_parts - 1
            mine = part * processes.count + processes.rank
            rows = to_device(rows_of(batch, mine, n_parts * processes.count), processes.device)
            with nullcontext() if last or processes.count == 1 else self.module.no_sync():  # pyright: ignore[reportCallIssue]
                with autocast(settings.precision, processes.device):
                    loss = self.loss(self.module, rows)
                (loss / n_parts).backward()
            total += loss.detach() / n_parts
        return processes.mean(total)

    def after(self, done: int, interrupted: Callable[[], bool]) -> None:
        """Whatever is due after an update: validation, log, checkpoint, resume point."""
        settings, last = self.settings, done == self.settings.steps
        checkpoint = done in settings.checkpoints or last
        every = settings.validate_every
        if last or (every and done % every == 0):
            self._measure(done)
        if last or done % settings.observe_every == 0:
            self._observe(done)
        log = last or done % settings.log_every == 0
        save = checkpoint or done % settings.save_every == 0
        stop = False
        if log or self.processes.count == 1:  # others are asked only now and then
            late = time.monotonic() - self.saved > settings.save_seconds
            stop = self.processes.any(interrupted())
            save = self.processes.any(late) or stop or save
        if log or save:
            self._flush(done, to_disk=save)
        if checkpoint:
            self._write_checkpoint(done)
        if save and not last:
            self._save(done)
        if stop and not last:
            raise KeyboardInterrupt

    def _measure(self, done: int) -> None:
        if self.task.validate is None:
            return
        since = time.perf_counter()
        self.task.model.eval()
        with torch.no_grad(), autocast(self.settings.precision, self.processes.device):
            self.recorder.note(done, validation_loss=self.task.validate())
        self.task.model.train()
        self.recorder.pause(since)

    def _observe(self, done: int) -> None:
        if self.observer is None:
            return
        since = time.perf_counter()
        with torch.no_grad(), self._named_failure(done):
            self.observer.measure(done)
        self.recorder.pause(since)

    def _flush(self, done: int, *, to_disk: bool = False) -> None:
        """Write the log, and what the observer has measured."""
        self.recorder.flush(to_disk=to_disk)
        if self.observer is not None:
            since = time.perf_counter()
            with self._named_failure(done):
                self.observer.flush(to_disk=to_disk)
            self.recorder.pause(since)

    @contextmanager
    def _named_failure(self, done: int) -> Iterator[None]:
        """What is not finite in a measurement ends the run as a loss that is not finite does."""
        try:
            yield
        except FloatingPointError as error:
            self.recorder.flush()  # where a loss is not finite either, it is named instead
            raise self.recorder.diverged(done, str(error)) from error

    def _write_checkpoint(self, done: int) -> None:
        since = time.perf_counter()
        if not all(bool(torch.isfinite(p).all()) for p in self.task.model.parameters()):
            raise self.recorder.diverged(done, "weights that are not finite")
        if self.processes.is_first:
            write_folder(self.folder / f"step{done}", self.task.write)
        self.recorder.pause(since)

    def _save(self, done: int) -> None:
        since = time.perf_counter()
        states = self.processes.gather(random_state(self.processes.device))
        if self.processes.is_first:
            resume.save_resume_point(
                self.folder,
                step=done,
                model=self.task.model,
                optimizers=self.task.optimizers,
                randomness=states,
                fingerprint=self.task.fingerprint,
            )
        self.saved = time.monotonic()
        self.recorder.pause(since)


def autocast(precision: str, device: torch.device) -> Any:
    """The context in which losses are computed: bfloat16 products for "bf16"."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def rows_of(batch: Any, part: int, parts: int) -> Any:
    """One of equal parts of a batch: of a tensor, or of each in a tuple, list or dictionary.

    Raises:
        InputError: the rows cannot be divided evenly.
    """
    if parts == 1:
        return batch
    if isinstance(batch, dict):
        return {name: rows_of(value, part, parts) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(rows_of(value, part, parts) for value in batch)
    size, rest = divmod(len(batch), parts)
    if rest:
        raise InputError(
            expected=f"a batch that divides into {parts} parts (accumulation x processes)",
            got=f"{len(batch)} rows",
            fix="Change batch_size or accumulation.",
        )
    return batch[part * size : (part + 1) * size]


def to_device(batch: Any, device: torch.device) -> Any:
    """Tensors of a batch on the device."""
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(to_device(value, device) for value in batch)
    return batch.to(device, non_blocking=True)
