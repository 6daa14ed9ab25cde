"""The log of a run: a CSV file with a row for each update, cut back when a run resumes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from headspec.errors import CheckpointError
from headspec.training.atomic_files import write_text

LOG_COLUMNS = (
    "step",
    "loss",
    "validation_loss",
    "gradient_norm",
    "muon_lr",
    "adamw_lr",
    "tokens",
    "tokens_per_second",
)
"""step: updates done. loss: of that update's batch before the update, nats per token.
validation_loss: after the update (row 0: of the initial model). gradient_norm: before clipping.
tokens: read so far. tokens_per_second: wall clock, since rows were last written."""


class TrainLog:
    """Appends rows to a CSV file; floats are written so that they read back as the same bits.

    Args:
        path: the file.
        resume_step: rows of later steps, which the resumed run will write anew, and a last line
            that a crash cut short are removed; None: everything is removed.
        columns: names; the first is "step".
    """

    def __init__(
        self, path: Path, *, resume_step: int | None, columns: Sequence[str] = LOG_COLUMNS
    ) -> None:
        self.path, self.columns = path, tuple(columns)
        kept = [] if resume_step is None else self._lines_up_to(resume_step)
        write_text(path, "\n".join([",".join(self.columns), *kept]) + "\n")

    def append(self, rows: Sequence[Mapping[str, float | int]]) -> None:
        """Write rows; absent columns stay empty."""
        if not rows:
            return
        text = "".join(
            ",".join(repr(row[name]) if name in row else "" for name in self.columns) + "\n"
            for row in rows
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)

    def to_disk(self) -> None:
        """Wait until all rows are on the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())

    def _lines_up_to(self, step: int) -> list[str]:
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
        whole = [line.rstrip("\n") for line in lines if line.endswith("\n")]
        kept = [line for line in whole if line.count(",") == len(self.columns) - 1]
        return [line for line in kept if int(line.split(",")[0]) <= step]


def read_log(path: Path) -> pd.DataFrame:
    """The log as a frame with `LOG_COLUMNS`; a last line that was cut short is left out.

    Raises:
        CheckpointError: as `read_rows`.
    """
    return read_rows(path, LOG_COLUMNS).astype({"step": int, "tokens": int})


def read_rows(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """What a `TrainLog` with these columns wrote, as floats; empty cells are NaN.

    Raises:
        CheckpointError: the file is missing, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        head, *lines = text[: text.rfind("\n") + 1].splitlines() or [""]
        rows = [[float(cell) if cell else math.nan for cell in line.split(",")] for line in lines]
        if head != ",".join(columns) or any(len(row) != len(columns) for row in rows):
            raise ValueError(f"columns {head!r}, or rows of another length")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            expected=f"the columns {', '.join(columns)} in {path}",
            got=f"{type(error).__name__}: {error}",
            fix="Put the file back, or remove the folder of the run and train again.",
        ) from error
    return pd.DataFrame(rows, columns=[*columns], dtype=float)  # Python reads floats exactly
