"""Losses of a run: kept on the device, checked and written a few updates at a time."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from headspec.errors import HeadspecError, InputError
from headspec.training.train_log import TrainLog


class TrainingDivergedError(HeadspecError, ArithmeticError):
    """The loss or the gradient became infinite or not a number."""


class Recorder:
    """Takes the numbers of every update and writes them when asked to.

    Losses stay on the device until then, so that a GPU never waits for the log.

    Args:
        folder: of the run; `log.csv` is written there.
        start: updates done before; None: the run is new.
        steps: updates of the whole run.
        batch_tokens: tokens of an update.
        writes: whether this process writes (the others only check).
        progress: whether to show a bar.
        tensorboard: whether to write event files too.

    Attributes:
        updates: of this session so far.
    """

    def __init__(
        self,
        folder: Path,
        *,
        start: int | None,
        steps: int,
        batch_tokens: int,
        writes: bool = True,
        progress: bool = True,
        tensorboard: bool = False,
    ) -> None:
        self.folder, self.batch_tokens = folder, batch_tokens
        self._pending: list[dict[str, Any]] = []
        self._log = TrainLog(folder / "log.csv", resume_step=start) if writes else None
        self._board = event_writer(folder, start or 0) if writes and tensorboard else None
        shown = writes and progress
        self._bar = tqdm(total=steps, initial=start or 0, unit="step", disable=not shown)
        self._since = time.perf_counter()
        self._fresh = 0
        self.updates = 0

    def note(self, step: int, **values: float | int | Tensor) -> None:
        """Remember numbers of a step: a new row, or further columns of the last one."""
        if self._pending and self._pending[-1]["step"] == step:
            self._pending[-1] |= values
            return
        self._pending.append({"step": step, "tokens": step * self.batch_tokens, **values})
        if step and "loss" in values:
            self._fresh += 1
            self.updates += 1

    def flush(self, *, to_disk: bool = False) -> None:
        """Check all numbers since the last call, write them, and move the bar.

        Args:
            to_disk: wait until they are on the disk, as what resumes from here relies on.

        Raises:
            TrainingDivergedError: one of them is infinite or not a number. Rows before it are
                written.
        """
        rows = [{name: _number(value) for name, value in row.items()} for row in self._pending]
        now = time.perf_counter()
        speed = self._fresh * self.batch_tokens / max(now - self._since, 1e-9)
        for row in rows:
            if "loss" in row:
                row["tokens_per_second"] = round(speed, 1)
        bad = next((i for i, row in enumerate(rows) if _not_finite(row)), None)
        self._write(rows if bad is None else rows[:bad])
        if bad is not None:
            raise self.diverged(int(rows[bad]["step"]), _not_finite(rows[bad]))
        if to_disk and self._log is not None:
            self._log.to_disk()
        self._pending, self._fresh, self._since = [], 0, now

    def pause(self, since: float) -> None:
        """Leave the time since `time.perf_counter()` said `since` out of tokens per second."""
        self._since += time.perf_counter() - since

    def diverged(self, step: int, what: str) -> TrainingDivergedError:
        """The error for numbers that are not finite, with the last checkpoint before them."""
        last = last_checkpoint(self.folder, before=step)
        return TrainingDivergedError(
            expected=f"finite numbers at step {step}",
            got=what,
            fix="The last good checkpoint is "
            + (f"{last}, and is kept" if last else "none")
            + ". Lower the learning rates, warm up longer or clip harder, and train into another "
            "folder, from that checkpoint with initial=.",
        )

    def close(self) -> None:
        """Take the bar down and close the event file."""
        self._bar.close()
        if self._board is not None:
            self._board.close()

    def _write(self, rows: list[dict[str, Any]]) -> None:
        if self._log is not None:
            self._log.append(rows)
        if self._board is not None:
            for row in rows:
                for name in row.keys() - {"step"}:
                    self._board.add_scalar(name, row[name], row["step"])
        losses = [row for row in rows if "loss" in row]
        if losses:
            self._bar.update(losses[-1]["step"] - self._bar.n)
            self._bar.set_postfix_str(f"loss {losses[-1]['loss']:.4f}", refresh=False)


def last_checkpoint(folder: Path, *, before: int) -> Path | None:
    """The newest `step{N}` with N below a step."""
    steps = [int(path.name[4:]) for path in folder.glob("step*") if path.name[4:].isdigit()]
    steps = [step for step in steps if step < before]
    return folder / f"step{max(steps)}" if steps else None


def event_writer(folder: Path, start: int) -> Any:
    """TensorBoard's writer, which hides events after the point from which a run resumes.

    Raises:
        InputError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            expected="the package tensorboard for tensorboard=True",
            got="none installed",
            fix="Run `pip install tensorboard`, or leave tensorboard=False: log.csv has it all.",
        ) from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)


def _number(value: Any) -> float | int:
    return value.item() if isinstance(value, Tensor) else value


def _not_finite(row: dict[str, Any]) -> str:
    names = ("loss", "gradient_norm", "validation_loss")
    return ", ".join(f"{n} {row[n]}" for n in names if n in row and not math.isfinite(row[n]))
